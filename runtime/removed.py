"""Which members of coupling groups are gone from stored weights, and the shapes that are left without them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from prunelang.compiler.shapes import Channels, ShapeTable
from prunelang.runtime.exact import Array
from prunelang.runtime.stored import Stored
from prunelang.runtime.weights import nonzero


def removed(stored: Stored) -> dict[str, Array]:
    """By group that may lose members, which of them are gone: all their stored slices are zero.

    Statistics of normalisation do not count: without scale and shift nothing of them is left.
    """
    return {g.name: _gone(g, stored) for g in stored.table.channels if not g.reason}


def _gone(group: Channels, stored: Stored) -> Array:
    gone = np.ones(group.size, dtype=bool)
    for s in group.slices:
        if stored.table.tensor[s.tensor].role == "buffer":
            continue
        array = nonzero(stored.array(s.tensor))
        for member in np.flatnonzero(gone):
            gone[member] = not np.take(array, s.indices(int(member)), axis=s.dim).any()
    return gone


def remaining(gone: Mapping[str, Array], table: ShapeTable) -> dict[str, tuple[int, ...]]:
    """What is left of the shape of every tensor that lost a member."""
    taken: dict[tuple[str, int], set[int]] = {}
    for group in table.channels:
        for member in np.flatnonzero(gone.get(group.name, np.zeros(0, dtype=bool))):
            for s in group.slices:
                taken.setdefault((table.tensor[s.tensor].name, s.dim), set()).update(s.indices(int(member)))
    return {
        name: tuple(n - len(taken.get((name, d), ())) for d, n in enumerate(table.tensor[name].shape))
        for name in {name for name, _ in taken}
    }
