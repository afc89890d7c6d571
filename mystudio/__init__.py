"""mystudio: the personalized-generator studio (scan -> personalize -> reenact -> edit -> render -> evaluate).

The stages and types below are loaded when they are first used, so that importing mystudio takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mystudio.api import edit, evaluate, load, personalize, reenact, render, scan
    from mystudio.engines.protocol import Engine
    from mystudio.errors import StudioError
    from mystudio.recipe import Recipe
    from mystudio.types import Avatar, Edit, Outcome, Performance, Progress, Styles, Take
    from selfscan.types import Consent, Scan, Span

__all__ = [
    "Avatar",
    "Consent",
    "Edit",
    "Engine",
    "Outcome",
    "Performance",
    "Progress",
    "Recipe",
    "Scan",
    "Span",
    "StudioError",
    "Styles",
    "Take",
    "edit",
    "evaluate",
    "load",
    "personalize",
    "reenact",
    "render",
    "scan",
]

#: where what is offered is defined; no name may be a module's, whose import would replace it
_HOMES = {
    "mystudio.api": ("edit", "evaluate", "load", "personalize", "reenact", "render", "scan"),
    "mystudio.engines.protocol": ("Engine",),
    "mystudio.errors": ("StudioError",),
    "mystudio.recipe": ("Recipe",),
    "mystudio.types": ("Avatar", "Edit", "Outcome", "Performance", "Progress", "Styles", "Take"),
    "selfscan.types": ("Consent", "Scan", "Span"),
}


def __getattr__(name: str) -> object:
    """Load a stage or type when it is first used."""
    for module, names in _HOMES.items():
        if name in names:
            return globals().setdefault(name, getattr(import_module(module), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
