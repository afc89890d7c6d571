"""Settings as lines of TOML, each key with its comment in the source code."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints


def field_docs(cls: type) -> dict[str, str]:
    """Return field -> its comment in the source code. The comment is on the same line, or on the lines above.

    Lines below that begin with ``#`` and at least two spaces continue the comment.
    """
    lines = textwrap.dedent(inspect.getsource(cls)).splitlines()
    docs = {}
    for node in (node for node in ast.walk(ast.parse("\n".join(lines))) if isinstance(node, ast.AnnAssign)):
        if not isinstance(node.target, ast.Name):
            continue
        end = node.end_lineno or node.lineno
        above, below = node.lineno - 1, end
        while re.match(r"\s*#(?!  )", lines[above - 1]):
            above -= 1
        while below < len(lines) and re.match(r"\s*#  ", lines[below]):
            below += 1
        tail = lines[end - 1].encode()[node.end_col_offset :].decode()
        comments = [*lines[above : node.lineno - 1], tail, *lines[end:below]]
        docs[node.target.id] = " ".join(c.strip().lstrip("#: ").strip() for c in comments if "#" in c)
    return docs


def toml_lines(settings: Any, prefix: str = "") -> Iterator[str]:
    """One line a key: "key = value  # comment". Keys of nested settings are prefixed with the outer field's name."""
    docs, hints = field_docs(type(settings)), get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value, doc = getattr(settings, field.name), docs.get(field.name, "")
        if get_origin(hints[field.name]) is Literal:
            doc = f"{doc} ({' | '.join(map(str, get_args(hints[field.name])))})".strip()
        if dataclasses.is_dataclass(value):
            yield from toml_lines(value, f"{prefix}{field.name}.")
            continue
        comment = f"  # {doc}" if doc else ""
        if value is None:
            yield f"# {prefix}{field.name} is not set{comment}"
        else:
            yield f"{prefix}{field.name} = {_toml(value)}{comment}"


def _toml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(str(k))} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value if isinstance(value, (bool, int, float)) else str(value), ensure_ascii=False)
