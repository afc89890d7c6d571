import cv2
import numpy as np
import pytest

from selfscan.face.observe import observe
from selfscan.io import video
from selfscan.scan.quality import assess

SIDE = 288
FAULTS = {  # frames -> the reason they must be given
    "blurred": range(8, 11),
    "too dark": range(18, 21),
    "too bright": range(27, 30),
    "face covered": range(36, 40),
    "no face": range(47, 50),
}


def spoil(frame: np.ndarray, reason: str) -> np.ndarray:
    if reason == "blurred":  # moved by 7 px while the shutter was open
        return cv2.filter2D(frame, -1, np.full((1, 7), 1 / 7, np.float32))
    if reason == "too dark":
        return (frame * 0.05).astype(np.uint8)
    if reason == "too bright":
        return np.clip(frame.astype(np.float32) * 2.5 + 60, 0, 255).astype(np.uint8)
    if reason == "face covered":  # a mug before mouth and cheek
        return cv2.rectangle(frame.copy(), (118, 150), (190, 230), (30, 60, 120), -1)
    return np.full_like(frame, 128)


@pytest.fixture(scope="module")
def quality(shared, tmp_path_factory):
    frames = []
    for _, frame in video.read(shared / "clips/scan-turning.mp4"):
        small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        reason = next((r for r, at in FAULTS.items() if len(frames) in at), None)
        frames.append(spoil(small, reason) if reason else small)
        if len(frames) == 56:
            break
    path = tmp_path_factory.mktemp("quality") / "faults.mp4"
    video.write(path, frames, np.arange(len(frames)) / 25, crf=10)
    return assess(observe(path))


@pytest.mark.parametrize("reason", FAULTS)
def test_injected_faults_are_named(quality, reason):
    got = quality.reason[list(FAULTS[reason])]
    allowed = {reason, "no face"}  # a network that finds no face in the dark is right as well
    assert set(got) <= allowed and (reason == "no face" or reason in got or reason.startswith("too"))
    assert (quality.score[list(FAULTS[reason])] == 0).all()


def test_sound_frames_are_kept(quality):
    faulty = {i for at in FAULTS.values() for i in at}
    edges = {i + d for i in faulty for d in (-1, 1)}  # a cut looks like a jump to its neighbours
    sound = [i for i in range(len(quality.score)) if i not in faulty | edges]
    assert set(quality.reason[sound]) == {""}
    assert quality.score[sound].min() > 0.3
    assert ((quality.score >= 0) & (quality.score <= 1)).all()


def test_rejects_count_the_reasons(quality):
    counts = quality.rejects()
    assert sum(counts.values()) == (~quality.usable).sum()
    assert counts["face covered"] >= 3 and list(counts.values()) == sorted(counts.values(), reverse=True)


def test_fast_motion_is_measured_in_eye_distances():
    """A head that moves by one eye distance in a frame of 1/25 s has a speed of 25 eye distances per second."""
    from selfscan.face.headpose import canonical_head, head_pose
    from selfscan.scan.quality import _speed
    from selfscan.types import Alignment, FaceTrack, Observation

    heads = np.tile(100 * canonical_head(), (10, 1, 1)).astype(np.float32)
    heads[5:, :, 0] += np.linalg.norm(heads[0, 33] - heads[0, 263])
    ones = np.ones(10, np.float32)
    track = FaceTrack(heads, head_pose(heads), ones, ones > 0, np.arange(10) / 25, (640, 480), np.zeros(10, bool))
    crops = Alignment(np.tile(np.eye(3)[:2], (10, 1, 1)), 256)
    speed = _speed(Observation(track, crops, heads, ones, "clip.mp4", ""))
    np.testing.assert_allclose(speed, [0, 0, 0, 0, 25, 25, 0, 0, 0, 0], atol=1e-3)


def test_a_clip_without_any_face_rejects_all(tmp_path):
    """Every frame keeps its index and its reason."""
    from selfscan.face.headpose import canonical_head, head_pose
    from selfscan.types import Alignment, FaceTrack, Observation

    frames = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), np.uint8)
    video.write(tmp_path / "noise.mp4", list(frames), np.arange(6) / 25)
    heads = np.tile(20 * canonical_head() + 32, (6, 1, 1)).astype(np.float32)
    zero = np.zeros(6, np.float32)
    track = FaceTrack(heads, head_pose(heads), zero, zero > 0, np.arange(6) / 25, (64, 64), zero > 0)
    crops = Alignment(np.tile(np.eye(3)[:2], (6, 1, 1)), 64)
    got = assess(Observation(track, crops, heads / 64, zero, str(tmp_path / "noise.mp4"), ""))
    assert set(got.reason) == {"no face"} and not got.score.any() and not got.closed.any()


@pytest.mark.parametrize("name", ["scan-turning", "scan-glasses"])
@pytest.mark.slow
def test_calm_clips_keep_nearly_all_frames(shared, name):
    got = assess(observe(shared / f"clips/{name}.mp4"))
    assert got.usable.mean() > 0.98
    assert 0 < got.closed.mean() < 0.25
