"""The check that a scan shows one person."""

import cv2
import numpy as np
import pytest

from selfscan.errors import ConsentMissing, SecondPerson
from selfscan.face.observe import observe
from selfscan.io import video
from selfscan.io.digest import file_digest
from selfscan.scan import identity
from selfscan.scan.consent import make_consent, with_clip
from selfscan.scan.identity import SAME, Faces, check_one_person, faces_of, likeness
from selfscan.scan.scan import ScanSettings, scan_video
from selfscan.types import Consent

SIDE, FPS = 256, 6  # two frames a second are measured


def frames_of(path, start, seconds):
    found = []
    for time, frame in video.read(path):
        if time >= start + seconds:
            break
        if time >= start + len(found) / FPS - 1e-6:
            found.append(cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    return found


def write(path, frames):
    video.write(path, frames, np.arange(len(frames)) / FPS, crf=12)
    return path


@pytest.fixture(scope="module")
def clips(shared, tmp_path_factory):
    """Return clips of two people: two clips of the first, and one in which the second appears for 2.5 s."""
    folder, source = tmp_path_factory.mktemp("people"), shared / "clips"
    ada, other = source / "scan-longhair.mp4", source / "driver-mouth.mp4"
    first, second = frames_of(ada, 0, 6.5), frames_of(other, 5, 2.5)
    return {"ada": write(folder / "ada.mp4", first), "ada again": write(folder / "again.mp4", frames_of(ada, 9, 3)),
            "other": write(folder / "other.mp4", frames_of(other, 2, 3)),
            "both": write(folder / "both.mp4", first[: 3 * FPS] + second + first[3 * FPS :])}  # fmt: skip


@pytest.fixture(scope="module")
def faces(clips):
    return {name: faces_of(observe(path)) for name, path in clips.items()}


def test_one_person_passes_and_is_the_same_in_another_clip(clips, faces):
    found = check_one_person(clips["ada"], faces["ada"])
    assert found.lowest > SAME + 0.1 and found.seconds >= 5 and found.threshold == SAME
    assert likeness(faces["ada"], faces["ada again"]) > SAME + 0.2
    assert likeness(faces["ada"], faces["other"]) < SAME - 0.1


def test_a_second_person_for_two_and_a_half_seconds_refuses_the_scan_and_names_them(clips, faces):
    _, strangers = identity.find_strangers(faces["both"])
    assert len(strangers) == 1 and abs(strangers[0].start - 3) <= 1 and abs(strangers[0].end - 5.5) <= 1
    with pytest.raises(SecondPerson, match=r"the face from \d\.\d to \d\.\d s is not that of the rest"):
        scan_video(clips["both"], make_consent("Ada", clips["both"], fictional=True), ScanSettings(perceptual="face"))


def test_whoever_is_shown_longer_is_the_person(faces):
    """Cells are sums, so clips can be joined in any order; the shorter part counts as the second person."""
    ada, other = faces["ada"], faces["other"]
    for parts, strange in (([other, ada], slice(0, 3)), ([ada, other], slice(-3, None))):
        total, count = (np.concatenate([getattr(p, k) for p in parts]) for k in ("total", "count"))
        seen = Faces(np.arange(len(total)) / 2, total, count)
        _, strangers = identity.find_strangers(seen)
        assert len(strangers) == 1 and strangers[0].start <= seen.start[strange].mean() <= strangers[0].end


def test_consent_by_somebody_else_is_refused(clips, faces):
    consent = Consent("Ada", "I agree", "2026-01-01T00:00:00Z", "0" * 64)
    with pytest.raises(SecondPerson, match="expected the person of the scan"):
        with_clip(consent, faces["ada"], clips["other"])
    made = with_clip(consent, faces["ada"], clips["ada again"]).clip
    assert made.video_sha256 == file_digest(clips["ada again"]) and made.words is None
    assert made.likeness == pytest.approx(likeness(faces["ada"], faces["ada again"])) and made.threshold == SAME
    nobody = Faces(np.zeros(0), np.zeros((0, 128)), np.zeros(0))
    with pytest.raises(ConsentMissing, match="the scan does not show it"):
        with_clip(consent, nobody, clips["ada again"])


def test_what_shows_no_face_is_not_judged():
    nothing = Faces(np.zeros(2), np.zeros((2, 128)), np.zeros(2))
    found, strangers = identity.find_strangers(nothing)
    assert found.lowest is None and found.seconds == 0 and strangers == []
    assert np.isnan(likeness(nothing, nothing))
