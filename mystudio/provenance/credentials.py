"""Read the C2PA manifest of an untrusted file, in a separate process with limits on time and memory."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mystudio.errors import StudioError
from selfscan.io import isolation

SECONDS = 300  # for a clip of many GB on a slow disk
MEMORY = 4 << 30  # bytes of address space
MAX_ANSWER = 32 << 20  # bytes
MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
)
MATROSKA = b"\x1a\x45\xdf\xa3"  # first bytes of mkv and webm, which can hold no manifest
UNKNOWN_SIGNER = "signingCredential.untrusted"


@dataclass(frozen=True)
class Credentials:
    """The content of a manifest and the result of its validation."""

    state: Literal["valid", "tampered", "absent"]
    known: bool = False  # the certificate was issued by one of the anchors
    signer: str = ""  # common name in the signing certificate; proves nothing, since anybody can choose it
    issuer: str = ""
    serial: str = ""
    generator: str = ""  # program that made the manifest
    statements: dict[str, Any] = field(default_factory=dict)  # label -> assertion of the active manifest
    problems: tuple[str, ...] = ()  # codes and explanations of what failed


def kind_of(path: Path) -> str | None:
    """Return the MIME type by the first bytes (a picture or the mp4 family), or None for other files."""
    with open(path, "rb") as file:
        start = file.read(16)
    return next((kind for at, magic, kind in MAGIC if start[at : at + len(magic)] == magic), None)


def read(path: Path, anchors: bytes = b"") -> Credentials:
    """Read and check the manifest in a file.

    Args:
        path: mp4, mov, png, jpeg, gif or webp; an mkv or a webm holds no manifest.
        anchors: certificates (PEM) of trusted issuers.
    Raises: StudioError: the file has another type, or reading exceeds the limits.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise StudioError(f"{path} is not a file; give a clip or a picture")
    kind = kind_of(path)
    if kind is None and _is_matroska(path):
        return Credentials("absent")
    if kind is None:
        raise StudioError(f"{path} is neither an mp4 nor a png nor a jpeg; give a clip or a picture")
    question = json.dumps({"path": str(path), "kind": kind, "anchors": anchors.decode("ascii")}).encode()
    said = isolation.ask(
        "mystudio.provenance.credentials:serve", {}, isolation.Rations(MEMORY, SECONDS), SECONDS, MAX_ANSWER, question
    )
    try:
        answer = None if said is None else json.loads(said)
    except (ValueError, RecursionError):
        answer = None
    if answer is None:
        raise StudioError(
            f"{path} could not be read within {SECONDS} s and {MEMORY >> 30} GiB; it is damaged or was "
            "made to exceed the limits"
        )
    if "failed" in answer:
        raise StudioError(answer["failed"])
    return Credentials(**answer | {"problems": tuple(answer.get("problems", ()))})


def _is_matroska(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(MATROSKA)) == MATROSKA


def serve(_: dict) -> None:
    """Run in the child process: read a JSON request from stdin and write a JSON answer to stdout.

    The request comes by stdin because certificates can exceed the length of a command line.
    """
    json.dump(_answer(json.load(sys.stdin)), sys.stdout)


def _answer(request: dict[str, str]) -> dict[str, Any]:
    try:
        from c2pa import C2paError, Context, Reader, Settings
    except (ImportError, OSError, RuntimeError) as error:
        return {"failed": f"the C2PA library cannot be used ({error}); pip install c2pa-python"}
    options = {
        "verify": {"verify_trust": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
        **({"trust": {"user_anchors": request["anchors"]}} if request["anchors"] else {}),
    }
    try:
        with Context(Settings.from_dict(options)) as context, open(request["path"], "rb") as file:
            reader = Reader(request["kind"], file, context=context)
            return _told(json.loads(reader.json()), reader.get_validation_state())
    except C2paError as error:
        text = " ".join(str(error).split())
        return {"state": "absent"} if "ManifestNotFound" in text else {"state": "tampered", "problems": [text[:300]]}


def _told(store: dict[str, Any], state: str | None) -> dict[str, Any]:
    active = store.get("manifests", {}).get(store.get("active_manifest"), {})  # empty if the manifest cannot be parsed
    results = store.get("validation_results", {}).get("activeManifest", {})
    problems = [
        f"{entry['code']}: {entry.get('explanation', '')}"
        for entry in results.get("failure", ())
        if entry["code"] != UNKNOWN_SIGNER
    ]
    signature = active.get("signature_info") or {}
    program = (active.get("claim_generator_info") or [{}])[0]
    return {
        "state": "valid" if state in ("Valid", "Trusted") else "tampered",
        "known": state == "Trusted",
        "signer": signature.get("common_name") or "",
        "issuer": signature.get("issuer") or "",
        "serial": str(signature.get("cert_serial_number") or ""),
        "generator": f"{program.get('name', '')} {program.get('version', '')}".strip(),
        "problems": problems,
        "statements": {entry["label"]: entry.get("data") for entry in active.get("assertions", ())},
    }
