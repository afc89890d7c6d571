"""Residual blocks of MediaPipe's mesh networks, found in the graph and rebuilt as few torch operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfscan.tflite_graph import Graph, Operator


@dataclass(frozen=True)
class BlockWeights:
    """prelu(conv(x) + shortcut(x)), the shortcut (identity, pooled) folded or kept, between two graph tensors."""

    source: int
    target: int
    depthwise: Tensor | None  # [C, 1, 3, 3]
    depthwise_bias: Tensor | None  # [C]
    weight: Tensor  # [C_out, C_in, k, k]
    bias: Tensor  # [C_out]
    slope: Tensor  # [C_out]
    stride: int
    shortcut: bool
    groups: int = 1


def find_blocks(graph: Graph) -> dict[int, BlockWeights]:
    """Return every block of the graph (each ends in a PRELU) by its target tensor."""
    producers = {t: o for o in graph.operators for t in o.outputs}
    return {o.outputs[0]: _block(graph, producers, o) for o in graph.operators if o.kind == "PRELU"}


def _block(graph: Graph, producers: dict[int, Operator], prelu: Operator) -> BlockWeights:
    slope = torch.from_numpy(graph.constants[prelu.inputs[1]]).reshape(-1)
    last = producers[prelu.inputs[0]]
    shortcut = last.kind == "ADD"
    if shortcut:
        last = next(producers[t] for t in last.inputs if producers[t].kind == "CONV_2D")
    weight, bias = _conv_weights(graph, last)
    first = producers.get(last.inputs[0])
    if first is None or first.kind != "DEPTHWISE_CONV_2D":
        return BlockWeights(
            last.inputs[0], prelu.outputs[0], None, None, weight, bias, slope, last.options["stride"], shortcut
        )
    depthwise = np.ascontiguousarray(graph.constants[first.inputs[1]].transpose(3, 0, 1, 2))
    depthwise_bias = torch.from_numpy(graph.constants[first.inputs[2]])
    stride = first.options["stride"]
    source, target = first.inputs[0], prelu.outputs[0]
    return BlockWeights(
        source, target, torch.from_numpy(depthwise), depthwise_bias, weight, bias, slope, stride, shortcut
    )


def _conv_weights(graph: Graph, conv: Operator) -> tuple[Tensor, Tensor]:
    weight = np.ascontiguousarray(graph.constants[conv.inputs[1]].transpose(0, 3, 1, 2))
    return torch.from_numpy(weight), torch.from_numpy(graph.constants[conv.inputs[2]])


def head_weights(graph: Graph, convs: Sequence[Operator]) -> tuple[Tensor, Tensor]:
    """Return the stacked weights and biases of convolutions that read the same kind of map."""
    weights, biases = zip(*(_conv_weights(graph, c) for c in convs))
    return torch.cat(weights), torch.cat(biases)


def chain(blocks: dict[int, BlockWeights], target: int, source: int) -> list[BlockWeights]:
    """Return the blocks that lead from tensor ``source`` to tensor ``target``, in order."""
    found: list[BlockWeights] = []
    while target != source:
        found.insert(0, blocks[target])
        target = blocks[target].source
    return found


def merge(blocks: Sequence[BlockWeights]) -> BlockWeights:
    """Stack equal-shaped parallel blocks into one grouped block over concatenated channels."""
    first = blocks[0]

    def stack(name: str) -> Tensor | None:
        return None if getattr(first, name) is None else torch.cat([getattr(b, name) for b in blocks])

    names = ("depthwise", "depthwise_bias", "weight", "bias", "slope")
    stacked = (stack(n) for n in names)
    return BlockWeights(first.source, first.target, *stacked, first.stride, first.shortcut, len(blocks))


class Block(nn.Module):
    """prelu(conv(x) + shortcut(x)); see BlockWeights."""

    def __init__(self, w: BlockWeights):
        super().__init__()
        self.target, self.stride, self.shortcut, self.groups = w.target, w.stride, w.shortcut, w.groups
        for name in ("depthwise", "depthwise_bias", "weight", "bias", "slope"):
            self.register_buffer(name, getattr(w, name))
        self.widen = w.weight.shape[0] // w.groups - w.weight.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.depthwise is not None:
            y = F.conv2d(_pad(x, self.stride, 3), self.depthwise, self.depthwise_bias, self.stride, groups=x.shape[1])
            y = F.conv2d(y, self.weight, self.bias, groups=self.groups)
        else:
            k = self.weight.shape[-1]
            y = F.conv2d(_pad(x, self.stride, k), self.weight, self.bias, self.stride, groups=self.groups)
        if self.shortcut:
            y = y + self._shortcut(x)
        return F.prelu(y, self.slope)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return x
        x = F.max_pool2d(x, 2)
        if self.widen == 0:
            return x
        n, c, h, w = x.shape
        return F.pad(x.reshape(n, self.groups, -1, h, w), (0, 0, 0, 0, 0, self.widen)).reshape(n, -1, h, w)


def _pad(x: Tensor, stride: int, k: int) -> Tensor:
    # TensorFlow's SAME: the odd pixel of padding goes to the right and bottom
    total = [max((-(-s // stride) - 1) * stride + k - s, 0) for s in (x.shape[-1], x.shape[-2])]
    if not any(total):
        return x
    return F.pad(x, (total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2))
