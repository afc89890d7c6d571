"""Mutations of valid files: of bytes, and of the structures of their formats."""

import json
from typing import Any

from hypothesis import strategies as st

NUMBERS = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\0\1",
    b"\1\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\0\0\0\0\0\0\0\x80",
    b"\xff",
    b"\0",
    b"\n",
    b'"',
    b"(",
    b"[" * 50,
)
VALUES = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**30,
    -(10**30),
    0.5,
    -0.0,
    1e308,
    "",
    "..",
    "../../x",
    "/etc/x",
    "a\0b",
    "\x1b[31m",
    "\ud800",
    "nan",
    "9" * 500,
    "x" * 3000,
    [],
    {},
    [[]],
    [0] * 50,
    {"": 0},
    "$array",
    "$images",
)


@st.composite
def changed_bytes(draw, seed: bytes, others: tuple[bytes, ...] = ()) -> bytes:
    """Return a file with a few bytes changed, removed, repeated, or taken from another file."""
    data = bytearray(seed)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(len(data) - 1, 0)) | st.integers(0, min(200, max(len(data) - 1, 0))))
        kind = draw(st.sampled_from(("flip", "set", "number", "cut", "remove", "insert", "double", "other")))
        if not data:
            break
        if kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[at] = draw(st.integers(0, 255))
        elif kind == "number":
            number = draw(st.sampled_from(NUMBERS))
            data[at : at + len(number)] = number
        elif kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=16))
        elif kind == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 256))]
        elif others:
            other = draw(st.sampled_from(others))
            data[at : at + 64] = other[at : at + 64]
    return bytes(data)


@st.composite
def changed_json(draw, value: Any) -> Any:
    """Return a JSON value with a few parts replaced, removed, renamed or moved."""
    for _ in range(draw(st.integers(1, 3))):
        value = _replaced(value, draw)
    return value


def _replaced(value: Any, draw) -> Any:
    """Descend to a random part and change it."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        action = draw(st.sampled_from(("down", "down", "down", "remove", "rename", "add")))
        if action == "remove":
            return {k: v for k, v in value.items() if k != key}
        if action == "rename":
            return {(draw(st.sampled_from(("", "..", "x", "\x1b"))) if k == key else k): v for k, v in value.items()}
        if action == "add":
            return value | {draw(st.sampled_from(("extra", "$array", "$images", "$generator"))): _odd(draw)}
        return value | {key: _replaced(value[key], draw)}
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return value[:at] + [_replaced(value[at], draw)] + value[at + 1 :]
    return _odd(draw)


def _odd(draw) -> Any:
    return draw(
        st.sampled_from(VALUES)
        | st.integers(-100, 5000)
        | st.text(max_size=8)
        | st.builds(lambda depth: json.loads("[" * depth + "]" * depth), st.sampled_from((5, 200)))
    )
