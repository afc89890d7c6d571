"""Observing a clip: landmarks in the crop, every frame at its index, constant memory."""

import tracemalloc

import numpy as np
import pytest
from face_clips import FPS, backdrop, clip, compose, photographs

from selfscan.errors import NoFaceFound, UnreadableVideo
from selfscan.face import align
from selfscan.face.observe import BATCH, iter_crops, observe
from selfscan.io import video
from selfscan.io.digest import file_digest

GONE = {7, 8, 9, 20, 21}
COUNT = 22  # more than a batch, and no multiple of it


@pytest.fixture(scope="module")
def observed(shared, tmp_path_factory):
    photograph = photographs(shared, 3)[0]
    frames = [
        backdrop() if i in GONE else compose((photograph, 200 + 30 * np.sin(i / 4), 144, 190 + 2 * i))
        for i in range(COUNT)
    ]
    path = clip(tmp_path_factory.mktemp("clips") / "c.mp4", frames)
    calls = []
    return observe(path, size=128, progress=lambda *call: calls.append(call)), path, calls


def test_every_frame_keeps_its_slot(observed):
    seen, path, calls = observed
    assert len(seen) == COUNT and BATCH < COUNT and set(np.flatnonzero(~seen.track.valid)) == GONE
    assert np.isfinite(seen.landmarks).all() and np.allclose(seen.track.times, np.arange(COUNT) / FPS)
    assert (seen.presence[~seen.track.valid] == 0).all() and (seen.presence[seen.track.valid] > 0.9).all()
    assert seen.video == str(path) and seen.video_sha256 == file_digest(path)
    assert calls[-1] == ("measure", COUNT, COUNT) and ("track", COUNT, COUNT) in calls
    gap = seen.landmarks[6] + np.linspace(0, 1, 5)[:, None, None] * (seen.landmarks[10] - seen.landmarks[6])
    assert np.allclose(seen.landmarks[6:11], gap, atol=1e-5)


def test_landmarks_of_the_crop_are_those_of_the_frame_moved_into_it(observed):
    seen, _, _ = observed
    moved = align.apply(seen.alignment.crop_from_frame, seen.track.landmarks.astype(float)) / seen.alignment.size
    error = np.linalg.norm((moved - seen.landmarks)[seen.track.valid, :, :2], axis=-1)
    eyes = np.linalg.norm(seen.landmarks[0, 33] - seen.landmarks[0, 263])
    assert error.mean() < 0.03 * eyes
    depth = np.corrcoef(moved[0, :468, 2], seen.landmarks[0, :468, 2])[0, 1]
    assert depth > 0.98


def test_the_face_stands_still_in_the_crop(observed):
    """The photograph only moves and grows, so the aligned crop must not change."""
    seen, _, _ = observed
    valid = seen.landmarks[seen.track.valid]
    assert (valid - valid.mean(0))[..., :2].std() < 0.006


def test_crops_stream_again_at_any_size(observed):
    seen, _, _ = observed
    own, double = list(iter_crops(seen)), list(iter_crops(seen, 256))
    assert [index for index, _ in own] == list(range(COUNT)) == [index for index, _ in double]
    assert own[0][1].shape == (128, 128, 3) and double[0][1].shape == (256, 256, 3)
    shrunk = double[3][1].reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(shrunk - own[3][1]).mean() < 3
    direct = align.crop(list(video.read(seen.video))[5][1], seen.alignment.crop_from_frame[5], 128)
    assert np.array_equal(own[5][1], direct)


def test_a_clip_that_changed_is_refused(observed, tmp_path):
    from dataclasses import replace

    seen, path, _ = observed
    shorter = clip(tmp_path / "short.mp4", (image for index, image in iter_crops(seen) if index < 5))
    longer = clip(tmp_path / "long.mp4", (image for _ in range(2) for _, image in iter_crops(seen)))
    for other in (shorter, longer, tmp_path / "absent.mp4"):
        with pytest.raises(UnreadableVideo):
            list(iter_crops(replace(seen, video=str(other))))


def test_errors_of_the_track_come_through(tmp_path):
    with pytest.raises(UnreadableVideo):
        observe(tmp_path / "absent.mp4")
    with pytest.raises(NoFaceFound):
        observe(clip(tmp_path / "empty.mp4", [backdrop(i) for i in range(3)]))


def test_crops_are_streamed(observed):
    seen, _, _ = observed
    tracemalloc.start()
    for _ in iter_crops(seen, 128):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * 288 * 448 * 3
