"""Find the marks in a file: ``CHECKS`` holds one function for each kind of mark, file -> ``Finding``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mystudio.errors import SigningFailed
from mystudio.provenance import credentials, signing
from mystudio.provenance.claim import STATEMENT
from mystudio.storage.manifest import digest
from mystudio.storage.products import read_sidecar
from selfscan.errors import SelfscanError
from selfscan.io import picture, video

MAX_FRAMES = 500  # frames in which a watermark is looked for
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
MAX_TEXT = 200  # characters shown of a text from an untrusted file


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    mark: str  # the kind of mark: manifest, ...
    state: Literal["found", "tampered", "absent"]
    statement: str  # a sentence
    details: dict[str, Any] = field(default_factory=dict)


def examine(path: Path, trusted: Sequence[Path] = ()) -> list[Finding]:
    """Look for every kind of mark.

    Args:
        path: mp4, png or jpeg.
        trusted: PEM files of trusted issuers, in addition to this user's own.
    Raises: StudioError: the file is missing or of a type that cannot carry a mark.
    """
    return [check(Path(path), trusted) for check in CHECKS]


def manifest(path: Path, trusted: Sequence[Path] = ()) -> Finding:
    """Read the C2PA manifest and validate it against the file."""
    anchors = signing.own_issuer() + b"".join(map(_certificates, trusted))
    found = credentials.read(path, anchors)
    if found.state == "absent":
        return Finding("manifest", "absent", f"no C2PA manifest{_recorded(path)}")
    details = {
        "signer": _plain(found.signer),
        "issuer": _plain(found.issuer),
        "serial": _plain(found.serial),
        "known": found.known,
        "generator": _plain(found.generator),
        "problems": [*map(_plain, found.problems)],
    }
    if found.state == "tampered":
        why = _plain(found.problems[0]) if found.problems else "it does not fit the file"
        return Finding(
            "manifest",
            "tampered",
            f"the C2PA manifest does not hold: the file or the manifest was changed after signing ({why})",
            details,
        )
    said = found.statements.get(STATEMENT)
    who = _signer(found)
    if not isinstance(said, dict):
        return Finding(
            "manifest",
            "found",
            f"a whole C2PA manifest of another program ({_plain(found.generator)}), {who}; it names no avatar",
            details,
        )
    details |= {key: said.get(key) for key in ("synthetic", "person", "view", "avatar", "driver", "take", "edits")}
    return Finding("manifest", "found", f"a whole C2PA manifest, {who}: {_in_words(said)}", details)


def watermark(path: Path, trusted: Sequence[Path] = ()) -> Finding:
    """Look for the invisible watermark in the first ``MAX_FRAMES`` pictures."""
    from mystudio.provenance.watermark import Evidence

    evidence = Evidence()
    try:
        for picture in islice(_pictures(path), MAX_FRAMES):
            evidence.add(picture)
    except SelfscanError as error:
        return Finding("watermark", "absent", f"the search for a watermark failed ({_plain(error)})")
    found = evidence.judge() if evidence.count else None
    if found is None or not found.marked:
        return Finding("watermark", "absent", f"no watermark in {evidence.count} pictures")
    details = {"score": found.score, "false_positive": found.false_positive, "frames": evidence.count}
    chance = f"chance looks like this in less than 1 of {1 / max(found.false_positive, 1e-12):.0e} clips"
    if found.payload is None:
        return Finding("watermark", "found", f"a watermark of mystudio whose bits cannot be read ({chance})", details)
    name = f"{found.payload:012x}"
    return Finding(
        "watermark",
        "found",
        f"a watermark of the avatar whose digest begins with {name} ({chance})",
        details | {"avatar": name},
    )


CHECKS: tuple[Callable[[Path, Sequence[Path]], Finding], ...] = (manifest, watermark)


def _pictures(path: Path) -> Iterator[np.ndarray]:
    if path.suffix.lower() not in PICTURES:
        yield from (frame for _, frame in video.read(path))
        return
    yield picture.read(path)


def _signer(found: credentials.Credentials) -> str:
    name = f"signed by {_plain(found.signer) or 'a nameless key'}"
    if found.known:
        return f"{name}, a key that is known here"
    return f"{name}, a key that is not known here: unchanged since signing, but anybody could have signed"


def _in_words(said: dict[str, Any]) -> str:
    person = {"fictional": "a person who does not exist", "consenting": "a person who has consented"}
    edits = said.get("edits")
    edits = edits if isinstance(edits, list) else []
    named = ", ".join(_edit(edit) for edit in edits if isinstance(edit, dict)) or "none"
    driver = said.get("driver")
    return (
        f"synthetic media of {person.get(str(said.get('person')), 'a person')} ({_plain(said.get('view'))}), "
        f"avatar {_plain(said.get('avatar'))}, "
        + (f"driving clip {_plain(driver)}, " if driver else "")
        + f"edits: {named}"
    )


def _edit(edit: dict[str, Any]) -> str:
    if edit.get("keys"):
        return f"{_plain(edit.get('name'))} over time"
    strength = edit.get("strength")
    return _plain(edit.get("name")) + (f" {strength:+g}" if isinstance(strength, (int, float)) else "")


def _recorded(path: Path) -> str:
    """Return what the sidecar says about a missing mark: removed later, or turned off on purpose."""
    known = read_sidecar(path)
    settings = known.get("settings")
    choice = settings.get("provenance") if isinstance(settings, dict) else None
    if not isinstance(choice, dict) or "mark" not in choice:
        return ""
    if choice["mark"]:
        return "; the record beside the file says that it was marked: the mark was removed or the file replaced"
    same = known.get("sha256") == digest(path)
    return "; the record beside the file says that marking was turned off on purpose" if same else ""


def _certificates(path: Path) -> bytes:
    if not Path(path).is_file() or Path(path).stat().st_size > signing.MAX_PEM_BYTES:
        raise SigningFailed(f"{path} is no PEM file; give the certificate of an issuer")
    try:
        found = signing.certificates(Path(path).read_bytes())
    except ValueError:
        found = []
    if not found:
        raise SigningFailed(f"{path} holds no certificate as PEM; give the certificate of an issuer")
    return b"".join(found)


def _plain(text: Any) -> str:
    """Return a text from an untrusted file as one short printable line."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text if text is not None else "nothing"))
    return shown if len(shown) <= MAX_TEXT else shown[:MAX_TEXT] + "..."
