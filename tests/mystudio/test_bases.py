"""Bases: found by name or file, imported into the user's folder, and read lazily."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from foreign_files import official_pickle, random_generator

from mystudio.bases import Base, find_base, import_base, list_bases
from mystudio.errors import BadArtifact, BadCheckpoint, OutputFailed, UnsafeCheckpoint
from mystudio.stylegan2.checkpoint import digest


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MYSTUDIO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "network-snapshot.pkl"
    path.write_bytes(official_pickle(random_generator(8)))
    return path


def test_the_packaged_base_is_whole(home):
    base = find_base("people128")
    assert base in list_bases() and base.digest == digest(base.path)
    assert base.info["resolution"] == "128" and "content_sha256" in base.info
    with torch.no_grad():
        g = base.generator
        image = g(g.broadcast(g.mapping(torch.full((1, g.z_dim), 0.1))))
    assert image.shape == (1, 3, 128, 128) and image.std() > 0.05
    assert base.generator is base.generator


def test_import_then_find(home, source):
    base = import_base(source, "größe-1.0")
    assert base == find_base("größe-1.0") == find_base(base.path)
    assert base.path == home / "bases" / "größe-1.0.safetensors"
    assert [b.name for b in list_bases()] == ["größe-1.0", "people128"]
    assert base.generator.resolution == 8 and base.info["source_file"] == source.name
    with pytest.raises(BadArtifact, match="exists"):
        import_base(source, "größe-1.0")
    with pytest.raises(BadArtifact, match="exists"):
        import_base(source, "people128")


def test_encoder_beside_a_base(home, source):
    base = import_base(source, "mine")
    assert base.companion("encoder") is None
    encoder = home / "bases" / "mine.encoder.safetensors"
    encoder.write_bytes(b"x")
    assert base.companion("encoder") == find_base("mine").companion("encoder") == encoder
    assert [b.name for b in list_bases()] == ["mine", "people128"]


def test_a_file_anywhere_is_a_base(home, source, tmp_path):
    path = tmp_path / "elsewhere.safetensors"
    import_base(source, "mine").path.rename(path)
    assert find_base(path) == find_base(str(path)) == Base("elsewhere", path)
    with pytest.raises(BadArtifact, match="people128"):
        find_base("mine")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../up",
        "a/b",
        "a\\b",
        ".hidden",
        "-dash",
        "x.encoder",
        "dot.",
        "with space",
        "line\n",
        "n" * 101,
        "nul\0",
    ],
)
def test_names_that_are_no_file_names(home, source, name):
    with pytest.raises(BadArtifact):
        import_base(source, name)
    assert not home.exists()


def test_failed_imports_leave_nothing(home, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    source = tmp_path / "x.pkl"
    for content, error in ((pickle.dumps(Attack()), UnsafeCheckpoint), (b"", BadCheckpoint), (b"N.", BadCheckpoint)):
        source.write_bytes(content)
        with pytest.raises(error):
            import_base(source, "mine")
    with pytest.raises(BadCheckpoint):
        import_base(tmp_path / "absent.pkl", "mine")
    assert not (tmp_path / "ran").exists() and not home.exists()


def test_a_damaged_base_is_listed_and_refused_when_read(home):
    (home / "bases").mkdir(parents=True)
    (home / "bases" / "broken.safetensors").write_bytes(b"\x10")
    (home / "bases" / ".mine.safetensors.1234.part").write_bytes(b"")
    base = find_base("broken")
    assert [b.name for b in list_bases()] == ["broken", "people128"]
    for read in (lambda: base.generator, lambda: base.info):
        with pytest.raises(BadCheckpoint):
            read()


def test_home_that_is_absent_or_a_file(source, tmp_path, monkeypatch):
    monkeypatch.setenv("MYSTUDIO_HOME", str(source))
    assert [b.name for b in list_bases()] == ["people128"]
    with pytest.raises(OutputFailed):
        import_base(source, "mine")
    monkeypatch.delenv("MYSTUDIO_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    assert import_base(source, "mine").path == Path(tmp_path, "nobody/.local/share/mystudio/bases/mine.safetensors")
