"""Stored chunks: no frame is processed twice, and the result is equal."""

from dataclasses import fields, is_dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from memory_checkpoints import MemoryCheckpoints

from selfscan import checkpoints as module
from selfscan.checkpoints import NO_CHECKPOINTS, Prefixed, in_chunks
from selfscan.face.observe import observe
from selfscan.face.track import track
from selfscan.io import video
from selfscan.scan.consent import make_consent
from selfscan.scan.identity import faces_of
from selfscan.scan.quality import assess
from selfscan.scan.scan import ScanSettings, scan_video

CHUNK = 10  # frames
DEMO = Path(__file__).parents[2] / "mystudio" / "data" / "demo" / "scan.mp4"


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    """Return 25 frames of a synthetic person: two and a half chunks."""
    path = tmp_path_factory.mktemp("keep") / "me.mp4"
    timed = list(islice(video.read(DEMO), 0, 150, 6))
    video.write(path, [frame for _, frame in timed], [time for time, _ in timed])
    return path


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", CHUNK)


def assert_equal(a, b, name=""):
    """Check that two results of any type are equal bit for bit."""
    assert type(a) is type(b), name
    if is_dataclass(a):
        for field in fields(a):
            assert_equal(getattr(a, field.name), getattr(b, field.name), f"{name}.{field.name}")
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), name
        for key in a:
            assert_equal(a[key], b[key], f"{name}.{key}")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), name
    else:
        assert a == b, name


def test_only_missing_chunks_are_worked_through_and_the_stream_is_not_read_beyond():
    kept, read, told = MemoryCheckpoints(), [], []

    def stream(start):
        for index in range(start, 100):
            read.append(index)
            yield index, index * 10

    def run():
        return [
            (c.tolist(), f["x"].tolist())
            for c, f in in_chunks(
                kept, "p", np.arange(0, 50, 2), stream, lambda c, items: {"x": np.array(list(items))}, told.append
            )
        ]

    first = run()
    assert [c[0] for c, _ in first] == [0, 20, 40] and first[1][1] == list(range(200, 400, 20))
    assert read == list(range(49)) and told == [] and sorted(kept) == ["p0000000", "p0000010", "p0000020"]
    read.clear()
    del kept["p0000010"]
    assert run() == first and read == list(range(20, 39)) and told == [10, 25]
    read.clear()
    assert run() == first and read == []


def test_a_prefix_keeps_two_clips_apart():
    kept = MemoryCheckpoints()
    Prefixed(kept, "a.").put("x", {"v": np.array(1)})
    assert Prefixed(kept, "b.").get("x") is None and Prefixed(kept, "a.").get("x")["v"] == 1
    assert NO_CHECKPOINTS.put("x", {}) is None and NO_CHECKPOINTS.get("x") is None


@pytest.mark.parametrize("most", [1, 2])
def test_tracking_goes_on_in_the_middle_of_a_clip(person, most):
    whole, kept, told = track(person), MemoryCheckpoints(), []
    kept.most = most
    with pytest.raises(KeyboardInterrupt):
        track(person, checkpoints=kept)
    kept.most = MemoryCheckpoints.most
    assert_equal(track(person, lambda stage, done, total: told.append(done), checkpoints=kept), whole)
    assert told[most - 1 :] == list(range(CHUNK * most, len(whole) + 1))  # stored frames are reported chunk by chunk
    told.clear()
    assert_equal(track(person, lambda stage, done, total: told.append(done), checkpoints=kept), whole)
    assert len(told) <= len(whole) // CHUNK + 1


def test_a_scan_that_was_stopped_after_every_chunk_ends_in_the_same_scan(person):
    consent = make_consent("Ada", person)
    settings = ScanSettings(frames=20, size=64, embed_size=64, perceptual="face")
    whole, kept, runs = scan_video(person, consent, settings, consent_clip=(person, None)), MemoryCheckpoints(), 0
    while True:
        kept.most, runs = len(kept) + 5, runs + 1
        try:
            made = scan_video(person, consent, settings, consent_clip=(person, None), checkpoints=kept)
            break
        except KeyboardInterrupt:
            continue
    assert runs == 5
    assert_equal(made, whole)
    assert {name.rstrip("0123456789") for name in kept} == {
        "track",
        "measure",
        "faces",
        "quality",
        "compare.lpips-face.",
        "images",
        "consent.track",
        "consent.measure",
        "consent.faces",
    }


@pytest.mark.parametrize("name", ["faces", "quality", "measure"])
def test_a_damaged_chunk_is_measured_again_and_no_other(person, name):
    kept = MemoryCheckpoints()
    seen = observe(person, checkpoints=kept)
    passes = {
        "faces": lambda tell: faces_of(seen, tell, kept),
        "quality": lambda tell: assess(seen, tell, kept),
        "measure": lambda tell: observe(person, progress=tell, checkpoints=kept),
    }
    stage_of = {"faces": "identity"}
    first, told = passes[name](lambda *_: None), []
    last = max(key for key in kept if key.startswith(name))
    del kept[last]
    again = passes[name](lambda stage, *done: told.append(done) if stage == stage_of.get(name, name) else None)
    assert_equal(again, first)
    assert last in kept and 0 < len(told) < len(seen)
