"""MediaPipe's attention mesh (478 points with lips, eyes and irises refined) as a differentiable torch module."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfscan.errors import ModelMissing
from selfscan.facemesh_blocks import Block, chain, find_blocks, head_weights, merge
from selfscan.tflite_graph import Graph, read_graph

INPUT_SIZE = 192  # px, side of the network's input
MODEL = Path("modules/face_landmark/face_landmark_with_attention.tflite")
# (left, top, side) of the square region of an FFHQ-aligned crop that the network looks at, in crops: MediaPipe's own
# region (1.5 x the landmark box) on typical FFHQ faces; it reaches below the crop, where the last row is repeated
CROP_ROI = (1 / 32, 4 / 32, 30 / 32)

_MESH = 468
_EYE_CONTOUR = 16  # the first points an eye refines are its contour
_REGIONS = ("lips", "left_eye", "right_eye")
_HEADS = ("lips", "left_eye", "left_iris", "right_eye", "right_iris")
_REGION_OF_HEAD = (0, 1, 1, 2, 2)


class FaceMesh(nn.Module):
    """Attention mesh: Grishchenko et al., Attention Mesh, 2020 (arXiv:2006.10962)."""

    def __init__(self, graph: Graph):
        super().__init__()
        blocks = find_blocks(graph)
        crops = _operators(graph, "TransformTensorBilinear")
        matrices = _operators(graph, "Landmarks2TransformMatrix")
        attended = crops[0].inputs[0]
        flag = graph.producer(graph.outputs["conv_faceflag"])
        mesh = _mesh_operator(graph, flag.inputs[0])
        trunk = chain(blocks, flag.inputs[0], graph.inputs[0])
        split = next(i for i, b in enumerate(trunk) if b.target == attended) + 1
        self.stem = nn.ModuleList(Block(b) for b in trunk[:split])
        self.trunk = nn.ModuleList(Block(b) for b in trunk[split:])
        self._add_head("mesh", *head_weights(graph, [mesh]))
        self._add_head("flag", *head_weights(graph, [flag]))
        self._add_regions(graph, blocks, crops)
        self._add_matrices(matrices)

    def _add_head(self, name: str, weight: Tensor, bias: Tensor) -> None:
        self.register_buffer(f"{name}_weight", weight)
        self.register_buffer(f"{name}_bias", bias)

    def _add_regions(self, graph: Graph, blocks: dict, crops: list) -> None:
        heads = [_head_of(graph, graph.outputs[f"output_{name}"]) for name in _HEADS]
        chains = [chain(blocks, h.inputs[0], crops[r].outputs[0]) for h, r in zip(heads, _REGION_OF_HEAD)]
        shared = sum(a.target == b.target for a, b in zip(chains[1], chains[2]))
        regions = (chains[0], chains[1], chains[3])
        self.regions = nn.ModuleList(Block(merge(layer)) for layer in zip(*(c[:shared] for c in regions)))
        self.heads = nn.ModuleList(Block(merge(layer)) for layer in zip(*(c[shared:] for c in chains)))
        weights = [head_weights(graph, [h]) for h in heads]
        self.head_sizes = [w.shape[0] for w, _ in weights]
        self._add_head("points", torch.cat([w for w, _ in weights]), torch.cat([b for _, b in weights]))

    def _add_matrices(self, matrices: list) -> None:
        self.crop_size = matrices[0].options["output_width"]
        self.crop_scale = matrices[0].options["scale_x"]
        for name, operator in zip(_REGIONS, matrices):
            self.register_buffer(f"{name}_subset", torch.tensor(operator.options["subset_idxs"]), persistent=False)
        ends = [[o.options["left_rotation_idx"], o.options["right_rotation_idx"]] for o in matrices]
        self.register_buffer("rotation_ends", torch.tensor(ends), persistent=False)
        self.target_rotations = [float(o.options.get("target_rotation_radians", 0.0)) for o in matrices]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Find the landmarks of the face that fills the image.

        Args:
            x: [N, 3, 192, 192] RGB in [0, 1].

        Returns:
            landmarks [N, 478, 3] px of the input (z in the scale of x), presence [N] in 0..1.
        """
        if x.ndim != 4 or x.shape[1:] != (3, INPUT_SIZE, INPUT_SIZE):
            raise ValueError(f"images: expected [N, 3, {INPUT_SIZE}, {INPUT_SIZE}], got {tuple(x.shape)}; resize first")
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.stem:
            x = block(x)
        attended = x
        for block in self.trunk:
            x = block(x)
        mesh = F.conv2d(x, self.mesh_weight, self.mesh_bias).reshape(-1, _MESH, 3)
        presence = torch.sigmoid(F.conv2d(x, self.flag_weight, self.flag_bias).flatten())
        return self._refine(mesh, attended), presence

    def _refine(self, mesh: Tensor, attended: Tensor) -> Tensor:
        scale = attended.shape[-1] / INPUT_SIZE
        a, t = zip(*(self._region_transform(mesh[..., :2] * scale, i) for i in range(len(_REGIONS))))
        x = torch.cat([_sample(attended, a[i], t[i], self.crop_size) for i in range(len(_REGIONS))], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.regions:
            x = block(x)
        x = torch.cat([x.chunk(len(_REGIONS), dim=1)[r] for r in _REGION_OF_HEAD], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.heads:
            x = block(x)
        points = []
        for part, weight, bias, r in zip(
            x.chunk(len(_HEADS), dim=1),
            self.points_weight.split(self.head_sizes),
            self.points_bias.split(self.head_sizes),
            _REGION_OF_HEAD,
        ):
            raw = F.conv2d(part, weight, bias).reshape(len(x), -1, 2)
            points.append(raw @ a[r].mT + t[r][:, None] / scale)
        return self._assemble(mesh, points)

    def _assemble(self, mesh: Tensor, points: list[Tensor]) -> Tensor:
        lips, left_eye, left_iris, right_eye, right_iris = points
        xy = mesh[..., :2].clone()
        for region, refined in zip(_REGIONS, (lips, left_eye, right_eye)):
            xy = xy.index_copy(1, getattr(self, f"{region}_subset"), refined)
        z = mesh[..., 2:]
        iris_z = [
            z[:, getattr(self, f"{eye}_subset")[:_EYE_CONTOUR]].mean(dim=1, keepdim=True).expand(-1, 5, -1)
            for eye in ("left_eye", "right_eye")
        ]
        return torch.cat([torch.cat([xy, left_iris, right_iris], 1), torch.cat([z, *iris_z], 1)], dim=2)

    def _region_transform(self, xy: Tensor, region: int) -> tuple[Tensor, Tensor]:
        subset = getattr(self, f"{_REGIONS[region]}_subset")
        left, right = self.rotation_ends[region]
        d = xy[:, right] - xy[:, left]
        angle = self.target_rotations[region] - torch.atan2(d[:, 1], d[:, 0])
        cos, sin = torch.cos(angle), torch.sin(angle)
        forth = torch.stack([cos, -sin, sin, cos], -1).reshape(-1, 2, 2)
        rotated = xy[:, subset] @ forth.mT
        low, high = rotated.amin(dim=1), rotated.amax(dim=1)
        centre = (((low + high) / 2)[:, None] @ forth)[:, 0]  # rotated back
        size = (high - low) * self.crop_scale / self.crop_size
        linear = forth.mT * size[:, None]
        half = torch.full_like(centre, self.crop_size / 2)
        return linear, centre - (linear @ half[..., None])[..., 0]

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the early feature maps (96, 48 and 24 px) of images [N, 3, 192, 192] in [0, 1]."""
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for block in (*self.stem, *self.trunk):
            if block.stride == 2 and x.shape[1] > 3:
                maps.append(x)
            if len(maps) == 3:
                break
            x = block(x)
        return maps


def _sample(features: Tensor, linear: Tensor, shift: Tensor, size: int) -> Tensor:
    n, _, h, w = features.shape
    steps = torch.arange(size, dtype=features.dtype, device=features.device) + 0.5
    pixels = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(1, -1, 2)
    at = pixels @ linear.mT + shift[:, None]  # in feature px, half-pixel centres
    extent = torch.tensor([w, h], dtype=features.dtype, device=features.device)
    grid = (at / extent * 2 - 1).reshape(n, size, size, 2)
    inside = ((at >= 0.5) & (at <= extent - 0.5)).all(dim=-1).reshape(n, 1, size, size)
    return F.grid_sample(features, grid, align_corners=False) * inside


def _operators(graph: Graph, kind: str) -> list:
    return [o for o in graph.operators if o.kind == kind]


def _mesh_operator(graph: Graph, features: int):
    return next(o for o in _operators(graph, "CONV_2D") if o.inputs[0] == features and graph.shapes[o.outputs[0]][3] > 1)


def _head_of(graph: Graph, tensor: int):
    operator = graph.producer(tensor)
    while operator.kind != "CONV_2D":
        operator = graph.producer(operator.inputs[0])
    return operator


def model_path() -> Path:
    """Find the network inside the installed mediapipe package without importing it.

    Raises:
        ModelMissing: mediapipe is not installed or carries no models.
    """
    spec = importlib.util.find_spec("mediapipe")
    if spec is None or spec.origin is None:
        raise ModelMissing("expected mediapipe with its models, found no such package; install mediapipe>=0.10.14,<0.10.22")
    path = Path(spec.origin).parent / MODEL
    if not path.is_file():
        raise ModelMissing(f"expected {MODEL} in mediapipe, found none; install mediapipe>=0.10.14,<0.10.22")
    return path


@lru_cache(maxsize=4)
def load_facemesh(dtype: torch.dtype = torch.float32) -> FaceMesh:
    """Load the frozen attention mesh from the installed mediapipe package (cached).

    Raises:
        ModelMissing: mediapipe or its network is not there.
    """
    mesh = FaceMesh(read_graph(model_path()))
    return mesh.to(dtype=dtype, memory_format=torch.channels_last).eval().requires_grad_(False)


def crop_region(images: Tensor) -> tuple[Tensor, tuple[float, float, float]]:
    """Cut CROP_ROI out of FFHQ-aligned crops, antialiased where that makes them smaller.

    Args:
        images: [N, 3, H, H] RGB in [-1, 1].

    Returns:
        region [N, 3, 192, 192] in [0, 1], and its (left, top, side) in crops (CROP_ROI rounded to whole pixels).

    Raises:
        ValueError: the images are not square RGB.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images: expected square RGB [N, 3, H, H], got {tuple(images.shape)}; crop them first")
    size = images.shape[-1]
    left, top, side = (round(r * size) for r in CROP_ROI)
    region = images[:, :, top : top + side, left : left + side]
    missing = [max(start + side - size, 0) for start in (left, top)]
    if any(missing):
        region = F.pad(region, (0, missing[0], 0, missing[1]), mode="replicate")
    if side != INPUT_SIZE:
        region = F.interpolate(region, size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", antialias=True)
    return (region + 1) / 2, (left / size, top / size, side / size)


def crop_landmarks(mesh: FaceMesh, images: Tensor) -> tuple[Tensor, Tensor]:
    """Find the landmarks of FFHQ-aligned crops in the fixed region CROP_ROI, differentiable in the images.

    Args:
        mesh: the network; its dtype and device are those of the images.
        images: [N, 3, H, H] RGB in [-1, 1], any size.

    Returns:
        landmarks [N, 478, 3] in crops (0..1 spans the crop; z in the same scale), presence [N] in 0..1.

    Raises:
        ValueError: the images are not square RGB.
    """
    region, (left, top, side) = crop_region(images)
    landmarks, presence = mesh(region)
    offset = torch.tensor([left, top, 0.0], dtype=landmarks.dtype, device=landmarks.device)
    return landmarks * (side / INPUT_SIZE) + offset, presence
