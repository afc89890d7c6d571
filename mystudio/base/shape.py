"""Size of a generator: operations and bytes."""

from __future__ import annotations

from mystudio.stylegan2.generator import Generator
from mystudio.stylegan2.layers import SynthesisLayer


def synthesis_macs(generator: Generator) -> int:
    """Multiply-accumulates of one synthesis pass for one image: convolutions and affine layers, without filters.

    A convolution that doubles the size is counted per input pixel, because the inserted zeros need no work.
    """
    total = 0
    for block in generator.synthesis.blocks():
        for layer in block.layers():
            if isinstance(layer, SynthesisLayer):
                size = layer.resolution // (2 if layer.up else 1)
            else:
                size = block.conv1.resolution
            total += layer.weight.numel() * size**2 + layer.affine.weight.numel()
    return total


def half_bytes(generator: Generator) -> int:
    """Bytes of the generator's weights and buffers as float16."""
    return 2 * sum(t.numel() for t in generator.state_dict().values())
