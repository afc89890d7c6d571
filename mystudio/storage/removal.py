"""Delete an avatar with its scan, and on request its takes and reports; list what is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from mystudio.errors import ArtifactBusy, BadArtifact, OutputFailed
from mystudio.storage.locks import lock
from mystudio.storage.manifest import MANIFEST, Folder, beside, open_folder, resolved
from mystudio.storage.products import products_in
from mystudio.storage.scan_inputs import CLIPS
from mystudio.storage.workspace import journal_of, recover
from selfscan.io.naming import derived

GONE = ".deleted"  # suffix of a folder that is being deleted; after a kill, the next deletion removes the rest
KINDS = ("avatar", "scan", "take", "report")  # kinds with their own lock
#: input of a scan that a deletion keeps -> its description
RECORDINGS = {
    **{clip: "the recording of the scan" for clip in CLIPS},
    **{f"{clip}_words": "the words said in it" for clip in CLIPS},
    "consent_clip": "the clip of consent",
    "consent_clip_words": "the words said in it",
}


@dataclass(frozen=True)
class Item:
    """One folder to be removed."""

    path: Path
    kind: str  # avatar, scan, take, report, "checkpoints of ...", "rest of an earlier deletion"
    files: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.path} ({self.kind}, {self.files} files, {self.bytes / 1e6:.1f} MB)"


@dataclass(frozen=True)
class Plan:
    """The folders that a deletion removes, in order, and the related files that it keeps."""

    items: tuple[Item, ...]
    left: tuple[str, ...]


def plan(avatar: Path, with_scan: bool | None = None, with_takes: bool = False, search: Sequence[Path] = ()) -> Plan:
    """Find the folders that belong to an avatar; nothing is changed.

    Args:
        avatar: folder of the avatar.
        with_scan: also remove the avatar's scan; None = only if no other avatar was made from it.
        with_takes: also remove takes, edited takes and reports made from the avatar.
        search: folders to search in addition to the avatar's parent.
    Raises: BadArtifact: not an avatar, damaged, or a folder to remove holds foreign files.
    """
    if Path(avatar).is_symlink():
        raise BadArtifact(f"{avatar} is a link; give the folder itself, {resolved(avatar)}")
    path = resolved(avatar)
    places = list(dict.fromkeys([path.parent, *map(resolved, search)]))
    rests = [_item(rest, "rest of an earlier deletion") for place in places for rest in _rests(place)]
    if rests and not path.exists() and any(rest.path == _gone(path) for rest in rests):
        return Plan(tuple(rests), ())
    if path.is_file():
        raise BadArtifact(f"{path} is a file, expected the folder of an avatar; nothing was removed")
    if beside(path, "old").exists():
        with lock(path):
            recover(path)
    folder = open_folder(path, "avatar")
    known = [found for place in places for found in _artifacts(place)]
    takes = [f for f in known if f.manifest.type in ("take", "report") and _made_from(f, "avatar", folder)]
    scan = _scan_of(folder, known)
    shared = [other for other in known if scan and _is_of(other, scan) and other.path != folder.path]
    with_scan = not shared if with_scan is None else with_scan
    doomed = [*(takes if with_takes else ()), *([scan] if scan and with_scan else ()), folder]
    items = [item for found in doomed for item in _items_of(found)]
    left = [
        *_left_scan(folder, scan, shared, with_scan),
        *([] if with_takes else _left_takes(takes)),
        *_left_clips(places, folder.manifest.digest),
    ]
    return Plan((*rests, *items), tuple(left))


def carry_out(plan: Plan) -> tuple[Item, ...]:
    """Remove the folders of a plan.

    Each folder is renamed first and emptied afterwards, so a folder under its own name is always complete. The avatar
    is removed last, so that the same command can finish the work after a kill.

    Returns: the items that were removed.
    Raises:
        ArtifactBusy: another process writes one of the folders; nothing was removed.
        OutputFailed: no permission; the message lists what was removed before the failure.
    """
    done: list[Item] = []
    with ExitStack() as locks:
        for item in plan.items:
            if item.kind in KINDS:
                locks.enter_context(lock(item.path))
        try:
            for item in plan.items:
                _remove(item.path)
                done.append(item)
        except OSError as error:
            so_far = ", ".join(str(item.path) for item in done) or "nothing"
            raise OutputFailed(
                f"{error.filename or 'a folder'} could not be removed ({error.strerror or error}); "
                f"removed before: {so_far}; correct that and run the same command again"
            ) from error
    for place in {item.path.parent for item in done}:
        _forget_locks(place)
    return tuple(done)


def _forget_locks(place: Path) -> None:
    """Remove the lock files of deleted folders that a killed deletion left behind."""
    for file in place.glob(".*.lock"):
        path = file.with_name(file.name[1:].removesuffix(".lock"))
        if not path.exists():
            with suppress(ArtifactBusy, OSError), lock(path):
                pass  # the lock file is removed on exit


def _remove(path: Path) -> None:
    gone = path
    if path.suffix != GONE:
        gone = _gone(path)
        if gone.exists():
            shutil.rmtree(gone)
        os.rename(path, gone)
    shutil.rmtree(gone)


def _gone(path: Path) -> Path:
    return derived(path, ".", GONE)


def _rests(place: Path) -> list[Path]:
    return sorted(p for p in place.glob(f".*{GONE}") if p.is_dir() and not p.is_symlink())


def _artifacts(place: Path) -> Iterator[Folder]:
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        if path.is_symlink() or path.name.startswith(".") or not (path / MANIFEST).is_file():
            continue
        try:
            yield open_folder(path)
        except BadArtifact:
            continue


def _made_from(folder: Folder, role: str, source: Folder) -> bool:
    """Return whether ``source`` is the recorded input: equal content, and no other copy at the recorded path."""
    recorded = folder.manifest.inputs.get(role)
    if recorded is None or recorded.digest != source.manifest.digest:
        return False
    place = resolved(folder.path.parent / recorded.path)
    return place == source.path or not place.exists()


def _scan_of(avatar: Folder, known: list[Folder]) -> Folder | None:
    recorded = avatar.manifest.inputs.get("scan")
    if recorded is None:
        return None
    try:
        scan = open_folder(avatar.path.parent / recorded.path, "scan")
        if scan.manifest.digest == recorded.digest:
            return scan
    except BadArtifact:
        pass  # the scan was moved: search for it by its digest
    return next((f for f in known if f.manifest.type == "scan" and f.manifest.digest == recorded.digest), None)


def _items_of(folder: Folder) -> Iterator[Item]:
    strange = {
        p.relative_to(folder.path).as_posix() for p in folder.path.rglob("*") if not p.is_dir() or p.is_symlink()
    } - {MANIFEST, *folder.manifest.files}
    if strange:
        raise BadArtifact(
            f"{folder.path} holds {sorted(strange)[0][:80]!r}, which is not a part of it; move that "
            "elsewhere first; nothing was removed"
        )
    kind = folder.manifest.type
    for path, words in (
        (journal_of(folder.path), f"checkpoints of the {kind}"),
        (beside(folder.path, "old"), f"older {kind}"),
        (beside(folder.path, "new"), f"half a {kind}"),
        (folder.path, kind),
    ):
        if path.is_dir() and not path.is_symlink():
            yield _item(path, words)


def _item(path: Path, kind: str) -> Item:
    files = [p for p in path.rglob("*") if p.is_file() or p.is_symlink()]
    return Item(path, kind, len(files), sum(p.lstat().st_size for p in files))


def _is_of(avatar: Folder, scan: Folder) -> bool:
    source = avatar.manifest.inputs.get("scan")
    return avatar.manifest.type == "avatar" and source is not None and source.digest == scan.manifest.digest


def _left_scan(avatar: Folder, scan: Folder | None, shared: list[Folder], with_scan: bool) -> Iterator[str]:
    if scan is None:
        if "scan" in avatar.manifest.inputs:
            yield f"the scan it was made from was not found (it was at {avatar.manifest.inputs['scan'].path})"
        return
    if not with_scan:
        yield f"{scan.path} (the scan; --with-scan removes it)"
    for role, source in scan.manifest.inputs.items():
        words = RECORDINGS.get(role)
        place = resolved(scan.path.parent / source.path)
        if words and place.exists():
            yield f"{place} ({words})"
    for other in shared:
        yield f"{other.path} (another avatar of the same scan)"


def _left_takes(takes: list[Folder]) -> Iterator[str]:
    for take in takes:
        yield f"{take.path} (a {take.manifest.type}; --with-takes removes it)"


def _left_clips(places: list[Path], digest: str) -> Iterator[str]:
    for place in places:
        for clip, known in products_in(place):
            inputs = known.get("inputs")
            if clip.exists() and isinstance(inputs, dict) and inputs.get("avatar") == digest:
                yield f"{clip} (a rendered clip)"
