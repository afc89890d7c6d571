"""Recipes: strict TOML -> the stages' settings; an unknown key is an error that names the nearest valid one.

Each stage defines its settings as a frozen dataclass; this module only looks them up. So a stage can change its
settings without a change here. Nothing heavy is imported before a recipe is resolved.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from mystudio import engines
from mystudio.errors import BadEngine, BadRecipe, reason
from mystudio.recipe_text import toml_lines
from selfscan.io.text import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] - installed only with Python 3.10

if TYPE_CHECKING:
    from mystudio.base.settings import BaseSettings
    from mystudio.live.follow import LiveSettings
    from mystudio.motion.retarget import RetargetSettings
    from mystudio.provenance.claim import ProvenanceSettings
    from mystudio.rendering.render import RenderSettings
    from selfscan.scan.scan import ScanSettings

#: tables that all engines share -> location of their settings; each engine defines its own tables
STAGES = {
    "scan": "selfscan.scan.scan:ScanSettings",
    "retarget": "mystudio.motion.retarget:RetargetSettings",
    "render": "mystudio.rendering.render:RenderSettings",
    "provenance": "mystudio.provenance.claim:ProvenanceSettings",
    "live": "mystudio.live.follow:LiveSettings",
}
_PACKAGED = Path(__file__).parent / "recipes"  # in a wheel; in the source tree they are at the top
FOLDER = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[1] / "recipes"
EngineStage = Literal["personalize", "reenact"]
DEFAULT = "default"
BASE = "base"  # recipes base-NAME train a base generator, ENGINE or ENGINE-NAME an engine; the others run the stages
MAX_BYTES = 1 << 20
#: key of an older version -> its current name
SUCCESSORS = {
    "reenact.hold": "reenact.pose_lid_weight",
    "reenact.pose": "reenact.pose_lid_weight",
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The resolved settings of every stage.

    Tables of the default engine have plain names ([personalize], [reenact]). Tables of another engine have its name as
    a prefix ([hyper.train]). So one recipe can hold settings for every engine.
    """

    name: str
    scan: ScanSettings
    retarget: RetargetSettings
    render: RenderSettings
    provenance: ProvenanceSettings
    live: LiveSettings
    engines: Mapping[str, Mapping[str, Any]]  # engine -> its own tables

    def of(self, engine: str, stage: EngineStage) -> Any:
        """The settings of an engine for a stage: an instance of its ``PersonalizeSettings`` or ``ReenactSettings``."""
        cls = _stage_class(engine, stage)
        own = self.engines[engine]
        return cls(**{f.name: own[f.name] if f.name in own else getattr(self, f.name) for f in dataclasses.fields(cls)})

    def tables(self) -> dict[str, Any]:
        """All tables by their names in TOML, such as "scan", "personalize" or "hyper.train"."""
        found = {name: getattr(self, name) for name in STAGES}
        for engine, own in self.engines.items():
            found |= {_table_name(engine, name): settings for name, settings in own.items()}
        return {name: found[name] for name in sorted(found, key=_in_order)}

    def show(self) -> str:
        """Return the recipe as TOML, every key with its meaning as a comment."""
        tables = (f"[{name}]\n" + "\n".join(toml_lines(settings)) for name, settings in self.tables().items())
        return f"# {self.name}: the resolved recipe\n\n" + "\n\n".join(tables) + "\n"


def names(of: str = "") -> list[str]:
    """Return the recipes that come with mystudio: of the stages, or those that train a base, or an engine by name."""
    found = {path.stem: path.stem.partition("-")[0] for path in FOLDER.glob("*.toml")}
    trained = {BASE, *engines.ENGINES}
    return sorted(stem for stem, first in found.items() if first == of or not of and first not in trained)


def describe(name: str) -> str:
    """Return the first comment line of a recipe that comes with mystudio."""
    first = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()[0]
    return first.lstrip("# ")


def resolve(source: str | Path = DEFAULT, options: Iterable[str] = ()) -> Recipe:
    """Read a recipe, apply options and check everything.

    Args:
        source: name of a recipe that comes with mystudio, or a TOML file.
        options: "stage.key=value" each, applied in order.
    Raises: BadRecipe: the file is missing or not TOML, a table or key is unknown, a value has a wrong type or range.
    """
    own = {engine: engine_tables(engine) for engine in engines.ENGINES}
    plain = own.get(engines.DEFAULT, {})
    known = [*STAGES, *plain, *(engine for engine, classes in own.items() if classes and engine != engines.DEFAULT)]
    tables = _tables(source, options, known, names())
    shared = {name: _validate(settings_class(name), name, tables.get(name, {}), str(source)) for name in STAGES}
    found = {}
    for engine, classes in own.items():
        given = tables if engine == engines.DEFAULT else tables.get(engine, {})
        _refuse_unknown(given, [*known, *classes], f"{source}: [{engine}]")
        found[engine] = {
            name: _validate(cls, _table_name(engine, name), given.get(name, {}), str(source))
            for name, cls in classes.items()
        }
    return Recipe(Path(source).stem, **shared, engines=found)


def resolve_base(source: str | Path, options: Iterable[str] = ()) -> BaseSettings:
    """Like ``resolve``, for a recipe that trains a base. Raises BadRecipe."""
    from mystudio.base.settings import BaseSettings

    return _resolve_training(BaseSettings, source, options, names(BASE))


def resolve_training(engine: str, source: str | Path, options: Iterable[str] = ()) -> Any:
    """Like ``resolve``, for a recipe that trains an engine: its ``TrainSettings``. Raises BadRecipe, NotOffered."""
    return _resolve_training(engines.training(engine).TrainSettings, source, options, names(engine))


def _resolve_training(settings: type, source: str | Path, options: Iterable[str], shipped: list[str]) -> Any:
    classes = get_type_hints(settings)
    tables = _tables(source, options, classes, shipped)
    return settings(**{name: _validate(cls, name, tables.get(name, {}), str(source)) for name, cls in classes.items()})


def settings_class(stage: str) -> type:
    """Return the settings dataclass of a table that all engines share."""
    module, name = STAGES[stage].split(":")
    return getattr(importlib.import_module(module), name)


def engine_tables(engine: str) -> dict[str, type]:
    """Return the tables that only this engine has: name -> settings dataclass.

    Raises: BadEngine: it names a shared table with settings of another class.
    """
    found: dict[str, type] = {}
    for stage in get_args(EngineStage):
        for name, cls in get_type_hints(_stage_class(engine, stage)).items():
            if name not in STAGES:
                found[name] = cls
            elif cls is not settings_class(name):
                raise BadEngine(f"engine {engine!r}: the table [{name}] is shared; use {STAGES[name]} or another name")
    return found


def _stage_class(engine: str, stage: EngineStage) -> type:
    module = engines.named(engine)
    return module.PersonalizeSettings if stage == "personalize" else module.ReenactSettings


def _table_name(engine: str, name: str) -> str:
    return name if engine == engines.DEFAULT else f"{engine}.{name}"


def _in_order(table: str) -> tuple[int, str]:
    """Sort key: the order of the stages, then tables of other engines."""
    stages = ("scan", "invert", "personalize", "regress", "retarget", "reenact", "render", "provenance", "live")
    return (stages.index(table), "") if table in stages else (len(stages), table)


def _tables(source: str | Path, options: Iterable[str], known: Iterable[str], shipped: list[str]) -> dict[str, Any]:
    tables = _read(source, shipped)
    for option in options:
        _apply(tables, option)
    _refuse_giants(tables, str(source))
    _refuse_renamed(tables, str(source))
    _refuse_unknown(tables, known, str(source))
    return tables


def _refuse_unknown(tables: Any, known: Iterable[str], where: str) -> None:
    if not isinstance(tables, Mapping):
        raise BadRecipe(f"{where}: expected tables, got {tables!r:.80}; try `mystudio recipe show`")
    for table in tables:
        if table not in known:
            raise BadRecipe(f"{where}: there is no table [{_shown(table)}]; {_nearest(table, known)}")


def _read(source: str | Path, shipped: list[str]) -> dict[str, Any]:
    path = FOLDER / f"{source}.toml" if str(source) in shipped else Path(source)
    if not path.is_file():
        raise BadRecipe(f"there is no recipe {str(source)!r}; {_nearest(str(source), shipped)}, or give a TOML file")
    if path.stat().st_size > MAX_BYTES:
        raise BadRecipe(f"{path} has more than {MAX_BYTES} bytes, which no recipe has; give a TOML file")
    try:
        return tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # not TOML, no text, or a number with thousands of digits
        raise BadRecipe(f"{path} is not valid TOML ({reason(error)}); correct that line") from None


def _refuse_giants(value: Any, source: str) -> None:
    """Reject numbers with thousands of digits: Python can neither convert them to floats nor print them."""
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise BadRecipe(f"{source}: expected numbers of at most 63 bits, got a larger one; try `mystudio recipe show`")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_giants(part, source)


def _refuse_renamed(tables: dict[str, Any], source: str) -> None:
    for old, new in SUCCESSORS.items():
        stage, _, key = old.partition(".")
        table = tables.get(stage)
        if isinstance(table, dict) and key in table:
            raise BadRecipe(f"{source}: {old} is now {new}; rename the key")


def _apply(tables: dict[str, Any], option: str) -> None:
    key, equals, text = option.partition("=")
    stage, dot, name = key.strip().partition(".")
    if not (equals and dot and name and isinstance(tables.setdefault(stage, {}), dict)):
        raise BadRecipe(f"option {option[:80]!r}: expected stage.key=value, for example reenact.steps=30")
    target = tables[stage]
    *groups, last = name.split(".")
    for group in groups:
        target = target.setdefault(group, {})
        if not isinstance(target, dict):
            raise BadRecipe(
                f"option {option[:80]!r}: {_shown(group)} holds a value, not keys; try `mystudio recipe show`"
            )
    if new := SUCCESSORS.get(key.strip()):
        raise BadRecipe(f"option {option[:80]!r}: {key.strip()} is now {new}; rename the key")
    target[last] = _value_of(text.strip())


def _value_of(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
        return parsed["value"] if len(parsed) == 1 else text
    except (ValueError, RecursionError):
        return text  # an unquoted word: lpips, auto, project


def _validate(cls: type, stage: str, table: Any, source: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    for where, value in _check_keys(cls, table, f"{source}: [{stage}]"):
        if isinstance(value, float) and not math.isfinite(value):
            raise BadRecipe(f"{where}: expected a finite number, got {value}; try `mystudio recipe show`")
        if isinstance(value, (int, float)) and value < 0:  # no setting may be negative
            raise BadRecipe(f"{where}: expected 0 or more, got {value}; try `mystudio recipe show`")
    try:
        return TypeAdapter(cls).validate_json(json.dumps(table), strict=True)
    except TypeError as error:  # TOML dates and times are no settings
        raise BadRecipe(f"{source}: [{stage}] {error}; expected numbers, words, true or false") from None
    except ValidationError as errors:
        first = errors.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        got = f", got {first['input']!r:.80}" if first["loc"] else ""
        said = re.sub(r"^Value error, ", "", first["msg"])
        raise BadRecipe(f"{source}: [{stage}] {_shown(key)}: {said}{got}; try `mystudio recipe show`") from None


def _check_keys(cls: type, table: Any, where: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(table, Mapping):
        raise BadRecipe(f"{where}: expected a table of keys, got {table!r:.80}; try `mystudio recipe show`")
    hints = get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    for key, value in table.items():
        if key not in known:
            raise BadRecipe(f"{where}: there is no key {_shown(key)!r}; {_nearest(key, known)}")
        if dataclasses.is_dataclass(hints[key]):
            yield from _check_keys(hints[key], value, f"{where} {key}")
        else:
            yield f"{where} {key}", value


def _shown(word: str) -> str:
    """The user's word, with escapes for characters that cannot be printed."""
    return word if word.isprintable() and len(word) <= 80 else ascii(word[:80])


def _nearest(word: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(word, known, 1, 0.5)
    return f"did you mean {close[0]!r}?" if close else "known are " + ", ".join(known)
