"""Evaluation of an avatar with known pictures: perfect, shifted, blurred."""

import dataclasses
import json
import re

import cv2
import numpy as np
import pytest
import torch
from memory_checkpoints import MemoryCheckpoints

from mystudio.errors import StudioError
from mystudio.evaluation.evaluate import choose_columns, evaluate
from mystudio.evaluation.scorecard import held_out_of
from mystudio.evaluation.warnings import Case
from mystudio.motion.performance import from_observation
from mystudio.types import Styles, Take
from selfscan.face.observe import iter_crops, observe
from selfscan.io import video
from selfscan.io.pixels import to_tensor
from selfscan.scan.coverage import coverage
from selfscan.scan.joined import clips_of, joined, own_frames
from selfscan.scan.scan import ScanSettings, held_out_spans, inside
from selfscan.types import Consent, ConsentRecording, Scan, Span

FRAMES = 10


class Replay(torch.nn.Module):
    """A generator that draws given pictures one after the other."""

    resolution, num_ws = 256, 1

    def __init__(self, pictures: np.ndarray):
        super().__init__()
        self.pictures, self.at = torch.nn.Parameter(to_tensor(pictures)), 0

    def styles(self, ws):
        return Styles((ws[:, 0],))

    def synthesize(self, styles, *how):
        start, self.at = self.at, self.at + len(styles.vectors[0])
        return self.pictures[start : self.at]


@pytest.fixture(scope="module")
def filmed(shared, tmp_path_factory):
    """A real face that moves a little in a small video, and its measurement."""
    face = cv2.cvtColor(cv2.imread(str(shared / "faces256" / "00004.jpg")), cv2.COLOR_BGR2RGB)
    path = tmp_path_factory.mktemp("filmed") / "driver.mp4"
    frames = []
    for t in range(FRAMES):
        move = np.float32([[1, 0.01 * np.sin(t), 60 + 5 * np.sin(t)], [0.015 * np.cos(t), 1, 30 + 3 * np.cos(2 * t)]])
        frames.append(cv2.warpAffine(face, move, (380, 320), borderMode=cv2.BORDER_REPLICATE))
    video.write(path, frames, np.arange(FRAMES) / 25, crf=8)
    return from_observation(observe(path))


@pytest.fixture(scope="module")
def crops(filmed):
    return np.stack([crop for _, crop in iter_crops(filmed.observation)])


@pytest.fixture(scope="module")
def scan(filmed, crops):
    seen = filmed.observation
    consent = Consent("Ada Nobody", "does not exist", "2024-01-01T00:00:00Z", seen.video_sha256, fictional=True)
    return Scan(crops[::2], seen.landmarks[::2], np.arange(0, FRAMES, 2), np.ones(5, np.float32), {"blurred": 3},
                coverage(seen), consent, "test metric", np.array([[0.18, 0.30]]))  # fmt: skip


def acted(tiny_avatar, filmed, pictures):
    """An avatar that draws these pictures, and its take."""
    rank = tiny_avatar.state.space.rank
    take = Take({"axes": torch.zeros(FRAMES, 1, rank)}, np.zeros(FRAMES, np.uint8), filmed.observation.track.times, {})
    return dataclasses.replace(tiny_avatar, generator=Replay(pictures)), take


def value(numbers, name):
    return {row["name"]: row for row in numbers["metrics"]}[name]["value"]


def test_a_perfect_avatar_is_perfect_in_every_metric(tiny_avatar, filmed, crops, scan, shared, tmp_path):
    net = shared / "weights" / "mobilefacenet_arcface_128d.onnx"
    avatar, take = acted(tiny_avatar, filmed, crops)
    numbers = evaluate(
        avatar, take, filmed, tmp_path, scan=scan, truth="same", identity_net=net, batch=4,
        recipe={"take": {"steps": 6}}, blendshapes=shared / "weights" / "face_landmarker.task",
        edit_sheet=cv2.imencode(".png", crops[0])[1].tobytes(),
    )  # fmt: skip
    for name in ("keypoints", "pose", "expression", "gaze", "perceptual", "blendshapes"):
        assert value(numbers, name) == pytest.approx(0, abs=0.02), name
    assert value(numbers, "psnr") > 45 and value(numbers, "ssim") > 0.999
    for name in ("jitter", "head_motion", "expression_motion"):
        assert value(numbers, name) == pytest.approx(1, abs=0.02), name
    assert value(numbers, "sharpness") == pytest.approx(1, abs=0.15)
    assert value(numbers, "identity_share") > 0.99
    assert value(numbers, "likeness") > value(numbers, "own_likeness") > 0.7  # half of its pictures are the scan's
    assert value(numbers, "likeness_driver") == pytest.approx(value(numbers, "likeness"), abs=0.02)
    assert numbers["held_out_frames"] == 3
    stored = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)  # no NaN in the file
    assert [row["name"] for row in stored["metrics"]] == [row["name"] for row in numbers["metrics"]]
    assert all(len(row["definition"]) > 20 for row in stored["metrics"])
    text = (tmp_path / "report.html").read_text()
    assert "Ada Nobody, driven by driver.mp4" in text and "held-out frames" in text
    assert "blurred 3" in text and "this person does not exist" in text


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("part", [Span(), Span(2.0)])
def test_the_held_out_seconds_are_those_of_the_clip_that_drives(tiny_avatar, filmed, scan, take, number, part):
    """A scan's times run through both clips; whichever of them drives, the frames that the scan did not use count."""
    seen = dataclasses.replace(filmed.observation, span=part)
    other = dataclasses.replace(seen, video_sha256="0" * 64)
    pair = [seen, other] if number == 0 else [other, seen]
    whole, clips = joined(pair), clips_of(pair)
    spans = held_out_spans(whole.track.times, ScanSettings(held_out=((0.18, 0.30), (1.43, 1.51))))
    frames = own_frames(np.flatnonzero(inside(whole.track.times, spans)), clips[number])
    assert len(frames) == (3, 2)[number]
    digests = pair[0].video_sha256, (ConsentRecording(pair[1].video_sha256),)
    consent = dataclasses.replace(scan.consent, video_sha256=digests[0], others=digests[1])
    scan = dataclasses.replace(scan, held_out=spans, clips=clips, consent=consent)
    times = seen.track.times + part.start  # the whole clip drives
    driver = dataclasses.replace(seen, span=Span(), track=dataclasses.replace(seen.track, times=times))
    found = held_out_of(Case(tiny_avatar, take, driver, None, scan))
    np.testing.assert_array_equal(np.flatnonzero(inside(times, found)), frames)
    older = dataclasses.replace(scan, clips=tuple(dataclasses.replace(clip, begins=None) for clip in clips))
    again = held_out_of(Case(tiny_avatar, take, seen, None, older))  # the scanned part drives
    np.testing.assert_array_equal(np.flatnonzero(inside(seen.track.times, again)), frames)
    stranger = dataclasses.replace(driver, video_sha256="1" * 64)
    assert not len(held_out_of(Case(tiny_avatar, take, stranger, None, scan)))


def test_moved_and_blurred_pictures_are_told_apart(tiny_avatar, filmed, crops, scan, tmp_path):
    seen = filmed.observation
    shift = np.float32([[1, 0, 0.02 * 256], [0, 1, 0]])
    moved = np.stack([cv2.warpAffine(c, shift, (256, 256), borderMode=cv2.BORDER_REPLICATE) for c in crops])
    avatar, take = acted(tiny_avatar, filmed, moved)
    numbers = evaluate(avatar, take, filmed, tmp_path, scan=scan, truth="same")
    eye = np.linalg.norm(seen.landmarks[:, 33] - seen.landmarks[:, 263], axis=-1).mean()
    assert value(numbers, "keypoints") == pytest.approx(100 * 0.02 / eye, rel=0.1)
    assert value(numbers, "pose") < 1.5 and value(numbers, "psnr") < 30
    blurred = np.stack([cv2.GaussianBlur(c, (0, 0), 3) for c in crops])
    avatar, take = acted(tiny_avatar, filmed, blurred)
    numbers = evaluate(avatar, take, filmed, tmp_path, scan=scan)
    assert value(numbers, "sharpness") < 0.5
    assert any("as sharp as in the scan: it looks soft" in text for text in numbers["warnings"])


def test_without_networks_and_truth_it_says_what_was_not_measured(tiny_avatar, filmed, crops, scan, tmp_path):
    avatar, take = acted(tiny_avatar, filmed, crops)
    take = dataclasses.replace(take, outcome=np.array([0, 0, 2, 1, 3] + [0] * 5, np.uint8))
    numbers = evaluate(avatar, take, filmed, tmp_path, scan=scan)
    rows = {row["name"]: row for row in numbers["metrics"]}
    assert "identity" not in rows and rows["likeness"]["value"] > 0.7
    assert not {"psnr", "keypoints"} & set(rows) and rows["keypoints_by_part"]["value"] == pytest.approx(0, abs=0.05)
    words = " ".join(numbers["warnings"])
    for expected in ("1 of 10 frames had no face and were held.", "1 of 10 frames could not be solved",
                     "1 of 10 frames stopped at the recipe's step limit.", "no true result"):  # fmt: skip
        assert expected in words
    assert json.loads((tmp_path / "metrics.json").read_text())["per_frame"]["usable"][2] is False


def test_another_clip_as_truth_is_observed_and_must_be_as_long(tiny_avatar, filmed, crops, tmp_path):
    avatar, take = acted(tiny_avatar, filmed, crops)
    numbers = evaluate(avatar, take, filmed, tmp_path / "new", truth=filmed.observation.video)
    assert value(numbers, "psnr") > 45 and "against driver.mp4" in numbers["summary"]
    images = [frame for _, frame in video.read(filmed.observation.video)]
    video.write(tmp_path / "short.mp4", images[:6], np.arange(6) / 25)
    with pytest.raises(StudioError, match="truth video of 10 frames, as the take, got 6"):
        evaluate(avatar, take, filmed, tmp_path, truth=tmp_path / "short.mp4")


def test_an_edited_take_shows_both_and_names_the_edits(tiny_avatar, filmed, crops, take, performance, tmp_path):
    from mystudio.types import Edit

    edited = dataclasses.replace(take, codes={"axes": take.codes["axes"] + 1}, edits=(Edit("smile", 1.0),))
    numbers = evaluate(tiny_avatar, edited, performance, tmp_path, unedited=take)
    text = (tmp_path / "report.html").read_text()
    assert numbers["facts"]["edits"] == "smile 1.0"
    for row in ("driver", "avatar", "edited"):
        assert f'<th>{row}</th><td><img src="data:image/jpeg' in text


def test_columns_show_the_extremes_once_each_in_order(filmed, take):
    chosen = choose_columns(filmed.observation, dataclasses.replace(take, codes={"axes": take.codes["axes"][:FRAMES]},
                            outcome=take.outcome[:FRAMES], times=take.times[:FRAMES]))  # fmt: skip
    assert chosen == sorted(set(chosen)) and len(chosen) == 8 and not {4, 5} & set(chosen)


def test_an_evaluation_goes_on_after_its_last_chunk_and_ends_in_the_same_numbers(
    tiny_avatar, filmed, scan, tmp_path, monkeypatch
):
    monkeypatch.setattr("selfscan.checkpoints.CHUNK", 4)
    rank = tiny_avatar.state.space.rank
    codes = torch.randn(FRAMES, tiny_avatar.generator.num_ws, rank, generator=torch.Generator().manual_seed(1))
    take = Take({"axes": codes}, np.zeros(FRAMES, np.uint8), filmed.observation.track.times, {})

    def run(out, keep, progress=lambda *_: None):
        evaluate(
            tiny_avatar,
            take,
            filmed,
            tmp_path / out,
            scan=scan,
            truth=filmed.observation.video,
            checkpoints=keep,
            progress=progress,
        )
        page = re.sub(r"\bp[0-9a-f]{10}\b", "p", (tmp_path / out / "report.html").read_text())  # names of drawn clips
        return (tmp_path / out / "metrics.json").read_bytes(), page

    whole, kept, told = run("whole", MemoryCheckpoints()), MemoryCheckpoints(), []
    kept.most = 9  # the truth (4 tracked, 3 measured), the scan, and one chunk: two chunks remain
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run("out", kept)
        kept.most += 1
    again = run("out", kept, lambda stage, done, total: told.append((stage, done)))
    assert again == whole
    assert [done for stage, done in told if stage == "evaluate"] == [4, 8, 10]
    assert ("look at the scan", 5) not in told
