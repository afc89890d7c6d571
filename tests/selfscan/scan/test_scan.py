from dataclasses import replace
from datetime import datetime, timedelta

import cv2
import numpy as np
import pytest
import torch

from selfscan.errors import ConsentMissing, NoFaceFound, SecondFace, TooFewFrames
from selfscan.face.align import apply, inside_frame, invert
from selfscan.face.observe import iter_crops, observe
from selfscan.io import video
from selfscan.io.digest import file_digest
from selfscan.io.pixels import to_tensor
from selfscan.perceptual.metric import load_perceptual
from selfscan.scan.consent import make_consent
from selfscan.scan.quality import assess
from selfscan.scan.scan import ScanSettings, _fitting, held_out_spans, inside, scan_observation, scan_video
from selfscan.scan.select import k_centre_distances
from selfscan.types import Alignment

SIDE, FRAMES, FPS = 256, 75, 25
SETTINGS = ScanSettings(frames=20, size=96, embed_size=64, perceptual="face")


def frames_of(path, count=FRAMES, skip=0):
    frames = []
    for index, (_, frame) in enumerate(video.read(path)):
        if index >= skip:
            frames.append(cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
        if len(frames) == count:
            return frames
    return frames


def clip(path, frames):
    video.write(path, frames, np.arange(len(frames)) / FPS, crf=12)
    return path


@pytest.fixture(scope="module")
def person(shared, tmp_path_factory):
    """Three seconds of a person who does not exist, with a small inset at the bottom left, and blinks."""
    return clip(tmp_path_factory.mktemp("scan") / "me at home é.mp4", frames_of(shared / "clips/scan-longhair.mp4"))


@pytest.fixture(scope="module")
def consent(person):
    return make_consent("Ada Example", person, fictional=True)


@pytest.fixture(scope="module")
def seen(person):
    return observe(person, SETTINGS.size)


@pytest.fixture(scope="module")
def made(person, consent):
    return scan_video(person, consent, SETTINGS)


def test_a_scan_holds_good_diverse_images(made, seen):
    assert made.images.shape == (20, 96, 96, 3) and made.images.dtype == np.uint8
    assert (np.diff(made.frame_index) > 0).all()
    np.testing.assert_allclose(made.landmarks, seen.landmarks[made.frame_index], atol=1e-5)
    assert made.quality.min() > 0 and made.perceptual == "lpips-face"
    np.testing.assert_array_equal(made.images[3], dict(iter_crops(seen))[made.frame_index[3]])


def test_a_scan_knows_which_pixels_the_camera_saw(made, seen):
    inside = inside_frame(made.frame_corners, 96, margin=0)
    for k in (0, 10, 19):
        back = invert(seen.alignment.crop_from_frame[made.frame_index[k]])
        scale = seen.alignment.size / 96
        x, y = (apply(back, scale * np.array([[0.5, 0.5], [95.5, 0.5], [95.5, 95.5], [0.5, 95.5]]))).T
        width, height = seen.track.frame_size
        within = (x >= 0) & (x <= width) & (y >= 0) & (y <= height)
        assert inside[k, [0, 0, 95, 95], [0, 95, 95, 0]].tolist() == within.tolist()


def test_picks_are_those_of_brute_force_distances(seen, consent):
    made = scan_observation(seen, consent, replace(SETTINGS, quality_weight=0.0, max_blinks=1.0, held_out=((0, 1.6),)))
    usable = np.flatnonzero(assess(seen).usable & (seen.track.times >= 1.6 - 1e-6))
    crops = dict(iter_crops(seen, SETTINGS.embed_size))
    x = to_tensor(np.stack([crops[i] for i in usable]))
    metric = load_perceptual("face")
    with torch.no_grad():
        matrix = np.stack([metric.distance(one.expand_as(x), x).numpy() for one in x])
    assert made.frame_index.tolist() == sorted(usable[k_centre_distances(matrix, 20)])


def test_extremes_of_the_clip_are_among_the_images(made):
    """The chosen images cover nearly the whole range of the clip."""
    for name in ("mouth_open", "smile", "yaw", "pitch"):
        whole, chosen = made.coverage.measures[name], made.coverage.measures[name][made.frame_index]
        assert np.ptp(chosen) > 0.75 * np.ptp(whole), name


def test_the_same_clip_gives_the_same_scan(made, seen, consent):
    again = scan_observation(seen, consent, SETTINGS)
    np.testing.assert_array_equal(again.frame_index, made.frame_index)
    np.testing.assert_array_equal(again.images, made.images)


def test_blinks_are_kept_but_few(seen, consent):
    closed = assess(seen).closed
    assert closed.sum() >= 4
    for share, expected in ((0.1, 2), (0.0, 0)):
        made = scan_observation(seen, consent, replace(SETTINGS, max_blinks=share))
        assert closed[made.frame_index].sum() == expected
        assert len(made) == 20


def test_held_out_seconds_are_never_used(seen, consent):
    made = scan_observation(seen, consent, replace(SETTINGS, frames=60, held_out=((0.2, 0.5),), hold_out_every=2))
    np.testing.assert_allclose(made.held_out, [[0.2, 0.5], [1, 2]])
    times = seen.track.times[made.frame_index]
    assert not inside(times, made.held_out).any()
    assert len(made) < 60  # only the remaining frames are chosen
    allowed = np.flatnonzero(~inside(seen.track.times, made.held_out) & assess(seen).usable)
    assert np.array_equal(made.clip_landmarks, seen.landmarks[allowed])


def test_every_fifth_second_is_counted_from_the_start():
    times = 0.1 + np.arange(400) / 25
    spans = held_out_spans(times, ScanSettings(hold_out_every=5))
    np.testing.assert_allclose(spans, [[4.1, 5.1], [9.1, 10.1], [14.1, 15.1]])
    assert inside(times, spans).sum() == 75
    assert held_out_spans(times, ScanSettings()).shape == (0, 2)
    for wrong in (ScanSettings(hold_out_every=1), ScanSettings(held_out=((3.0, 2.0),))):
        with pytest.raises(ValueError, match="expected"):
            held_out_spans(times, wrong)


def test_too_few_frames_say_why(seen, consent):
    with pytest.raises(TooFewFrames, match=r"at least 70 usable frames.*held out"):
        scan_observation(seen, consent, replace(SETTINGS, min_frames=70, held_out=((0.0, 1.0),)))


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_photos_are_told_as_photos(tmp_path, person, count):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, frame in zip("abc", frames_of(person, 9)[::3][:count]):
        cv2.imwrite(str(folder / f"{name}.png"), frame[..., ::-1])
    path = folder if count > 1 else folder / "a.png"
    with pytest.raises(TooFewFrames, match=r"at least 20 usable photos, got \d of \d .*; add photos") as told:
        scan_video(path, make_consent("Ada Example", path), replace(SETTINGS, min_frames=20))
    assert "clip is too short" not in str(told.value)


def test_a_second_person_refuses_the_scan(tmp_path, shared, person):
    frames = frames_of(person, 40)
    other = frames_of(shared / "clips/driver-mouth.mp4", 40)
    path = clip(tmp_path / "two.mp4", [np.concatenate(pair, 1) for pair in zip(frames, other)])
    with pytest.raises(SecondFace):
        scan_video(path, make_consent("Ada Example", path), SETTINGS)


def test_no_face_refuses_the_scan(tmp_path):
    path = clip(tmp_path / "empty.mp4", [np.full((SIDE, SIDE, 3), 90, np.uint8)] * 15)
    with pytest.raises(NoFaceFound):
        scan_video(path, make_consent("Ada Example", path), SETTINGS)


def test_consent_is_a_record_for_this_clip(person, consent, tmp_path):
    assert consent.name == "Ada Example" and consent.fictional and "does not exist" in consent.statement
    assert "consent" in make_consent("Ada Example", person).statement
    when = datetime.fromisoformat(consent.when)
    assert when.utcoffset() == timedelta(0)
    assert consent.video_sha256 == file_digest(person)
    with pytest.raises(ConsentMissing):
        make_consent("  ", person)
    with pytest.raises(ConsentMissing, match="make_consent"):
        scan_video(person, None, SETTINGS)


def test_consent_for_another_clip_refuses_the_scan(person, consent):
    with pytest.raises(ConsentMissing, match="another clip"):
        scan_video(person, replace(consent, video_sha256="0" * 64), SETTINGS)


def test_many_candidates_are_sketched(seen, consent, monkeypatch):
    """Beyond the limit for exact distances, a random projection is used; the images are about as diverse."""
    import selfscan.scan.scan as stage

    exact = scan_observation(seen, consent, SETTINGS)
    monkeypatch.setattr(stage, "EXACT", 10)
    sketched = scan_observation(seen, consent, SETTINGS)
    metric, crops = load_perceptual("face"), np.stack([image for _, image in iter_crops(seen, SETTINGS.embed_size)])
    rows = metric.embed_images(crops[assess(seen).usable])
    numbers = np.flatnonzero(assess(seen).usable)
    gaps = np.linalg.norm(rows[:, None, ::16] - rows[None, :, ::16], axis=-1)  # one sixteenth suffices, and fits

    def left(made) -> float:
        """Mean distance of the clip's frames to the nearest image of a scan."""
        return float(gaps[:, np.isin(numbers, made.frame_index)].min(1).mean())

    shared_picks = np.intersect1d(exact.frame_index, sketched.frame_index)
    assert len(sketched) == 20 and len(shared_picks) >= 8
    assert left(sketched) < 1.15 * left(exact)


@pytest.mark.parametrize("shown, size", [(230, 256), (400, 256), (420, 512), (560, 512), (2000, 512)])
def test_images_are_as_large_as_the_clip_shows_them(shown, size):
    """``shown``: pixels of the clip that the crop spans."""
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    matrix = np.concatenate([256 / shown * turn, [[5.0], [7.0]]], 1)
    assert _fitting(Alignment(np.repeat(matrix[None], 9, 0), 256), np.arange(5)) == size


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scan-turning", "scan-glasses", "scan-longhair"])
def test_real_clips(shared, name):
    path = shared / f"clips/{name}.mp4"
    made = scan_video(path, make_consent("Test", path), ScanSettings(hold_out_every=5, perceptual="face"))
    assert len(made) == 100 and sum(made.rejects.values()) < 15


def test_a_scan_with_cuts_takes_centred_images_away_from_them(person, tmp_path):
    """Every 18 frames the camera jumps and zooms; the landmarks in the crop show whether it is centred."""
    frames, cut_up = frames_of(person), []
    for k, frame in enumerate(frames):
        zoom, x, y = ((1.0, 0, 0), (0.7, -40, 20), (1.3, 10, -20), (0.8, 45, 10))[k // 18 % 4]
        middle = SIDE / 2 * (1 - zoom)
        matrix = np.array([[zoom, 0, middle + x], [0, zoom, middle + y]])
        cut_up.append(cv2.warpAffine(frame, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT))
    path = clip(tmp_path / "cut up.mp4", cut_up)
    seen = observe(path, SETTINGS.size)
    cuts = seen.track.cuts[:, 0]
    assert cuts.tolist() == [18, 36, 54, 72]
    made = scan_observation(seen, make_consent("Ada Example", path, fictional=True), SETTINGS)
    apart = np.minimum(np.abs(made.frame_index[:, None] - cuts), np.abs(made.frame_index[:, None] - cuts + 1)).min(1)
    assert apart.min() >= 2 and made.rejects["at a cut"] > 0
    assert [start for start, _ in made.cuts] == pytest.approx(cuts / FPS, abs=1e-3)
    eyes = made.landmarks[:, [33, 263], :2].mean(1)  # in crops; the alignment puts them at the same place
    assert np.abs(eyes - np.median(eyes, 0)).max() < 0.04
