"""Images that a person left out of a scan."""

from dataclasses import replace

import actor_avatar
import numpy as np
import pytest

from selfscan.errors import UnknownImage
from selfscan.scan.without import without


def test_what_belongs_to_other_images_stays():
    whole = actor_avatar.scan(6)
    corners = np.arange(48.0).reshape(6, 4, 2)
    made = without(replace(whole, frame_corners=corners, clip_landmarks=whole.landmarks), [10, 50])
    stays = [0, 2, 3, 4]
    assert made.frame_index.tolist() == [0, 20, 30, 40]
    for name in ("images", "landmarks", "quality"):
        np.testing.assert_array_equal(getattr(made, name), getattr(whole, name)[stays])
    np.testing.assert_array_equal(made.frame_corners, corners[stays])
    assert made.coverage is whole.coverage and len(made.clip_landmarks) == 6
    assert without(whole, ()) is whole


@pytest.mark.parametrize(("left_out", "told"), [([7], "image 7: expected .* such as 0"), (range(0, 60, 10), "all 6")])
def test_numbers_are_checked(left_out, told):
    with pytest.raises(UnknownImage, match=told):
        without(actor_avatar.scan(6), left_out)
