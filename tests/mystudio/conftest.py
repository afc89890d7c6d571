"""A tiny random avatar and a small synthetic driving clip, which suffice for every stage after reenact."""

from pathlib import Path

import actor_avatar
import numpy as np
import pytest
import torch

from mystudio.engines.personal.space import AnchorSpace
from mystudio.engines.personal.state import AXES, State
from mystudio.stylegan2.generator import Generator
from mystudio.types import Avatar, Performance, Take
from selfscan.face.align import align, apply
from selfscan.face.landmarks import OVAL
from selfscan.io import video
from selfscan.io.digest import file_digest
from selfscan.types import Consent, FaceTrack, Observation

#: a face's outline, eyes, brows, nose and lips in a unit square, by MediaPipe index
MARKS = {
    33: (0.32, 0.42), 133: (0.44, 0.42), 160: (0.36, 0.40), 158: (0.40, 0.40), 153: (0.40, 0.44), 144: (0.36, 0.44),
    263: (0.68, 0.42), 362: (0.56, 0.42), 385: (0.60, 0.40), 387: (0.64, 0.40), 373: (0.60, 0.44), 380: (0.64, 0.44),
    61: (0.40, 0.70), 291: (0.60, 0.70), 4: (0.5, 0.57), 1: (0.5, 0.58), 468: (0.38, 0.42), 473: (0.62, 0.42),
}  # fmt: skip


def face_landmarks() -> np.ndarray:
    """Landmarks [478, 3] of a schematic face in the unit square."""
    marks = np.zeros((478, 3))
    marks[:, :2] = np.random.default_rng(0).uniform((0.36, 0.35), (0.64, 0.75), (478, 2))
    angle = np.linspace(0, 2 * np.pi, len(OVAL), endpoint=False)
    marks[list(OVAL), :2] = 0.5 + np.stack([0.24 * np.sin(angle), 0.05 - 0.34 * np.cos(angle)], -1)
    for index, point in MARKS.items():
        marks[index, :2] = point
    return marks.astype(np.float32)


@pytest.fixture(scope="session", autouse=True)
def _avatar_for_all_processes(run_folder):
    actor_avatar.FOLDER = run_folder


@pytest.fixture(scope="session")
def tiny_avatar() -> Avatar:
    """A random 32 px generator with 12 anchors."""
    torch.manual_seed(0)
    generator = Generator(32, z_dim=16, w_dim=16, mapping_layers=2, channel_base=512, channel_max=32).eval()
    generator.requires_grad_(False)
    anchors = generator.mapping(torch.randn(12, 16))
    neutral = torch.as_tensor(face_landmarks())
    rank = AnchorSpace.of(anchors, 8).rank
    consent = Consent("Ada Nobody", "does not exist", "2024-01-01T00:00:00Z", "0" * 64, fictional=True)
    state = State(
        anchors=anchors,
        anchor_ids=np.arange(12),
        anchor_keypoints=neutral.expand(12, -1, -1),
        directions={},
        regressor={"code_mean": torch.zeros(rank)},
        statistics={},
    )
    return Avatar(generator, neutral, state, engine="personal", base_digest="b" * 64, consent=consent)


@pytest.fixture(scope="session")
def driving_clip(tmp_path_factory) -> Path:
    """Twelve frames of a smooth moving pattern, unevenly timed."""
    path = tmp_path_factory.mktemp("clip") / "driver.mp4"
    y, x = np.mgrid[0:120, 0:160]
    frames = [
        np.stack([127 + 100 * np.sin((x + 3 * t) / 17), 127 + 100 * np.cos((y - t) / 13), 60 + x / 2], -1)
        for t in range(12)
    ]
    times = np.cumsum([0, *[0.04, 0.04, 0.08, 0.02, 0.04, 0.04, 0.05, 0.04, 0.04, 0.04, 0.04]])
    video.write(path, (f.clip(0, 255).astype(np.uint8) for f in frames), times, crf=1)
    return path


@pytest.fixture(scope="session")
def performance(driving_clip) -> Performance:
    """Return the clip with a synthetic face track; frames 4 and 5 have no face."""
    times = np.array([time for time, _ in video.read(driving_clip)])
    count = len(times)
    marks = np.repeat(face_landmarks()[None], count, 0) * (70, 70, 70) + (40, 25, 0)
    marks[..., 0] += 1.5 * np.arange(count)[:, None]
    valid = np.ones(count, bool)
    valid[4:6] = False
    track = FaceTrack(
        marks.astype(np.float32), np.repeat(np.eye(4, dtype=np.float32)[None], count, 0), valid.astype(np.float32),
        valid, times, (160, 120), np.zeros(count, bool),
    )  # fmt: skip
    alignment = align(track, 256)
    crops = (apply(alignment.crop_from_frame, marks) / 256).astype(np.float32)
    seen = Observation(track, alignment, crops, valid.astype(np.float32), str(driving_clip), file_digest(driving_clip))
    return Performance(seen, np.zeros((count, 24, 32, 3), np.uint8), np.zeros((count, 2, 16, 32, 3), np.uint8))


@pytest.fixture(scope="session")
def take(tiny_avatar, performance) -> Take:
    """Random codes; frames 4 and 5 have no face."""
    count, rank = len(performance), tiny_avatar.state.space.rank
    codes = torch.randn(count, tiny_avatar.generator.num_ws, rank, generator=torch.Generator().manual_seed(1))
    outcome = np.zeros(count, np.uint8)
    outcome[4:6] = 2
    losses = {"keypoint": np.linspace(1, 2, count)}
    return Take({AXES: codes}, outcome, performance.observation.track.times, losses)
