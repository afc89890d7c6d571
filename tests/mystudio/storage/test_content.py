"""The store by content: what comes out is what went in, or an error."""

import errno
import os

import pytest

from mystudio.errors import BadArtifact, OutputFailed
from mystudio.storage.content import Content, Folder, sha256


@pytest.fixture(params=["folder", "file", "memory"])
def store(request, tmp_path) -> str:
    return {
        "folder": str(tmp_path / "store"),
        "file": f"file://{tmp_path / 'store'}",
        "memory": f"memory://{tmp_path.name}-{request.param}",
    }[request.param]


@pytest.fixture
def file(tmp_path):
    (tmp_path / "file").write_bytes(os.urandom(3_000_000))
    return tmp_path / "file"


def test_a_file_comes_back_on_another_machine(store, file, tmp_path):
    name, size = Content(store, tmp_path / "one").put(file)
    assert (name, size) == (sha256(file), 3_000_000)
    other = Content(store, tmp_path / "two")
    other.get(name, size, tmp_path / "there" / "copy")
    assert (tmp_path / "there" / "copy").read_bytes() == file.read_bytes()
    (tmp_path / "there" / "copy").unlink()
    other.get(name, size, tmp_path / "there" / "copy")  # from the cache
    assert sha256(tmp_path / "there" / "copy") == name


def test_a_damaged_cache_is_fetched_again_and_a_damaged_store_is_refused(file, tmp_path):
    content = Content(str(tmp_path / "store"), tmp_path / "cache")
    name, size = content.put(file)
    content.get(name, size, tmp_path / "first")
    (tmp_path / "first").unlink()
    cached = tmp_path / "cache" / name[:2] / name
    cached.write_bytes(bytes(size))
    content.get(name, size, tmp_path / "second")
    assert sha256(tmp_path / "second") == name == sha256(cached)
    (tmp_path / "store" / name[:2] / name).write_bytes(bytes(size))
    with pytest.raises(BadArtifact, match="holds another content under the name"):
        Content(str(tmp_path / "store"), tmp_path / "new").get(name, size, tmp_path / "third")
    assert not (tmp_path / "third").exists() and not list((tmp_path / "new" / name[:2]).iterdir())


def test_errors_are_sentences(file, tmp_path, monkeypatch):
    content = Content(str(tmp_path / "store"), tmp_path / "cache")
    with pytest.raises(BadArtifact, match="has no file 000000000000"):
        content.get("0" * 64, 1, tmp_path / "x")
    with pytest.raises(BadArtifact, match="expected a folder or a URL that fsspec opens"):
        Content("nosuch://x", tmp_path)

    def full(self, source, name):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(Folder, "put", full)
    with pytest.raises(OutputFailed, match="No space left on device"):
        content.put(file)
