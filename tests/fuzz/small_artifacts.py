"""The smallest valid artifacts, as inputs of the fuzzed readers."""

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from foreign_files import random_generator

from mystudio.engines.personal.state import State
from mystudio.storage import artifacts, manifest
from mystudio.types import Avatar, Performance, Take
from selfscan.types import Alignment, Consent, Coverage, FaceTrack, Observation, Scan

EMPTY = hashlib.sha256(b"").hexdigest()


def performance() -> Performance:
    marks, pose = np.zeros((2, 478, 3), np.float32), np.repeat(np.eye(4, dtype=np.float32)[None], 2, 0)
    track = FaceTrack(
        marks, pose, np.ones(2, np.float32), np.ones(2, bool), np.array([0, 0.04]), (64, 48), np.zeros(2, bool)
    )
    seen = Observation(track, Alignment(np.zeros((2, 2, 3)), 32), marks, np.ones(2, np.float32), "d.mp4", "0" * 64)
    return Performance(seen, np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 2, 4, 4, 3), np.uint8))


def consent() -> Consent:
    return Consent("Ada Nobody", "does not exist", "2024-01-01T00:00:00Z", "0" * 64, True)


def avatar() -> Avatar:
    g = random_generator(8, z_dim=4, w_dim=4, mapping_layers=1, channel_base=32, channel_max=4)
    g.requires_grad_(False)
    marks = torch.zeros(3, 478, 3)
    own = State(torch.zeros(3, 4), np.arange(3), marks, {"smile": torch.ones(4)}, {"code_mean": torch.zeros(2)}, {})
    return Avatar(g, marks[0], own, "personal", "b" * 64, consent())


def scan() -> Scan:
    return Scan(
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((2, 478, 3), np.float32),
        np.arange(2),
        np.ones(2, np.float32),
        {"blurred": 1},
        Coverage({"yaw": np.zeros(2)}, {"yaw left": 0.5}),
        consent(),
        "lpips",
    )


def take() -> Take:
    return Take({"axes": torch.zeros(2, 4, 3)}, np.zeros(2, np.uint8), np.array([0, 0.04]), {"keypoint": np.zeros(2)})


MAKERS = {Scan: scan, Performance: performance, Avatar: avatar, Take: take}


@cache
def parts(cls: type) -> dict[str, bytes]:
    """The files of a small artifact, without its manifest."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as place:
        artifacts.write(MAKERS[cls](), Path(place))
        return {p.relative_to(place).as_posix(): p.read_bytes() for p in Path(place).rglob("*") if p.is_file()}


def manifest_of(files: dict[str, bytes], kind: str) -> bytes:
    entries = {name: manifest.Entry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    made = manifest.Manifest(
        kind,
        manifest.SCHEMA,
        {"video": manifest.InputRecord("d.mp4", EMPTY)},
        {"steps": 1},
        0,
        {"av": "1"},
        "2024-01-01T00:00:00+00:00",
        entries,
        "",
    )
    value = {
        **vars(made),
        "inputs": {k: vars(v) for k, v in made.inputs.items()},
        "files": {k: vars(v) for k, v in entries.items()},
        "digest": made.content_digest(),
        "checksum": replace(made, digest=made.content_digest()).own_digest(),
    }
    return json.dumps(value).encode()
