"""Artifacts of older schemas, converted while they are read; the files stay as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mystudio import engines
from mystudio.types import Avatar

Values = dict[str, Any]


def upgraded(values: Any, kind: str, schema: int) -> Any:
    """Convert the values of an artifact of any readable schema to the present one.

    Args:
        values: content of ``values.json``. kind: "scan", "performance", "avatar" or "take".
        schema: schema of the values.
    Raises: ValueError, KeyError, TypeError: the values do not fit that schema.
    """
    if not isinstance(values, dict):
        raise ValueError(f"expected a table of values, got {type(values).__name__}")
    for step in _STEPS[schema - 1 :]:
        values = step.get(kind, lambda same: same)(values)
    return values


def _avatar_1_to_2(values: Values) -> Values:
    """Move the engine's fields into ``state``; in schema 1 they were fields of the avatar itself."""
    own = {field.name for field in dataclasses.fields(engines.named(values["engine"]).State)}
    every = {field.name for field in dataclasses.fields(Avatar)}
    kept = {name: value for name, value in values.items() if name in every}
    return kept | {"state": {name: value for name, value in values.items() if name in own - every}}


def _take_1_to_2(values: Values) -> Values:
    """Give the codes a name; in schema 1 they were one array of the personal engine."""
    return values | {"codes": {"axes": values["codes"]}}


#: step k converts schema k + 1 to k + 2; kinds that a step does not list are unchanged
_STEPS: tuple[Mapping[str, Callable[[Values], Values]], ...] = ({"avatar": _avatar_1_to_2, "take": _take_1_to_2},)
