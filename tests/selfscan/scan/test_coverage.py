import sys

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from selfscan.face.facemesh import crop_landmarks, load_facemesh
from selfscan.face.headpose import canonical_head, head_pose, rotation
from selfscan.face.measures import measures
from selfscan.io.pixels import to_tensor
from selfscan.scan.coverage import BINS, coverage, eyes_closed, shares
from selfscan.scan.coverage_figure import draw
from selfscan.types import Alignment, FaceTrack, Observation

RATIOS = ("mouth_open", "mouth_width", "smile", "eyes_open", "brows", "gaze_x", "gaze_y")
SWEEPS = {  # actors' expression -> (measure, sign)
    "jawOpen": ("mouth_open", 1),
    "mouthSmile": ("smile", 1),
    "mouthPucker": ("mouth_width", -1),
    "eyeBlink": ("eyes_open", -1),
    "browInnerUp": ("brows", 1),
    "browDown": ("brows", -1),
}


@pytest.fixture(scope="module")
def actors(shared, tmp_path_factory):
    """The renderer of people with known pose and expression; its compiled code goes to a temporary folder."""
    pytest.importorskip("numba", reason="the synthetic actors need numba")
    patch = pytest.MonkeyPatch()
    patch.setenv("NUMBA_CACHE_DIR", str(tmp_path_factory.mktemp("numba")))
    patch.syspath_prepend(str(shared / "actors"))
    import actors

    yield actors
    sys.modules.pop("actors", None)
    patch.undo()


def seen(images: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Measures of renderings, as the landmark network sees them."""
    x = to_tensor(np.stack(images))
    with torch.no_grad():
        landmarks = crop_landmarks(load_facemesh(), x)[0].numpy()
    return measures(landmarks)


def person(actors, seed: int):
    return actors.Actor(np.random.default_rng(seed).normal(size=actors.Actor.N_FACTORS))


def show(actors, who, name="", value=0.0, pose=(0, 0, 0), crop="ffhq"):
    expression = np.zeros((1, len(actors.SHAPES)), np.float32)
    if name:
        actors._set(expression, name, value)
    return actors.render(who, expression[0], np.array([*pose, 0, 0, 0]), 192, crop, supersample=1)[0]


def observation(landmarks: np.ndarray, valid: np.ndarray | None = None) -> Observation:
    t = len(landmarks)
    valid = np.ones(t, bool) if valid is None else valid
    pose = head_pose(landmarks)
    track = FaceTrack(landmarks, pose, np.ones(t), valid, np.arange(t) / 25, (64, 64), np.zeros(t, bool))
    crops = Alignment(np.tile(np.eye(3)[:2], (t, 1, 1)), 64)
    return Observation(track, crops, landmarks, np.ones(t, np.float32), "clip.mp4", "")


def faces(t: int = 200, **moved) -> np.ndarray:
    """[T, 478, 3] mean heads with some points moved: ``down_14=[T]`` lowers point 14."""
    heads = np.tile(canonical_head(), (t, 1, 1))
    for key, amount in moved.items():
        axis, *points = key.split("_")
        for point in points:
            heads[:, int(point), {"right": 0, "down": 1}[axis]] += amount
    return heads.astype(np.float32)


def test_ratios_ignore_where_the_head_is_and_how_it_is_turned():
    head = canonical_head()
    base = measures(head[None])
    angles = np.radians([[30, 10, 5], [-40, -20, 15], [5, 25, -30]])
    turned = 37.0 * head @ np.swapaxes(rotation(angles), -1, -2) + [100, 50, 7]
    got = measures(turned)
    for name in RATIOS:
        np.testing.assert_allclose(got[name], base[name][0], atol=1e-9, err_msg=name)
    np.testing.assert_allclose(np.stack([got["yaw"], got["pitch"], got["roll"]], 1), angles, atol=1e-5)


def test_measures_follow_their_definitions():
    head = canonical_head()
    d = np.linalg.norm(head[[33, 133]].mean(0) - head[[263, 362]].mean(0))
    base = measures(faces(1))
    for moved, name, change in (
        (dict(down_14=0.1), "mouth_open", None),
        (dict(right_291=0.05, right_61=-0.05), "mouth_width", None),
        (dict(down_291_61=-0.07), "smile", 0.07 / d),
        (dict(right_468_473=0.02), "gaze_x", None),
        (dict(down_468_473=-0.02), "gaze_y", None),
        (dict(down_105_66_107_65_55_334_296_336_295_285=-0.03), "brows", 0.03 / d),
    ):
        landmarks = faces(1, **moved)
        got = measures(landmarks)[name][0] - base[name][0]
        assert got > 0
        if change:
            assert got == pytest.approx(change, rel=0.05)


def test_a_mirrored_face_turns_and_looks_the_other_way():
    rng = np.random.default_rng(0)
    shift = dict(right_468_473=rng.normal(size=20) * 0.02, down_14=rng.uniform(0, 0.1, 20))
    heads = faces(20, **shift) @ np.swapaxes(rotation(rng.normal(size=(20, 3)) * 0.2), -1, -2)
    one = measures(heads)
    swap = np.argmin(np.abs(canonical_head()[:, None] - canonical_head() * [-1, 1, 1]).sum(-1), 1)
    swap[[468, 473]] = 473, 468
    mirrored = (heads * [-1, 1, 1])[:, swap]
    two = measures(mirrored)
    for name in one:
        sign = -1 if name in ("yaw", "roll", "gaze_x") else 1
        np.testing.assert_allclose(two[name], sign * one[name], atol=0.01, err_msg=name)


@pytest.mark.parametrize("name", SWEEPS)
def test_expressions_rank_as_the_actors_truth(actors, name):
    measure, sign = SWEEPS[name]
    truth = np.linspace(0, 0.9, 5)
    for seed, pose in ((3, (0, 0, 0)), (7, (0.3, 0.1, 0))):
        who = person(actors, seed)
        got = seen([show(actors, who, name, v, pose) for v in truth])[measure]
        assert sign * spearmanr(truth, got)[0] > 0.8, (name, seed, pose)


@pytest.mark.parametrize("angle,column", [("yaw", 0), ("pitch", 1)])
def test_angles_rank_as_the_actors_truth(actors, angle, column):
    truth = np.radians(np.linspace(-30, 30, 7))
    poses = np.zeros((7, 3))
    poses[:, column] = truth
    got = seen([show(actors, person(actors, 3), pose=p) for p in poses])[angle]
    assert spearmanr(truth, got)[0] > 0.95
    assert np.abs(np.degrees(got - got[3] - truth)).max() < 10


def test_roll_follows_a_turned_picture(actors):
    import cv2

    image, truth = show(actors, person(actors, 3)), np.linspace(-20, 20, 5)
    turns = [cv2.getRotationMatrix2D((96, 96), float(a), 1) for a in truth]  # counter-clockwise as seen
    turned = [cv2.warpAffine(image, m, (192, 192), borderMode=cv2.BORDER_REPLICATE) for m in turns]
    got = np.degrees(seen(turned)["roll"])
    np.testing.assert_allclose(got - got[2], truth, atol=5)


def test_gaze_ranks_as_painted_irises(actors):
    """The actors' eyeballs do not turn, so eyes are painted: white between the lids, a dark disc where we say."""
    import cv2

    image = show(actors, person(actors, 3))
    image = cv2.resize(image, (384, 384), interpolation=cv2.INTER_CUBIC)
    x = to_tensor(image[None])
    with torch.no_grad():
        points = crop_landmarks(load_facemesh(), x)[0][0, :, :2].numpy() * 384
    rings = [[33, 161, 160, 159, 158, 157, 133, 154, 153, 145, 144, 163],
             [263, 388, 387, 386, 385, 384, 362, 381, 380, 374, 373, 390]]  # fmt: skip

    def looking(across: float, down: float) -> np.ndarray:
        out = image.copy()
        for ring in rings:
            polygon = np.round(points[ring]).astype(np.int32)
            inside = cv2.fillPoly(np.zeros(image.shape[:2], np.uint8), [polygon], 1).astype(bool)
            width = np.linalg.norm(points[ring[0]] - points[ring[6]])
            centre = points[[ring[0], ring[6]]].mean(0) + width * np.array([across, down])
            iris = cv2.circle(image.copy() * 0 + 225, tuple(np.round(centre).astype(int).tolist()), 8, (60, 40, 30), -1)
            out[inside] = iris[inside]
        return cv2.GaussianBlur(out, (3, 3), 0)

    steps = np.linspace(-0.22, 0.22, 7)
    assert spearmanr(steps, seen([looking(s, 0) for s in steps])["gaze_x"])[0] > 0.9
    steps = np.linspace(-0.1, 0.1, 5)
    assert spearmanr(-steps, seen([looking(0, s) for s in steps])["gaze_y"])[0] > 0.8


def test_blinks_are_found():
    """Eyes that blink have a low gap for a few frames and are judged by the clip's own usual opening."""
    gap = np.full(300, 0.3) + np.random.default_rng(0).normal(size=300) * 0.01
    for start in (40, 130, 250):
        gap[start : start + 6] = (0.24, 0.12, 0.06, 0.08, 0.18, 0.22)
    assert eyes_closed(gap).sum() == 9
    assert eyes_closed(gap * 0.6).tolist() == eyes_closed(gap).tolist()


def test_missing_says_what_to_record_again():
    t = 200
    still = coverage(observation(faces(t)))
    assert "turn the head left" in still.missing and "open the mouth wide" in still.missing
    assert "turn further left" not in still.missing  # one request a direction
    assert still.share["yaw front"] == 1
    swing = np.radians(40) * np.sin(np.linspace(0, 4 * np.pi, t))
    lips = faces(t, down_14=0.3 * (np.arange(t) % 20 > 9))
    moving = lips @ np.swapaxes(rotation(np.stack([swing, 0 * swing, 0 * swing], 1)), -1, -2)
    rich = coverage(observation(moving.astype(np.float32)))
    assert not {"turn the head left", "turn further right", "open the mouth wide"} & set(rich.missing)
    assert rich.share["yaw far left"] == pytest.approx(rich.share["yaw far right"], abs=0.02)


def test_frames_that_do_not_count_do_not_count():
    opened = faces(100, down_14=np.where(np.arange(100) < 50, 0.3, 0.0))
    seen_all = coverage(observation(opened))
    assert seen_all.share["mouth wide open"] == 0.5
    assert coverage(observation(opened), use=np.arange(100) >= 50).share["mouth wide open"] == 0
    assert coverage(observation(opened, valid=np.arange(100) < 50)).share["mouth wide open"] == 1
    nothing = coverage(observation(opened), use=np.zeros(100, bool))
    assert set(nothing.share.values()) == {0.0}


def test_gaze_of_closed_eyes_is_not_counted():
    t = 100
    m = measures(faces(t))
    closed = np.arange(t) % 4 == 0
    m["eyes_open"] = np.where(closed, 0.05, m["eyes_open"])
    m["gaze_y"] = np.where(closed, -0.2, m["gaze_y"])
    got = shares(m, np.ones(t, bool))
    assert got["eyes closed"] == 0.25 and got["gaze down"] == 0


def test_every_bin_has_a_measure():
    m = measures(faces(1))
    assert {measure for measure, *_ in BINS.values()} <= set(m)


def test_draw_writes_a_picture(tmp_path):
    import cv2

    found = coverage(observation(faces(60, down_14=np.linspace(0, 0.3, 60))))
    draw(found, tmp_path / "coverage é.png", picks=np.arange(0, 60, 10))
    picture = cv2.imdecode(np.fromfile(tmp_path / "coverage é.png", np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (700, 1200, 3)
    assert (picture != 255).any(-1).mean() > 0.02
