"""The command line: help with examples, one sentence for a failure, JSON answers, no heavy imports."""

import dataclasses
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mystudio.cli import cli
from mystudio.commands.edit import read_keys
from mystudio.commands.terminal import Failure, StudioGroup, _Lines, can_resume, sentence
from mystudio.errors import StudioError
from mystudio.storage import artifacts, workspace
from mystudio.types import Performance, Take
from selfscan.io import video

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "cv2", "av", "mediapipe", "lpips", "matplotlib", "scipy", "numpy")


def run(*words, code=0):
    """Run a command in this process."""
    result = CliRunner().invoke(cli, [str(word) for word in words], prog_name="mystudio")
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


def last_json(result) -> dict:
    return json.loads(result.stdout.splitlines()[-1])


def commands(group=cli, words=()):
    for name, command in group.commands.items():
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))


@pytest.fixture(scope="session")
def studio(tmp_path_factory, tiny_avatar, performance, take, driving_clip) -> Path:
    """Return a folder with an avatar, a performance and a take, as the stages write them."""
    folder = tmp_path_factory.mktemp("studio")
    clip = folder / "driver.mp4"
    clip.write_bytes(driving_clip.read_bytes())
    directions = {"smile": torch.ones(16), "yaw": torch.arange(16.0) / 16}
    avatar = dataclasses.replace(tiny_avatar, state=dataclasses.replace(tiny_avatar.state, directions=directions))
    for name, artifact, inputs in (
        ("me.avatar", avatar, ()),
        ("driver.performance", performance, ("video",)),
        ("hello.take", take, ("avatar", "performance")),
    ):
        places = {"video": clip, "avatar": folder / "me.avatar", "performance": folder / "driver.performance"}
        kind = artifacts.KINDS[type(artifact)]
        with workspace.stage(folder / name, kind, {key: places[key] for key in inputs}, {}) as job:
            artifacts.save(artifact, job)
    return folder


def test_no_help_imports_anything_heavy():
    words = [" ".join(w) for w, _ in commands()]
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom mystudio.cli import cli\n"
        f"for words in {['', *words]!r}:\n"
        "    assert CliRunner().invoke(cli, [*words.split(), '--help']).exit_code == 0, words\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("words, command", list(commands()), ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_every_command_teaches_with_an_example_that_parses(words, command):
    help_ = run(*words, "--help").output
    if isinstance(command, click.Group) and "$ mystudio" not in help_:
        return  # its sub-commands have their own
    examples = [line.strip() for line in help_.splitlines() if line.strip().startswith("$ mystudio")]
    assert examples
    for example in examples:
        assert_parses(example)


def assert_parses(example: str) -> None:
    """Parse a command line and check that every word is accepted; nothing is run."""
    import shlex

    words = shlex.split(example.split("  ")[0].split(" > ")[0], comments=True)[2:]
    group, context = cli, click.Context(cli, info_name="mystudio", **cli.context_settings)
    while isinstance(group, click.Group):
        if hasattr(group, "default") and words[0] not in group.commands:
            words = [group.default, *words]
        assert words[0] in group.commands, example
        group, words = group.commands[words[0]], words[1:]
    group.make_context(group.name, words, parent=context)


def test_the_commands_in_the_readme_parse():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line.strip().removeprefix("$ ") for line in re.findall(r"^\s*(?:\$ )?mystudio .*$", text, re.M)]
    assert len(lines) >= 5
    for line in lines:
        assert_parses("$ " + line)


def test_the_command_reference_is_up_to_date():
    spec = importlib.util.spec_from_file_location("write_cli", ROOT / "docs" / "write_cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def letters(text):  # releases of click differ in line breaks
        return "".join(text.split())

    assert letters((ROOT / "docs" / "cli.md").read_text("utf-8")) == letters(module.text()), "run `make docs`"


def test_no_summary_in_a_list_of_commands_is_cut_off():
    for words, command in commands():
        if isinstance(command, click.Group):
            shown = run(*words, "--help").output.partition("Commands:")[2]
            assert shown and "..." not in shown, shown
    assert "..." not in run("--help").output.partition("Commands:")[2]


@pytest.mark.skipif(sys.platform != "linux", reason="GNU OpenMP tells its settings")
def test_threads_of_torch_wait_awake_for_a_short_time_only():
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    env["OMP_DISPLAY_ENV"] = "VERBOSE"
    told = subprocess.run([sys.executable, "-m", "mystudio", "doctor"], capture_output=True, text=True, env=env)
    assert "GOMP_SPINCOUNT = '50000'" in told.stderr


def test_the_package_runs_as_a_module():
    found = subprocess.run([sys.executable, "-m", "mystudio", "recipe", "list"], capture_output=True, text=True)
    assert found.returncode == 0 and found.stdout == run("recipe", "list").stdout


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["scan"],
        ["render", "x"],
        ["edit", "TAKE", "-o", "x"],
        ["edit"],
        ["recipe", "no"],
        ["evaluate", "x", "-o", "y", "--device", "tpu"],
    ],
)
def test_wrong_usage_exits_with_2(words):
    run(*words, code=2)


@pytest.mark.parametrize(
    "word, expected",
    [
        ("delete", "Did you mean `mystudio avatar delete`?"),
        ("pack", "`mystudio avatar pack` or `mystudio base pack`?"),
        ("renderr", "Did you mean 'render'?"),
    ],
)
def test_a_command_without_its_group_is_answered_with_the_whole_call(word, expected):
    result = CliRunner().invoke(cli, [word, "x"], prog_name="mystudio")
    assert result.exit_code == 2 and expected in result.output


def test_a_scan_requires_the_statement_of_consent(tmp_path):
    result = run("scan", "me.mp4", "-o", tmp_path / "x", code=2)
    assert "--i-am-the-person-or-have-consent" in result.stderr


@pytest.mark.parametrize(
    "words, expected",
    [
        (["personalize", "nowhere", "-o", "x"], "nowhere does not exist"),
        (["render", "nowhere", "-o", "x.mp4"], "nowhere does not exist"),
        (["reenact", "nowhere", "nowhere.mp4", "-o", "x"], "nowhere.mp4"),
        (["edit", "nowhere", "-o", "x", "--set", "smile=1"], "nowhere does not exist"),
        (["edit", "nowhere", "-o", "x", "--set", "smile=much"], "smile=1.0"),
        (["recipe", "show", "defualt"], "did you mean 'default'"),
        (["recipe", "show", "--option", "reenact.stesp=3"], "did you mean 'steps'"),
        (["base", "import", "nowhere.pkl"], "nowhere.pkl"),
        (["personalize", "nowhere", "-o", "x", "--base", "nobody"], "people128"),
    ],
)
def test_a_failure_is_one_sentence_and_exits_with_1(words, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*words, "--json", code=1)
    assert expected in result.stderr and result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    told = last_json(result)
    assert told["ok"] is False and expected in told["error"]
    assert os.listdir(tmp_path) == []


def test_bad_videos_are_refused_in_one_sentence(tmp_path):
    for name, content in (("empty.mp4", b""), ("garbage.mp4", bytes(range(256)) * 400)):
        (tmp_path / name).write_bytes(content)
        result = run("scan", tmp_path / name, "-o", tmp_path / "s", "--i-am-the-person-or-have-consent", "Ada", code=1)
        lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and name in lines[0]
        assert not (tmp_path / "s").exists()


def test_recipes_and_bases_are_listed():
    assert set(last_json(run("recipe", "list", "--json"))["recipes"]) >= {"default", "quick", "paper"}
    assert "[reenact]" in run("recipe", "show", "quick").stdout
    listed = last_json(run("base", "list", "--json"))["bases"]
    assert "people128" in [base["name"] for base in listed]


def test_the_doctor_finds_what_the_tests_run_on():
    told = last_json(run("doctor", "--json"))
    assert told["missing"] == []
    assert {"torch", "cv2", "landmark network", "video codecs"} <= {f["name"] for f in told["findings"] if f["ok"]}
    assert all(f["advice"] for f in told["findings"] if not f["ok"])


def test_an_edit_with_the_word_left_out_makes_a_take_and_keeps_the_old_one(studio, tmp_path):
    out = studio / "smiling.take"
    (tmp_path / "keys.toml").write_text("yaw = [[0.0, 0.0], [0.5, 2]]\n")
    result = run(
        "edit",
        studio / "hello.take",
        "-o",
        out,
        "--set",
        "smile=1.5",
        "--keys",
        tmp_path / "keys.toml",
        "--edge",
        "continue",
        "--json",
    )
    assert last_json(result)["edits"] == ["smile", "yaw"]
    before, after = artifacts.load(studio / "hello.take", Take), artifacts.load(out, Take)
    assert [(e.name, e.strength, e.keys) for e in after.edits] == [
        ("smile", 1.5, ()),
        ("yaw", 1.0, ((0.0, 0.0), (0.5, 2.0))),
    ]
    assert not torch.equal(before.codes["axes"], after.codes["axes"]) and before.edits == ()
    first = (out / "manifest.json").stat().st_mtime_ns
    run(
        "edit",
        "apply",
        studio / "hello.take",
        "-o",
        out,
        "--set",
        "smile=1.5",
        "--keys",
        tmp_path / "keys.toml",
        "--edge",
        "continue",
    )
    assert (out / "manifest.json").stat().st_mtime_ns == first  # equal inputs: nothing to do


def test_a_zero_edit_changes_nothing_and_an_unknown_one_names_what_there_is(studio, tmp_path):
    run("edit", studio / "hello.take", "-o", tmp_path / "same.take", "--set", "smile=0")
    before, after = (artifacts.load(path, Take) for path in (studio / "hello.take", tmp_path / "same.take"))
    assert torch.equal(before.codes["axes"], after.codes["axes"])
    result = run("edit", studio / "hello.take", "-o", tmp_path / "t", "--set", "hat=1", code=1)
    assert "smile" in result.stderr and not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    "text",
    [
        "smile = 3",
        "smile = []",
        "smile = [[0]]",
        'smile = [["a", 1]]',
        "smile",
        "[smile]",
        "smile = [[0, nan]]",
        "smile = [[0, true]]",
    ],
)
def test_bad_keyframes_are_explained(studio, tmp_path, text):
    (tmp_path / "keys.toml").write_text(text)
    result = run("edit", studio / "hello.take", "-o", tmp_path / "t", "--keys", tmp_path / "keys.toml", code=1)
    assert "(seconds, strength)" in result.stderr


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_keyframes_of_any_editor_are_read(tmp_path, encoding):
    (tmp_path / "keys.toml").write_bytes("smile = [[0.0, 0.0],\r\n [1.5, 1.0]]\r\n".encode(encoding))
    assert read_keys(tmp_path / "keys.toml") == {"smile": ((0.0, 0.0), (1.5, 1.0))}


def test_edits_are_listed_and_drawn(studio, tmp_path):
    import cv2

    assert last_json(run("edit", "list", studio / "me.avatar", "--json"))["edits"] == ["smile", "yaw"]
    run("edit", "sheet", studio / "me.avatar", "-o", tmp_path / "edits.png")
    picture = cv2.imread(str(tmp_path / "edits.png"))
    assert picture.shape[0] > 2 * 32 and picture.shape[1] >= 5 * 32


def test_a_take_is_rendered_with_every_frame_and_not_twice(studio, tmp_path):
    out = tmp_path / "hello.mp4"
    run("render", studio / "hello.take", "-o", out, "--view", "side-by-side")
    times = [time for time, _ in video.read(out)]
    assert np.allclose(times, artifacts.load(studio / "hello.take", Take).times, atol=1e-3)
    stamp = out.stat().st_mtime_ns
    run("render", studio / "hello.take", "-o", out, "--view", "side-by-side")
    assert out.stat().st_mtime_ns == stamp
    run("render", studio / "hello.take", "-o", out, "--view", "aligned")
    assert out.stat().st_mtime_ns != stamp
    out.write_bytes(b"somebody else's")
    run("render", studio / "hello.take", "-o", out, "--view", "aligned")
    assert len(list(video.read(out))) == len(times)


def test_what_stays_together_may_move_and_what_changed_is_refused(studio, tmp_path):
    import shutil

    moved = tmp_path / "elsewhere ü"
    shutil.copytree(studio, moved)
    run("render", moved / "hello.take", "-o", tmp_path / "a.mp4")
    (moved / "driver.mp4").write_bytes(b"another clip")
    assert "has changed" in run("render", moved / "hello.take", "-o", tmp_path / "b.mp4", code=1).stderr
    (moved / "driver.mp4").unlink()
    assert "not there" in run("render", moved / "hello.take", "-o", tmp_path / "b.mp4", code=1).stderr
    swapped = run("render", moved / "me.avatar", "-o", tmp_path / "b.mp4", code=1)
    assert "is an avatar, expected a take" in swapped.stderr


def test_an_input_is_never_overwritten(studio):
    for words in (
        ["edit", studio / "hello.take", "-o", studio / "hello.take", "--set", "smile=1"],
        ["edit", studio / "hello.take", "-o", studio / "me.avatar", "--set", "smile=1"],
        ["render", studio / "hello.take", "-o", studio / "driver.mp4"],
        ["render", studio / "hello.take", "-o", studio / "me.avatar"],
    ):
        assert "choose another name" in run(*words, code=1).stderr
    artifacts.load(studio / "hello.take", Take)
    artifacts.load(studio / "driver.performance", Performance)


def test_an_unforeseen_error_is_a_sentence_and_debug_shows_the_traceback(capsys):
    @click.group(cls=StudioGroup)
    def root():
        pass

    @root.command()
    def boom():
        raise KeyError("x")

    result = CliRunner().invoke(root, ["boom"])
    assert result.exit_code == 1 and "KeyError" in result.stderr and "Traceback" not in result.stderr
    assert "--debug" in result.stderr


def test_sentences_of_the_system():
    assert sentence(FileNotFoundError(2, "No such file or directory", "a.mp4")).startswith("a.mp4: No such file")
    assert "memory ran out" in sentence(MemoryError())
    assert "memory ran out" in sentence(torch.OutOfMemoryError("CUDA out of memory"))
    assert sentence(StudioError("two\n  lines")) == "two lines"


INTERRUPTED = """
import signal, time, click
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell inherits that it is ignored
from mystudio.commands.terminal import StudioGroup, can_resume
@click.group(cls=StudioGroup)
def root(): pass
@root.command()
def work():
    can_resume("the same command goes on from there")
    print("working", flush=True)
    time.sleep(60)
root()
"""


def test_ctrl_c_says_what_can_be_resumed():
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, "work"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert child.stdout.readline().strip() == "working"
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=20)
    finally:
        child.kill()
    assert child.returncode == 1
    assert told.strip() == "error: stopped; the same command goes on from there"
    assert can_resume and Failure


def test_plain_progress_says_how_far_and_how_long(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines = _Lines()
    for done in range(0, 101, 5):
        lines("tune", done, 100)
        now[0] += 3.0
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "tune 0/100" and told[-1].startswith("tune 100/100, took 1:00")
    assert 4 <= len(told) <= 8
    assert re.fullmatch(r"tune 20/100, 0:48 left", told[1])
