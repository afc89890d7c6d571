"""`mystudio jobs`: adding with the words of the commands, showing, changing; nothing runs here."""

import inspect
import json

import pytest
from click.testing import CliRunner

from mystudio import api
from mystudio.cli import cli
from mystudio.commands.added import COMMANDS
from mystudio.jobs import KINDS, Queue, State
from mystudio.jobs.kinds import EDIT
from mystudio.storage.scan_inputs import CLIPS
from mystudio.types import Edit

CONSENT = ("--i-am-the-person-or-have-consent", "Ada Example")
#: parameters of commands that the queue stores under another name -> its name
RENAMED = {"frames": "options", "size": "options", "sign_key": "options", "sign_cert": "options", "sets": "edits",
           "no_provenance": "options", "keys": "edits", "edge": "edits", "videos": "video"}  # fmt: skip


@pytest.fixture(autouse=True)
def studio(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("MYSTUDIO_STUDIO", str(tmp_path / "studio"))
    for name in ("me.mp4", "driver.mp4", "mine.toml", "mine.safetensors"):
        (tmp_path / "here" / name).write_bytes(b"x")
    return tmp_path / "studio"


def run(*words, code=0):
    result = CliRunner().invoke(cli, ["jobs", *map(str, words)], prog_name="mystudio")
    assert result.exit_code == code, (result.output, result.exception)
    return result


def told(*words, code=0):
    return json.loads(run(words[0], "--json", *words[1:], code=code).stdout.splitlines()[-1])


def work(*words):
    return told("add", *words)["job"]["work"]


def test_the_words_of_every_command_become_a_job(studio):
    here = studio.parent / "here"
    scan = work("scan", "me.mp4", "-o", "me.scan", *CONSENT, "--frames", 60, "--start", "0:05", "--recipe", "quick",
                "--option", "scan.size=256")  # fmt: skip
    assert scan == {
        "kind": "scan",
        "inputs": {"video": str(here / "me.mp4")},
        "out": str(here / "me.scan"),
        "options": {
            "consent": "Ada Example",
            "start": 5.0,
            "recipe": "quick",
            "options": ["scan.size=256", "scan.frames=60"],
        },
    }
    avatar = work("personalize", "me.scan", "-o", "me.avatar", "--base", "mine.safetensors", "--recipe", "mine.toml",
                  "--minutes", 5, "--until-good", "--without", "000012", "--without", 7)  # fmt: skip
    assert avatar["options"] == {
        "base": str(here / "mine.safetensors"),
        "recipe": str(here / "mine.toml"),
        "minutes": 5.0,
        "until_good": True,
        "without": [12, 7],
    }
    take = work("reenact", "me.avatar", "driver.mp4", "-o", "hello.take", "--face", "left", "--others", "leave-out")
    assert take["inputs"] == {"avatar": str(here / "me.avatar"), "video": str(here / "driver.mp4")}
    assert take["options"] == {"face": "left", "others": "leave-out"}
    (here / "keys.toml").write_text("gaze_x = [[0.0, 0.0], [1.5, -1.0]]\n")
    edited = work("edit", "hello.take", "-o", "e.take", "--set", "smile=1.5", "--keys", "keys.toml", "--edge", "stop")
    assert edited["options"]["edits"] == [
        {"name": "smile", "strength": 1.5, "edge": "stop"},
        {"name": "gaze_x", "keys": [[0.0, 0.0], [1.5, -1.0]], "edge": "stop"},
    ]
    clip = work("render", "e.take", "-o", "pictures/", "--view", "paste", "--no-provenance", "--sign-key", "mine.toml")
    assert clip["out"] == f"{here}/pictures/"
    assert clip["options"]["options"] == [f'provenance.sign_key="{here / "mine.toml"}"', "provenance.mark=false"]
    assert work("evaluate", "e.take", "-o", "report", "--truth", "same")["options"] == {"same_person": True}
    truth = work("evaluate", "e.take", "-o", "report", "--truth", "me.mp4", "--force")
    assert truth["inputs"]["truth"] == str(here / "me.mp4") and truth["options"] == {"force": True}
    jobs = told("list")["jobs"]
    assert [job["after"] for job in jobs] == [[], [1], [2], [3], [4], [4], [4]]
    assert [job["light"] for job in jobs] == [kind == "edit" for kind in (*KINDS, "evaluate")]


@pytest.mark.parametrize("kind", KINDS)
def test_the_queue_takes_what_the_command_and_the_function_take(kind):
    known = {*KINDS[kind].needs, *KINDS[kind].may_have, *KINDS[kind].options}
    given = {RENAMED.get(one.name, one.name) for one in COMMANDS[kind].params if one.expose_value}
    assert given - {"out"} - known == set() and known - given <= {"same_person", "truth", *CLIPS[1:]}
    taken = set(inspect.signature(getattr(api, kind)).parameters)
    own = {"start", "end", "same_person", *CLIPS[1:]}  # of the queue: they become "span", "truth" and "video"
    assert known - own - taken == set() and taken - known <= {"out", "progress", "tell", "span", "edge"}
    assert set(EDIT) == set(Edit.__dataclass_fields__) and set(COMMANDS) == set(KINDS)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("scan", "me.mp4", "-o", "x"), 2, "Missing option '--i-am-the-person-or-have-consent'"),
        (("scan", "gone.mp4", "-o", "x", *CONSENT), 1, "gone.mp4: expected the video of scan, found nothing"),
        (("dance", "me.mp4"), 2, "is not one of 'scan'"),
        (("render", "me.mp4", "-o", "x.mp4", "--loud"), 2, "No such option"),
        (("edit", "me.mp4", "-o", "x"), 2, "expected at least one --set"),
        (("edit", "me.mp4", "-o", "x", "--set", "smile"), 1, "expected NAME=STRENGTH"),
        (("reenact", "me.mp4", "me.mp4", "driver.mp4", "-o", "x"), 1, "expected one for a job, got several"),
        (("scan", "me.mp4", "-o", "x", *CONSENT, "--start", "5", "--end", "4"), 2, "expected --end after --start"),
        (("--after", "9", "scan", "me.mp4", "-o", "x", *CONSENT), 1, "there is no job 9"),
    ],
)
def test_wrong_words_are_refused_when_they_are_added(words, code, sentence):
    assert sentence in run("add", *words, code=code).output
    assert told("list")["jobs"] == []


def test_the_options_of_the_queue_stand_before_the_stage_and_help_is_both(studio):
    job = told("add", "--title", "for Bob", "--heavy", "scan", "me.mp4", "-o", "a.scan", *CONSENT)["job"]
    assert (job["title"], job["light"]) == ("for Bob", False)
    assert told("add", "--light", "--first", "--after", "1", "scan", "me.mp4", "-o", "b.scan", *CONSENT)["job"]["light"]
    assert [job["id"] for job in told("list")["jobs"]] == [2, 1]
    assert "Options of the queue" in " ".join(run("add", "--help").output.split())
    assert "--consent-clip" in run("add", "scan", "--help").output


def test_jobs_are_shown_and_changed(studio):
    assert "There are no jobs" in run("list").output
    for name in "abc":
        run("add", "scan", "me.mp4", "-o", f"{name}.scan", *CONSENT)
    run("add", "personalize", "c.scan", "-o", "c.avatar")
    assert "Job 1 is paused." in run("pause", 1).output
    assert [job["state"] for job in told("resume", 1)["jobs"]] == ["waiting"]
    assert told("order", 3, "--first")["order"] == [3, 1, 2, 4]
    assert told("order", 3)["order"] == [1, 2, 4, 3] == told("order", 4, "--before", 3)["order"]
    assert "expected --first or --before" in run("order", 1, "--first", "--before", 2, code=2).output
    run("cancel", 2, 3)
    shown = run("list").output.splitlines()
    assert [line.split()[:2] for line in shown] == [
        ["1", "waiting"], ["4", "waiting"], ["2", "cancelled"], ["3", "cancelled"],
    ]  # fmt: skip
    assert "waits for job 3, which was cancelled; retry that one" in shown[1]
    assert "Job 2 is removed." in run("remove", 2).output
    assert "there is no job 2" in run("show", 2, code=1).output
    assert "Job 3 is waiting." in run("retry", 3).output
    with Queue(studio) as queue:
        log = queue.job(1).log
        assert [job.state for job in queue.jobs()] == [State.WAITING] * 3
    log.parent.mkdir(exist_ok=True)
    log.write_text("track 0/600\n")
    shown = run("show", 1).output
    assert "consent: Ada Example" in shown and f"log: {log}" in shown and "    track 0/600" in shown
    assert told("show", 1)["job"]["id"] == 1 and told("show", 9, code=1)["ok"] is False


def test_a_damaged_queue_is_one_sentence(studio):
    (studio / "jobs").mkdir(parents=True)
    (studio / "jobs" / "jobs.sqlite").write_bytes(b"no database " * 100)
    for words in (("list",), ("cancel", 1), ("run",)):
        output = run(*words, code=1).output
        assert "is damaged" in output and "nothing that was computed is lost" in output and "Traceback" not in output


def test_a_scan_of_several_clips_is_one_job(studio):
    here = studio.parent / "here"
    several = work("scan", "me.mp4", "driver.mp4", "-o", "2.scan", "--i-am-the-person-or-have-consent", "Ada")
    assert several["inputs"] == {"video": str(here / "me.mp4"), "video_2": str(here / "driver.mp4")}
    missing = ("add", "scan", "me.mp4", "nowhere.mp4", "-o", "2.scan", "--i-am-the-person-or-have-consent", "Ada")
    assert "nowhere.mp4: expected the video_2 of scan" in told(*missing, code=1)["error"]
    told_of = told(*missing[:2], *["me.mp4"] * 9, *missing[4:], code=1)["error"]
    assert "expected 1 to 8 clips of one person, got 9" in told_of
