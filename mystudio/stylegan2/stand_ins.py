"""Inert replacements for the objects in a foreign checkpoint: names and plain values, without behaviour."""

from __future__ import annotations

from typing import Any

from mystudio.errors import BadCheckpoint


class Marker:
    """Replacement for a global of the pickle that is on the allow-list; it does nothing."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class Buildable:
    """A stand-in whose state the BUILD opcode sets."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        raise NotImplementedError


class Fields(dict, Buildable):
    """Stand-in for OrderedDict and EasyDict; attributes that the pickle sets on them are dropped."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise BadCheckpoint("expected the attributes of a dictionary in the checkpoint, got something else")


class Record(Buildable):
    """Stand-in for an object: the name of its class and its state, without behaviour."""

    __slots__ = ("class_name", "state")

    def __init__(self, class_name: str, state: dict | None = None):
        self.class_name = class_name
        self.state = state

    def build(self, state: Any) -> None:
        if not isinstance(state, dict) or self.state is not None:
            raise BadCheckpoint(f"expected one dictionary as the state of {quoted(self.class_name)} in the checkpoint")
        self.state = state


def quoted(text: object) -> str:
    """Format a value of a foreign file for a message: short, no control characters; for other objects their type."""
    return ascii(text[:80] if isinstance(text, str) else text if isinstance(text, int | float) else type(text).__name__)
