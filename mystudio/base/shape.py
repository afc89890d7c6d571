"""How large a generator is, and how a larger one starts from a smaller one."""

from __future__ import annotations

import torch

from mystudio.errors import BadCheckpoint
from mystudio.stylegan2.generator import Generator


def synthesis_macs(generator: Generator) -> int:
    """Multiply-accumulates of one synthesis forward, convolutions and affine layers counted, filters not.

    A convolution that doubles the size counts once per input pixel: zeros that are inserted cost nothing.
    """
    total = 0
    for block in generator.synthesis.blocks():
        for layer in block.layers():
            size = layer.resolution // (2 if layer.up else 1) if hasattr(layer, "up") else block.conv1.resolution
            total += layer.weight.numel() * size**2 + layer.affine.weight.numel()
    return total


def half_bytes(generator: Generator) -> int:
    """Bytes of the generator's numbers as float16."""
    return 2 * sum(t.numel() for t in generator.state_dict().values())


@torch.no_grad()
def start_from(generator: Generator, smaller: Generator) -> int:
    """Copy what a generator of lower or equal resolution has; new blocks then show the upsampled old image.

    The mapping network may take a larger z: the new numbers start without effect on its direction.

    Args:
        generator: changed in place. smaller: of the same w, mapping depth and widths at the shared resolutions.
    Returns: number of tensors that were copied.
    Raises: BadCheckpoint: the two do not fit; the message says where.
    """
    if smaller.resolution > generator.resolution:
        raise BadCheckpoint(f"expected a base of at most {generator.resolution} px to start from, got "
                            f"{smaller.resolution} px")
    mine, theirs = generator.state_dict(), smaller.state_dict()
    first = theirs["mapping.fc0.weight"]
    if (extra := generator.z_dim - smaller.z_dim) > 0:
        # z is normalised to unit mean square: more numbers do not change the size of those that were there
        theirs["mapping.fc0.weight"] = torch.cat([first, first.new_zeros(len(first), extra)], 1)
        theirs["mapping.fc0.weight"] *= (generator.z_dim / smaller.z_dim) ** 0.5  # undoes the layer's 1 / sqrt(inputs)
    misfit = [f"{n} {tuple(t.shape)}, expected {tuple(mine[n].shape) if n in mine else 'none'}"
              for n, t in theirs.items() if n not in mine or mine[n].shape != t.shape]
    if misfit:
        raise BadCheckpoint(f"expected a base to start from whose tensors fit, {len(misfit)} do not: {misfit[0]}; set "
                            "model.channel_base, channel_max, w_dim and mapping_layers as that base has them")
    generator.load_state_dict(theirs, strict=False)
    for block in generator.synthesis.blocks():
        if block.conv1.resolution > smaller.resolution:
            block.torgb.weight.zero_()
            block.torgb.bias.zero_()
    return len(theirs)
