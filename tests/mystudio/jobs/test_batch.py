"""Batches: the jobs of a file, mistakes with their lines, nothing added twice, collisions, and expected times."""

import json
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from mystudio.cli import cli
from mystudio.errors import BadJob
from mystudio.jobs import State, Work
from mystudio.jobs.batch import add, read
from mystudio.jobs.outlook import outlook, size_of
from mystudio.jobs.worker import Worker
from mystudio.storage.manifest import open_folder
from tests.mystudio.jobs.conftest import FRAMES, QUICK

FILE = f"""
out = "made"

[[avatar]]
name = "me"
avatar = "me.avatar"

[[clip]]
name = "hello"
video = "driver.mp4"

[[edit]]
name = "plain"

[[edit]]
name = "turned"
set = {{ yaw = 0.5 }}

[[render]]
name = "small"
options = {json.dumps(QUICK)}
device = "cpu"
"""


@pytest.fixture
def file(studio) -> Path:
    """A batch beside a small studio's avatar and clip."""
    (studio / "jobs.toml").write_text(FILE)
    return studio / "jobs.toml"


def names(works) -> list[tuple[str, str]]:
    return [(work.kind, Path(work.out).name) for work in works]


def test_results_have_predictable_names(file):
    batch = read(file)
    assert names(batch.works) == [
        ("reenact", "me.hello.take"),
        ("edit", "me.hello.turned.take"),
        ("render", "me.hello.plain.small.mp4"),
        ("render", "me.hello.turned.small.mp4"),
    ]
    assert {str(Path(work.out).parent) for work in batch.works} == {str(file.parent / "made")}
    assert batch.works[2].inputs["take"] == batch.works[0].out


def test_avatars_are_made_from_clips_and_scans_and_everything_is_multiplied(file):
    text = FILE.replace('avatar = "me.avatar"', 'video = ["a.mp4", "b.mp4"]\nconsent = "Ada"\nrecipe = "quick"')
    text += '\n[[avatar]]\nname = "two"\nscan = "two.scan"\n[[clip]]\nname = "bye"\nvideo = "driver.mp4"\nend = 2\n'
    file.write_text(text)
    works = read(file).works
    count = {kind: sum(work.kind == kind for work in works) for kind in dict.fromkeys(work.kind for work in works)}
    assert count == {"scan": 1, "personalize": 2, "reenact": 4, "edit": 4, "render": 8}
    assert len({work.out for work in works}) == len(works)
    scan, train = works[:2]
    assert scan.inputs == {"video": str(file.parent / "a.mp4"), "video_2": str(file.parent / "b.mp4")}
    assert scan.options == {"consent": "Ada", "recipe": "quick"} and train.inputs == {"scan": scan.out}
    assert [work.options.get("end") for work in works if work.kind == "reenact"] == [None, 2, None, 2]


@pytest.mark.parametrize(
    "before, after, line, words",
    [
        ('out = "made"', "", 0, 'expected out = "FOLDER"'),
        ('out = "made"', 'out = "made', 0, "is not TOML"),
        ('avatar = "me.avatar"', "", 4, "expected one of avatar, scan, video, got none"),
        ('avatar = "me.avatar"', 'video = "me.mp4"', 4, "expected consent = NAME"),
        ('avatar = "me.avatar"', 'video = []\nconsent = "A"', 4, "expected video as one name"),
        ('video = "driver.mp4"', 'vidoe = "driver.mp4"', 8, "got 'vidoe'"),
        ('video = "driver.mp4"', "", 8, 'expected video = "FILE"'),
        ('video = "driver.mp4"', "video = 3", 8, "expected video as a text, got 3"),
        ('video = "driver.mp4"', 'video = "driver.mp4"\nstart = true', 8, "expected start as a number, got True"),
        ('video = "driver.mp4"', 'video = "driver.mp4"\nstart = 3\nend = 2', 8, "an end after it"),
        ('video = "driver.mp4"', 'video = "driver.mp4"\nface = "second"', 8, "second"),
        ('video = "driver.mp4"', 'video = "driver.mp4"\nothers = "go"', 8, "drive or leave-out"),
        ('name = "hello"', 'name = "a.b"', 8, "expected a name of 1 to 40 letters"),
        ('name = "hello"', "", 8, "got none"),
        ('name = "turned"', 'name = "Plain"', 15, "the name Plain is that of line 12"),
        ('name = "small"', 'name = "small"\nview = "above"', 19, "view"),
        ('name = "small"', 'name = "small"\nending = ".xyz"', 19, ".xyz"),
        ('name = "small"', 'name = "small"\nrecipe = "none"', 19, "none"),
        ('[[clip]]\nname = "hello"\nvideo = "driver.mp4"', "", 0, "expected a [[clip]]"),
        ('[[clip]]', "[clip]", 0, "expected clip as a list"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(file, before, after, line, words):
    assert before in FILE
    file.write_text(FILE.replace(before, after, 1))
    with pytest.raises(BadJob) as told:
        read(file)
    assert words in str(told.value) and str(file) in str(told.value)
    assert not line or f"line {line}," in str(told.value)


def test_files_that_are_none(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "deep").write_text("a = " + "[" * 5000)
    for name, words in (("missing", "could not be read"), ("binary", "UTF-8"), ("deep", "is not TOML")):
        with pytest.raises(BadJob, match=words):
            read(tmp_path / name)


def test_nothing_is_added_twice_and_a_changed_setting_adds_what_depends_on_it(queue, file):
    assert len(add(queue, read(file))) == 4 and add(queue, read(file)) == []
    assert [job.after for job in queue.jobs()] == [(), (1,), (1,), (2,)]
    file.write_text(FILE.replace("yaw = 0.5", "yaw = 0.6"))
    with pytest.raises(BadJob, match=r"line 15: job 2 makes .*turned.take with other settings; cancel that job"):
        add(queue, read(file))
    assert len(queue.jobs()) == 4
    queue.cancel(2), queue.cancel(4)
    again = add(queue, read(file))
    assert names(job.work for job in again) == [("edit", "me.hello.turned.take")]  # job 4 waits to be retried
    assert queue.jobs(State.CANCELLED)


def test_what_mystudio_did_not_make_is_not_replaced(queue, file):
    (file.parent / "made").mkdir()
    mine = file.parent / "made" / "me.hello.turned.small.mp4"
    mine.write_bytes(b"mine")
    with pytest.raises(BadJob, match=r"line 19: .*small.mp4 is there, and mystudio did not make it"):
        add(queue, read(file))
    assert queue.jobs() == [] and mine.read_bytes() == b"mine"


def test_missing_inputs_are_told_before_anything_is_added(queue, file):
    file.write_text(FILE.replace("driver.mp4", "none.mp4"))
    with pytest.raises(BadJob, match=r"line 8: expected the video .*none.mp4, found nothing"):
        add(queue, read(file))
    assert queue.jobs() == []


def test_it_runs_and_the_next_batch_is_estimated_from_what_was_measured(queue, file):
    assert [(row.kind, row.jobs, row.seconds) for row in outlook(queue, read(file).works)] == [
        ("reenact", 1, None), ("edit", 1, None), ("render", 2, None)]  # fmt: skip
    reenact, edit, plain, turned = read(file).works
    take = file.parent / "hello.take"  # stands for the reenactment: the tests' clip shows no face
    queue.add(Work("edit", {"take": take}, edit.out, edit.options))
    queue.add(Work("render", {"take": take}, plain.out, plain.options))
    Worker(queue.studio, lambda job, words: None).run(threading.Event())
    assert {job.state for job in queue.jobs()} == {State.DONE}
    assert open_folder(Path(edit.out), "take").manifest.settings["edits"]
    rows = {row.kind: row for row in outlook(queue, [edit, plain, turned])}
    assert rows["edit"].seconds > 0 and rows["edit"].bytes == size_of(Path(edit.out))
    assert rows["render"].seconds is None  # the length of a clip that no reenactment of the batch drives is not known
    rows = {row.kind: row for row in outlook(queue, [reenact, edit, plain, turned])}
    assert rows["render"].frames == 2 * FRAMES
    done = next(job for job in queue.jobs(State.DONE) if job.work.kind == "render")
    assert rows["render"].seconds == pytest.approx(2 * done.spent, rel=1e-6)
    assert rows["render"].bytes == 2 * Path(plain.out).stat().st_size


def test_the_command(studio, file, monkeypatch):
    monkeypatch.setenv("MYSTUDIO_STUDIO", str(studio))

    def told(*words):
        result = CliRunner().invoke(cli, ["batch", "--json", *map(str, words)], prog_name="mystudio")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.splitlines()[-1])

    plain = CliRunner().invoke(cli, ["batch", str(file), "--dry-run"], prog_name="mystudio").stdout
    assert "render       2 jobs, 600 frames: time not known yet, disk not known yet" in plain
    facts = told(file, "--dry-run")
    assert (facts["jobs"], facts["held"], len(facts["rows"])) == (4, 0, 3)
    facts = told(file)
    assert len(facts["jobs"]) == 4
    facts = told(file, "--dry-run")
    assert (facts["jobs"], facts["held"]) == (0, 4)
    bad = CliRunner().invoke(cli, ["batch", str(file.with_name("none.toml"))], prog_name="mystudio")
    assert bad.exit_code == 1 and "could not be read" in bad.output
