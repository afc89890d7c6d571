"""Rows of ``Styles``: some frames of them, and several of them one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mystudio.types import Styles


def rows_of(styles: Styles, rows: Tensor | slice) -> Styles:
    """The given rows of styles; a weight delta that all rows share stays as it is."""

    def part(delta: Tensor | None) -> Tensor | None:
        return delta if delta is None or len(delta) == 1 else delta[rows]

    return Styles(tuple(v[rows] for v in styles.vectors), tuple(part(d) for d in styles.weight_deltas))


def detached(styles: Styles) -> Styles:
    """The same numbers without a gradient."""
    return Styles(
        tuple(v.detach() for v in styles.vectors),
        tuple(None if d is None else d.detach() for d in styles.weight_deltas),
    )


def joined(parts: Sequence[Styles]) -> Styles:
    """Styles one after the other. Raises: ValueError: some have weight deltas and others have none."""
    if len({bool(p.weight_deltas) for p in parts}) > 1:
        raise ValueError("styles: expected weight deltas in all parts or in none, got both")
    vectors = tuple(torch.cat(vs) for vs in zip(*(p.vectors for p in parts)))
    deltas = []
    for of_layer in zip(*(p.weight_deltas for p in parts)):
        known = [d.expand(len(p.vectors[0]), -1, -1) for d, p in zip(of_layer, parts) if d is not None]
        if known and len(known) < len(parts):
            raise ValueError("styles: expected a layer's weight delta in all parts or in none, got both")
        deltas.append(torch.cat(known) if known else None)
    return Styles(vectors, tuple(deltas))
