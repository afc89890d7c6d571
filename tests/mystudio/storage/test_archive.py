"""Archives: a round trip is exact, and any file of another form is rejected without writing anything."""

import dataclasses
import hashlib
import json
import os
import random
import resource
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killing import killed_after

from mystudio import engines
from mystudio.cli import cli
from mystudio.errors import BadArchive, BadArtifact, OutputFailed, StudioError
from mystudio.storage import archive, artifacts, manifest, workspace
from mystudio.types import Avatar


@pytest.fixture(scope="module")
def avatar(tmp_path_factory, tiny_avatar) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "me.avatar"
    with workspace.stage(folder, "avatar", {}, {"steps": 1}) as run:
        artifacts.save(
            dataclasses.replace(
                tiny_avatar, state=dataclasses.replace(tiny_avatar.state, directions={"smile": torch.ones(16)})
            ),
            run,
        )
    return folder


@pytest.fixture(scope="module")
def packed(avatar) -> bytes:
    archive.pack(avatar, avatar.parent / "me.zip")
    return (avatar.parent / "me.zip").read_bytes()


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(tmp_path: Path, data: bytes) -> str:
    """Return the error of a rejected archive, which must be one sentence and leave no file."""
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / "in" / "x.zip").write_bytes(data)
    with pytest.raises(BadArchive) as told:
        archive.unpack(tmp_path / "in" / "x.zip", tmp_path / "out" / "me.avatar")
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []
    assert "\n" not in str(told.value) and len(str(told.value)) < 600
    return str(told.value)


def remade(avatar: Path, change=None, files=None, **other) -> bytes:
    """Return the archive of an avatar with a changed manifest (dict) or files; digests and length are updated."""
    found = contents(avatar)
    made = json.loads(found.pop("manifest.json"))
    found |= files or {}
    for name, data in (files or {}).items():
        made["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if change:
        change(made)
    digests = {name: entry["sha256"] for name, entry in made["files"].items()}
    made["digest"] = (
        manifest.digest_of({"type": made["type"], "schema": made["schema"], "files": digests})
        if "digest" not in other
        else other["digest"]
    )
    del made["checksum"]
    made["checksum"] = manifest.digest_of(made)
    return stored([("manifest.json", json.dumps(made).encode()), *sorted(found.items())])


def stored(members, method=0, flags=0, claimed=None) -> bytes:
    """Return a zip written from the format's specification, without the code under test."""
    body, directory = b"", b""
    for name, data in members:
        name = name if isinstance(name, bytes) else name.encode()
        packed = zlib.compress(data)[2:-4] if method else data
        fields = (zlib.crc32(data), len(packed), claimed if claimed is not None else len(data), len(name), 0)
        head = struct.pack("<HHHHH", 20, flags, method, 0, 0x21) + struct.pack("<IIIHH", *fields)
        directory += b"PK\1\2\x14\0" + head + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name
        body += b"PK\3\4" + head + name + packed
    count = len(members)
    return body + directory + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)


def test_an_avatar_comes_back_byte_for_byte(avatar, packed, tmp_path):
    (tmp_path / "my file é.zip").write_bytes(packed)
    out = tmp_path / "a b ü" / "me.avatar"
    archive.unpack(tmp_path / "my file é.zip", out)
    assert contents(out) == contents(avatar)
    assert os.listdir(out.parent) == ["me.avatar"]
    assert artifacts.load(out, Avatar).consent == artifacts.load(avatar, Avatar).consent
    archive.pack(out, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed


def test_the_file_is_a_zip_that_others_can_read(avatar, packed, tmp_path):
    (tmp_path / "x.zip").write_bytes(packed)
    with zipfile.ZipFile(tmp_path / "x.zip") as found:
        assert found.testzip() is None
        assert found.namelist() == ["manifest.json", "arrays.safetensors", "generator.safetensors", "values.json"]
        assert {name: found.read(name) for name in found.namelist()} == contents(avatar)
    assert packed == remade_as_is(avatar)


def remade_as_is(avatar: Path) -> bytes:
    found = contents(avatar)
    return stored([("manifest.json", found.pop("manifest.json")), *sorted(found.items())])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_change_of_any_byte_is_refused(packed, tmp_path, data):
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    at = data.draw(
        st.one_of(
            st.integers(0, 2500), st.integers(0, len(packed) - 1), st.integers(len(packed) - 260, len(packed) - 1)
        )
    )
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "remove"]))
    if kind == "flip":
        changed = packed[:at] + bytes([packed[at] ^ data.draw(st.integers(1, 255))]) + packed[at + 1 :]
    elif kind == "cut":
        changed = packed[:at]
    elif kind == "insert":
        changed = packed[:at] + data.draw(st.binary(min_size=1, max_size=40)) + packed[at:]
    else:
        changed = packed[:at] + packed[at + data.draw(st.integers(1, 40)) :]
    refused(tmp_path, changed)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.sampled_from([b"", b"PK\3\4", b"PK\5\6", b"\x1f\x8b", b"PK\3\4" + b"\0" * 26]))
def test_noise_is_refused(tmp_path, noise, start):
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    refused(tmp_path, start + noise)


EVIL = [
    "../evil",
    "../../evil",
    "/etc/evil",
    "a/../../evil",
    "C:\\evil",
    "..\\evil",
    "evil\0.json",
    "evil.sh",
    ".hidden",
    "values.json/",
    "VALUES.JSON",
    "a/b/c",
    "n" * 5000,
    b"\xff\xfe.json",
    "values.json".encode("utf-16"),
]


@pytest.mark.parametrize("name", EVIL, ids=lambda name: ascii(name[:20]))
def test_names_that_no_avatar_has_are_refused(avatar, packed, tmp_path, name):
    found = contents(avatar)
    first = ("manifest.json", found.pop("manifest.json"))
    refused(tmp_path, stored([first, *sorted(found.items()), (name, b"x")]))  # added at the end
    refused(tmp_path, stored([first, (name, b"x"), *sorted(found.items())]))
    values = found.pop("values.json")
    refused(tmp_path, stored([first, *sorted(found.items()), (name, values)]))  # in place of another file
    if isinstance(name, str):
        refused(tmp_path, remade(avatar, files={name: b"x"}))  # listed in a manifest that fits
    assert set(os.listdir(tmp_path)) <= {"in", "out"}


def test_doubled_and_missing_members_are_refused(avatar, tmp_path):
    found = contents(avatar)
    first, rest = ("manifest.json", found.pop("manifest.json")), sorted(found.items())
    for members in (
        [first, *rest, rest[-1]],
        [first, rest[0], rest[0], *rest[1:]],
        [first, first, *rest],
        [first, *rest[:-1]],
        [first],
        rest,
        [*rest, first],
        [first, *reversed(rest)],
        [],
    ):
        refused(tmp_path, stored(members))
    refused(tmp_path, remade(avatar, lambda made: made["files"].pop("values.json")))


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "values.json"])
def test_links_and_devices_are_refused(avatar, tmp_path, target):
    for mode in (stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o666, stat.S_IFIFO | 0o666, stat.S_IFDIR | 0o777):
        with zipfile.ZipFile(tmp_path / "link.zip", "w") as out:
            for name in ("manifest.json", "arrays.safetensors", "generator.safetensors", "values.json"):
                info = zipfile.ZipInfo(name)
                if name == "values.json":
                    info.external_attr = mode << 16
                out.writestr(info, target if name == "values.json" else (avatar / name).read_bytes())
        refused(tmp_path, (tmp_path / "link.zip").read_bytes())
        (tmp_path / "link.zip").unlink()


def test_bombs_are_refused_before_they_are_read(avatar, tmp_path):
    found = contents(avatar)
    first, rest = ("manifest.json", found.pop("manifest.json")), sorted(found.items())
    zeros = ("values.json", bytes(50 << 20))
    assert "compressed" in refused(tmp_path, stored([zeros], method=8).replace(b"values.json", b"manifest.js"))
    assert "compressed" in refused(tmp_path, stored([first, *rest], method=8))
    assert "compressed" in refused(tmp_path, stored([("manifest.json", b"{}")], claimed=1 << 31))
    assert "encrypted" in refused(tmp_path, stored([first, *rest], flags=1))
    huge = stored([("manifest.json", b"{}")])
    lying = huge[:18] + struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0) + huge[26:]
    assert "claims a manifest of" in refused(tmp_path, lying)
    sizes = {"values.json": 1 << 60, "arrays.safetensors": 3 << 30, "generator.safetensors": -5}
    for name, size in sizes.items():
        refused(tmp_path, remade(avatar, lambda made, n=name, s=size: made["files"][n].update(bytes=s)))
    refused(
        tmp_path,
        remade(
            avatar,
            lambda made: made["files"].update(
                {f"images/{k}.png": {"bytes": 1, "sha256": "0" * 64} for k in range(30_000)}
            ),
        ),
    )
    with open(tmp_path / "in" / "sparse.zip", "wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(BadArchive, match="expected at most"):
        archive.unpack(tmp_path / "in" / "sparse.zip", tmp_path / "out" / "me.avatar")


def test_wrong_digests_types_and_contents_are_refused(avatar, packed, tmp_path):
    def forged(made):
        made["files"]["values.json"]["sha256"] = "0" * 64

    assert "values.json is damaged" in refused(tmp_path, remade(avatar, forged))
    assert "its digest differs" in refused(tmp_path, remade(avatar, digest="0" * 64))
    assert "expected an avatar" in refused(tmp_path, remade(avatar, lambda made: made.update(type="scan")))
    assert "schema 99" in refused(tmp_path, remade(avatar, lambda made: made.update(schema=99)))
    for change in ({"files": {}}, {"files": 3}, {"inputs": {"scan": {"path": 3, "digest": "x"}}}):
        found = contents(avatar)
        made = json.dumps(json.loads(found.pop("manifest.json")) | change).encode()
        refused(tmp_path, stored([("manifest.json", made), *sorted(found.items())]))
    for files in (
        {"values.json": b"{}"},
        {"values.json": b"[" * 100_000},
        {"generator.safetensors": b"\x80\x04cos\n"},
        {"arrays.safetensors": struct.pack("<Q", 1 << 62) + b"{}"},
        {"values.json": b""},
    ):
        assert "usable avatar" in refused(tmp_path, remade(avatar, files=files))


def test_what_is_there_is_kept(avatar, packed, tmp_path):
    (tmp_path / "me.zip").write_bytes(packed)
    out = tmp_path / "me.avatar"
    archive.unpack(tmp_path / "me.zip", out)
    stamp = (out / "values.json").stat().st_mtime_ns
    archive.unpack(tmp_path / "me.zip", out)  # the same avatar: up to date
    assert (out / "values.json").stat().st_mtime_ns == stamp
    (out / "values.json").write_bytes(b"{}")
    for other in (out, tmp_path / "me.zip"):
        with pytest.raises((BadArtifact, BadArchive)):
            archive.unpack(tmp_path / "me.zip", other)
    assert (out / "values.json").read_bytes() == b"{}" and (tmp_path / "me.zip").read_bytes() == packed
    (tmp_path / "notes.txt").write_bytes(b"mine")
    with pytest.raises(BadArchive, match="something else"):
        archive.pack(avatar, tmp_path / "notes.txt")
    with pytest.raises(StudioError):
        archive.pack(avatar, out)
    archive.pack(avatar, tmp_path / "me.zip")
    assert (tmp_path / "notes.txt").read_bytes() == b"mine" and (tmp_path / "me.zip").read_bytes() == packed
    (tmp_path / "empty").mkdir()
    archive.unpack(tmp_path / "me.zip", tmp_path / "empty")
    assert contents(tmp_path / "empty") == contents(avatar)


def test_a_damaged_avatar_is_not_packed(avatar, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(avatar, copy)
    data = bytearray((copy / "arrays.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "arrays.safetensors").write_bytes(data)
    with pytest.raises(BadArtifact, match="digest differs"):
        archive.pack(copy, tmp_path / "x.zip")
    (copy / "arrays.safetensors").unlink()
    (copy / "arrays.safetensors").symlink_to(avatar / "arrays.safetensors")
    with pytest.raises(BadArtifact, match="is a link"):
        archive.pack(copy, tmp_path / "x.zip")
    assert sorted(os.listdir(tmp_path)) == ["copy"]


def test_a_full_disk_leaves_nothing(avatar, packed, tmp_path):
    (tmp_path / "me.zip").write_bytes(packed)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputFailed, match="nothing was placed"):
            archive.unpack(tmp_path / "me.zip", tmp_path / "me.avatar")
        with pytest.raises(OutputFailed, match="is unchanged"):
            archive.pack(avatar, tmp_path / "me.zip")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == ["me.zip"] and (tmp_path / "me.zip").read_bytes() == packed


def test_killed_at_any_moment_the_avatar_is_whole_or_not_there(avatar, packed, tmp_path):
    (tmp_path / "me.zip").write_bytes(packed)
    out, rng, half = tmp_path / "me.avatar", random.Random(0), 0

    def unpacking(seconds: float | None) -> float:
        return killed_after(seconds, archive.unpack, tmp_path / "me.zip", out)

    full = unpacking(None)
    shutil.rmtree(out)
    for _ in range(25):
        unpacking(rng.uniform(0, full))
        half += (tmp_path / ".me.avatar.new").exists()
        if out.exists():
            assert contents(out) == contents(avatar)
            shutil.rmtree(out)
    assert half  # some kills interrupted the work
    archive.unpack(tmp_path / "me.zip", out)
    assert contents(out) == contents(avatar)
    assert sorted(os.listdir(tmp_path)) == ["me.avatar", "me.zip"]


def test_the_commands(avatar, tmp_path):
    def run(*words):
        return CliRunner().invoke(cli, [*map(str, words), "--json"], prog_name="mystudio")

    made = json.loads(run("avatar", "pack", avatar, "-o", tmp_path / "me.zip").stdout)
    assert made["bytes"] == (tmp_path / "me.zip").stat().st_size
    placed = json.loads(run("avatar", "unpack", tmp_path / "me.zip", "-o", tmp_path / "me").stdout)
    assert placed["digest"] == manifest.digest(avatar) == manifest.digest(tmp_path / "me")
    (tmp_path / "bad.zip").write_bytes((tmp_path / "me.zip").read_bytes()[:-9])
    result = run("avatar", "unpack", tmp_path / "bad.zip", "-o", tmp_path / "you")
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1 and "is cut off" in result.stderr
    assert not (tmp_path / "you").exists()


def test_generators_of_an_engines_state_travel_too(tiny_avatar, tmp_path, monkeypatch):
    """An engine may store a second generator: each has its own file, named after its field."""
    monkeypatch.setitem(engines.ENGINES, "two", f"{__name__}")
    avatar = dataclasses.replace(tiny_avatar, engine="two", state=State(tiny_avatar.generator, torch.ones(2)))
    with workspace.stage(tmp_path / "me.avatar", "avatar", {}, {}) as run:
        artifacts.save(avatar, run)
    archive.pack(tmp_path / "me.avatar", tmp_path / "me.zip")
    archive.unpack(tmp_path / "me.zip", tmp_path / "again.avatar")
    files = sorted(path.name for path in (tmp_path / "again.avatar").iterdir())
    expected = ["arrays.safetensors", "generator.safetensors", "manifest.json", "state.teacher.safetensors"]
    assert files == [*expected, "values.json"]
    read = artifacts.load(tmp_path / "again.avatar", Avatar)
    assert read.state.number.tolist() == [1, 1]
    mine, theirs = read.state.teacher.state_dict(), tiny_avatar.generator.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


NAME, PersonalizeSettings, ReenactSettings = "two", object, object


@dataclasses.dataclass(frozen=True)
class State:
    """Of an engine that keeps a second generator."""

    teacher: torch.nn.Module
    number: torch.Tensor


def personalize(): ...


def reenact(): ...


def decode(): ...
