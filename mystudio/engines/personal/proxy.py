"""A small picture of the same generator, drawn while solving: the skip image of a block below the last one.

The skip connection adds each block's picture to the enlarged picture of the block before. What a block below the last
one returns is therefore the avatar at a smaller size. Solving reads landmarks and small patches from it, which hardly
differ from the full picture's. Tuning keeps the skip image of ``SIZE`` px like the picture (``difference``). Whether
that sufficed is measured for each avatar.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (types of torch and scipy have gaps)

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mystudio.engines.personal.space import AnchorSpace
from mystudio.motion import losses
from mystudio.motion.retarget import keypoints_of
from mystudio.stylegan2.generator import Generator
from selfscan.face.facemesh import FaceMesh, crop_landmarks

SIZE = 128  # px of the skip image that tuning keeps like the picture
#: start codes of a pass of small pictures; smaller batches are filled up. In bfloat16 a picture depends on the size of
#: its batch, but not on its place in it or on the other pictures
PASS = 8
COMPARED = 8  # anchors at which both pictures are measured
#: root mean square distance of the keypoints in the two pictures, in crops. Pictures of 128 px of two avatars differ by
#: .0010 and .0014 and lead to codes as near to the truth as full pictures; pictures of 64 px differ by .008 and .009
ALIKE = 0.003


@torch.no_grad()
def size(
    draw: Callable[..., Callable[[Tensor], Tensor]],
    generator: Generator,
    mesh: FaceMesh,
    space: AnchorSpace,
    least: int,
) -> int | None:
    """The smallest size from ``least`` on whose picture shows the keypoints where the full picture does.

    Args:
        draw: called with ``resolution``: the function that draws W+ at this size, as the solver does.
        least: px, a power of two from 4 on; 0 = always the full size.
    Returns: px of the picture that solving draws; None = the full size.
    """
    if not least or least >= generator.resolution:
        return None
    chosen = torch.linspace(0, len(space.codes) - 1, COMPARED).long()
    ws = generator.broadcast(space.decode(space.codes[chosen])).to(next(generator.parameters()).device)

    def keypoints(resolution: int | None) -> Tensor:
        images = draw(resolution=resolution)
        return torch.cat([keypoints_of(crop_landmarks(mesh, images(part))[0])[..., :2] for part in ws.split(2)])

    whole = keypoints(None)
    while least < generator.resolution:
        if (keypoints(least) - whole).square().sum(-1).mean().sqrt() < ALIKE:
            return least
        least *= 2
    return None


def difference(pictures: Sequence[Tensor]) -> Tensor:
    """Mean squared error [B] of the skip image of ``SIZE`` px to the reduced picture, which gets no gradient.

    Args: pictures: of ``Generator.pictures``. Without a skip image of this size the result is 0.
    """
    whole = pictures[-1].detach()
    for small in pictures[:-1]:
        if small.shape[-1] == SIZE:
            return losses.pixel(small, losses.whole(whole, SIZE))
    return whole.new_zeros(len(whole))
