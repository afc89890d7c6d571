"""Images of a scan that a person does not want: a small list in the person's folder, given to training.

The scan itself stays whole, so every image can be brought back. The list belongs to the recordings of the scan: it
still holds when another recording is added, and is empty for other recordings.
"""

from __future__ import annotations

import json
from typing import Any

from mystudio import engines
from mystudio.errors import BadArtifact, OutputFailed, StudioError
from mystudio.storage.journal import write_bytes
from mystudio.web.library.facts import ScanFacts
from mystudio.web.library.people import Person

LIST = "left-out.json"
MOST_BYTES = 1 << 20


def left_out(person: Person, scan: ScanFacts | None) -> frozenset[int]:
    """Numbers of the images that are left out of the present scan."""
    if scan is None:
        return frozenset()
    return _listed(person, scan) & {*scan.numbers}


def change(person: Person, scan: ScanFacts, number: int, out: bool) -> None:
    """Leave an image out, or bring it back; the caller holds the studio's lock.

    Raises: StudioError: the scan does not hold it, or too few images would be left. OutputFailed: the disk is full.
    """
    if number not in scan.numbers:
        raise StudioError("this image is not in the scan any more; reload the page and choose another one")
    before = _listed(person, scan)
    after, needed = (before | {number} if out else before - {number}), engines.needed(engines.DEFAULT)
    if out and len({*scan.numbers} - after) < needed:
        raise StudioError(f"an avatar needs at least {needed} images of the scan; bring another one back first")
    values = {"recordings": list(scan.recordings), "images": sorted(after)}
    try:
        write_bytes(person.folder / LIST, (json.dumps(values) + "\n").encode())
    except OSError as error:
        raise OutputFailed(f"{person.folder} could not be written ({error.strerror}); free space") from error


def _listed(person: Person, scan: ScanFacts) -> frozenset[int]:
    """All numbers of the list, also those that a later choice of images does not hold."""
    try:
        found: Any = json.loads((person.folder / LIST).read_bytes()[:MOST_BYTES])
        recordings = [str(name) for name in found["recordings"]]
        numbers = frozenset(number for number in found["images"] if type(number) is int)
    except (OSError, ValueError, LookupError, TypeError, RecursionError, BadArtifact):
        return frozenset()
    return numbers if recordings and recordings == list(scan.recordings[: len(recordings)]) else frozenset()
