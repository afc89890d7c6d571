"""A person drawn by the packaged base as a driver in a room, and an untuned avatar of that person."""

from functools import cache

import cv2
import numpy as np
import torch
from actor_avatar import CONSENT, path, person, scan

from mystudio.base.encoder import encode, load_encoder
from mystudio.bases import find_base
from mystudio.engines.personal import images_of
from mystudio.engines.personal.anchors import PersonalEncoder
from mystudio.engines.personal.regress import Regressor
from mystudio.engines.personal.space import AnchorSpace
from mystudio.engines.personal.state import State
from mystudio.motion.retarget import neutral_face
from mystudio.types import Avatar
from selfscan.io.pixels import to_uint8

HEIGHT, WIDTH, FPS = 240, 360, 25


@cache
def avatar() -> Avatar:
    """Anchors and regressor of the encoder; the generator is the base's own."""
    base, seen = find_base("people128"), scan()
    images, marks = images_of(seen, 128), torch.as_tensor(seen.landmarks)
    neutral = neutral_face(seen.landmarks, np.ones(len(seen), bool))
    encoder = load_encoder(base.companion("encoder"))
    with torch.no_grad():
        anchors = encode(encoder, images, marks, neutral)
        space = AnchorSpace.of(anchors, 12)
        net = Regressor(198, space.rank, 4)
        net.person = PersonalEncoder.of(encoder, images, marks, neutral, space, 12)
    state = State(anchors, seen.frame_index, marks, {}, net.state_dict(), {})
    return Avatar(base.generator, neutral, state, "personal", base.digest, CONSENT)


@cache
def portraits(count: int, seed: int = 3, look: int = 5) -> np.ndarray:
    """Crops [count, 128, 128, 3] uint8 of one person who moves smoothly, from the neutral face on."""
    return to_uint8(person(path(count, seed, every=8), look)[0])


def room(seed: int = 0) -> np.ndarray:
    """Return a frame without a person, [240, 360, 3] uint8."""
    noise = np.random.default_rng(seed).uniform(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32)
    return ((cv2.GaussianBlur(noise, (0, 0), 12) - 127) * 4 + 110).clip(0, 255).astype(np.uint8)


def framed(portrait: np.ndarray, x: float = WIDTH / 2, y: float = HEIGHT / 2, side: float = 190) -> np.ndarray:
    """A portrait in the room, its middle at (x, y) px and ``side`` px wide."""
    frame, scale = room(), side / 128
    matrix = np.array([[scale, 0, x - side / 2], [0, scale, y - side / 2]])
    cv2.warpAffine(portrait, matrix, (WIDTH, HEIGHT), dst=frame, borderMode=cv2.BORDER_TRANSPARENT)
    return frame


def frames(count: int, seed: int = 3) -> list[tuple[float, np.ndarray]]:
    """Times and frames of a driver who moves in the room."""
    return [(i / FPS, framed(p, x=170 + i % 50)) for i, p in enumerate(portraits(count, seed))]
