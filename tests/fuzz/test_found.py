"""Faults that fuzzing found, each with the smallest file that shows it."""

import io
import json
import struct
import zipfile
import zlib
from base64 import b64decode, encodebytes

import cv2
import numpy as np
import pytest
import torch
from readers import artifact_reader, encoders, headed, windows
from small_artifacts import manifest_of, parts
from unfinished import checkpoint_index_seeds, tuned, tuning_states
from watch import outcome

from mystudio.base import checkpoint as training
from mystudio.base.encoder import load_encoder
from mystudio.base.sources import ImageFolder, Shards
from mystudio.commands.edit import read_keys, split
from mystudio.commands.terminal import sentence
from mystudio.engines.personal import tune_checkpoint
from mystudio.engines.personal.tune_checkpoint import TuneState
from mystudio.engines.personal.windows import read_window
from mystudio.errors import BadArtifact, BadCheckpoint, BadData, BadEdit, BadRecipe, SigningFailed
from mystudio.provenance import signing
from mystudio.recipe import resolve
from mystudio.storage import artifacts, npz, workspace
from mystudio.storage.journal import DiskCheckpoints, seal
from selfscan.errors import UnreadablePicture
from selfscan.io import picture
from selfscan.types import Scan

#: a PNG of 8 x 8 px, one byte of whose data is gone: what follows looks like a part of two gigabytes
SHIFTED_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000008000000080802020000004b6d29dc0000001d49444154081d75c101010000004020fe9fb6"
    "40c9902143860c1932640404"
    "4c0009f6bb7405000000004945"
    "4e44ae426082"
)


def test_a_png_of_ninety_bytes_does_not_take_two_gigabytes(tmp_path):
    def read(data, folder):
        (folder / "x.png").write_bytes(data)
        ImageFolder(folder, 8).get(0)

    assert isinstance(outcome(read, SHIFTED_PNG, tmp_path), BadData)
    assert not picture.png_fits(io.BytesIO(SHIFTED_PNG))
    with pytest.raises(UnreadablePicture):
        picture.read(tmp_path / "x.png")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
PIXELS = chunk(b"IDAT", zlib.compress(bytes(8 * 25)))


@pytest.mark.parametrize(
    "chunks",
    [
        HEADER + chunk(b"HDAT", b"no pixels") + chunk(b"IEND", b""),
        HEADER + PIXELS + chunk(b"IEND", b"")[:-1] + b"!",
        HEADER + PIXELS[:-1] + b"!" + chunk(b"IEND", b""),
        HEADER + PIXELS + chunk(b"IEND", b"more"),
    ],
    ids=["no pixels", "a damaged end", "damaged pixels", "an end with data"],
)
def test_a_png_behind_whose_end_opencv_would_read_on_is_refused(chunks, tmp_path):
    """OpenCV takes what follows for the length of a chunk and allocates gigabytes."""
    (tmp_path / "x.png").write_bytes(picture.PNG + chunks + HEADER + b"\x7f\xff\xff\xffIDAT")
    assert not picture.png_fits(io.BytesIO(picture.PNG + chunks))
    with pytest.raises(UnreadablePicture):
        picture.read(tmp_path / "x.png")


def test_a_whole_png_is_read_also_with_data_behind_its_end(tmp_path):
    (tmp_path / "x.png").write_bytes(picture.PNG + HEADER + PIXELS + chunk(b"IEND", b"") + b"appended")
    assert picture.read(tmp_path / "x.png").shape == (8, 8, 3)


def npy(header: bytes, numbers: bytes = b"") -> bytes:
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + numbers


HEADERS = {
    "open bracket": b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4, }",
    "no end": b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4",
    "nested": b"(" * 5000,
    "huge": b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 4), }",
    "huge type": b"{'descr': '|V2147483647', 'fortran_order': False, 'shape': (1000,), }",
    "negative": b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -4), }",
    "objects": b"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
    "a call": b"{'descr': __import__('os').system('touch x'), 'fortran_order': False, 'shape': (2,), }",
}


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_arrays_whose_header_lies(tmp_path, kind, method):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", method) as file:
        for name in ("codes", "images", "outcome"):
            file.writestr(f"{name}.npy", npy(HEADERS[kind], bytes(64)))

    def read(data, folder):
        with pytest.raises(ValueError) as told:
            npz.load(path)
        assert "\n" not in str(told.value)
        seal(tmp_path / "window.npz", path.read_bytes())
        assert read_window(DiskCheckpoints(tmp_path), "window") is None
        Shards(path, 8)

    assert isinstance(outcome(read, b"", tmp_path), BadData)
    assert not (tmp_path / "x").exists()


def test_arrays_that_grow_when_unpacked_are_refused_before(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", codes=np.zeros(200 << 20, np.uint8))
    with pytest.raises(ValueError, match="bytes"):
        npz.load(tmp_path / "x.npz", most=100 << 20)


def test_arrays_come_back_as_they_were(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "n": np.float32(3),
        "none": np.zeros((0, 4)),
        "words": np.array(["x", "yy"]),
        "truth": np.array([True, False]),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        found = npz.load(tmp_path / "x.npz")
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert np.array_equal(found[name], array) and found[name].dtype == np.asarray(array).dtype
    assert list(npz.load(tmp_path / "x.npz", ["f"])) == ["f"]
    with pytest.raises(ValueError, match="'g'"):
        npz.load(tmp_path / "x.npz", ["g"])


def test_a_window_of_another_form_is_solved_again(tmp_path):
    seal(tmp_path / "w.npz", windows()[0])
    assert read_window(DiskCheckpoints(tmp_path), "w") is not None
    np.savez(content := io.BytesIO(), codes=np.array(["x"]), outcome=np.zeros(1), window=np.zeros(4))
    seal(tmp_path / "w.npz", content.getvalue())
    assert read_window(DiskCheckpoints(tmp_path), "w") is None


def test_an_encoder_beside_a_base_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "x.encoder.safetensors"
    path.write_bytes(encoders()[0][:-5])
    with pytest.raises(BadCheckpoint, match="encoder"):
        load_encoder(path)
    width = 30_000  # the network in this header needs 230 GB
    header = {
        "mean": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "look.bias": {"dtype": "F32", "shape": [width], "data_offsets": [16, 16 + 4 * width]},
    }
    refusal = outcome(headed(load_encoder, "", encoders).read, json.dumps(header).encode(), tmp_path)
    assert isinstance(refusal, BadCheckpoint)


def test_the_encoder_of_a_base_is_read_as_it_was_written(tmp_path):
    (tmp_path / "e.safetensors").write_bytes(encoders()[0])
    found = load_encoder(tmp_path / "e.safetensors")
    assert not found.training and not any(p.requires_grad for p in found.parameters())
    assert found(torch.zeros(2, 8), torch.zeros(2, 66, 3)).shape == (2, 4)


def test_a_checkpoint_of_tuning_for_another_network_leaves_this_one_alone(tmp_path):
    data = bytearray(tuning_states()[0])
    at = data.index(b"g.synthesis.")
    data[at : at + 12] = b"g.sinthesis."  # the value after one flipped bit
    seal(tmp_path / "state", bytes(data))
    nets, state = tuned(), TuneState()
    before, _ = nets.snapshot()
    tune_checkpoint.from_bytes((tmp_path / "state").read_bytes(), nets, state)
    assert state == TuneState() and not nets.optimizer.state_dict()["state"]
    assert all(
        torch.equal(v, before[name][k]) for name, net in nets.generators.items() for k, v in net.state_dict().items()
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index | {"parts": [{"file": 1, "bytes": 1, "sha256": "0"}]},
        lambda index: index | {"parts": [index["parts"][0] | {"bytes": 1 << 60}]},
        lambda index: index | {"parts": [index["parts"][0] | {"bytes": -5}]},
        lambda index: index | {"parts": index["parts"] * 20_000},
        lambda index: index | {"parts": 5},
        lambda index: index | {"facts": None},
        lambda index: [index],
        lambda index: None,
    ],
)
def test_an_index_of_a_training_run_that_lies(tmp_path, change):
    (tmp_path / training.INDEX).write_text(json.dumps(change(json.loads(checkpoint_index_seeds()[0]))))
    with pytest.raises(BadCheckpoint):
        training.load(tmp_path)
    (tmp_path / training.INDEX).write_text("[" * 100_000)
    with pytest.raises(BadCheckpoint):
        training.load_facts(tmp_path)


def test_a_key_of_an_unknown_kind(tmp_path):
    key = signing.make()
    der = b64decode("".join(key.decode().split("-----")[2].split()))
    odd = der.replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a864ace3d0201"))  # 1.2.712... for 1.2.840...
    assert odd != der
    block = b"-----BEGIN PRIVATE KEY-----\n" + encodebytes(odd) + b"-----END PRIVATE KEY-----\n"
    (tmp_path / "k.pem").write_bytes(block + key[key.index(b"-----BEGIN CERT") :])
    with pytest.raises(SigningFailed, match="known"):
        signing.read_signing_key(tmp_path / "k.pem", tmp_path / "k.pem")


def test_foreign_names_reach_no_terminal_as_they_are():
    for job, error in (
        (lambda: split("\x1b[31m=x"), BadEdit),
        (lambda: resolve("default", ["a\x1b[2Jb.c=1"]), BadRecipe),
        (lambda: resolve("default", ["\ud800.c=1"]), BadRecipe),
    ):
        with pytest.raises(error) as told:
            job()
        assert str(told.value).isprintable()
    for job, error in (
        (lambda: split("x" * 9000), BadEdit),
        (lambda: resolve("default", ["x" * 9000]), BadRecipe),
        (lambda: resolve("default", [f"render.view={'x' * 9000}"]), BadRecipe),
        (lambda: resolve("default", [f"render.{'x' * 9000}=1"]), BadRecipe),
    ):
        with pytest.raises(error) as told:
            job()
        assert len(str(told.value)) < 700
    assert sentence(BadEdit("a\x1b[31m\nb\ud800c")) == "a?[31m b?c"


def test_a_name_that_cannot_be_shown_is_escaped(tmp_path):
    """The values of a hostile scan may name any file as an image."""
    values = json.loads(parts(Scan)["values.json"]) | {"$images": "\x1f"}
    reader = artifact_reader(Scan, "values.json")
    assert "\\x1f" in str(outcome(reader.read, json.dumps(values).encode(), tmp_path, reader.megabytes))


@pytest.mark.parametrize("number", ["9" * 6000, "0x" + "f" * 6000, "1" + "0" * 400, "-" + "9" * 400, "nan", "1e400"])
def test_numbers_beyond_all_reason(tmp_path, number):
    (tmp_path / "r.toml").write_text(f"[reenact]\nsteps = {number}\n")
    (tmp_path / "k.toml").write_text(f"smile = [[0.0, {number}]]\n")
    (tmp_path / "t.toml").write_text(f"reenact = {number}\n")
    for job in (
        lambda: resolve(tmp_path / "r.toml"),
        lambda: resolve(tmp_path / "t.toml"),
        lambda: resolve("default", [f"reenact.steps={number}"]),
        lambda: read_keys(tmp_path / "k.toml"),
    ):
        with pytest.raises((BadRecipe, BadEdit)) as told:
            job()
        assert len(str(told.value)) < 7000 and "\n" not in str(told.value)


def test_images_of_a_scan_that_take_more_memory_than_they_may(tmp_path):
    files = dict(parts(Scan))
    large = cv2.imencode(".png", np.zeros((4096, 4096, 3), np.uint8))[1].tobytes()
    names = [f"images/{k:06d}.png" for k in range(60)]  # 3 GB from 60 small files
    values = json.loads(files["values.json"]) | {"images": {"$images": names}}
    files |= dict.fromkeys(names, large) | {"values.json": json.dumps(values).encode()}

    def read(data, folder):
        (folder / "x.scan" / "images").mkdir(parents=True)
        for name, content in files.items():
            (folder / "x.scan" / name).write_bytes(content)
        (folder / "x.scan" / "manifest.json").write_bytes(manifest_of(files, "scan"))
        artifacts.load(folder / "x.scan", Scan)

    assert "GB together" in str(outcome(read, b"", tmp_path, megabytes=160))


@pytest.mark.parametrize(
    "content",
    [
        '{"schema": 1, "type": 5}',
        '{"schema": 1, "type": ""}',
        "[" * 100_000,
        "5",
        '{"schema": 1, "type": "\\u001b[31m"}',
        '{"schema": 1, "type": null}',
    ],
)
def test_a_folder_with_an_odd_manifest_is_not_replaced(tmp_path, content):
    (tmp_path / "x.scan").mkdir()
    (tmp_path / "x.scan" / "manifest.json").write_text(content)
    with pytest.raises(BadArtifact) as told, workspace.stage(tmp_path / "x.scan", "scan", {}, {}):
        pass
    assert str(told.value).isprintable() and (tmp_path / "x.scan" / "manifest.json").read_text() == content
