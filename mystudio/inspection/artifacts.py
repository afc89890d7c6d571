"""Artifacts: scans, performances, avatars, takes, reports, packed avatars, and what unfinished runs left."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from mystudio import engines
from mystudio.errors import BadArtifact
from mystudio.inspection.description import Description, size_in_words
from mystudio.storage import archive
from mystudio.storage.artifacts import load
from mystudio.storage.manifest import Folder, Manifest, open_folder, with_article
from mystudio.types import Avatar, Outcome, Performance, Take
from selfscan.types import Consent, Scan


def describe_artifact(path: Path) -> Description:
    """Describe an artifact folder; every file is compared with its digest.

    Raises: BadArtifact: it is damaged, or of a newer version.
    """
    folder = open_folder(path)
    kind = folder.manifest.type
    content, who, use, facts = _CONTENT[kind](path) if kind in _CONTENT else ("", "", "", {})
    state, whole = _state(folder)
    lines = {
        "what": f"{path.name}: {with_article(kind)}",
        "content": content,
        "person": who,
        "made": _made(folder.manifest),
        "state": state,
        "use": use,
    }
    return Description(kind, lines, facts | _facts(folder.manifest) | {"undamaged": whole})


def describe_archive(path: Path) -> Description:
    """Describe an avatar that ``mystudio avatar pack`` wrote; its manifest is read. Raises BadArchive."""
    manifest = archive.read_manifest(path)
    total = sum(entry.bytes for entry in manifest.files.values())
    lines = {
        "what": f"{path.name}: an avatar as one file",
        "content": f"{len(manifest.files)} files, {size_in_words(total)}",
        "person": "named in the avatar's own files",
        "made": _made(manifest),
        "state": "the list of files is whole; unpacking compares every file",
        "use": f"`mystudio avatar unpack {path} -o me.avatar`",
    }
    return Description("archive", lines, _facts(manifest))


def describe_unfinished(path: Path) -> Description:
    """Describe the folder of checkpoints that a stopped run keeps."""
    files = [p for p in path.rglob("*") if p.is_file()]
    target = path.name.removesuffix(".partial")
    lines = {
        "what": f"{path.name}: checkpoints of an unfinished run",
        "content": f"{len(files)} files, {size_in_words(sum(p.stat().st_size for p in files))}",
        "person": "not known yet",
        "made": f"by a run that makes {target}",
        "state": "unfinished",
        "use": f"The command that makes {target} resumes from it, with the same inputs and settings.",
    }
    return Description("unfinished", lines, {"result": target})


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "type": manifest.type,
        "schema": manifest.schema,
        "created": manifest.created,
        "versions": manifest.versions,
        "inputs": {name: record.path for name, record in manifest.inputs.items()},
        "digest": manifest.digest,
    }


def _made(manifest: Manifest) -> str:
    inputs = ", ".join(f"{name} {Path(record.path).name}" for name, record in manifest.inputs.items())
    version = manifest.versions.get("mystudio", "?")
    return f"{manifest.created} by mystudio {version}" + (f" from {inputs}" if inputs else "")


def _state(folder: Folder) -> tuple[str, bool]:
    """Whether files and inputs are as the manifest says, in words, and whether the files are."""
    count, total = len(folder.manifest.files), sum(entry.bytes for entry in folder.manifest.files.values())
    try:
        for name in folder.manifest.files:
            folder.verified(name)
    except BadArtifact as error:
        return str(error), False
    missing = []
    for name, record in folder.manifest.inputs.items():
        try:
            folder.source(name)
        except BadArtifact:
            missing.append(f"{name} {record.path}")
    rest = f"; moved or changed since: {', '.join(missing)}" if missing else "; its inputs are there"
    return f"undamaged, {count} files, {size_in_words(total)}" + (rest if folder.manifest.inputs else ""), True


def _person(consent: Consent) -> str:
    if consent.fictional:
        return f"{consent.name}, who does not exist"
    return f"{consent.name}; consent of {consent.when}: {consent.statement}"


def _scan(path: Path):
    scan = load(path, Scan)
    missing = f"; missing: {', '.join(scan.coverage.missing)}" if scan.coverage.missing else ""
    content = f"{len(scan)} images of {scan.images.shape[2]} px, chosen by {scan.perceptual}{missing}"
    facts = {"images": len(scan), "missing": list(scan.coverage.missing), "warnings": list(scan.warnings)}
    return content, _person(scan.consent), f"`mystudio personalize {path} -o me.avatar`", facts


def _avatar(path: Path):
    avatar = load(path, Avatar)
    more = ", ".join(f"{value} {name}" for name, value in engines.describe(avatar).items())
    edits = list(engines.directions(avatar))
    content = f"{avatar.generator.resolution} px, engine {avatar.engine}" + (f", {more}" if more else "")
    content += f"; edits: {', '.join(edits) or 'none'}"
    facts = {"resolution": avatar.generator.resolution, "engine": avatar.engine, "edits": edits}
    use = f"`mystudio reenact {path} driver.mp4 -o hello.take` or `mystudio live {path}`"
    return content, _person(avatar.consent), use, facts


def _performance(path: Path):
    seen = load(path, Performance).observation
    seconds = float(seen.track.times[-1] - seen.track.times[0]) if len(seen) else 0.0
    valid = float(seen.track.valid.mean())
    facts = {"frames": len(seen), "seconds": seconds, "warnings": list(seen.warnings)}
    content = f"{len(seen)} frames, {seconds:.2f} s, a face in {valid:.0%} of them"
    return content, "the driver, who is not named", "`mystudio reenact` uses it for any avatar by itself", facts


def _take(path: Path):
    take = load(path, Take)
    counts = Counter(Outcome(value).word for value in take.outcome)
    seconds = float(take.times[-1] - take.times[0]) if len(take) else 0.0
    edits = [edit.name for edit in take.edits]
    content = f"{len(take)} frames, {seconds:.2f} s: " + ", ".join(f"{n} {word}" for word, n in counts.items())
    content += f"; edits: {', '.join(edits)}" if edits else "; no edits"
    use = f"`mystudio render {path} -o hello.mp4`, `mystudio edit {path} ...` or `mystudio evaluate {path} -o DIR`"
    facts = {"frames": len(take), "seconds": seconds, "outcomes": dict(counts), "edits": edits}
    return content, "of the avatar it was made with", use, facts


def _report(path: Path):
    folder = open_folder(path, "report")
    numbers = json.loads(folder.read("metrics.json"))
    rows = [row for row in numbers["metrics"] if row["headline"] and row["value"] is not None]
    content = ", ".join(f"{row['title'].lower()} {row['value']:.{row['digits']}f}{row['unit']}" for row in rows[:5])
    facts = {"metrics": {row["name"]: row["value"] for row in rows}, "warnings": numbers["warnings"]}
    return content, str(numbers["title"]), f"Open {path / 'report.html'} in a browser.", facts


_CONTENT = {"scan": _scan, "avatar": _avatar, "performance": _performance, "take": _take, "report": _report}
