"""The file of a batch: its tables, checked one by one, so that a mistake is told with its line."""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (what TOML holds has no types before it is checked; tomli is there only with Python 3.10)

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mystudio.errors import BadJob
from mystudio.storage.scan_inputs import CLIPS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # installed only with Python 3.10

Types = Mapping[str, tuple[type, ...]]
NUMBER = (int, float)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # no dot: dots part the names in a result's name
LONGEST = 40  # characters of a name: a result's name has four
MOST_BYTES = 1 << 20  # of the file
MOST_RESULTS = 100_000
MOST_CLIPS = len(CLIPS)  # of an avatar's scan
SHARED: Types = {"recipe": (str,), "options": (list,), "device": (str,)}
#: kind of table -> its keys and their types; ``name`` is needed in each
TABLES: Mapping[str, Types] = {
    "avatar": {
        "name": (str,), "avatar": (str,), "scan": (str,), "video": (str, list), "consent": (str,),
        "fictional": (bool,), "base": (str,), "engine": (str,), **SHARED,
    },
    "clip": {
        "name": (str,), "video": (str,), "face": (str,), "others": (str,), "start": NUMBER, "end": NUMBER, **SHARED,
    },
    "edit": {"name": (str,), "set": (dict,), "edge": (str,)},
    "render": {"name": (str,), "view": (str,), "ending": (str,), "audio_track": (int,), **SHARED},
}  # fmt: skip
TOP: Types = {"out": (str,), "avatar": (list,), "clip": (list,), "edit": (list,), "render": (list,)}
SOURCES = ("avatar", "scan", "video")  # what an avatar comes from: one of them
WORDS = {str: "a text", list: "a list", dict: "a table", bool: "true or false", int: "a number", float: "a number"}


@dataclass(frozen=True)
class Table:
    """One table of the file, checked."""

    kind: str  # "avatar", "clip", ...
    line: int  # of its header, from 1
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its part of the results' names."""
        return str(self.values["name"])

    def some(self, *names: str) -> dict[str, Any]:
        """The values that are there of some keys."""
        return {name: self.values[name] for name in names if name in self.values}


def tables_of(file: Path) -> tuple[str, dict[str, Sequence[Table]]]:
    """Read the file of a batch; returns the folder of the results, as written, and the tables of each kind.

    Raises: BadJob: one sentence with the line: what was expected, what came, what to do.
    """
    text, values = _parsed(file)
    _check_keys(file, 1, "the top of the file", values, TOP)
    out = values.get("out")
    if not out:
        raise BadJob(f'{file}: expected out = "FOLDER" at the top, got none; name the folder of the results')
    tables = {kind: list(_tables(file, text, kind, values.get(kind, ()))) for kind in TABLES}
    later = [table.line for kind in ("edit", "render") for table in tables[kind]]
    if not tables["avatar"]:
        raise BadJob(f"{file}: expected at least one [[avatar]], got none; add one")
    if later and not tables["clip"]:
        raise BadJob(f"{file}, line {min(later)}: expected a [[clip]] for this table, got none; add one")
    count = 1
    for kind in TABLES:
        count *= max(1, len(tables[kind]))
    if count > MOST_RESULTS:
        raise BadJob(f"{file}: expected at most {MOST_RESULTS} results, got {count}; split the file")
    return str(out), {**tables}


def _parsed(file: Path) -> tuple[str, dict[str, Any]]:
    try:
        with open(file, "rb") as opened:
            data = opened.read(MOST_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise BadJob(f"{file} could not be read ({error.strerror or error}); give a TOML file of a batch") from None
    except UnicodeDecodeError:
        raise BadJob(f"{file}: expected text in UTF-8, got other bytes; give a TOML file of a batch") from None
    if len(data) > MOST_BYTES:
        raise BadJob(f"{file}: expected at most {MOST_BYTES} bytes, got more; split the file")
    try:
        return text, tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadJob(f"{file} is not TOML: {error or 'nested too deeply'}; correct it there") from None


def _tables(file: Path, text: str, kind: str, given: Any) -> Iterator[Table]:
    header = re.compile(rf"\s*\[\[\s*[\"']?{kind}[\"']?\s*\]\]")
    lines = [number for number, line in enumerate(text.splitlines(), start=1) if header.match(line)]
    seen: dict[str, int] = {}
    for index, values in enumerate(given):
        line = lines[index] if index < len(lines) else 1
        where = f"[[{kind}]] number {index + 1}"
        if not isinstance(values, dict):
            raise BadJob(f"{file}: expected {kind} as tables [[{kind}]], got {values!r:.40}; write it so")
        _check_keys(file, line, where, values, TABLES[kind])
        table = Table(kind, line, values)
        _check_name(file, line, where, values.get("name"))
        alike = table.name.casefold()  # some drives do not tell cases apart
        if alike in seen:
            raise BadJob(
                f"{file}, line {line}, {where}: the name {table.name} is that of line {seen[alike]}, and both would "
                "write the same results; choose another name"
            )
        seen[alike] = line
        if kind == "avatar":
            _check_avatar(file, table, where)
        if kind == "clip" and "video" not in values:
            raise BadJob(f'{file}, line {line}, {where}: expected video = "FILE", got none; name the driving clip')
        yield table


def _check_keys(file: Path, line: int, where: str, values: Mapping[str, Any], known: Types) -> None:
    for key, value in values.items():
        if key not in known:
            expected = ", ".join(known)
            raise BadJob(f"{file}, line {line}, {where}: expected keys {expected}, got {key!r:.60}; correct the name")
        types = known[key]
        if not isinstance(value, types) or isinstance(value, bool) and bool not in types:
            wanted = " or ".join(dict.fromkeys(WORDS[one] for one in types))
            raise BadJob(f"{file}, line {line}, {where}: expected {key} as {wanted}, got {value!r:.60}; correct it")


def _check_name(file: Path, line: int, where: str, name: Any) -> None:
    if name is None or not NAME.fullmatch(name) or len(name) > LONGEST:
        raise BadJob(
            f"{file}, line {line}, {where}: expected a name of 1 to {LONGEST} letters, digits, - and _, got "
            f"{'none' if name is None else repr(name)[:60]}; it becomes part of the results' names"
        )


def _check_avatar(file: Path, table: Table, where: str) -> None:
    given = table.some(*SOURCES)
    if len(given) != 1:
        raise BadJob(
            f"{file}, line {table.line}, {where}: expected one of {', '.join(SOURCES)}, got "
            f"{', '.join(given) or 'none'}; say what the avatar comes from"
        )
    videos = given.get("video", "")
    if isinstance(videos, list) and not (1 <= len(videos) <= MOST_CLIPS and all(isinstance(v, str) for v in videos)):
        raise BadJob(
            f"{file}, line {table.line}, {where}: expected video as one name of a file or 1 to {MOST_CLIPS} of them, "
            f"got {videos!r:.60}; correct it"
        )
    if "video" in given and "consent" not in table.values:
        raise BadJob(
            f"{file}, line {table.line}, {where}: expected consent = NAME beside video, got none; name the person "
            "shown, who is you or has agreed"
        )
