"""Mouth and eye patches: they move with the face; masks keep what lies inside the lips and on the irises."""

import numpy as np
import pytest
import torch

from selfscan.face import patches
from selfscan.face.landmarks import INNER_LIPS, IRISES, LIDS
from selfscan.io.pixels import to_tensor

SIZE = 160


def landmarks(gap: float = 0.06, lids: float = 0.03) -> np.ndarray:
    """A schematic face [478, 3] in crops: mouth opened by ``gap``, eyes by ``lids``, irises of radius 0.02."""
    marks = np.random.default_rng(0).uniform(0.3, 0.7, (478, 3))
    _contour(marks, INNER_LIPS, (0.5, 0.7), 0.1, gap / 2)
    _contour(marks, LIDS[0], (0.37, 0.42), 0.06, lids / 2)
    _contour(marks, LIDS[1], (0.63, 0.42), 0.06, lids / 2)
    marks[[61, 291], :2] = (0.39, 0.7), (0.61, 0.7)
    for iris, x in zip(IRISES, (0.38, 0.64)):
        marks[list(iris), :2] = (x, 0.42)
        marks[list(iris[1:]), :2] += 0.02 * np.array([(1, 0), (0, -1), (-1, 0), (0, 1)])
    return marks.astype(np.float32)


def _contour(marks: np.ndarray, indices: tuple[int, ...], centre: tuple, width: float, height: float) -> None:
    angle = np.pi + 2 * np.pi * np.arange(len(indices)) / len(indices)  # from the left corner over the top
    marks[list(indices), :2] = np.array(centre) + np.stack([width * np.cos(angle), height * np.sin(angle)], -1)


def scene(crop_from_crop: np.ndarray = np.eye(2, 3)) -> torch.Tensor:
    """Smooth colours [1, 3, SIZE, SIZE], moved by a similarity of the crop's plane."""
    at = (np.arange(SIZE) + 0.5) / SIZE
    moved = np.stack(np.meshgrid(at, at), -1)
    x, y = np.moveaxis((moved - crop_from_crop[:, 2]) @ np.linalg.inv(crop_from_crop[:, :2]).T, -1, 0)
    colours = np.stack([np.sin(7 * x + 2 * y), np.cos(9 * y - 3 * x), np.sin(11 * x * y + 1)])
    return torch.as_tensor(colours, dtype=torch.float32)[None]


def similarity(scale: float, angle: float, shift: tuple[float, float]) -> np.ndarray:
    """A similarity about the crop's centre, [2, 3]."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.concatenate([turn, (np.array(shift) + 0.5 - turn @ [0.5, 0.5])[:, None]], 1)


def moved(marks: np.ndarray, transform: np.ndarray) -> np.ndarray:
    out = marks.copy()
    out[:, :2] = marks[:, :2] @ transform[:, :2].T + transform[:, 2]
    return out


def batch(*marks: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(np.stack(marks))


MOVES = [(1.0, 0.0, (0.04, -0.03)), (1.2, 0.0, (0.0, 0.0)), (0.8, 0.5, (0.02, 0.05)), (1.0, -0.8, (0.0, 0.02))]


@pytest.mark.parametrize("move", MOVES)
def test_patches_and_masks_move_with_the_face(move):
    transform, marks = similarity(*move), landmarks()
    still = patches.mouth_and_irises(scene(), batch(marks))
    carried = patches.mouth_and_irises(scene(transform), batch(moved(marks, transform)))
    for a, b in zip(still, carried):
        assert a.std() > 0.1
        assert (a - b).abs().max() < 0.01  # bilinear sampling of another grid
    for a, b in zip(patches.masks(batch(marks)), patches.masks(batch(moved(marks, transform)))):
        assert (a - b).abs().max() < 0.02


def test_a_patch_shows_the_image_at_its_own_place():
    mouth, eyes = patches.mouth_and_irises(scene(), batch(landmarks()))
    assert mouth.shape == (1, 3, 24, 32) and eyes.shape == (1, 2, 3, 16, 32)
    at = (np.arange(32) + 0.5) / 32 * 2 - 1
    x = 0.5 + 0.11 * patches.MARGIN * at  # corners 0.22 apart, upright: the patch spans 1.2 x that, centred between
    y = 0.7 + 0.11 * patches.MARGIN * ((np.arange(24) + 0.5) / 24 * 2 - 1) * 24 / 32
    x, y = np.meshgrid(x, y)
    expected = np.stack([np.sin(7 * x + 2 * y), np.cos(9 * y - 3 * x), np.sin(11 * x * y + 1)])
    assert np.abs(mouth[0].numpy() - expected).max() < 0.01


def test_patches_are_differentiable_in_the_image():
    image = torch.randn(1, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    frame = patches.frames(batch(landmarks()).double())[:, 0]
    assert torch.autograd.gradcheck(lambda x: patches.cut(x, frame, (3, 4)), image.requires_grad_(True))


def test_mouth_mask_is_the_inside_of_the_lips():
    marks = batch(landmarks(gap=0.1))
    mask = patches.masks(marks)[0][0, 0]
    frame = patches.frames(marks)[0, 0].numpy()
    x = (np.arange(32) + 0.5) / 32 * 2 - 1
    y = ((np.arange(24) + 0.5) / 24 * 2 - 1) * 24 / 32
    grid = np.stack(np.meshgrid(x, y), -1) @ frame[:, :2].T + frame[:, 2]
    away = np.hypot((grid[..., 0] - 0.5) / 0.1, (grid[..., 1] - 0.7) / 0.05)
    assert (mask.numpy()[away < 0.8] > 0.99).all()
    assert (mask.numpy()[away > 1.2] < 0.01).all()
    pixel = (0.22 * patches.MARGIN / 32) ** 2
    polygon = 0.5 * 20 * np.sin(2 * np.pi / 20) * 0.1 * 0.05  # area of 20 points on the ellipse
    assert float(mask.sum()) * pixel == pytest.approx(polygon, rel=0.06)  # the contour's own line counts as inside


def test_mouth_mask_grows_with_the_opening_from_nothing():
    areas = patches.masks(batch(*[landmarks(gap=g) for g in (0.0, 0.02, 0.05, 0.1)]))[0].sum((1, 2, 3))
    assert areas[0] < 7  # the contour's own line: 25 px long, a quarter of a pixel wide
    assert (areas.diff() > 10).all()


def test_iris_mask_is_the_part_of_the_disc_between_the_lids():
    wide, narrow, shut = patches.masks(batch(landmarks(lids=0.1), landmarks(lids=0.02), landmarks(lids=0.0)))[1]
    pixel = (0.12 * patches.MARGIN / 32) ** 2
    for eye in wide.sum((1, 2, 3)):
        assert float(eye) * pixel == pytest.approx(np.pi * 0.02**2, rel=0.05)
    assert (narrow.sum((1, 2, 3)) < 0.8 * wide.sum((1, 2, 3))).all()
    assert (narrow <= wide + 1e-6).all()
    assert (shut.sum((1, 2, 3)) < 4).all()


def test_gaze_moves_the_iris_mask():
    left = landmarks(lids=0.08)
    right = left.copy()
    right[list(IRISES[0]), 0] += 0.02
    masks = patches.masks(batch(left, right))[1][:, 0, 0]
    columns = torch.arange(32.0)
    centre = (masks.sum(1) * columns).sum(1) / masks.sum((1, 2))
    assert float(centre.diff()) == pytest.approx(0.02 / (0.12 * patches.MARGIN) * 32, abs=0.2)


def test_statistics_are_those_of_the_masked_pixels():
    marks = batch(landmarks(gap=0.1, lids=0.08))
    image = scene()
    found = patches.statistics(image.expand(3, -1, -1, -1), marks.expand(3, -1, -1))
    mouth, irises = patches.mouth_and_irises(image, marks)
    mouth_mask, iris_mask = patches.masks(marks)
    for name, patch, mask in (("mouth", mouth, mouth_mask), ("iris", irises[0], iris_mask[0])):
        for c in range(3):
            values, weights = patch[:, c].flatten().numpy(), mask[:, 0].flatten().numpy()
            mean = np.average(values, weights=weights)
            spread = np.average((values - mean) ** 2, weights=weights) ** 0.5
            assert found[name][:, c].numpy() == pytest.approx([mean, spread], abs=1e-4)


def driver(count: int = 4) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Random 8-bit patches of a driver with an open mouth and open eyes."""
    noise = np.random.default_rng(1)
    mouth = noise.normal(120, 12, (count, *patches.MOUTH_SIZE, 3)).clip(0, 255).astype(np.uint8)
    irises = noise.normal((90, 120, 60), 10, (count, 2, *patches.IRIS_SIZE, 3)).clip(0, 255).astype(np.uint8)
    return mouth, irises, batch(*[landmarks(gap=0.08, lids=0.08)] * count)


def test_targets_have_the_wanted_statistics():
    mouth, irises, marks = driver()
    wanted = {"mouth": torch.tensor([[-0.2, 0.1, 0.3], [0.1, 0.15, 0.12]]),
              "iris": torch.tensor([[0.1, -0.3, -0.1], [0.08, 0.05, 0.1]])}  # fmt: skip
    m, m_mask, e, e_mask = patches.targets(mouth, irises, marks, wanted)
    assert torch.equal(m[2:], m[torch.arange(4)][2:]) and torch.equal(e[torch.tensor([3, 1])], e[:][[3, 1]])
    drawn = patches.masks(marks)
    assert m_mask[:].equal(drawn[0]) and e_mask[torch.tensor([3, 1])].equal(drawn[1][[3, 1]])
    assert not len(m_mask[torch.zeros(0, dtype=torch.long)])
    m, e, m_mask, e_mask = m[:], e[:], m_mask[:], e_mask[:]
    assert m.shape == (4, 3, 24, 32) and m_mask.shape == (4, 1, 24, 32)
    assert e.shape == (4, 2, 3, 16, 32) and e_mask.shape == (4, 2, 1, 16, 32)
    assert torch.allclose(moments(m, m_mask), wanted["mouth"], atol=0.005)
    assert torch.allclose(moments(e.flatten(0, 1), e_mask.flatten(0, 1)), wanted["iris"], atol=0.005)


def moments(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    inside = mask.expand_as(x) > 0.5
    values = [x[:, c][inside[:, c]] for c in range(3)]
    return torch.tensor([[float(v.mean()) for v in values], [float(v.std()) for v in values]])


def test_targets_in_ones_own_colours_stay():
    mouth, irises, marks = driver()
    images = {"mouth": to_tensor(mouth),
              "iris": to_tensor(irises).flatten(0, 1)}  # fmt: skip
    masks = patches.masks(marks)
    own = {"mouth": weighted(images["mouth"], masks[0]), "iris": weighted(images["iris"], masks[1].flatten(0, 1))}
    m, _, e, _ = patches.targets(mouth, irises, marks, own)
    m, e = m[:], e[:]
    assert (m - images["mouth"]).abs().max() < 1e-3
    assert (e.flatten(0, 1) - images["iris"]).abs().max() < 1e-3


def test_each_shot_is_matched_by_its_own_light():
    """The second shot is the first one in dimmer light; a third shot's mouth is closed: it uses the clip's."""
    mouth, irises, marks = driver(4)
    dim = [(patch * 0.65).round().astype(np.uint8) for patch in (mouth, irises)]
    closed = batch(landmarks(gap=0.0, lids=0.08))
    clip = np.concatenate([mouth, dim[0], mouth[:1]]), np.concatenate([irises, dim[1], irises[:1]])
    wanted = {"mouth": torch.tensor([[-0.2, 0.1, 0.3], [0.1, 0.15, 0.12]]),
              "iris": torch.tensor([[0.1, -0.3, -0.1], [0.08, 0.05, 0.1]])}  # fmt: skip
    shots = [(slice(k, end), (np.arange(9) >= k) & (np.arange(9) < end)) for k, end in ((0, 4), (4, 8), (8, 9))]
    found = patches.targets(*clip, torch.cat([marks, marks, closed]), wanted, shots)
    alone = patches.targets(mouth, irises, marks, wanted)
    for k in (0, 2):
        assert torch.equal(found[k][:4], alone[k][:])  # a shot's targets do not depend on the other shots
        assert (found[k][4:8] - found[k][:4]).abs().mean() < 0.02  # rounding of dim light alone
        assert torch.equal(found[k][torch.tensor([5, 1])], found[k][:][[5, 1]])
    assert bool(found[0][8:].isfinite().all())
    pooled = patches.targets(*clip, torch.cat([marks, marks, closed]), wanted)
    assert (pooled[0][4:8] - pooled[0][:4]).abs().mean() > 0.1  # what one match for the whole clip would give


def weighted(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    mean = (x * mask).sum((0, 2, 3)) / mask.sum()
    return torch.stack([mean, (((x - mean[:, None, None]) ** 2 * mask).sum((0, 2, 3)) / mask.sum()).sqrt()])


def test_a_mouth_that_never_opens_gives_finite_targets():
    mouth, irises, _ = driver(2)
    marks = batch(*[landmarks(gap=0.0)] * 2)
    wanted = {"mouth": torch.tensor([[0.9] * 3, [0.3] * 3]), "iris": torch.tensor([[0.0] * 3, [0.1] * 3])}
    found = [given[:] for given in patches.targets(mouth, irises, marks, wanted)]
    assert all(bool(t.isfinite().all()) for t in found)
    assert all(float(t.abs().max()) <= 1 for t in found)
