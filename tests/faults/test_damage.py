"""Damaged files (cut, flipped bits, empty, missing) are detected, reported in one sentence, and made again."""

import json
import os
import shutil

import pytest
from kills import leftovers
from work import STAGES

from mystudio.base.checkpoint import BEFORE, INDEX

READERS = {  # result -> a command of the next stage that reads it
    "scan": (
        "personalize",
        "{}/me.scan",
        "-o",
        "{}/x.avatar",
        "--base",
        "{}/tiny.safetensors",
        "--recipe",
        "{}/tiny.toml",
    ),
    "personalize": ("render", "{}/hello.take", "-o", "{}/x.mp4"),
    "reenact": ("edit", "{}/hello.take", "-o", "{}/x.take", "--set", "yaw=2"),
}
DAMAGE = ("flipped", "cut", "empty", "gone")


def damage(file, kind: str) -> None:
    data = bytearray(file.read_bytes())
    file.unlink()
    if kind == "flipped":
        data[len(data) * 2 // 3] ^= 0x10
    if kind != "gone":
        file.write_bytes({"flipped": data, "cut": data[: len(data) // 2], "empty": b""}[kind])


def files_of(folder, thin: bool) -> list:
    """Return every file of an artifact, with only one of its pictures if ``thin``."""
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    pictures = [p for p in found if p.parent.name == "images"]
    return [p for p in found if p not in pictures[1:]] if thin else found


def assert_found_and_healed(studio, stage, place, expected, thin: bool):
    made = place / stage.makes
    shutil.copytree(made, place.parent / "kept")
    for number, file in enumerate(files_of(made, thin)):
        for kind in DAMAGE[number % 4 : number % 4 + 1] if thin else DAMAGE:
            damage(file, kind)
            if reader := READERS.get(stage.name):
                before = sorted(os.listdir(place))
                told = studio.run(*[word.replace("{}", str(place)) for word in reader])
                found = "again" in told.sentence and str(made) in told.sentence and sorted(os.listdir(place)) == before
                assert found or file.name == "coverage.png", (file, kind)  # no stage reads this picture
            heal(studio, stage, place, file)
            assert stage.state(made) == expected, (file, kind)


def heal(studio, stage, place, file):
    """Run the stage again beside a damaged file; without a readable manifest, the folder may hold foreign files."""
    made = place / stage.makes
    again = studio.run(*stage.command(place))
    if again.code:
        assert file.name == "manifest.json" and "remove it or choose another name" in again.sentence
        shutil.rmtree(made)
        assert studio.run(*stage.command(place)).code == 0
    for left in ("x.avatar", "x.mp4", ".x.mp4.made", "x.take"):
        path = place / left
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scan", "personalize", "reenact", "edit", "evaluate"])
def test_every_file_of_every_kind(name, studio, template, place, expected):
    shutil.copytree(template, place)
    assert_found_and_healed(studio, STAGES[name], place, expected(STAGES[name]), thin=name == "scan")


def test_a_damaged_performance_is_measured_again(studio, template, place, expected):
    shutil.copytree(template, place)
    stage = STAGES["reenact"]
    performance = next(place.glob(stage.also))
    damage(performance / "arrays.safetensors", "flipped")
    render = [word.replace("{}", str(place)) for word in ("render", "{}/hello.take", "-o", "{}/x.mp4")]
    told = studio.run(*render)
    assert "again" in told.sentence and performance.name in told.sentence
    again = studio.run(*stage.command(place))
    assert again.code == 0 and [name for name, _, _ in again.steps if name == "solve"] == []
    assert studio.run(*render).code == 0
    assert stage.state(place / stage.makes) == expected(stage)


AFTER = {  # checkpoint -> a name that the command writes after that checkpoint
    "window0000000.npz": "window0000004.npz",
    "segment0000000.npz": "segment0000004.npz",
    "quality0000004.npz": "quality0000008.npz",
    "watch*.0000000.npz": ".0000004.npz",
}


def operation_on(ended, name: str) -> int:
    """Return the number of a command's first file operation on a name."""
    return next(number for number, text in enumerate(ended.files) if name in text)


@pytest.mark.parametrize(
    "name, checkpoint",
    [
        ("personalize", "tune.npz"),
        ("reenact", "window0000000.npz"),
        ("reenact", "journal.key"),
        ("render", "segment0000000.npz"),
        ("scan", "quality0000004.npz"),
        ("evaluate", "watch*.0000000.npz"),
    ],
)
@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_never_used(name, checkpoint, kind, studio, begun, place, expected):
    stage = STAGES[name]
    begun(stage)
    whole = studio.run(*stage.command(place), folder=str(place))
    shutil.rmtree(place)
    begun(stage)
    at = 16 if name == "personalize" else operation_on(whole, AFTER.get(checkpoint, "window0000004.npz"))
    assert studio.run(*stage.command(place), folder=str(place), kill_at=at).killed
    file = next((place / f"{stage.makes}.partial").glob(checkpoint))
    damage(file, kind)
    again = studio.run(*stage.command(place))
    if again.code:
        assert checkpoint == "journal.key" and kind == "gone" and "move it" in again.sentence
        return
    assert stage.state(place / stage.makes) == expected(stage)
    assert leftovers(place) == []


def parts_of(run, index: str) -> list:
    return [run / part["file"] for part in json.loads((run / index).read_text())["parts"]]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["index", "part"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_training_run_goes_on_from_the_checkpoint_before(what, kind, studio, template, place, expected):
    stage = STAGES["base train"]
    shutil.copytree(template, place)
    made = place / stage.makes
    damage(made / INDEX if what == "index" else parts_of(made, INDEX)[0], kind)
    ended = studio.run(*stage.command(place))
    assert ended.code == 0 and "resuming from the previous checkpoint" in ended.stderr
    assert stage.state(made) == expected(stage)
    assert leftovers(place) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_training_run_without_a_whole_checkpoint_is_told_and_left_alone(kind, studio, template, place):
    shutil.copytree(template, place)
    made = place / "base.run"
    for file in [parts_of(made, index)[0] for index in (INDEX, BEFORE)]:
        damage(file, kind)
    before = {p.name: p.read_bytes() for p in made.iterdir() if p.is_file()}
    told = studio.run(*STAGES["base train"].command(place)).sentence
    assert str(made) in told
    assert {p.name: p.read_bytes() for p in made.iterdir() if p.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE[:3])
def test_a_damaged_base_key_record_and_recipe_are_told(kind, studio, template, place, expected):
    shutil.copytree(template, place)
    damage(place / "tiny.safetensors", kind)
    told = studio.run(*STAGES["personalize"].command(place))
    assert "tiny.safetensors" in told.sentence
    damage(place / ".hello.mp4.made", kind)
    render = STAGES["render"]
    assert studio.run(*render.command(place)).code == 0
    assert render.state(place / "hello.mp4") == expected(render)
    (place / "tiny.toml").write_bytes(b"[scan\x80")
    assert "tiny.toml" in studio.run(*STAGES["scan"].command(place)).sentence
    shutil.copy2(template / "tiny.toml", place / "tiny.toml")
    home = place / "home"
    assert studio.run(*render.command(place), "--force", env={"MYSTUDIO_HOME": str(home)}).code == 0
    damage(home / "keys" / "signing.pem", kind)
    assert "signing.pem" in studio.run(*render.command(place), "--force", env={"MYSTUDIO_HOME": str(home)}).sentence
    assert render.state(place / "hello.mp4") == expected(render)
