"""Engines: methods that turn a scan into an avatar, and a performance into styles (``engines.protocol.Engine``).

An engine is one folder and one line in ``ENGINES``. It is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mystudio.errors import BadArtifact, BadEngine, NotOffered

if TYPE_CHECKING:
    from torch import Tensor

    from mystudio.engines.protocol import Edits, Engine, Follows, Trains
    from mystudio.types import Avatar

DEFAULT = "personal"
#: engine's name, as in an avatar and in ``--engine`` -> module that fulfils the protocol
ENGINES = {
    "personal": "mystudio.engines.personal",
    "hyper": "mystudio.engines.hyper",
}


def named(name: str) -> Engine:
    """Load an engine by its name.

    Raises: BadArtifact: this version has no such engine. BadEngine: its module does not fulfil the protocol.
    """
    from mystudio.engines.protocol import Engine

    if name not in ENGINES:
        raise BadArtifact(f"expected an engine among {', '.join(ENGINES)}, got {name!r}; update mystudio")
    engine = importlib.import_module(ENGINES[name])
    if not isinstance(engine, Engine):
        raise BadEngine(f"{ENGINES[name]} is no engine: it must fulfil mystudio.engines.protocol.Engine")
    return engine


def of(avatar: Avatar) -> Engine:
    """The engine that made an avatar. Raises BadArtifact: this version does not have it."""
    return named(avatar.engine)


def editing(avatar: Avatar) -> Edits:
    """The engine of an avatar, checked for edits. Raises NotOffered: it has none."""
    from mystudio.engines.protocol import Edits

    engine = of(avatar)
    if not isinstance(engine, Edits):
        raise NotOffered(f"the engine {avatar.engine!r} has no edits; make an avatar with another engine to edit takes")
    return engine


def following(avatar: Avatar) -> Follows:
    """The engine of an avatar, checked for live driving. Raises NotOffered: it cannot follow live."""
    from mystudio.engines.protocol import Follows

    engine = of(avatar)
    if not isinstance(engine, Follows):
        raise NotOffered(f"the engine {avatar.engine!r} cannot follow live; use `mystudio reenact` on a recorded clip")
    return engine


def training(name: str) -> Trains:
    """An engine by its name, checked for training. Raises BadArtifact: as ``named``; NotOffered: it has none."""
    from mystudio.engines.protocol import Trains

    engine = named(name)
    if not isinstance(engine, Trains):
        raise NotOffered(f"the engine {name!r} is not trained: it learns each person by itself; use another engine")
    return engine


def needed(name: str) -> int:
    """The fewest images of a scan that an engine takes. Raises BadArtifact: as ``named``."""
    from mystudio.engines.protocol import Needs

    engine = named(name)
    return engine.NEEDED if isinstance(engine, Needs) else 1


def directions(avatar: Avatar) -> dict[str, Tensor]:
    """The edit directions that an avatar offers, name -> tensor; empty if its engine has no edits."""
    from mystudio.engines.protocol import Edits

    engine = of(avatar)
    return dict(engine.directions(avatar)) if isinstance(engine, Edits) else {}


def companions() -> dict[str, str]:
    """The companion files of all engines: kind of file beside a base -> what is lost without it."""
    from mystudio.engines.protocol import Companions

    found: dict[str, str] = {}
    for engine in map(named, ENGINES):
        found |= engine.COMPANIONS if isinstance(engine, Companions) else {}
    return found


def shown(avatar: Avatar) -> Tensor | None:
    """Landmarks [N, 478, 3] in crops of the images that an avatar was trained on; None if its engine does not say."""
    from mystudio.engines.protocol import Shows

    engine = of(avatar)
    return engine.shown(avatar) if isinstance(engine, Shows) else None


def describe(avatar: Avatar) -> dict[str, int | float | str]:
    """The engine's facts about an avatar; empty if the engine provides none."""
    from mystudio.engines.protocol import Describes

    engine = of(avatar)
    return engine.describe(avatar) if isinstance(engine, Describes) else {}
