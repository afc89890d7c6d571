"""Rendering of actors: the rasteriser against geometry, and a frame's truth against its pixels."""

import subprocess
import sys

import numpy as np
import pytest
from tiny_head import tiny_basis

from mystudio.actors import camera as cameras
from mystudio.actors import light
from mystudio.actors.actor import Actor
from mystudio.actors.basis import EXPRESSION_ID, EXPRESSIONS
from mystudio.actors.factors import EXTRA_NAMES, LOOK_NAMES, N_LOOK
from mystudio.actors.head import EYE, SKIN, make_head
from mystudio.actors.raster import NOTHING, draw_strands, rasterize, vertex_normals
from mystudio.actors.render import render

STILL, NEUTRAL = np.zeros(6, np.float32), np.zeros(len(EXPRESSIONS), np.float32)


@pytest.fixture(scope="module")
def basis():
    return tiny_basis()


def look(**factors):
    """Return a look in which all factors are zero, except the named ones."""
    names = LOOK_NAMES + EXTRA_NAMES
    out = np.zeros(len(names), np.float32)
    for name, value in factors.items():
        out[names.index(name)] = value
    return out


def weights(**named):
    e = NEUTRAL.copy()
    for name, value in named.items():
        e[EXPRESSION_ID[name]] = value
    return e


def drawn(points, faces, size=64, cull=False):
    depth, shown = np.full((size, size), NOTHING, np.float32), np.full((size, size), -1, np.int32)
    faces = np.array(faces, np.int32)
    rasterize(np.array(points, np.float32), faces, np.full(len(faces), cull), 0, (0, 0, size, size), depth, shown)
    return depth, shown


def test_a_triangle_covers_its_area_and_interpolates_depth():
    points = [(3.2, 5.1, 0), (60.7, 9.4, 10), (20.3, 58.8, 20)]
    depth, shown = drawn(points, [(0, 1, 2)])
    (x0, y0, _), (x1, y1, _), (x2, y2, _) = points
    area = abs((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)) / 2
    assert (shown == 0).sum() == pytest.approx(area, rel=0.02)
    y, x = np.argwhere(shown == 0).T
    plane = np.linalg.solve(np.c_[np.array(points)[:, :2], np.ones(3)], [0, 10, 20])
    assert np.allclose(depth[y, x], np.c_[x + 0.5, y + 0.5, np.ones(len(x))] @ plane, atol=1e-3)


def test_neighbours_leave_no_gap_and_the_nearest_wins():
    quad = [(0, 0, 1), (64, 0, 1), (64, 64, 1), (0, 64, 1)]
    assert (drawn(quad, [(0, 1, 2), (0, 2, 3)])[1] >= 0).all()
    nearer = [(10, 10, 2), (40, 10, 2), (10, 40, 2)]
    for order in ([(0, 1, 2), (0, 2, 3), (4, 5, 6)], [(4, 5, 6), (0, 1, 2), (0, 2, 3)]):
        depth, shown = drawn(quad + nearer, order)
        assert shown[15, 15] == order.index((4, 5, 6)) and depth[15, 15] == 2 and depth[50, 50] == 1


def test_backs_are_culled_on_request():
    points, front, back = [(5, 5, 0), (50, 5, 0), (5, 50, 0)], [(0, 2, 1)], [(0, 1, 2)]
    assert (drawn(points, front, cull=True)[1] == 0).any() and not (drawn(points, back, cull=True)[1] == 0).any()
    assert (drawn(points, back, cull=False)[1] == 0).any()


def test_a_strand_covers_its_width_and_hides_behind_what_is_nearer():
    image, depth = np.zeros((40, 40, 3), np.float32), np.full((40, 40), NOTHING, np.float32)
    depth[:, 20:] = 5
    points = np.array([(2, 10.3, 1, 3.0), (38, 10.3, 1, 3.0), (2, 30, 9, 0.5), (38, 30, 9, 0.5)], np.float32)
    draw_strands(points, np.ones((4, 3), np.float32), np.ones(4, np.float32), 2, depth, image)
    assert image[:15, 5:15, 0].sum(0) == pytest.approx(np.full(10, 3.0), abs=0.01)
    assert (image[:15, 20:] == 0).all()
    assert image[20:, 5:35, 0].sum(0) == pytest.approx(np.full(30, 0.5), abs=0.01)


def test_normals_of_a_ball_point_outwards(basis):
    head = make_head(basis)
    ball = head.rest[basis.part("sclera_l")]
    faces = head.faces[head.material == EYE]
    out = np.empty_like(head.rest)
    vertex_normals(head.rest, faces, out)
    outward = (ball - head.eyes[0]) / np.linalg.norm(ball - head.eyes[0], axis=1, keepdims=True)
    assert ((out[basis.part("sclera_l")] * outward).sum(1) > 0.95).all()
    assert head.eyes[0] == pytest.approx([3.1, 3.4, 8.6], abs=0.02)


def test_shoulders_close_the_neck(basis):
    head = make_head(basis)
    skin = head.faces[head.material == SKIN]
    edges = np.sort(np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]]), 1)
    border = np.unique(edges, axis=0, return_counts=True)
    open_ = border[0][border[1] == 1]
    low = open_[head.rest[open_, 1].max(1) < 5]
    assert head.rest[low, 1].max() < -40  # only far below the picture, besides the crown of the test's head
    assert np.ptp(head.rest[len(basis.neutral) :, 0]) > 40 and head.follow[basis.landmarks].min() == 1
    assert head.follow[head.rest[:, 1] < -15].max() == 0


def test_what_lies_in_the_shadow_is_dark():
    lights = light.set_up(0.0, 0.5, 0.0, 0.5, np.full(3, 0.2))
    toward = np.array(lights.toward[0])
    centre = np.zeros(3, np.float32)
    across = light.view_axes(toward)[:2]
    wall = np.array([toward * 5 + across[0] * a + across[1] * b for a, b in ((-4, -4), (4, -4), (4, 4), (-4, 4))])
    shadow = light.cast(lights, wall.astype(np.float32), [np.array([(0, 1, 2), (0, 2, 3)], np.int32)], [], centre)
    behind, before, beside = toward * -3, toward * 8, toward * -3 + across[0] * 9
    assert [
        round(float(light.lit(shadow, *place.astype(np.float32), np.float32(0.2))), 2)
        for place in (behind, before, beside)
    ] == [0, 1, 1]


def test_equal_factors_and_seeds_give_equal_pixels(basis):
    person = np.random.default_rng(1).normal(size=38)
    e, pose = weights(jawOpen=0.5, mouthSmile_L=0.4), np.array([0.2, -0.1, 0.05, 0.3, 0.1, 0], np.float32)
    one, two = (render(Actor(person, basis), e, pose, 96, "ffhq", seed=5) for _ in range(2))
    assert np.array_equal(one.image, two.image) and np.array_equal(one.landmarks, two.landmarks)
    noisier = render(Actor(person, basis), e, pose, 96, "ffhq", seed=6)
    assert 0 < np.abs(noisier.image.astype(int) - one.image).mean() < 6
    stranger = render(Actor(-person, basis), e, pose, 96, "ffhq", seed=5)
    assert np.abs(stranger.image.astype(int) - one.image).mean() > 12


def test_every_factor_of_the_look_is_seen(basis):
    start = look(glasses=2.0, beard=2.0, hair_style=0.1, hair_volume=0.3)
    base = render(Actor(start, basis), NEUTRAL, STILL, 96).image.astype(int)
    for k in range(len(start)):
        changed = start.copy()
        changed[k] = changed[k] - 1.6 if changed[k] > 1 else changed[k] + 1.6
        assert np.abs(render(Actor(changed, basis), NEUTRAL, STILL, 96).image - base).max() > 3, k


def test_landmarks_follow_the_pose(basis):
    actor = Actor(look(), basis)
    still = render(actor, NEUTRAL, STILL, 64)
    nose = still.landmarks[30]
    for pose, axis, sign in (
        ((0.3, 0, 0, 0, 0, 0), 0, 1),
        ((0, 0.3, 0, 0, 0, 0), 1, 1),
        ((0, 0, 0, 1, 0, 0), 0, 1),
        ((0, 0, 0, 0, 1, 0), 1, -1),
    ):
        moved = render(actor, NEUTRAL, np.array(pose, np.float32), 64)
        assert sign * (moved.landmarks[30] - nose)[axis] > 1
    rolled = render(actor, NEUTRAL, np.array((0, 0, 0.2, 0, 0, 0), np.float32), 64)
    across = rolled.landmarks[45] - rolled.landmarks[36]
    assert np.arctan2(-across[1], across[0]) == pytest.approx(0.2, abs=0.02)


def test_the_camera_is_exact(basis):
    frame = render(Actor(look(), basis), NEUTRAL, np.array((0.3, 0.1, 0.1, 1, 1, 2), np.float32), 128, "ffhq")
    lm, camera = frame.landmarks, frame.camera
    eyes = (lm[36:42].mean(0), lm[42:48].mean(0))
    mouth, middle = (lm[48] + lm[54]) / 2, (eyes[0] + eyes[1]) / 2
    assert np.allclose(middle + 0.1 * (mouth - middle), 64, atol=0.02)  # FFHQ's centre
    linear = camera.image_from_frame[:, :2]
    assert np.allclose(linear @ linear.T, np.eye(2) * np.linalg.det(linear), rtol=1e-5)  # a similarity
    point = np.array([1.0, 2.0, 3.0])
    by_hand = np.array([1, -2]) * cameras.FOCAL / 2 / (cameras.DISTANCE - 3) + 0.5
    assert np.allclose(camera.project(point), linear @ by_hand + camera.image_from_frame[:, 2])


def test_eyeballs_turn_with_the_gaze(basis):
    actor = Actor(look(iris=-2.0), basis)
    away = weights(eyeLookOut_L=0.8, eyeLookIn_R=0.8)
    still, turned = (render(actor, e, STILL, 256) for e in (NEUTRAL, away))
    assert turned.gaze[:, 0] == pytest.approx([0.8 * np.radians(35)] * 2, abs=1e-5) and (still.gaze == 0).all()
    for centre in actor.head.eyes:
        x, y = still.camera.project(centre.astype(np.float64)).round().astype(int)
        dark = [255 - f.image[y - 5 : y + 6, x - 8 : x + 9].mean((0, 2)) for f in (still, turned)]
        centroid = [(np.arange(17) * (d - d.min())).sum() / (d - d.min()).sum() for d in dark]
        assert centroid[1] > centroid[0] + 1  # towards the person's left: right in the picture


def test_wrong_numbers_are_refused(basis):
    with pytest.raises(ValueError, match="38"):
        Actor(np.zeros(N_LOOK + 1), basis)
    with pytest.raises(ValueError, match="finite"):
        Actor(np.full(38, np.nan), basis)
    with pytest.raises(ValueError, match="53"):
        render(Actor(look(), basis), np.zeros(52), STILL, 64)


def test_numba_is_asked_for_in_one_sentence():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from mystudio.cli import cli\nfrom mystudio.actors import motion, basis\n"
        "from mystudio.errors import StudioError\n"
        "try:\n    import mystudio.actors.render\n"
        "except StudioError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "pip install 'mystudio[actors]'" in done.stdout and "\n" not in done.stdout.strip()
