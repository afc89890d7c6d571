"""An avatar as one file: an uncompressed zip whose layout is fixed by the manifest at its start.

Any zip program can open the file; ``unpack`` accepts only the exact form that ``pack`` writes. The manifest comes
first and lists every other member with its size and digest. It therefore fixes the length of the file, the place of
every header and the directory at the end before the second member is read. Any difference is rejected, which rules
out links, paths, and duplicate, added or compressed members.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mystudio.errors import BadArchive, BadArtifact, OutputFailed
from mystudio.storage.artifacts import ARRAYS, GENERATOR, GENERATOR_SUFFIX, VALUES, read
from mystudio.storage.locks import lock
from mystudio.storage.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Folder,
    Manifest,
    beside,
    check_schema,
    digest,
    open_folder,
    parse,
    resolved,
)
from mystudio.storage.workspace import recover, sync_tree, tidy
from mystudio.types import Avatar

REQUIRED = {ARRAYS, GENERATOR, VALUES}  # files of every avatar, besides its manifest
OWN = re.compile(rf"state\.[A-Za-z0-9_.]+{re.escape(GENERATOR_SUFFIX)}")  # generator files of an engine's state
MAX_BYTES = (4 << 30) - 1  # largest archive: the limit of a zip without the zip64 extension
BLOCK = 1 << 20  # bytes read at a time

LOCAL = struct.Struct("<4s5H3I2H")  # signature, version, flags, method, time, date, crc, two sizes, two lengths
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
VERSION, DATE = 20, 0x21  # zip version 2.0; a fixed date (1 January 1980), since the manifest has the real one


@dataclass(frozen=True)
class Member:
    """One file in an archive."""

    name: str
    bytes: int
    crc: int
    offset: int  # byte where its header begins


def pack(avatar: Path, out: Path) -> int:
    """Write an avatar as one file.

    Args:
        avatar: folder of the avatar; every file is compared with its digest.
        out: file to write; an existing avatar archive is replaced, any other file is not.
    Returns: the archive's size in bytes.
    Raises:
        BadArtifact: the folder is not an avatar, or it is damaged.
        BadArchive: ``out`` exists and is not an avatar archive, or the avatar is too large.
        OutputFailed: disk full or no permission; an older archive is unchanged.
    """
    folder, out = open_folder(avatar, "avatar"), resolved(out)
    _check_members(folder.manifest, f"{avatar}")
    with lock(out):
        _refuse_other(out)
        new = beside(out, "new")
        try:
            with open(new, "wb") as file:
                _write(folder, file)
                os.fsync(file.fileno())
            os.replace(new, out)
        except OSError as error:
            if error.filename and Path(error.filename).parent == folder.path:
                raise  # reading the avatar failed, not writing the archive
            raise OutputFailed(
                f"{out} could not be written ({error.strerror or error}); free space or choose another "
                "place; an older archive there is unchanged"
            ) from error
        finally:
            new.unlink(missing_ok=True)
    return out.stat().st_size


def read_manifest(archive: Path) -> Manifest:
    """Return the manifest of the avatar in an archive; nothing is extracted. Raises BadArchive."""
    with _opened(archive) as file:
        return _manifest(file, archive)[0]


def unpack(archive: Path, out: Path) -> Manifest:
    """Extract an avatar from an archive after every byte was verified.

    Args:
        archive: file that ``pack`` wrote; its content is not trusted.
        out: folder to make; an undamaged copy of the same avatar may exist already.
    Returns: the avatar's manifest.
    Raises:
        BadArchive: damaged, hostile, or not an avatar's archive; nothing was written.
        BadArtifact: ``out`` exists and is not this avatar.
        OutputFailed: disk full or no permission; nothing was written.
    """
    archive, out = Path(archive), resolved(out)
    with _opened(archive) as file:
        manifest, data = _manifest(file, archive)
        with lock(out):
            recover(out)
            tidy(out)
            if not _is_there(out, manifest):
                _place(file, manifest, data, out, archive)
    return manifest


def _place(file: BinaryIO, manifest: Manifest, data: bytes, out: Path, archive: Path) -> None:
    part = beside(out, "new")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (part / MANIFEST).write_bytes(data)
        _read_members(file, manifest, data, part, archive)
        _check_content(part, manifest, archive)
        sync_tree(part)
        os.rename(part, out)
    except OSError as error:
        raise OutputFailed(
            f"{out} could not be written ({error.strerror or error}); free space or choose another "
            "place; nothing was placed"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(folder: Folder, file: BinaryIO) -> None:
    data = (folder.path / MANIFEST).read_bytes()
    members = [_add(file, MANIFEST, len(data), [data])]
    if parse(data, folder.path / MANIFEST, "pack it again") != folder.manifest:
        raise BadArtifact(f"{folder.path} changed while it was packed; pack it again")
    for name in sorted(folder.manifest.files):
        path, entry = folder.file(name)
        seen = hashlib.sha256()
        with open(path, "rb") as source:
            members.append(_add(file, name, entry.bytes, _blocks(source, entry.bytes, seen)))
        if seen.hexdigest() != entry.sha256 or path.stat().st_size != entry.bytes:
            raise BadArtifact(f"{path} is damaged (its digest differs); make the avatar again")
    file.write(_directory(members, file.tell()))


def _add(file: BinaryIO, name: str, size: int, blocks) -> Member:
    offset, crc = file.tell(), 0
    file.write(_header(Member(name, size, 0, offset)))
    for block in blocks:
        crc = zlib.crc32(block, crc)
        file.write(block)
    end = file.tell()
    file.seek(offset)
    file.write(_header(Member(name, size, crc, offset)))
    file.seek(end)
    return Member(name, size, crc, offset)


def _blocks(source: BinaryIO, size: int, seen):
    """Yield blocks of at most ``size`` bytes in all; every block is passed to ``seen``, which updates a digest."""
    while size > 0 and (block := source.read(min(BLOCK, size))):
        seen.update(block)
        yield block
        size -= len(block)


def _header(member: Member) -> bytes:
    name = member.name.encode()
    return LOCAL.pack(b"PK\3\4", VERSION, 0, 0, 0, DATE, member.crc, member.bytes, member.bytes, len(name), 0) + name


def _directory(members: list[Member], offset: int) -> bytes:
    entries = b"".join(
        CENTRAL.pack(
            b"PK\1\2", VERSION, VERSION, 0, 0, 0, DATE, m.crc, m.bytes, m.bytes, len(m.name), 0, 0, 0, 0, 0, m.offset
        )
        + m.name.encode()
        for m in members
    )
    return entries + END.pack(b"PK\5\6", 0, 0, len(members), len(members), len(entries), offset, 0)


def _opened(archive: Path) -> BinaryIO:
    if not archive.is_file():
        raise BadArchive(f"{archive} is not a file; give the file that `mystudio avatar pack` wrote")
    size = archive.stat().st_size
    if size > MAX_BYTES:
        raise BadArchive(f"{archive} has {size} bytes, expected at most {MAX_BYTES}; no avatar's archive is that large")
    return open(archive, "rb")


def _manifest(file: BinaryIO, archive: Path) -> tuple[Manifest, bytes]:
    """Return the manifest and its bytes, after checking the length of the whole file."""
    hint = "give a file that `mystudio avatar pack` wrote"
    size = _next_header(file, MANIFEST, None, archive).bytes
    if size > MAX_MANIFEST_BYTES:
        raise BadArchive(f"{archive} claims a manifest of {size} bytes, expected at most {MAX_MANIFEST_BYTES}; {hint}")
    data = file.read(size)
    try:
        manifest = parse(data, f"{archive}: {MANIFEST}", hint)
        if manifest.type != "avatar":
            raise BadArtifact(f"{archive} holds a {manifest.type[:40]!r}, expected an avatar; {hint}")
        check_schema(manifest, archive)
        _check_members(manifest, f"{archive}")
    except BadArtifact as error:
        raise BadArchive(str(error)) from None
    expected, found = _length(manifest, len(data)), os.fstat(file.fileno()).st_size
    if found != expected:
        what = "is cut off" if found < expected else "holds more than its manifest lists"
        raise BadArchive(f"{archive} {what} ({found} bytes, expected {expected}); {hint}")
    return manifest, data


def _check_members(manifest: Manifest, place: str) -> None:
    for odd in sorted(set(manifest.files) ^ REQUIRED):
        if odd in REQUIRED or not OWN.fullmatch(odd):
            verb = "lists" if odd in manifest.files else "lacks"
            raise BadArtifact(
                f"{place} {verb} {odd[:80]!r}, expected {', '.join(sorted(REQUIRED))}; make the avatar again"
            )
    if _length(manifest, MAX_MANIFEST_BYTES) > MAX_BYTES:
        raise BadArtifact(f"{place} has files of more than {MAX_BYTES} bytes, which no archive holds; copy the folder")


def _length(manifest: Manifest, manifest_bytes: int) -> int:
    sizes = {MANIFEST: manifest_bytes} | {name: entry.bytes for name, entry in manifest.files.items()}
    return sum(LOCAL.size + CENTRAL.size + 2 * len(name) + size for name, size in sizes.items()) + END.size


def _read_members(file: BinaryIO, manifest: Manifest, data: bytes, part: Path, archive: Path) -> None:
    """Copy every member into ``part`` and verify it; then compare the directory at the end with the members."""
    members = [Member(MANIFEST, len(data), zlib.crc32(data), 0)]
    for name in sorted(manifest.files):
        size, start, crc, seen = manifest.files[name].bytes, file.tell(), 0, hashlib.sha256()
        claimed = _next_header(file, name, size, archive)
        with open(part / name, "xb") as target:
            for block in _blocks(file, size, seen):
                crc = zlib.crc32(block, crc)
                target.write(block)
        if seen.hexdigest() != manifest.files[name].sha256 or crc != claimed.crc:
            raise BadArchive(f"{archive}: {name} is damaged (its digest differs); pack the avatar again")
        members.append(Member(name, size, crc, start))
    end = file.tell()
    file.seek(0)
    if file.read(LOCAL.size + len(MANIFEST)) != _header(members[0]):
        raise BadArchive(f"{archive}: {MANIFEST} is damaged (its checksum differs); pack the avatar again")
    file.seek(end)
    expected = _directory(members, end)
    if file.read(len(expected) + 1) != expected:
        raise BadArchive(f"{archive}: the list at its end differs from what it holds; pack the avatar again")


def _next_header(file: BinaryIO, name: str, size: int | None, archive: Path) -> Member:
    """Return the header of the member ``name``. Raises BadArchive: the bytes differ from what ``pack`` writes."""
    start = file.tell()
    data = file.read(LOCAL.size + len(name))
    if len(data) < LOCAL.size + len(name) or data[:4] != b"PK\3\4":
        raise BadArchive(
            f"{archive} is not an avatar's archive, or damaged at byte {start}; give a file that "
            "`mystudio avatar pack` wrote"
        )
    crc, stored = LOCAL.unpack(data[: LOCAL.size])[6:8]
    found = Member(name, stored if size is None else size, crc, start)
    if data != _header(found):
        raise BadArchive(f"{archive} holds {_described(data)} where {name} was expected; pack the avatar again")
    return found


def _described(data: bytes) -> str:
    _, _, flags, method, _, _, _, stored, size, length, _ = LOCAL.unpack(data[: LOCAL.size])
    name = data[LOCAL.size : LOCAL.size + length]
    kind = "an encrypted" if flags & 1 else "a compressed" if method or stored != size else "a"
    return f"{kind} member {ascii(name.decode('utf-8', 'replace'))} of {size} bytes"


def _check_content(part: Path, manifest: Manifest, archive: Path) -> None:
    try:
        read(Folder(part, manifest), Avatar)
    except Exception as error:  # replaced below, because its message names a temporary folder
        reason = " ".join(str(error).replace(str(part), "it").split())[:300]
        raise BadArchive(f"{archive} does not hold a usable avatar: {reason}") from None


def _is_there(out: Path, manifest: Manifest) -> bool:
    """Return whether ``out`` is an undamaged copy of the avatar. Raises BadArtifact: it holds anything else."""
    if not out.exists() or out.is_dir() and not any(out.iterdir()):
        return False
    try:
        folder = open_folder(out, "avatar")
        same = folder.manifest.digest == manifest.digest
        if same and all(digest(folder.file(name)[0]) == manifest.files[name].sha256 for name in manifest.files):
            return True
    except (BadArtifact, OSError):
        pass
    raise BadArtifact(f"{out} exists and is not this avatar; choose another name or remove it")


def _refuse_other(out: Path) -> None:
    """Raise BadArchive if ``out`` exists and is not an avatar archive."""
    if not out.exists():
        return
    start = b""
    if out.is_file():
        with open(out, "rb") as file:
            start = file.read(LOCAL.size + len(MANIFEST))
    if not (start.startswith(b"PK\3\4") and start.endswith(MANIFEST.encode())):
        raise BadArchive(f"{out} is something else than an avatar's archive; choose another name")
