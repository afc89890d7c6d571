"""Every reader of untrusted files, by family: valid files, and a function that reads one file.

A reader gets bytes and an empty folder. If a format protects its content with digests, lengths or an encoding, a second
entry takes only the content. It computes the protection anew, so that mutations reach the code behind it.
"""

import base64
import io
import json
import pickle
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / name) for name in ("mystudio", "selfscan", "selfscan/io")]

from foreign_files import RosinalityGenerator, official_pickle, random_generator, torch_bytes
from picture_seeds import camera_look, jpegs, picture_clips, pictures, training_image
from small_artifacts import MAKERS, avatar, manifest_of, parts
from tiny_head import tiny_basis
from unfinished import checkpoint_index, checkpoint_index_seeds, tuning_state, tuning_states

from mystudio import editing
from mystudio.actors import basis
from mystudio.base import sources
from mystudio.base.encoder import Encoder, load_encoder
from mystudio.commands.edit import read_keys, split
from mystudio.engines.personal.windows import read_window
from mystudio.provenance import signing
from mystudio.provenance import verify as marks
from mystudio.recipe import FOLDER, resolve, resolve_base
from mystudio.storage import (
    archive,
    artifacts,
    manifest,
    workspace,
)
from mystudio.storage.journal import DiskCheckpoints, seal
from mystudio.stylegan2 import checkpoint, torchfile
from mystudio.types import Avatar
from selfscan.io import (
    picture,
    video,
)
from selfscan.types import Scan

CHILD = ("subprocess.Popen", "os.kill")  # events that readers with a child process may cause


@dataclass(frozen=True)
class Reader:
    """One reader with its valid files and limits."""

    name: str
    seeds: Callable[[], list[bytes]]  # valid files, made once
    read: Callable[[bytes, Path], Any]
    json: bool = False  # the bytes are JSON and may be mutated as JSON
    allowed: tuple[str, ...] = ()  # events that the reader may cause
    megabytes: int = 64
    seconds: float = 2.0  # processor time


def file_reader(
    name: str, seeds: Callable[[], list[bytes]], read: Callable[[Path], Any], suffix: str = "", **more
) -> Reader:
    """A reader of one file."""

    def place(data: bytes, folder: Path) -> Any:
        path = folder / f"file{suffix}"
        path.write_bytes(data)
        return read(path)

    return Reader(name, cache(seeds), place, **more)


# ---- video -------------------------------------------------------------------------------------------------------


def clips() -> list[bytes]:
    from tempfile import TemporaryDirectory

    from test_video import make, make_with_sound, scene

    kinds = (
        ("a.mkv", "ffv1", "bgr0"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
    )
    with TemporaryDirectory() as place:
        found = [make_with_sound(Path(place) / "s.mp4", 0.4).read_bytes()]
        for name, codec, pix_fmt in kinds:
            found.append(make(Path(place) / name, [scene(i) for i in range(6)], codec, pix_fmt).read_bytes())
    return found


def watch(path: Path) -> int:
    video.probe(path)
    times = [time for time, image in video.read(path, video.Limits(frames=500, seconds=1000.0))]
    assert times and times[0] >= 0 and (np.diff(times) > 0).all()
    return len(times)


# ---- recipes, keyframes, options ------------------------------------------------------------------------------------


def recipes() -> list[bytes]:
    full = resolve().show().encode()
    return [full, *(path.read_bytes() for path in sorted(FOLDER.glob("*.toml")))]


def option(data: bytes, folder: Path) -> None:
    resolve("default", data.decode("utf-8", "replace").split("\n")[:3])


def strengths(data: bytes, folder: Path) -> None:
    split(data.decode("utf-8", "replace"))


# ---- artifacts ------------------------------------------------------------------------------------------------------


def artifact_reader(cls: type, changed: str, **more) -> Reader:
    """An artifact in which one file is mutated and the manifest is updated to fit."""

    def read(data: bytes, folder: Path) -> None:
        place = folder / "x.artifact"
        shutil.rmtree(place, ignore_errors=True)
        files = parts(cls) | {changed: data}
        for name, content in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        (place / "manifest.json").write_bytes(manifest_of(files, artifacts.KINDS[cls]))
        artifacts.load(place, cls)

    return Reader(f"{artifacts.KINDS[cls]} {changed}", cache(lambda: [parts(cls)[changed]]), read, **more)


def folder_manifest(data: bytes, folder: Path) -> None:
    place = folder / "m.take"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (folder / "d.mp4").write_bytes(b"")
    (place / "manifest.json").write_bytes(data)
    opened = manifest.open_folder(place)
    for name in list(opened.manifest.files)[:5]:
        opened.file(name)
    opened.source(next(iter(opened.manifest.inputs), "video"))


def fitting_manifest(data: bytes, folder: Path) -> None:
    """Read a manifest after correcting its digests, if its values allow that."""
    try:
        value = json.loads(data)
        files = {name: entry["sha256"] for name, entry in value["files"].items()}
        digest = manifest.digest_of({"type": value["type"], "schema": value["schema"], "files": files})
        value = {name: part for name, part in value.items() if name != "checksum"} | {"digest": digest}
        data = json.dumps(value | {"checksum": manifest.digest_of(value)}).encode()
    except Exception:  # no digest can be computed: read it unchanged
        pass
    folder_manifest(data, folder)


def manifests() -> list[bytes]:
    return [manifest_of(parts(cls), kind) for cls, kind in artifacts.KINDS.items()]


def made_record(data: bytes, folder: Path) -> None:
    (folder / "x.mp4").write_bytes(b"")
    (folder / ".x.mp4.made").write_bytes(data)
    marks._recorded(folder / "x.mp4")


def records() -> list[bytes]:
    settings = {"render": {"crf": 18}, "provenance": {"mark": True, "watermark": True}}
    return [
        json.dumps(
            {"inputs": {"take": "0" * 64}, "settings": settings, "mystudio": "0.1.0", "sha256": "0" * 64}
        ).encode()
    ]


# ---- safetensors ----------------------------------------------------------------------------------------------------


def headed(read: Callable[[Path], Any], name: str, seeds: Callable[[], list[bytes]], suffix=".safetensors") -> Reader:
    """A reader whose bytes are the JSON header of a safetensors file; length and zero data are added."""

    def place(data: bytes, folder: Path) -> Any:
        data += b" " * (-len(data) % 8)
        try:
            end = max(int(entry["data_offsets"][1]) for name, entry in json.loads(data).items() if name[:2] != "__")
        except Exception:  # a header without a length
            end = 4096
        zeros = bytes(min(max(end, 0), 8 << 20))
        (folder / f"file{suffix}").write_bytes(struct.pack("<Q", len(data)) + data + zeros)
        return read(folder / f"file{suffix}")

    def headers() -> list[bytes]:
        found = [json.loads(file[8 : 8 + struct.unpack("<Q", file[:8])[0]]) for file in seeds()]
        for header in found:  # the checksum of zeros differs
            header.get("__metadata__", {}).pop("content_sha256", None)
        return [json.dumps(header).encode() for header in found]

    return Reader(f"{name}, header", cache(headers), place, json=True)


def generators() -> list[bytes]:
    return [parts(Avatar)["generator.safetensors"]]


def encoders() -> list[bytes]:
    from safetensors.torch import save

    return [save({name: value.contiguous() for name, value in Encoder(4, 8).state_dict().items()})]


def direction_tensors() -> list[bytes]:
    from safetensors.torch import save

    return [save({"age": torch.ones(4), "beard": torch.zeros(4)})]


# ---- npz ------------------------------------------------------------------------------------------------------------


def npz_of(**arrays) -> bytes:
    np.savez(stream := io.BytesIO(), **arrays)
    return stream.getvalue()


def squeezed(**arrays) -> bytes:
    np.savez_compressed(stream := io.BytesIO(), **arrays)
    return stream.getvalue()


def shards() -> list[bytes]:
    arrays = dict(images=np.zeros((2, 8, 8, 3), np.uint8), codes=np.zeros((2, 4), np.float32))
    return [npz_of(**arrays), squeezed(**arrays)]


def shard(path: Path) -> None:
    sources.Shards(path, 8).get(1)


def windows() -> list[bytes]:
    arrays = {
        "codes": np.zeros((2, 4, 3), np.float32),
        "outcome": np.zeros(2, np.uint8),
        "loss.keypoint": np.zeros(2),
        "window": np.array([0, 2, 0, 2]),
    }
    return [npz_of(**arrays), squeezed(**arrays)]


def window(path: Path) -> Any:
    seal(path, path.read_bytes())
    return read_window(DiskCheckpoints(path.parent), path.stem)


def heads() -> list[bytes]:
    head = tiny_basis(12, 12)
    arrays = dict(
        neutral=head.neutral,
        faces=head.faces,
        identity=head.identity,
        expression=head.expression,
        expression_names=np.array(basis.EXPRESSIONS),
        landmarks68=head.landmarks,
        part_ends=head.part_ends,
    )
    return [npz_of(**arrays), squeezed(**arrays)]


def member(name: str, others: Callable[[], dict[str, np.ndarray]], read: Callable[[Path], Any], label: str) -> Reader:
    """A reader whose bytes are one .npy inside an otherwise valid .npz."""

    def place(data: bytes, folder: Path) -> Any:
        with zipfile.ZipFile(folder / "file.npz", "w") as file:
            for other, array in others().items():
                np.save(stream := io.BytesIO(), array)
                file.writestr(f"{other}.npy", data if other == name else stream.getvalue())
        return read(folder / "file.npz")

    def seeds() -> list[bytes]:
        np.save(stream := io.BytesIO(), others()[name])
        return [stream.getvalue()]

    return Reader(f"{label}, array", cache(seeds), place)


def arrays_of(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data)) as file:
        return {name: file[name] for name in file.files}


# ---- checkpoints of other programs --------------------------------------------------------------------------------


def pickles() -> list[bytes]:
    g = random_generator(8, z_dim=4, w_dim=4, mapping_layers=1, channel_base=32, channel_max=4)
    return [official_pickle(g, protocol=protocol, keys=("G_ema",)) for protocol in (2, 4)]


def torch_files() -> list[bytes]:
    state = {"g_ema": RosinalityGenerator((4, 4), 4, 1).state_dict(), "latent_avg": torch.zeros(4)}
    return [torch_bytes(state), torch_bytes(state, legacy=True)]


def imported(path: Path) -> None:
    checkpoint.import_checkpoint(path, path.with_name("out.safetensors"))


def inner_pickles() -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(torch_files()[0])) as file:
        return [file.read(next(name for name in file.namelist() if name.endswith("data.pkl"))), pickle.dumps([1], 2)]


def inner_pickle(data: bytes, folder: Path) -> None:
    """The pickle inside an otherwise valid torch zip."""
    with zipfile.ZipFile(io.BytesIO(torch_files()[0])) as source, zipfile.ZipFile(folder / "x.pt", "w") as target:
        for name in source.namelist():
            target.writestr(name, data if name.endswith("data.pkl") else source.read(name))
    imported(folder / "x.pt")


# ---- archives and keys ----------------------------------------------------------------------------------------------


def archives() -> list[bytes]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as place:
        folder = Path(place) / "me.avatar"
        with workspace.stage(folder, "avatar", {}, {}) as run:
            artifacts.save(avatar(), run)
        archive.pack(folder, Path(place) / "me.zip")
        return [(Path(place) / "me.zip").read_bytes()]


def unpacked(data: bytes, folder: Path) -> None:
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "in.zip").write_bytes(data)
    archive.unpack(folder / "in.zip", folder / "out" / "me.avatar")


@cache
def keys() -> list[bytes]:
    return [signing.make()]


def key_pair(path: Path) -> None:
    signing.read_signing_key(path, path)


def issuers(path: Path) -> None:
    marks._certificates(path)


def der(kind: str) -> Callable[[], list[bytes]]:
    def found() -> list[bytes]:
        blocks = keys()[0].decode().split("-----")
        at = blocks.index(f"BEGIN {kind}")
        return [base64.b64decode("".join(blocks[at + 1].split()))]

    return found


def armoured(kind: str, read: Callable[[Path], Any]) -> Reader:
    """A reader whose bytes are the encoded content of a PEM block."""

    def place(data: bytes, folder: Path) -> Any:
        key, text = keys()[0], base64.encodebytes(data).decode()
        block = f"-----BEGIN {kind}-----\n{text}-----END {kind}-----\n".encode()
        rest = key if kind == "CERTIFICATE" else key[key.index(b"-----BEGIN C") :]
        (folder / "x.pem").write_bytes(block + rest)
        return read(folder / "x.pem")

    return Reader(f"{kind.lower()} in PEM", cache(der(kind)), place)


def array_seeds():
    """A direction [1, D], and one a layer [L, D], as .npy."""
    made = [io.BytesIO(), io.BytesIO()]
    np.save(made[0], np.ones((1, 4), np.float16))
    np.save(made[1], np.arange(8.0).reshape(2, 4))
    return [stream.getvalue() for stream in made]


def torch_directions():
    """The same as torch files: a tensor alone, and tensors by name."""
    return [torch_bytes(torch.ones(1, 4)), torch_bytes({"age": torch.ones(2, 4), "about": "x"}, legacy=True)]


READERS: dict[str, list[Reader]] = {
    "video": [
        file_reader("clip", clips, watch, ".mp4", allowed=CHILD, megabytes=96, seconds=10.0),
        file_reader("picture as a clip", picture_clips, watch, ".webp", allowed=CHILD, megabytes=96, seconds=10.0),
        file_reader("picture", pictures, picture.read, ".png", allowed=CHILD, seconds=10.0),
        Reader("look of a camera", cache(jpegs), camera_look, allowed=CHILD, seconds=10.0),
        Reader("training image", cache(pictures), training_image, megabytes=1024),
    ],
    "recipe": [
        file_reader("recipe", recipes, resolve, ".toml"),
        file_reader("base recipe", recipes, resolve_base, ".toml"),
        file_reader("keyframes", lambda: [b"smile = [[0.0, 0.0], [1.5, 1.0]]\ngaze_x = [[0, 1]]\n"], read_keys),
        Reader("--option", cache(lambda: [b"reenact.steps=30", b'render.view="paste"\nscan.images=40']), option),
        Reader("--set", cache(lambda: [b"smile=1.0", b"gaze_x=-5e-1"]), strengths),
    ],
    "manifest": [
        Reader("manifest", cache(manifests), folder_manifest, json=True),
        Reader("manifest, digest fits", cache(manifests), fitting_manifest, json=True),
        Reader("record", cache(records), made_record, json=True),
        Reader("training checkpoint", cache(checkpoint_index_seeds), checkpoint_index, json=True),
        *(artifact_reader(cls, "values.json", json=True) for cls in MAKERS),
        artifact_reader(Scan, "images/000001.png"),
    ],
    "safetensors": [
        file_reader("generator", generators, checkpoint.load_generator, ".safetensors"),
        headed(checkpoint.load_generator, "generator", generators),
        file_reader("encoder", encoders, load_encoder),
        headed(load_encoder, "encoder", encoders),
        file_reader("directions", direction_tensors, lambda path: editing.load_directions(path, 4), ".safetensors"),
        headed(lambda path: editing.load_directions(path, 4), "directions", direction_tensors),
        file_reader("tuning", tuning_states, tuning_state),
        headed(tuning_state, "tuning", tuning_states),
        *(artifact_reader(cls, "arrays.safetensors") for cls in MAKERS),
    ],
    "npz": [
        file_reader("shard", shards, shard, ".npz"),
        member("codes", lambda: arrays_of(shards()[0]), shard, "shard codes"),
        member("images", lambda: arrays_of(shards()[0]), shard, "shard images"),
        file_reader("window", windows, window, ".npz"),
        member("codes", lambda: arrays_of(windows()[0]), window, "window"),
        file_reader("head", heads, basis.read_npz, ".npz"),
        member("faces", lambda: arrays_of(heads()[0]), basis.read_npz, "head"),
        file_reader(
            "directions", lambda: [npz_of(age=np.ones(4))], lambda path: editing.load_directions(path, 4), ".npz"
        ),
        member("age", lambda: {"age": np.ones(4)}, lambda path: editing.load_directions(path, 4), "directions"),
        file_reader("array of a direction", array_seeds, lambda path: editing.load_directions(path, 4, 2), ".npy"),
    ],
    "pickle": [
        file_reader("official pickle", pickles, imported, ".pkl"),
        file_reader("torch file", torch_files, imported, ".pt"),
        file_reader("torch directions", torch_directions, lambda path: editing.load_directions(path, 4, 2), ".pt"),
        Reader("pickle in a torch zip", cache(inner_pickles), inner_pickle),
        file_reader(
            "any pickle",
            lambda: [pickle.dumps({"a": [1, (2.5, None)]}, p) for p in range(6)],
            torchfile.open_torch,
            ".pkl",
        ),
    ],
    "archive": [Reader("avatar archive", cache(archives), unpacked)],
    "keys": [
        file_reader("key and certificates", keys, key_pair, ".pem"),
        file_reader("issuers", keys, issuers, ".pem"),
        armoured("PRIVATE KEY", key_pair),
        armoured("CERTIFICATE", key_pair),
        armoured("CERTIFICATE", issuers),
    ],
}
