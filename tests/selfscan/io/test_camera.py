"""Camera frames have the form of video frames, and a missing camera gives an error with advice."""

import cv2
import numpy as np
import pytest

from selfscan.errors import NoCamera
from selfscan.io import camera, video

NUMBER = 97


@pytest.mark.skipif(cv2.VideoCapture(NUMBER).isOpened(), reason="there is such a camera")
def test_no_camera_is_an_error_with_a_way_out(capfd):
    with pytest.raises(NoCamera, match="expected a camera .* name a video file"):
        next(camera.read(NUMBER))
    assert capfd.readouterr().err == ""


def test_frames_are_rgb_and_times_grow_from_zero(tmp_path):
    """OpenCV opens a file like a camera, whose frames are known."""
    path = tmp_path / "c.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for level in (40, 80, 120):
        writer.write(np.full((48, 64, 3), (10, level, 200), np.uint8))  # BGR
    writer.release()
    seen = list(camera.read(str(path)))
    times = [time for time, _ in seen]
    assert len(seen) == 3 and times[0] == 0 and times == sorted(set(times))
    for (_, frame), level, (_, known) in zip(seen, (40, 80, 120), video.read(path)):
        assert frame.shape == (48, 64, 3) and frame.flags["C_CONTIGUOUS"]
        assert np.abs(frame[24, 32].astype(int) - (200, level, 10)).max() < 12
        assert np.abs(frame.astype(int) - known).max() < 12


def test_a_camera_without_a_picture_says_so(tmp_path):
    path = tmp_path / "c.avi"
    cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48)).release()
    with pytest.raises(NoCamera):
        next(camera.read(str(path)))
