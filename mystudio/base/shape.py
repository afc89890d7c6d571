"""How large a generator is."""

from __future__ import annotations

from mystudio.stylegan2.generator import Generator
from mystudio.stylegan2.layers import SynthesisLayer


def synthesis_macs(generator: Generator) -> int:
    """Multiply-accumulates of one synthesis forward, convolutions and affine layers counted, filters not.

    A convolution that doubles the size counts once per input pixel: zeros that are inserted cost nothing.
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
    """Bytes of the generator's numbers as float16."""
    return 2 * sum(t.numel() for t in generator.state_dict().values())
