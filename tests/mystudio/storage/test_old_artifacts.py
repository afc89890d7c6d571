"""Artifacts of older schemas open, and artifacts of newer versions give an error with advice.

``schema1`` holds an avatar, its archive, a performance and a take that version 0.1.0 wrote (schema 1), and the pictures
that it drew of the take (truth.npz). These files cannot be made again, so they must not change.
"""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mystudio import editing, engines, pipeline
from mystudio.engines.personal.state import AXES, State
from mystudio.errors import BadArchive, BadArtifact
from mystudio.recipe import resolve
from mystudio.storage import archive, manifest
from mystudio.storage.artifacts import load
from mystudio.storage.manifest import SCHEMA, open_folder
from mystudio.types import Avatar, Edit, Performance, Take
from selfscan.io import video
from selfscan.types import Scan

OLD = Path(__file__).with_name("schema1")


@pytest.fixture
def studio(tmp_path) -> Path:
    """A copy of the old artifacts, as a user has them in a folder."""
    return shutil.copytree(OLD, tmp_path / "studio")


def test_the_kept_artifacts_are_of_the_old_schema():
    for name in ("me.avatar", "hello.take", "driver.performance"):
        assert json.loads((OLD / name / "manifest.json").read_text())["schema"] == 1 < SCHEMA
    assert "anchors" in json.loads((OLD / "me.avatar" / "values.json").read_text())


def test_an_old_avatar_and_take_show_the_same_pictures(studio):
    avatar, take = load(studio / "me.avatar", Avatar), load(studio / "hello.take", Take)
    assert isinstance(avatar.state, State) and set(avatar.state.directions) == {"smile", "roll"}
    assert take.edits == (Edit("roll", 0.5, edge="continue"),) and take.outcome.tolist() == [0, 1, 2, 3]
    with np.load(OLD / "truth.npz") as truth:
        assert np.array_equal(take.codes[AXES].numpy(), truth["codes"])
        images = avatar.generator.synthesize(engines.of(avatar).decode(avatar, take)).clamp(-1, 1)
        assert np.abs(images.detach().numpy() - truth["images"]).max() < 1e-4
    assert len(load(studio / "driver.performance", Performance)) == len(take)


def test_an_old_take_is_edited_and_rendered(studio):
    for name in ("smile", "roll"):  # roll is no longer made, but works in avatars that have it
        pipeline.run_edit(studio / "hello.take", studio / f"{name}.take", [Edit(name, 1.0)])
        edited = load(studio / f"{name}.take", Take)
        assert not torch.equal(edited.codes[AXES], load(studio / "hello.take", Take).codes[AXES])
        assert open_folder(studio / f"{name}.take").manifest.schema == SCHEMA
    pipeline.run_render(studio / "smile.take", studio / "smile.mp4", resolve("default", ["render.view=paste"]))
    assert len(list(video.read(studio / "smile.mp4"))) == 4


def test_an_old_archive_is_unpacked_and_packed_again(studio, tmp_path):
    archive.unpack(studio / "me.zip", tmp_path / "again.avatar")
    assert load(tmp_path / "again.avatar", Avatar).consent.name == "Ada Nobody"
    archive.pack(tmp_path / "again.avatar", tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (OLD / "me.zip").read_bytes()


def test_reading_leaves_the_old_files_as_they_are(studio):
    before = {path: path.read_bytes() for path in studio.rglob("*") if path.is_file()}
    load(studio / "me.avatar", Avatar), load(studio / "hello.take", Take)
    assert {path: path.read_bytes() for path in studio.rglob("*") if path.is_file()} == before


def write(folder: Path, changed: manifest.Manifest) -> None:
    """Write a manifest with the digests that belong to it."""
    changed = dataclasses.replace(changed, digest=changed.content_digest())
    changed = dataclasses.replace(changed, checksum=changed.own_digest())
    (folder / manifest.MANIFEST).write_text(json.dumps(dataclasses.asdict(changed)))


@pytest.mark.parametrize("name, cls", [("me.avatar", Avatar), ("hello.take", Take)])
def test_an_artifact_of_a_newer_version_says_update(studio, name, cls):
    write(studio / name, dataclasses.replace(open_folder(studio / name).manifest, schema=SCHEMA + 1))
    with pytest.raises(BadArtifact, match="made by a newer mystudio .* update mystudio"):
        load(studio / name, cls)


@pytest.mark.parametrize("change", [{}, {"files": ["a list"]}, {"inputs": None, "seed": "x"}])
@pytest.mark.parametrize("name, cls", [("me.avatar", Avatar), ("hello.take", Take)])
def test_a_newer_manifest_says_update_whatever_else_it_holds(studio, name, cls, change):
    """A newer version may store other fields and count its digest in another way."""
    file = studio / name / manifest.MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": SCHEMA + 1, "new field": 1} | change))
    with pytest.raises(BadArtifact, match="made by a newer mystudio .* update mystudio"):
        load(studio / name, cls)


def test_an_archive_of_a_newer_version_says_update(studio, monkeypatch, tmp_path):
    write(studio / "me.avatar", dataclasses.replace(open_folder(studio / "me.avatar").manifest, schema=SCHEMA + 1))
    with monkeypatch.context() as patch:  # as the newer version packs it
        patch.setattr(manifest, "SCHEMA", SCHEMA + 1)
        archive.pack(studio / "me.avatar", tmp_path / "new.zip")
    with pytest.raises(BadArchive, match="update mystudio"):
        archive.unpack(tmp_path / "new.zip", tmp_path / "new.avatar")
    assert not (tmp_path / "new.avatar").exists()


@pytest.mark.parametrize("values", [{}, [], {"engine": "personal"}, {"engine": 3}, {"codes": 1}])
@pytest.mark.parametrize("name, cls", [("me.avatar", Avatar), ("hello.take", Take)])
def test_an_old_artifact_with_other_values_is_refused_in_one_sentence(studio, name, cls, values):
    folder, found = studio / name, open_folder(studio / name).manifest
    data = json.dumps(values).encode()
    (folder / "values.json").write_bytes(data)
    entry = manifest.Entry(len(data), hashlib.sha256(data).hexdigest())
    write(folder, dataclasses.replace(found, files=found.files | {"values.json": entry}))
    with pytest.raises(BadArtifact, match="make it again|update mystudio"):
        load(folder, cls)


def test_a_whole_studio_of_the_first_version_opens(shared):
    """Scan, avatar, archive, performance and takes of the demo's person; the edit gives the codes that it gave then."""
    place = shared / "artifacts" / "v1"
    avatar, scan = load(place / "me.avatar", Avatar), load(place / "me.scan", Scan)
    take, smiling = load(place / "hello.take", Take), load(place / "smiling.take", Take)
    assert len(scan) == engines.describe(avatar)["anchors"] and len(take) == len(smiling) == 100
    edited = editing.apply(avatar, take, list(smiling.edits))
    assert torch.allclose(edited.codes[AXES], smiling.codes[AXES], atol=1e-3)
    styles = engines.of(avatar).decode(avatar, take, slice(0, 1))
    assert avatar.generator.synthesize(styles).shape[-1] == avatar.generator.resolution


def test_the_archive_of_the_first_version_opens(shared, tmp_path):
    archive.unpack(shared / "artifacts" / "v1" / "me.avatar.zip", tmp_path / "me.avatar")
    assert load(tmp_path / "me.avatar", Avatar).engine == "personal"
