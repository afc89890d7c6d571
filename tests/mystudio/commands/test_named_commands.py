"""Commands, options and settings that messages, help texts, docstrings and comments name must exist."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from test_docs import check_command

from mystudio import recipe
from mystudio.cli import cli
from mystudio.errors import BadArtifact
from mystudio.storage.artifacts import KINDS
from mystudio.storage.manifest import open_folder

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted(file for folder in ("mystudio", "selfscan", "recipes", "docs") for file in (ROOT / folder).rglob("*.py"))
COMMAND = re.compile(r"`(mystudio(?: [^`]*)?)`|^\s*\$ (mystudio .*)$", re.M)
#: options of other programs that a text may name
FOREIGN = {"--nproc-per-node", "--help", "--force-reinstall"}
CHROMIUM = "--use-f"  # of its options


def texts_of(file: Path) -> Iterator[str]:
    """Return every string of a module, with {} for inserted values, and every block of comments."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
    with file.open("rb") as source:
        for token in tokenize.tokenize(source.readline):
            if token.type == tokenize.COMMENT:
                yield token.string


TEXTS = [(file.relative_to(ROOT).as_posix(), text) for file in FILES for text in texts_of(file)]


def commands_in(text: str) -> Iterator[str]:
    for quoted, example in COMMAND.findall(text):
        line = re.sub(r"\s+", " ", quoted or re.split(r"  +", example)[0]).strip()
        if line.count('"') % 2 == 0 and not re.search(r" -o$| --\w[\w-]*=$", line):
            yield line


def options_of(command: click.Command) -> set[str]:
    found = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    if isinstance(command, click.Group):
        found |= {name for part in command.commands.values() for name in options_of(part)}
    return found


def test_commands_that_a_text_names_exist():
    for file, text in TEXTS:
        for line in commands_in(text):
            check_command(line, f"{file}: {line}")


def test_options_that_a_text_names_exist():
    known = options_of(cli) | FOREIGN
    for file, text in TEXTS:
        for name in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text):
            own = (other for place, other in TEXTS if place == file and other == name)  # given to argparse
            there = name in known or name.startswith(CHROMIUM) or any(own)
            assert there, f"{file}: there is no option {name}, in {text[:200]!r}"


def test_settings_that_a_text_names_exist():
    tables = recipe.resolve().tables()
    for file, text in TEXTS:
        for stage, key in re.findall(r"\b([a-z]+)\.([a-z_]+)=(?=[\w\"'{])", text):
            if stage in tables:
                assert hasattr(tables[stage], key), f"{file}: there is no setting {stage}.{key}"


@pytest.mark.parametrize(
    "text",
    ["give what `mystudio take` made", "\n    $ mystudio skan me.mp4", "`mystudio {}`", "`mystudio demo --x`"],
)
def test_a_command_that_does_not_exist_is_found(text):
    with pytest.raises(AssertionError, match="there is no"):
        for line in commands_in(text):
            check_command(line, text)


@pytest.mark.parametrize("kind", [None, "report", *KINDS.values()])
def test_what_is_missing_is_made_by_a_command_that_exists(kind, tmp_path):
    with pytest.raises(BadArtifact) as error:
        open_folder(tmp_path / "nothing", kind)
    named = list(commands_in(str(error.value)))
    assert len(named) == (kind is not None)
    for line in named:
        check_command(line, str(error.value))
