"""Several clips of one person make one scan."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
from memory_checkpoints import MemoryCheckpoints

from mystudio.demo import FOLDER
from selfscan.errors import ConsentMissing, SecondPerson, TooFewFrames
from selfscan.face.observe import iter_crops, observe
from selfscan.io import video
from selfscan.io.digest import file_digest
from selfscan.scan.consent import make_consent
from selfscan.scan.joined import clips_of, joined
from selfscan.scan.quality import assess
from selfscan.scan.scan import ScanSettings, scan_clips, scan_observation, scan_observations, scan_video
from selfscan.types import CodeWords, Said

SIDE, FRAMES, FPS = 256, 16, 12.5
SETTINGS = ScanSettings(frames=12, size=96, embed_size=64, perceptual="face", min_frames=12)


def part(folder, name, source, skip, size=SIDE):
    """A second and a quarter of a packaged clip."""
    found = []
    for index, (_, frame) in enumerate(video.read(FOLDER / source)):
        if index >= skip and (index - skip) % 2 == 0:
            found.append(cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA))
        if len(found) == FRAMES:
            break
    video.write(folder / name, found, np.arange(len(found)) / FPS, crf=12)
    return folder / name


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two clips of the demo person, the second one smaller, and one of somebody else."""
    folder = tmp_path_factory.mktemp("clips")
    return [part(folder, "a.mp4", "scan.mp4", 0), part(folder, "b.mp4", "scan.mp4", 120, 224)], part(
        folder, "other.mp4", "driver.mp4", 0
    )


@pytest.fixture(scope="module")
def consent(clips):
    words = CodeWords((Said("blue seven tree", 0.0, 1.0),), "2026-11-28T00:00:00Z", "0" * 64)
    (a, b), _ = clips
    return make_consent("Ada Example", a, True, None, [(b, words)])


@pytest.fixture(scope="module")
def seen(clips):
    return [observe(path, SETTINGS.size) for path in clips[0]]


@pytest.fixture(scope="module")
def made(clips, consent):
    return scan_clips(clips[0], consent, SETTINGS)


def test_every_image_is_the_frame_of_its_clip(made, seen, clips):
    assert [clip.name for clip in made.clips] == ["a.mp4", "b.mp4"]
    assert [clip.video_sha256 for clip in made.clips] == [file_digest(path) for path in clips[0]]
    assert set(made.clip_index.tolist()) == {0, 1} and (np.diff(made.frame_index) > 0).all()
    for number, which, image, marks in zip(made.frame_index, made.clip_index, made.images, made.landmarks):
        own = number - made.clips[which].first
        assert 0 <= own < made.clips[which].frames
        np.testing.assert_array_equal(image, dict(iter_crops(seen[which]))[own])
        np.testing.assert_allclose(marks, seen[which].landmarks[own], atol=1e-5)


def test_the_images_are_chosen_over_all_clips(made, seen):
    """Every clip is judged as alone, the frames of both are candidates, and no more than asked for are chosen."""
    qualities = [assess(one) for one in seen]
    usable = np.concatenate([quality.usable for quality in qualities])
    assert len(made) == SETTINGS.frames < usable.sum() and usable[made.frame_index].all()
    np.testing.assert_array_equal(made.quality, np.concatenate([q.score for q in qualities])[made.frame_index])
    assert len(made.clip_landmarks) == usable.sum()
    assert len(made.coverage.measures["yaw"]) == len(seen[0]) + len(seen[1])
    assert Counter(made.rejects) == sum((Counter(quality.rejects()) for quality in qualities), Counter())


def test_the_consent_names_every_clip_and_its_words(made, clips):
    assert made.consent.digests == tuple(file_digest(path) for path in clips[0])
    assert made.consent.words is None and made.consent.others[0].words.said[0].mouth > 0
    with pytest.raises(ConsentMissing, match=r"for another clip; make one for .*b\.mp4"):
        scan_clips(clips[0], make_consent("Ada Example", clips[0][0], True), SETTINGS)


def test_somebody_else_in_another_clip_is_refused_by_name(clips):
    (a, _), other = clips
    with pytest.raises(SecondPerson, match=r"other\.mp4: expected the person of .*a\.mp4, but this face is another"):
        scan_clips([a, other], make_consent("Ada", a, True, None, [(other, None)]), SETTINGS)


def test_one_clip_is_as_before(clips, consent, seen, made):
    alone = scan_video(clips[0][0], make_consent("Ada Example", clips[0][0], True), SETTINGS)
    assert alone.clips == made.clips[:1] and not alone.clip_index.any() and not alone.consent.others
    assert joined(seen[:1]) is seen[0]
    with pytest.raises(TooFewFrames):
        scan_observation(seen[0], consent, replace(SETTINGS, min_frames=len(seen[0]) + 1))


def test_times_follow_each_other_so_that_spans_are_held_out_of_both(seen, consent, made):
    times, (first, second) = joined(seen).track.times, clips_of(seen)
    assert (np.diff(times) > 0).all() and times[second.first] == second.start
    np.testing.assert_array_equal(times[: len(seen[0])], seen[0].track.times)
    np.testing.assert_allclose(np.diff(times[second.first :]), np.diff(seen[1].track.times))
    spans = ((first.start, first.start + 0.3), (second.start, second.start + 0.3))
    kept = scan_observations(seen, consent, replace(SETTINGS, held_out=spans, min_frames=1))
    own = joined(seen).track.times[kept.frame_index]
    assert not any(((own >= a) & (own < b)).any() for a, b in spans)


def test_a_stopped_scan_goes_on_with_each_clip_where_it_was(clips, consent, made):
    """What a clip measured is its own: the second clip's checkpoints are never taken for the first one's."""
    kept, told = MemoryCheckpoints(), set()

    def stop(stage: str, done: int, total: int) -> None:
        told.add(stage)
        if stage == "compare" or stage == "clip 2: compare":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_clips(clips[0], consent, SETTINGS, stop, checkpoints=kept)
    assert {"clip 1: measure", "clip 2: measure", "clip 2: quality"} <= told
    again = scan_clips(clips[0], consent, SETTINGS, checkpoints=kept)
    np.testing.assert_array_equal(again.images, made.images)
    np.testing.assert_array_equal(again.frame_index, made.frame_index)
