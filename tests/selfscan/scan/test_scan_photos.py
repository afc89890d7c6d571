"""Scans of one photo, of a few, and of photos of two people."""

import cv2
import numpy as np
import pytest

from selfscan.errors import SecondPerson, TooFewFrames
from selfscan.io import video
from selfscan.scan import identity
from selfscan.scan.consent import make_consent
from selfscan.scan.identity import SAME_PHOTO, Faces
from selfscan.scan.scan import ScanSettings, scan_video

SETTINGS = ScanSettings(size=96, embed_size=64, perceptual="face")


def photos(path, count, every=9):
    """Some frames of a clip, 256 px."""
    found = []
    for index, (_, frame) in enumerate(video.read(path)):
        if index % every == 0:
            found.append(cv2.resize(frame, (256, 256), interpolation=cv2.INTER_AREA))
        if len(found) == count:
            break
    return found


@pytest.fixture(scope="module")
def ada(shared):
    return photos(shared / "clips/scan-longhair.mp4", 4)


@pytest.fixture(scope="module")
def other(shared):
    return photos(shared / "clips/driver-mouth.mp4", 1)


def folder(path, pictures, names="abcdefgh"):
    path.mkdir()
    for name, picture in zip(names, pictures):
        cv2.imwrite(str(path / f"{name}.png"), picture[..., ::-1])
    return path


def scanned(path):
    return scan_video(path, make_consent("Ada Example", path), SETTINGS)


def test_one_photo_is_a_scan_of_one_image(ada, tmp_path):
    path = folder(tmp_path / "one", ada[:1]) / "a.png"
    made, again = scanned(path), scanned(tmp_path / "one")
    assert made.images.shape == (1, 96, 96, 3) and made.frame_index.tolist() == [0] and not made.rejects
    assert made.clip_landmarks.shape == (1, 478, 3) and made.frame_corners.shape == (1, 4, 2)
    assert np.isfinite(made.landmarks).all() and 0 < made.quality[0] <= 1
    assert made.consent.name == "Ada Example" and made.identity.lowest == pytest.approx(1)
    assert any("single picture" in words for words in made.warnings)
    assert np.array_equal(made.images, again.images)  # the photo, and a folder that holds it alone


def test_a_few_photos_are_a_scan_of_them_all(ada, tmp_path):
    made = scanned(folder(tmp_path / "few", ada[:3]))
    assert len(made) == 3 and made.frame_index.tolist() == [0, 1, 2]
    assert made.identity.threshold == SAME_PHOTO < 0.6 < made.identity.lowest


@pytest.mark.parametrize("count", [1, 3])
def test_a_photo_of_somebody_else_refuses_the_scan_and_is_named(ada, other, tmp_path, count):
    path = folder(tmp_path / "mixed", ada[:count] + other)
    with pytest.raises(SecondPerson, match=f"photo {count + 1} .* shows another face"):
        scanned(path)


def test_a_stranger_among_many_photos_is_not_averaged_with_its_neighbours():
    """Photos in a row are not moments in a row: a window of several would hide a single other person."""
    one, two = np.zeros((1, 128), np.float32), np.full((1, 128), 0.1, np.float32)  # 1.13 apart
    rows = np.concatenate([one] * 7 + [two] + [one] * 7)
    seen = Faces(np.arange(15.0), rows, np.ones(15))
    found, strangers = identity.find_strangers(seen, photos=True)
    assert [s.start for s in strangers] == [7] and found.lowest < 0
    assert not identity.find_strangers(seen)[1]  # a third of this window of a clip


def test_a_clip_of_a_few_frames_is_still_refused(ada, tmp_path):
    path = tmp_path / "short.mp4"
    video.write(path, [ada[0]] * 6, np.arange(6) / 25, crf=12)
    with pytest.raises(TooFewFrames, match="at least 12 usable frames, got 6 of 6 .*the clip is too short"):
        scanned(path)


def test_numbered_pictures_are_told_how_they_become_photos(ada, tmp_path):
    path = folder(tmp_path / "numbered", ada[:3], ("photo1", "photo2", "photo3"))
    with pytest.raises(TooFewFrames, match="numbered pictures count as a clip; give photos .* names without numbers"):
        scanned(path)


def test_a_photo_without_a_usable_face_says_why(ada, tmp_path):
    dark = (ada[0] * 0.03).astype(np.uint8)
    with pytest.raises(TooFewFrames, match=r"at least 1 usable photo, got 0 of 2 .*too dark"):
        scanned(folder(tmp_path / "dark", [dark, dark]))
