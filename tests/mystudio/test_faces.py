"""One of several faces: the picture that numbers them, and what the stages store of the choice."""

import cv2
import numpy as np
import pytest

from mystudio import faces
from selfscan.errors import SecondFace
from selfscan.face import crowd_picture
from selfscan.io import video


@pytest.fixture
def room(tmp_path):
    """A clip of five grey frames, and two boxes in its third one."""
    path = tmp_path / "room.mp4"
    video.write(path, (np.full((120, 160, 3), 60 + 20 * k, np.uint8) for k in range(5)), np.arange(5) / 25, crf=5)
    return path, np.array([[2, 20, 30, 60, 80], [2, 90, 20, 140, 90]], float)


def test_the_default_face_is_not_stored():
    assert faces.chosen("largest") == {} and faces.chosen("left") == {"face": "left"}


def test_the_picture_shows_the_frame_with_a_box_around_each_face(room):
    path, crowd = room
    picture = cv2.imdecode(np.frombuffer(crowd_picture.draw(path, crowd), np.uint8), cv2.IMREAD_COLOR)
    height, width = picture.shape[:2]
    scale = width / 160
    assert width == crowd_picture.LONG_SIDE and height == 720
    assert abs(int(picture[height - 5, width - 5, 0]) - 100) < 4  # the third frame
    red = (picture[..., 2] > 150) & (picture[..., 0] < 90)
    for left, top, right, bottom in (crowd[:, 1:] * scale).astype(int):
        assert red[(top + bottom) // 2, [left, right]].all() and red[[top, bottom], (left + right) // 2].all()
    assert not red[:, int(70 * scale) : int(80 * scale)].any()


def test_a_scan_that_a_second_face_stops_has_a_picture_beside_it(room, tmp_path):
    path, crowd = room
    with pytest.raises(SecondFace, match="two people; .*me.scan.faces.png numbers the faces"):
        with faces.numbered(tmp_path / "me.scan"):
            raise SecondFace("two people", crowd, path)
    assert (tmp_path / "me.scan.faces.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SecondFace, match="^two people$"):
        with faces.numbered(tmp_path / "you.scan"):
            raise SecondFace("two people")
