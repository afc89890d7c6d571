"""selfscan measures faces in real video. It contains no generator.

The stages and types below are loaded on first use, so that importing selfscan stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfscan.errors import SelfscanError
    from selfscan.face.observe import iter_crops, observe
    from selfscan.scan.consent import make_consent
    from selfscan.scan.coverage import coverage
    from selfscan.scan.scan import ScanSettings, scan_clips, scan_observation, scan_video
    from selfscan.types import Alignment, Consent, Coverage, FaceTrack, Observation, Progress, Scan

__all__ = [
    "Alignment",
    "Consent",
    "Coverage",
    "FaceTrack",
    "Observation",
    "Progress",
    "Scan",
    "ScanSettings",
    "SelfscanError",
    "coverage",
    "iter_crops",
    "make_consent",
    "observe",
    "scan_clips",
    "scan_observation",
    "scan_video",
]

#: module -> the public names that it defines; a name must not equal a submodule's, since importing that replaces it
_HOMES = {
    "selfscan.errors": ("SelfscanError",),
    "selfscan.face.observe": ("iter_crops", "observe"),
    "selfscan.scan.consent": ("make_consent",),
    "selfscan.scan.coverage": ("coverage",),
    "selfscan.scan.scan": ("ScanSettings", "scan_clips", "scan_observation", "scan_video"),
    "selfscan.types": (
        "Alignment", "Consent", "Coverage", "FaceTrack", "Observation", "Progress", "Scan",
    ),
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Load a stage or type when it is first used."""
    for module, names in _HOMES.items():
        if name in names:
            return globals().setdefault(name, getattr(import_module(module), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
