"""Engines: ways from a performance to styles. All speak the protocol of ``mystudio.types.Engine``."""

from __future__ import annotations

import importlib

from mystudio.errors import BadArtifact
from mystudio.types import Engine

#: name in an avatar -> module that speaks the protocol
ENGINES = {"personal": "mystudio.engines.personal"}


def named(name: str) -> Engine:
    """The engine of an avatar.

    Raises: BadArtifact: this version has no such engine.
    """
    if name not in ENGINES:
        raise BadArtifact(f"expected an engine among {', '.join(ENGINES)}, got {name!r}; update mystudio")
    return importlib.import_module(ENGINES[name])
