"""Names of a scan's clips among its inputs, for all that write or read them."""

from __future__ import annotations

from mystudio.errors import BadClips

MOST_CLIPS = 8  # of a scan: all of them are measured in one run
CLIPS = ("video", *(f"video_{k}" for k in range(2, MOST_CLIPS + 1)))


def scan_inputs(count: int) -> tuple[str, ...]:
    """Return the names of so many clips: "video", "video_2" and so on. Raises BadClips: too many, or none."""
    if not 1 <= count <= MOST_CLIPS:
        raise BadClips(f"expected 1 to {MOST_CLIPS} clips of one person, got {count}; choose the best ones")
    return CLIPS[:count]
