"""MediaPipe's attention mesh (478 points with lips, eyes and irises refined) as a differentiable torch module."""

from __future__ import annotations

import importlib.util
import struct
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfscan.errors import ModelMissing
from selfscan.face.facemesh_blocks import Block, chain, conv_weights, find_blocks, merge
from selfscan.face.landmarks import MESH_POINTS
from selfscan.face.tflite_graph import Graph, Operator, read_graph

INPUT_SIZE = 192  # px, side of the network's input
MODEL = Path("modules/face_landmark/face_landmark_with_attention.tflite")
INSTALL = "install mediapipe>=0.10.14,<0.10.22"
# (left, top, side) of the network's square input region in an FFHQ-aligned crop, in sides of the crop.
# It is MediaPipe's region (1.5 x the landmark box) on typical FFHQ faces. Below the crop, the last row is repeated.
CROP_ROI = (1 / 32, 4 / 32, 30 / 32)

_IRIS = 5
_EYE_CONTOUR = 16  # an eye's first refined points are its contour
_REGIONS = 3  # lips, left eye, right eye
_HEADS = ("lips", "left_eye", "left_iris", "right_eye", "right_iris")
_REGION_OF_HEAD = (0, 1, 1, 2, 2)


class FaceMesh(nn.Module):
    """Attention mesh: Grishchenko et al., Attention Mesh, 2020 (arXiv:2006.10962), section 3.

    Args:
        graph: the network as MediaPipe ships it.
    """

    mesh_weight: Tensor
    mesh_bias: Tensor
    flag_weight: Tensor
    flag_bias: Tensor
    points_weight: Tensor  # of the heads side by side
    points_bias: Tensor
    subsets: Tensor  # [3, P] int64 points that span a region's box; padded by repetition
    ends: Tensor  # [3, 2] int64 points whose line is made level in a region
    target: Tensor  # [3] rad, angle of that line
    region_of_head: Tensor  # [5] int64
    source: Tensor  # [478] int64 index of each point in the mesh's points followed by the heads'

    def __init__(self, graph: Graph):
        super().__init__()
        blocks = find_blocks(graph)
        crops = graph.of_kind("TransformTensorBilinear")
        flag = graph.producer(graph.outputs["conv_faceflag"])
        mesh = _conv_behind(graph, graph.outputs["output_mesh_identity"])
        trunk = chain(blocks, mesh.inputs[0], graph.inputs[0])
        split = [block.target for block in trunk].index(crops[0].inputs[0]) + 1
        self.stem = nn.ModuleList(Block(b) for b in trunk[:split])
        self.trunk = nn.ModuleList(Block(b) for b in trunk[split:])
        self._hold("mesh", *conv_weights(graph, mesh))
        self._hold("flag", *conv_weights(graph, flag))
        self._build_regions(graph, blocks, crops)
        self._build_transforms(graph.of_kind("Landmarks2TransformMatrix"))

    def _hold(self, name: str, weight: Tensor, bias: Tensor) -> None:
        self.register_buffer(f"{name}_weight", weight, persistent=False)
        self.register_buffer(f"{name}_bias", bias, persistent=False)

    def _build_regions(self, graph: Graph, blocks: dict, crops: list[Operator]) -> None:
        heads = [_conv_behind(graph, graph.outputs[f"output_{name}"]) for name in _HEADS]
        chains = [chain(blocks, h.inputs[0], crops[r].outputs[0]) for h, r in zip(heads, _REGION_OF_HEAD)]
        shared = sum(eye.target == iris.target for eye, iris in zip(chains[1], chains[2]))
        regions = [chains[_REGION_OF_HEAD.index(r)][:shared] for r in range(_REGIONS)]
        self.regions = nn.ModuleList(Block(merge(layer)) for layer in zip(*regions))
        self.heads = nn.ModuleList(Block(merge(layer)) for layer in zip(*(c[shared:] for c in chains)))
        weights, biases = zip(*(conv_weights(graph, h) for h in heads))
        most = max(len(b) for b in biases)  # heads with fewer points are padded with zeros
        weights = [F.pad(w, (0, 0, 0, 0, 0, 0, 0, most - len(w))) for w in weights]
        self._hold("points", torch.cat(weights), torch.cat([F.pad(b, (0, most - len(b))) for b in biases]))

    def _build_transforms(self, operators: list[Operator]) -> None:
        options = [o.options for o in operators]
        self.crop_size = options[0]["output_width"]
        self.crop_scale = options[0]["scale_x"]
        subsets = [torch.tensor(o["subset_idxs"]) for o in options]
        most = max(len(s) for s in subsets)
        padded = torch.stack([torch.cat([s, s[:1].expand(most - len(s))]) for s in subsets])
        self.register_buffer("subsets", padded, persistent=False)
        ends = [[o["left_rotation_idx"], o["right_rotation_idx"]] for o in options]
        self.register_buffer("ends", torch.tensor(ends), persistent=False)
        rotations = [o.get("target_rotation_radians", 0.0) for o in options]
        self.register_buffer("target", torch.tensor(rotations, dtype=torch.float32), persistent=False)
        self.register_buffer("region_of_head", torch.tensor(_REGION_OF_HEAD), persistent=False)
        source = torch.arange(MESH_POINTS + 2 * _IRIS)
        for head, region in enumerate(_REGION_OF_HEAD):
            at = MESH_POINTS + head * most
            if _HEADS[head].endswith("iris"):
                start = MESH_POINTS + _IRIS * (region - 1)
                source[start : start + _IRIS] = torch.arange(at, at + _IRIS)
            else:
                source[subsets[region]] = torch.arange(at, at + len(subsets[region]))
        self.register_buffer("source", source, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Find the landmarks of the face that fills the image.

        Args:
            x: [N, 3, 192, 192] RGB in [0, 1].

        Returns:
            landmarks [N, 478, 3] px of the input (z in the scale of x), presence [N] in 0..1.

        Raises:
            ValueError: the images have another shape.
        """
        if x.ndim != 4 or x.shape[1:] != (3, INPUT_SIZE, INPUT_SIZE):
            raise ValueError(f"images: expected [N, 3, {INPUT_SIZE}, {INPUT_SIZE}], got {tuple(x.shape)}; resize first")
        x = attended = _run(self.stem, x)
        x = _run(self.trunk, x)
        mesh = F.conv2d(x, self.mesh_weight, self.mesh_bias).reshape(-1, MESH_POINTS, 3)
        presence = torch.sigmoid(F.conv2d(x, self.flag_weight, self.flag_bias).flatten())
        return self._refine(mesh, attended), presence

    def features(self, x: Tensor) -> list[Tensor]:
        """Return early feature maps for comparing images.

        Args:
            x: [N, 3, 192, 192] RGB in [0, 1].

        Returns:
            maps [N, 16, 96, 96], [N, 32, 48, 48] and [N, 64, 24, 24], each before the next halving.
        """
        x = x.contiguous(memory_format=torch.channels_last)
        maps: list[Tensor] = []
        for i, block in enumerate((*self.stem, *self.trunk)):
            if i > 0 and block.stride == 2:
                maps.append(x)
            if len(maps) == 3:
                return maps
            x = block(x)
        return maps

    def _refine(self, mesh: Tensor, attended: Tensor) -> Tensor:
        n = len(mesh)
        scale = attended.shape[-1] / INPUT_SIZE
        linear, shift = self._region_transforms(mesh[..., :2] * scale)
        x = _run(self.regions, _sample(attended, linear, shift, self.crop_size))
        x = x.unflatten(1, (_REGIONS, -1)).index_select(1, self.region_of_head).flatten(1, 2)
        x = _run(self.heads, x)
        x = F.conv2d(x, self.points_weight, self.points_bias, groups=len(_HEADS)).reshape(n, len(_HEADS), -1, 2)
        linear, shift = (t.index_select(1, self.region_of_head) for t in (linear, shift))
        x = (x @ linear.mT + shift[:, :, None] / scale).flatten(1, 2)  # the heads' outputs are in px of the input
        xy = torch.cat([mesh[..., :2], x], dim=1).index_select(1, self.source)
        z = mesh[..., 2]
        contours = self.subsets[1:, :_EYE_CONTOUR]
        iris_z = z[:, contours].mean(dim=2).repeat_interleave(_IRIS, dim=1)
        return torch.cat([xy, torch.cat([z, iris_z], dim=1)[..., None]], dim=2)

    def _region_transforms(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        left, right = xy[:, self.ends[:, 0]], xy[:, self.ends[:, 1]]
        dx, dy = (right - left).unbind(-1)
        angle = self.target - torch.atan2(dy, dx)
        cos, sin = torch.cos(angle), torch.sin(angle)
        upright = torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))  # [N, 3, 2, 2]
        points = xy[:, self.subsets] @ upright.mT
        low, high = points.amin(dim=2), points.amax(dim=2)
        size = (high - low) * (self.crop_scale / self.crop_size)
        linear = upright.mT * size[:, :, None]
        centre = (low + high)[:, :, None] / 2 @ upright  # rotated back
        return linear, centre[:, :, 0] - linear.sum(-1) * (self.crop_size / 2)


def _run(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    for block in blocks:
        x = block(x)
    return x


def _sample(features: Tensor, linear: Tensor, shift: Tensor, size: int) -> Tensor:
    """Sample every region's crop of the map: [N, C, H, H] -> [N, 3 C, size, size]."""
    n, c, _, side = features.shape
    steps = torch.arange(size, dtype=features.dtype, device=features.device) + 0.5
    pixels = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(-1, 2)
    at = pixels @ linear.mT + shift[:, :, None]  # [N, 3, size^2, 2] feature px, the first pixel's centre at 0.5
    inside = ((at >= 0.5) & (at <= side - 0.5)).all(dim=-1).reshape(n, 1, _REGIONS * size, size)
    grid = (at * (2 / side) - 1).reshape(n, _REGIONS * size, size, 2)
    crops = F.grid_sample(features, grid, align_corners=False) * inside
    return crops.reshape(n, c, _REGIONS, size, size).transpose(1, 2).flatten(1, 2)


def _conv_behind(graph: Graph, tensor: int) -> Operator:
    operator = graph.producer(tensor)
    while operator.kind != "CONV_2D":
        operator = graph.producer(operator.inputs[0])
    return operator


def model_path() -> Path:
    """Find the network inside the installed mediapipe package, without importing it.

    Raises:
        ModelMissing: mediapipe is not installed or contains no such model.
    """
    spec = importlib.util.find_spec("mediapipe")
    if spec is None or spec.origin is None:
        raise ModelMissing(f"expected the package mediapipe with its networks, found no such package; {INSTALL}")
    path = Path(spec.origin).parent / MODEL
    if not path.is_file():
        raise ModelMissing(f"expected {MODEL.name} inside the package mediapipe, found none; {INSTALL}")
    return path


@lru_cache(maxsize=4)
def load_facemesh(dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> FaceMesh:
    """Load the frozen attention mesh of the installed mediapipe package (one cached copy per dtype and device).

    Args:
        dtype: of weights and images.
        device: of weights and images. Do not move the returned module: its copy is shared.

    Returns:
        The network in evaluation mode; it has no parameters and adds no entry to a state_dict.

    Raises:
        ModelMissing: mediapipe or its network is missing, damaged or of an unknown kind.
    """
    path = model_path()
    try:
        with torch.inference_mode(False):  # weights made in inference mode cannot be used for gradients
            mesh = FaceMesh(read_graph(path)).to(device, dtype).to(memory_format=torch.channels_last)
    except (struct.error, LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise ModelMissing(f"expected the attention mesh in {path.name}, could not read it; {INSTALL}") from error
    return mesh.eval().requires_grad_(False)


def crop_region(images: Tensor) -> tuple[Tensor, tuple[float, float, float]]:
    """Cut CROP_ROI out of FFHQ-aligned crops and resize it; shrinking is antialiased.

    Args:
        images: [N, 3, H, H] RGB in [-1, 1].

    Returns:
        region [N, 3, 192, 192] in [0, 1], and its (left, top, side) in crops: CROP_ROI rounded to whole pixels.

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
        mesh: the network, in the dtype and on the device of the images.
        images: [N, 3, H, H] RGB in [-1, 1], any size.

    Returns:
        landmarks [N, 478, 3] in crops (0..1 spans the crop; z in the same scale), presence [N] in 0..1.

    Raises:
        ValueError: the images are not square RGB.
    """
    region, (left, top, side) = crop_region(images)
    landmarks, presence = mesh(region)
    return landmarks * (side / INPUT_SIZE) + landmarks.new_tensor([left, top, 0.0]), presence
