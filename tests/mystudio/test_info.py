"""``mystudio info``: six true lines about what a user may have, and one sentence about what it cannot read."""

import itertools
import json
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from foreign_files import RosinalityGenerator, random_generator, torch_bytes
from PIL import Image

from mystudio.bases import find_base
from mystudio.cli import cli
from mystudio.demo import FOLDER
from mystudio.provenance import signing
from mystudio.storage import archive, artifacts, workspace
from mystudio.storage.journal import journal
from mystudio.stylegan2.checkpoint import save_generator
from selfscan.io import video
from selfscan.io.facts import varies

SIZE = 96, 128  # px, height and width


def told(path, code=0):
    """The facts that the command gives; ``lines`` holds the six lines."""
    result = CliRunner().invoke(cli, ["info", str(path), "--json"])
    assert result.exit_code == code, result.output
    facts = json.loads(result.stdout.splitlines()[-1])
    if code:
        return facts["error"]
    assert facts["path"] == str(path) and len(facts["lines"]) == 6 and all(facts["lines"].values())
    return facts


def texture(seed, shift=0):
    """A textured picture [H, W, 3] uint8 that moves to the side."""
    rough = np.random.default_rng(seed).integers(0, 255, (8, 30, 3), np.uint8)
    wide = np.asarray(Image.fromarray(rough).resize((400, SIZE[0]), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(wide[:, shift : shift + SIZE[1]])


def clip(path, frames, stamps=None, sounds=(), prepare=None, codec="libx264", form="yuv420p", options=None):
    """Write a clip by PyAV alone; stamps in ms; sounds: (language, default mark) of each track."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], form
        stream.codec_context.time_base = Fraction(1, 1000)
        if prepare:
            prepare(stream)
        tracks = [out.add_stream("aac", rate=44_100) for _ in sounds]
        for track, (language, default) in zip(tracks, sounds):
            track.codec_context.layout = "stereo"
            track.metadata["language"] = language
            track.disposition = av.stream.Disposition.default if default else 0
        for k, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=form)
            frame.pts, frame.time_base = stamps[k] if stamps else 40 * k, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        for track, (language, _) in zip(tracks, sounds):
            wave = np.random.default_rng(0).normal(0, 3000 if language == "eng" else 0, (1, 2048)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="stereo")
            frame.sample_rate = 44_100
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
    return path


def test_a_clip_with_a_face(tmp_path):
    frames = [image for _, image in itertools.islice(video.read(FOLDER / "driver.mp4"), 8)]
    facts = told(clip(tmp_path / "me.mp4", frames))
    assert facts["kind"] == "clip" and (facts["faces"], facts["frames"], facts["cuts"]) == (1, 8, [])
    assert facts["frames_with_a_face"] == 1.0 and 100 < facts["face_width"] < 400
    assert facts["lines"]["faces"] == f"one face in 100% of 8 frames, {facts['face_width']} px wide"
    assert "`mystudio scan" in facts["lines"]["use"] and "it is short" in facts["lines"]["use"]


def test_a_clip_of_two_shots_without_a_face_and_with_two_sound_tracks(tmp_path):
    frames = [texture(1, k) for k in range(15)] + [texture(2, k) for k in range(15)]
    facts = told(clip(tmp_path / "a.mkv", frames, sounds=[("eng", False), ("fra", True)]))
    assert facts["cuts"] == [[0.6, 0.6]] and facts["lines"]["cuts"] == "1, at 0.60 s"
    assert facts["faces"] == 0 and "needs a face" in facts["lines"]["use"]
    assert [(s["codec"], s["channels"], s["language"], s["default"]) for s in facts["sounds"]] == [
        ("aac", 2, "eng", False), ("aac", 2, "fra", True)]  # fmt: skip
    assert (
        facts["lines"]["sound"]
        == "2 tracks: 1 aac, stereo, 44.1 kHz, eng; 2 aac, stereo, 44.1 kHz, fra, default; results take track 1"
    )
    assert facts["lines"]["what"] == "a.mkv: a clip (mkv or webm, h264), 1.20 s"
    assert facts["lines"]["picture"] == "128x96 px, 25 frames a second, about 30 frames, SDR BT.709"


def test_a_rotated_clip_of_variable_rate(tmp_path):
    stamps = list(itertools.accumulate(itertools.islice(itertools.cycle([20, 60, 40, 33]), 24), initial=0))
    path = clip(tmp_path / "a.mov", [texture(1)] * 25, stamps, prepare=lambda stream: stream.set_display_rotation(90.0))
    facts = told(path)
    assert (facts["width"], facts["height"], facts["rotation"]) == (96, 128, 270) and facts["variable"]
    assert "96x128 px, turned by 270 degrees, variable, on average 25.91 frames a second" in facts["lines"]["picture"]


def test_an_hdr_clip_and_an_interlaced_one(tmp_path):
    def tag(stream):
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 9, 9, 18, 1

    facts = told(clip(tmp_path / "hdr.mkv", [texture(1)] * 4, prepare=tag, codec="ffv1", form="yuv420p10le"))
    assert facts["hdr"] and (facts["light"], facts["primaries"]) == ("HLG", "BT.2020")
    assert "HDR (HLG, BT.2020)" in facts["lines"]["picture"] and "tone-mapped to SDR" in facts["lines"]["use"]
    fields = {"flags": "+ilme+ildct", "x264-params": "tff=1"}
    facts = told(clip(tmp_path / "fields.mp4", [texture(1)] * 4, options=fields))
    assert facts["interlaced"] and not facts["hdr"] and facts["lines"]["picture"].endswith("interlaced")


def test_pictures_alone_moving_and_in_folders(tmp_path):
    Image.fromarray(texture(1)).save(tmp_path / "a.png")
    facts = told(tmp_path / "a.png")
    assert facts["kind"] == "picture" and facts["lines"]["what"] == "a.png: a picture"
    assert facts["lines"]["picture"] == "128x96 px" and facts["lines"]["sound"] == "none"
    moving = [Image.fromarray(texture(1, k)) for k in range(5)]
    moving[0].save(tmp_path / "a.webp", save_all=True, append_images=moving[1:], duration=100)
    facts = told(tmp_path / "a.webp")
    assert facts["kind"] == "clip" and facts["lines"]["what"] == "a.webp: an animated picture, 0.50 s"
    for name, stills in (("holiday", True), ("numbered", False)):
        folder = tmp_path / name
        folder.mkdir()
        for k, image in enumerate(moving):
            image.save(folder / (f"{'beach' * (k + 1)}.jpg" if stills else f"{k:03d}.jpg"))
        facts = told(folder)
        assert facts["stills"] is stills and facts["kind"] == ("picture" if stills else "clip")
        assert f"a folder with 5 {'photos' if stills else 'pictures that are a clip'}" in facts["lines"]["what"]


@pytest.fixture
def made(tiny_avatar, take, performance, driving_clip, tmp_path):
    """Artifacts of a tiny avatar, and their folder."""
    for name, artifact, inputs in (
        ("me.avatar", tiny_avatar, {}),
        ("driver.performance", performance, {"video": driving_clip}),
        ("hello.take", take, {"avatar": tmp_path / "me.avatar", "performance": tmp_path / "driver.performance"}),
    ):
        with workspace.stage(tmp_path / name, artifacts.KINDS[type(artifact)], inputs, {}) as run:
            artifacts.save(artifact, run)
    return tmp_path


def test_artifacts(made):
    facts = told(made / "me.avatar")
    assert facts["kind"] == "avatar" and (facts["resolution"], facts["engine"]) == (32, "personal")
    assert facts["undamaged"] and facts["lines"]["person"] == "Ada Nobody, who does not exist"
    facts = told(made / "hello.take")
    assert facts["outcomes"] == {"converged": 10, "no_face": 2} and "12 frames, 0.47 s" in facts["lines"]["content"]
    assert facts["inputs"] == {"avatar": "me.avatar", "performance": "driver.performance"}
    assert "its inputs are there" in facts["lines"]["state"]
    assert "a face in 83% of them" in told(made / "driver.performance")["lines"]["content"]


def test_what_moved_or_was_damaged_is_told(made):
    (made / "me.avatar").rename(made / "you.avatar")
    assert told(made / "hello.take")["lines"]["state"].endswith("moved or changed since: avatar me.avatar")
    file = next((made / "you.avatar").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    assert "is damaged" in told(made / "you.avatar", code=1)


def test_a_packed_avatar_and_an_unfinished_run(made):
    archive.pack(made / "me.avatar", made / "me.zip")
    facts = told(made / "me.zip")
    assert facts["kind"] == "archive" and facts["type"] == "avatar" and "avatar unpack" in facts["lines"]["use"]
    (journal(made / "next.take", "k" * 64) / "window0000000.npz").write_bytes(b"abc")
    facts = told(made / "next.take.partial")
    assert facts["kind"] == "unfinished" and facts["result"] == "next.take"


def test_weights(tmp_path):
    save_generator(random_generator(), tmp_path / "base.safetensors")
    facts = told(tmp_path / "base.safetensors")
    assert facts["kind"] == "generator" and "32 px, z of 16 and w of 24 numbers" in facts["lines"]["content"]
    torch.manual_seed(0)
    state = {f"decoder.{name}": value for name, value in RosinalityGenerator().state_dict().items()}
    (tmp_path / "e4e.pt").write_bytes(torch_bytes({"state_dict": state}))
    facts = told(tmp_path / "e4e.pt")
    assert facts["kind"] == "checkpoint" and facts["source_part"] == "state_dict: decoder.*"
    torch.save({"smile": torch.ones(1, 512)}, tmp_path / "smile.pth")
    facts = told(tmp_path / "smile.pth")
    assert facts["kind"] == "directions" and facts["shapes"] == {"smile": [1, 512]}
    np.savez(tmp_path / "train.npz", images=np.zeros((3, 16, 16, 3), np.uint8), codes=np.zeros((3, 8), np.float32))
    facts = told(tmp_path / "train.npz")
    assert facts["kind"] == "training images" and (facts["images"], facts["code_size"]) == (3, 8)
    encoder = find_base("people128").companion("encoder")
    assert told(encoder)["kind"] == "encoder" and told(encoder)["w_dim"] == 256


def test_text_files(tmp_path):
    (tmp_path / "r.toml").write_bytes("[reenact]\r\nsteps = 31\r\n".encode("utf-8-sig"))
    facts = told(tmp_path / "r.toml")
    assert facts["kind"] == "recipe" and facts["tables"] == {"reenact": {"steps": 31}}
    plain = CliRunner().invoke(cli, ["info", str(tmp_path / "r.toml")]).stdout.rstrip().splitlines()
    assert [line.split(": ", 1)[1].strip() for line in plain] == list(facts["lines"].values())
    assert [line.split(":")[0] for line in plain] == list(facts["lines"])
    (tmp_path / "k.toml").write_text("smile = [[0.5, 0.0], [1.5, 1.0]]\n")
    facts = told(tmp_path / "k.toml")
    assert facts["kind"] == "keyframes" and facts["lines"]["to"] == "1.5 s"
    (tmp_path / "key.pem").write_bytes(signing.make())
    facts = told(tmp_path / "key.pem")
    assert facts["kind"] == "key" and facts["private"] and facts["certificates"] == 2
    words = {"said": [{"text": "blue seven tree"}], "recorded": "2026-11-28T00:00:00Z", "video_sha256": "ab" * 32}
    (tmp_path / "me.words.json").write_text(json.dumps(words))
    assert told(tmp_path / "me.words.json")["said"] == ["blue seven tree"]


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.txt", b"hello", "got another text"),
        ("a.toml", b"[reenact]\nstepz = 3", "did you mean 'steps'"),
        ("a.toml", b"[reenact", "not valid TOML"),
        ("a.mp4", b"\0\1\2\3" * 40, "expected a video"),
        ("a.pt", b"\x80\x02cos\nsystem\n(S'true'\ntR.", "os"),
        ("a.npy", b"\x93NUMPY\1\0", "expected directions"),
        ("a.safetensors", b"abc", "safetensors"),
        ("a.zip", b"PK\3\4" + bytes(100), "zip"),
        ("empty.mp4", b"", "empty"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    error = told(tmp_path / name, code=1)
    assert words in error and "should not happen" not in error and "\n" not in error


def test_a_path_that_is_not_there_and_a_folder_of_other_things(tmp_path):
    assert "does not exist" in told(tmp_path / "no.mp4", code=1)
    (tmp_path / "notes.txt").write_text("x")
    assert "found notes.txt" in told(tmp_path, code=1)


@pytest.mark.parametrize(
    "steps, variable",
    [
        ([40] * 50, False), ([33, 33, 34] * 20, False), ([33] * 60 + [66], False), ([20, 60] * 20, True),
        ([33] * 40 + [66] * 20, True), ([16, 17, 17] * 20 + [50] * 3, True), ([40], False),
    ],
)  # fmt: skip
def test_a_rate_varies_beyond_rounding_and_single_gaps(steps, variable):
    assert varies([0.0, *(np.cumsum(steps) / 1000).tolist()]) is variable
