"""Residual blocks of MediaPipe's mesh networks, found in the graph and rebuilt with few torch operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfscan.face.tflite_graph import Graph, Operator

_WEIGHTS = ("depthwise", "depthwise_bias", "weight", "bias", "slope")


@dataclass(frozen=True)
class BlockWeights:
    """Weights of prelu(conv(x) + shortcut(x)) between two tensors of the graph; C channels in, D out."""

    source: int
    target: int
    weight: Tensor  # [D, C / groups, k, k]
    bias: Tensor  # [D]
    slope: Tensor  # [D]
    stride: int
    shortcut: bool
    depthwise: Tensor | None = None  # [C, 1, k, k], before the convolution above (then k = 1 there)
    depthwise_bias: Tensor | None = None  # [C]
    groups: int = 1


def find_blocks(graph: Graph) -> dict[int, BlockWeights]:
    """Return every block of the graph (each ends in a PRELU) by its target tensor."""
    return {o.outputs[0]: _block(graph, o) for o in graph.of_kind("PRELU")}


def _block(graph: Graph, prelu: Operator) -> BlockWeights:
    last = graph.producer(prelu.inputs[0])
    shortcut = last.kind == "ADD"
    if shortcut:
        last = next(p for p in map(graph.find_producer, last.inputs) if p is not None and p.kind == "CONV_2D")
    weight, bias = conv_weights(graph, last)
    slope = torch.from_numpy(graph.constants[prelu.inputs[1]]).reshape(-1)
    block = BlockWeights(
        last.inputs[0], prelu.outputs[0], weight, bias, slope, stride=last.options["stride"], shortcut=shortcut
    )
    first = graph.find_producer(last.inputs[0])
    if first is None or first.kind != "DEPTHWISE_CONV_2D":
        return block
    kernel = np.ascontiguousarray(graph.constants[first.inputs[1]].transpose(3, 0, 1, 2))
    return replace(
        block,
        source=first.inputs[0],
        stride=first.options["stride"],
        depthwise=torch.from_numpy(kernel),
        depthwise_bias=torch.from_numpy(graph.constants[first.inputs[2]]),
    )


def conv_weights(graph: Graph, conv: Operator) -> tuple[Tensor, Tensor]:
    """Return a CONV_2D's weight [D, C, k, k] and bias [D]."""
    weight = np.ascontiguousarray(graph.constants[conv.inputs[1]].transpose(0, 3, 1, 2))
    return torch.from_numpy(weight), torch.from_numpy(graph.constants[conv.inputs[2]])


def chain(blocks: dict[int, BlockWeights], target: int, source: int) -> list[BlockWeights]:
    """Return the blocks that lead from tensor ``source`` to tensor ``target``, in order."""
    found: list[BlockWeights] = []
    while target != source:
        found.append(blocks[target])
        target = blocks[target].source
    return found[::-1]


def merge(blocks: Sequence[BlockWeights]) -> BlockWeights:
    """Stack equal-shaped parallel blocks into one grouped block over their concatenated channels."""
    present = [name for name in _WEIGHTS if getattr(blocks[0], name) is not None]
    stacked = {name: torch.cat([getattr(b, name) for b in blocks]) for name in present}
    return replace(blocks[0], groups=len(blocks), **stacked)


class Block(nn.Module):
    """prelu(conv(x) + shortcut(x)) with frozen weights; the shortcut is x, max-pooled when the block halves the map.

    Args:
        weights: the block's weights from the graph.
    """

    weight: Tensor
    bias: Tensor
    slope: Tensor
    depthwise: Tensor | None
    depthwise_bias: Tensor | None
    widen: Tensor | None

    def __init__(self, weights: BlockWeights):
        super().__init__()
        self.stride, self.shortcut, self.groups = weights.stride, weights.shortcut, weights.groups
        for name in _WEIGHTS:
            self.register_buffer(name, getattr(weights, name), persistent=False)
        if self.depthwise is not None:
            self.depthwise = _same_kernel(self.depthwise, self.stride)
        elif self.weight.shape[-1] > 1:
            self.weight = _same_kernel(self.weight, self.stride)
        self.register_buffer("widen", self._widening_kernel(), persistent=False)

    def _widening_kernel(self) -> Tensor | None:
        # the pooled shortcut has fewer channels than the block's output: append zero channels within each group
        wide, narrow = self.weight.shape[0] // self.groups, self.weight.shape[1]
        if not self.shortcut or wide == narrow:
            return None
        return torch.eye(wide, narrow).repeat(self.groups, 1)[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, D, H / stride, W / stride]."""
        if self.depthwise is None:
            padding = 1 if self.weight.shape[-1] > 1 else 0
            y = F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        else:
            y = F.conv2d(x, self.depthwise, self.depthwise_bias, self.stride, 1, groups=x.shape[1])
            y = F.conv2d(y, self.weight, self.bias, groups=self.groups)
        if self.shortcut:
            y = y.add_(self._shortcut(x))
        return _FrozenPReLU.apply(y, self.slope)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = F.max_pool2d(x, 2, ceil_mode=True)
        return x if self.widen is None else F.conv2d(x, self.widen, groups=self.groups)


def _same_kernel(kernel: Tensor, stride: int) -> Tensor:
    # TensorFlow's SAME at stride 2 pads an even map on the right and bottom only; a zero row and column before
    # the kernel reproduce this with torch's symmetric padding of 1
    return F.pad(kernel, (1, 0, 1, 0)) if stride == 2 else kernel


class _FrozenPReLU(torch.autograd.Function):
    # torch's PReLU also computes the slope's gradient, which makes it 50 times slower than this one

    @staticmethod
    def forward(ctx, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        x, slope = ctx.saved_tensors
        positive = torch.ops.aten.threshold_backward(gradient, x, 0)
        return torch.lerp(positive, gradient, slope.reshape(-1, 1, 1)), None
