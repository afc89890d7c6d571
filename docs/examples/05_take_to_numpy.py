"""Read a take into numpy: its codes, what became of each frame, its pictures, and the driver's landmarks.

    python docs/examples/05_take_to_numpy.py hello.take hello.npz

All arrays share their first axis: T, the frames.
"""

import sys
from pathlib import Path

import numpy as np

import mystudio
from mystudio import Avatar, Outcome, Performance, Take
from mystudio.rendering.render import synthesize
from mystudio.storage.manifest import open_folder
from selfscan.io.pixels import to_uint8


def main(take, out) -> Path:
    take, out = Path(take), Path(out)

    # The take itself: codes by name, each [T, ...]. Which names there are is the engine's business; the personal
    # engine stores "axes", coordinates in the space of the person's own images, one row a layer of the generator.
    read = mystudio.load(take, Take)
    arrays = {f"codes_{name}": values.numpy() for name, values in read.codes.items()}
    arrays["times"] = read.times  # [T] s, the driving clip's own time stamps
    arrays["outcome"] = read.outcome  # [T] number of an Outcome
    arrays |= {f"loss_{name}": values for name, values in read.losses.items()}  # [T] each

    # A manifest records what an artifact was made from, so avatar and performance are found and checked.
    folder = open_folder(take)
    avatar = mystudio.load(folder.source("avatar"), Avatar)
    performance = mystudio.load(folder.source("performance"), Performance)
    arrays["driver_landmarks"] = performance.observation.landmarks  # [T, 478, 3] in crops, 0..1

    # Pictures in batches: [B, 3, H, W] in [-1, 1] -> [T, H, W, 3] uint8.
    arrays["pictures"] = np.concatenate([to_uint8(batch) for batch in synthesize(avatar, read)])

    np.savez_compressed(out, **arrays)
    for name, values in arrays.items():
        print(f"{name:18} {values.dtype!s:8} {values.shape}")
    for outcome in Outcome:
        print(f"{outcome.word:18} {int((read.outcome == outcome).sum())} frames")
    return out


if __name__ == "__main__":
    main(*sys.argv[1:])
