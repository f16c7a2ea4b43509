"""Where a matrix is not zero: rows by how full they are, entries by how full their columns were so far.

A row of C entries with r of the rarer kind says k = ⌊√r⌋: that is r to about its own standard deviation, which is as
precise as pays. Its entries then are independent, with the odds of a 1 in column j

    r̂ w_j / ((C − r̂) w̄),     r̂ = k² + k,     w_j = a + b c_j + s (c_{j−1} + c_{j+1}),

where c_j counts column j in the rows before and w̄ is the mean of w. A row with k = 0 is empty and costs nothing more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prunelang.runtime.coding.coder import Coder, Damaged, Floats, Ints
from prunelang.runtime.coding.models import Histogram, growing

Bits = NDArray[np.bool_]

PRIORS = ((4, 4, 0), (1, 4, 2), (1, 0, 0))  # (a, b, s): columns that differ, with like neighbours, or not at all
FIRST, SHARE = 1, 32
ENTRIES = 1 << 20  # of a block, for the sake of memory


def positions(coder: Coder, shape: tuple[int, int], prior: tuple[int, int, int], given: Bits | None = None) -> Bits:
    """A matrix of truth values, coded as the rarer kind."""
    rows, columns = shape
    found = np.zeros(shape, np.bool_)
    seen = np.zeros(columns, np.int64)
    fullness = Histogram(_root(np.array([columns], np.int64)).item() + 1, 2)
    for begin, end in growing(rows, FIRST, SHARE, max(1, ENTRIES // max(1, columns))):
        block = None if given is None else given[begin:end].astype(np.int64)
        k = coder.draw(fullness.weights, end - begin, None if block is None else _root(block.sum(axis=1)))
        fullness.learn(k)
        used = np.flatnonzero(k)
        if not len(used):
            continue
        p = _probabilities(k[used], seen, prior)
        ones = coder.bits(p.reshape(-1), None if block is None else block[used].reshape(-1)).reshape(p.shape)
        if (_root(ones.sum(axis=1)) != k[used]).any():
            raise Damaged("a row is not as full as it says")
        found[begin + used] = ones == 1
        seen += ones.sum(axis=0)
    return found


def _probabilities(k: Ints, seen: Ints, prior: tuple[int, int, int]) -> Floats:
    """Of a one, by row and column; every operation is rounded once."""
    a, b, s = prior
    columns = len(seen)
    w = a + b * seen
    w[1:] += s * seen[:-1]
    w[:-1] += s * seen[1:]
    r = np.minimum((k * k + k).astype(np.float64), columns - 0.5)[:, None]
    hit = (r * columns) * w.astype(np.float64)
    miss = (columns - r) * float(w.sum())
    p: Floats = hit / (hit + miss)
    return p


def _root(r: Ints) -> Ints:
    """⌊√r⌋, exact below 2⁵²: IEEE 754 rounds square roots correctly."""
    root: Ints = np.sqrt(r.astype(np.float64)).astype(np.int64)
    return root
