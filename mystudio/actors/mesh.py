"""The triangles of a person: the head, and glasses if the person wears them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mystudio.actors.head import EYE, FRAME, INSIDE, SKIN
from mystudio.actors.shade import STILL

if TYPE_CHECKING:
    from mystudio.actors.actor import Actor


@dataclass(frozen=True, eq=False, repr=False)
class Mesh:
    """Vertices are the head's, then those of the glasses; triangles are in drawing order."""

    faces: np.ndarray  # [F, 3] int32
    material: np.ndarray  # [F] int8
    cull: np.ndarray  # [F] bool, True = not drawn from behind
    solid: tuple[slice, ...]  # faces that cast shadows
    outer: int  # number of faces before those inside the mouth
    still: np.ndarray  # [V, 7] float32 ``shade.Surface.still``
    open: np.ndarray  # [V] float32 unoccluded share of the sky at a vertex, mouth closed
    open_jaw: np.ndarray  # [V] the same, mouth open

    @classmethod
    def of(cls, actor: Actor) -> Mesh:
        """Combine a person's head and glasses."""
        head, worn = actor.head, actor.glasses
        albedo, gloss = actor.painted
        frame = worn.faces + len(head.rest) if worn else head.faces[:0]
        more = len(worn.vertices) if worn else 0
        outer, skin = int((~np.isin(head.material, INSIDE)).sum()), int((head.material == SKIN).sum())
        faces = np.concatenate([head.faces[:outer], frame, head.faces[outer:]])
        material = np.insert(head.material, outer, np.full(len(frame), FRAME, np.int8))
        still = np.zeros((len(head.rest) + more, STILL), np.float32)
        still[: len(head.rest)] = np.concatenate([head.rest, albedo, gloss[:, None]], 1)
        return cls(
            faces,
            material,
            np.isin(material, (SKIN, EYE, FRAME)),
            (slice(0, skin), slice(outer, outer + len(frame))),
            outer + len(frame),
            still,
            *(np.append(share, np.ones(more)).astype(np.float32) for share in (head.open, head.open_jaw)),
        )
