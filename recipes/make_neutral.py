"""Write selfscan/data/neutral.npz: the landmarks of a neutral face, averaged over 200 synthetic people.

With all motion factors at zero the packaged base generates any look with a neutral face: mouth closed, eyes open, brows
at rest, gaze ahead. Portraits are unsuitable, because people smile in them.

    python recipes/make_neutral.py
"""

from pathlib import Path

import numpy as np
import torch

from mystudio.bases import find_base
from selfscan.face.facemesh import crop_landmarks, load_facemesh

LOOKS, LOOK_FACTORS = 200, 32


@torch.no_grad()
def main() -> None:
    generator, mesh = find_base("people128").generator, load_facemesh()
    z = torch.zeros(LOOKS, generator.z_dim)
    z[:, :LOOK_FACTORS] = torch.randn(LOOKS, LOOK_FACTORS, generator=torch.Generator().manual_seed(0))
    marks, presence = [], []
    for part in z.split(8):
        m, p = crop_landmarks(mesh, generator(generator.broadcast(generator.mapping(part))).clamp(-1, 1))
        marks.append(m)
        presence.append(p)
    seen = torch.cat(presence) > 0.9
    neutral = torch.cat(marks)[seen].mean(0).numpy().astype(np.float32)
    np.savez_compressed(Path(__file__).parents[1] / "selfscan/data/neutral.npz", landmarks=neutral)


if __name__ == "__main__":
    main()
