"""Growth: initialise a larger generator from a smaller one, so that it generates the same images, enlarged."""

from __future__ import annotations

import torch
from torch import Tensor

from mystudio.errors import BadCheckpoint
from mystudio.stylegan2.generator import Generator


def grown(generator: Generator, resolution: int, channel_base: int, seed: int = 0) -> Generator:
    """A generator of at least the given size: the generator itself, or a larger one initialised from it.

    Args:
        resolution: least resolution, px.
        channel_base: least widths: a block of r px has channel_base / r channels, up to the generator's channel_max.
        seed: of the new weights.
    """
    config = dict(generator.config)
    config |= {
        "resolution": max(config["resolution"], resolution),
        "channel_base": max(config["channel_base"], channel_base),
    }
    if config == generator.config:
        return generator
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # modules draw their first weights from the global generator
        larger = Generator(**config)
    start_from(larger, generator)
    return larger.to(next(generator.parameters()).device)


@torch.no_grad()
def cut(generator: Generator, resolution: int) -> Generator:
    """A generator without its blocks above ``resolution`` px: it draws what that one draws up to this size.

    Args: resolution: px, a power of two from 4 up.
    """
    if generator.resolution <= resolution:
        return generator
    smaller = Generator(**generator.config | {"resolution": resolution})
    wanted = smaller.state_dict()
    smaller.load_state_dict({name: value for name, value in generator.state_dict().items() if name in wanted})
    return smaller.to(next(generator.parameters()).device)


@torch.no_grad()
def start_from(generator: Generator, smaller: Generator) -> int:
    """Copy a smaller generator's weights, so that the larger generator gives the same image, enlarged.

    Weights that read new channels start at zero, and new blocks add nothing to the image. So the function of the
    network is unchanged (after Net2Net, arXiv 1511.05641). z may be larger: the new numbers have no effect at first.

    Args:
        generator: changed in place. smaller: has the same w_dim and mapping depth.
    Returns: number of tensors that were copied.
    Raises: BadCheckpoint: the shapes do not fit; the message names the first tensor.
    """
    if smaller.resolution > generator.resolution:
        raise BadCheckpoint(
            f"expected a base of at most {generator.resolution} px to start from, got {smaller.resolution} px"
        )
    mine, theirs = generator.state_dict(), smaller.state_dict()
    misfit = [
        f"{n} {tuple(t.shape)}, expected {tuple(mine[n].shape) if n in mine else 'none'}"
        for n, t in theirs.items()
        if n not in mine or not _widens(n, mine[n], t)
    ]
    if misfit:
        raise BadCheckpoint(
            f"expected a base to start from whose tensors fit, {len(misfit)} do not: {misfit[0]}; set "
            "model.w_dim and mapping_layers as that base has them, and channel_base, channel_max and "
            "z_dim no smaller"
        )
    for name, tensor in theirs.items():
        target, inputs = mine[name], tensor.shape[1] if tensor.ndim in (2, 4) else 0
        if inputs and inputs < target.shape[1]:
            target[: len(tensor)] = 0  # existing outputs ignore new inputs
            if name == "mapping.fc0.weight" or ".torgb.weight" in name:  # the layer divides by sqrt(inputs)
                tensor = tensor * (target.shape[1] / inputs) ** 0.5
        target[tuple(slice(n) for n in tensor.shape)] = tensor
    generator.load_state_dict(mine)
    for block in generator.synthesis.blocks():
        if block.conv1.resolution > smaller.resolution:
            block.torgb.weight.zero_()
            block.torgb.bias.zero_()
    return len(theirs)


def _widens(name: str, mine: Tensor, theirs: Tensor) -> bool:
    """Whether ``theirs`` fits into ``mine``, which has equal or more channels (or a larger z)."""
    fixed = name.endswith(("noise_const", "resample_filter", "w_avg")) or (
        name.startswith("mapping.") and name != "mapping.fc0.weight"
    )
    return mine.ndim == theirs.ndim and all(a == b or (a > b and not fixed) for a, b in zip(mine.shape, theirs.shape))
