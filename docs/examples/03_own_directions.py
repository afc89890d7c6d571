"""Make an edit direction of your own and use it like the avatar's own ones.

    python docs/examples/03_own_directions.py me.avatar hello.take results

A direction is a vector in W, the space in which the generator's codes live. Here it leads to a narrow mouth, as for an
"o". We mix the codes of the person's own images, draw the mixtures, measure the mouth in each picture, and fit the
measure to the codes. Any number that you can measure in a picture works in the same way.
"""

import sys
from pathlib import Path

import numpy as np
import torch

import mystudio
from mystudio import Avatar
from selfscan.face.facemesh import crop_landmarks, load_facemesh

CORNERS, EYES = [61, 291], [33, 263]  # MediaPipe's landmarks: corners of the mouth, outer corners of the eyes


@torch.no_grad()
def narrow_mouth(avatar: Avatar, count: int = 150) -> np.ndarray:
    """The direction [D] in W along which the mouth gets narrower, by one standard deviation of its width."""
    anchors = avatar.state.anchors  # [N, D]: the codes of the scan's images, which the personal engine keeps
    share = np.random.default_rng(0).dirichlet(np.full(len(anchors), 0.3), count)  # [count, N], each row adds up to 1
    codes = torch.as_tensor(share, dtype=torch.float32) @ anchors  # [count, D]
    network, widths = load_facemesh(), []
    for part in codes.split(10):
        pictures = avatar.generator(avatar.generator.broadcast(part)).clamp(-1, 1)  # [10, 3, H, W]
        marks, _ = crop_landmarks(network, pictures)  # [10, 478, 3]
        mouth, eyes = (marks[:, pair].diff(dim=1).norm(dim=-1)[:, 0] for pair in (CORNERS, EYES))
        widths.append(mouth / eyes)
    width = torch.cat(widths)
    narrow = -(width - width.mean()) / width.std()
    return ((codes - codes.mean(0)) * narrow[:, None]).mean(0).numpy()  # slope of: codes = mean + narrow * slope


def main(avatar, take, out) -> Path:
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)

    # A file of directions maps names to vectors [D]. On the command line, `mystudio edit --directions` reads it.
    directions = out / "directions.npz"
    np.savez(directions, narrow_mouth=narrow_mouth(mystudio.load(avatar, Avatar)))

    # The mouth gets narrower over the first third of a second, then it stays so.
    edits = {"narrow_mouth": [(0.0, 0.0), (0.33, 2.0)]}
    edited = mystudio.edit(take, out / "narrow.take", edits, directions=directions)
    return mystudio.render(edited, out / "narrow.mp4")


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
