"""The exact codebook: at most k values c with the least ``Σ_i min_j (v_i − c_j)²``, one-dimensional k-means, solved.

Clusters of an optimum are intervals of the sorted values. With S, Q, N the prefix sums of values, squares and counts,
an interval costs ``Q_b − Q_a − (S_b − S_a)²/(N_b − N_a)``, and the best cut in front of the q-th interval never moves
back as its end moves on: each of the k layers of the dynamic program is found by divide and conquer (Wu, Optimal
quantization by matrix searching, J. Algorithms 12, 1991).

Most cuts are never looked at. On a coarse grid of cuts the program gives a solution, and with the points of one cell
left out a bound on every solution that cuts there; cells that cannot hold the optimal cut are dropped and the rest
split, until every cell left holds a single cut. The result is a global optimum up to rounding in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

CELLS = 1024  # of the first grid
SPLIT = 8  # parts of a cell that may hold an optimal cut
ROUNDING = 1e-12  # of Σ m x²: differences of costs below it are rounding


@dataclass(frozen=True)
class _Grid:
    """Prefix sums at the allowed cuts: `at` positions among the sorted values, ``N``, ``S``, ``Q`` sums before them."""

    at: Integers
    N: Floats
    S: Floats
    Q: Floats

    def take(self, at: Integers) -> _Grid:
        return _Grid(at, self.N[at], self.S[at], self.Q[at])

    @property
    def mirrored(self) -> _Grid:
        """The same values from the last to the first."""
        flip = [(f[-1] - f)[::-1] for f in (self.N, self.S, self.Q)]
        return _Grid((self.at[-1] - self.at)[::-1], *flip)

    def gain(self, a: Integers, b: Integers) -> Floats:
        """``(S_b − S_a)²/(N_b − N_a)``, what one centre explains of Σ m x² between two cuts; 0 between equal ones."""
        d, n = self.S[b] - self.S[a], self.N[b] - self.N[a]
        return np.asarray(d * d / np.maximum(n, 1.0))


@torch.no_grad()
def centres(v: Tensor, k: int, dtype: torch.dtype) -> Tensor:
    """The k ascending centres of least squares of a vector in the type `dtype`; if fewer differ, the last repeats."""
    ordered = ascending(v)
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    x, counts = ordered[starts], np.diff(starts, append=len(ordered))
    cuts = clusters(x, counts, k)[:-1]
    means = np.add.reduceat(x * counts, cuts) / np.add.reduceat(counts, cuts)
    c = torch.unique(torch.from_numpy(means).to(dtype))
    return torch.cat((c, c[-1:].expand(k - len(c)))).to(v.device)


def ascending(v: Tensor) -> Floats:
    """The sorted entries in float64 on the host: sorted there (in vector registers) unless v is elsewhere."""
    v = v.detach().reshape(-1)
    return np.asarray(np.sort(v.numpy()) if v.device.type == "cpu" else v.sort().values.cpu().numpy(), np.float64)


@torch.no_grad()
def codes(v: Tensor, c: Tensor) -> Tensor:
    """The number, int64, of the nearest of ascending centres c; the lower of two at the same distance."""
    c = torch.unique(c).double()
    return torch.bucketize(v.double(), (c[:-1] + c[1:]) / 2)


def clusters(values: Floats, counts: Integers, k: int) -> Integers:
    """The cuts ``0 = a₀ < a₁ < … < a_k = n`` of an optimal partition of n distinct ascending `values`, each `counts`
    times, into k intervals (n where k > n). O(n) beside the program on the cuts that bounds leave; at worst
    O(k n log n). Raises `ValueError` for k < 1 or no values."""
    n = len(values)
    if k < 1 or n == 0:
        raise ValueError(f"no codebook of {k} values over {n} of them")
    if k == 1 or k >= n:
        return np.array([0, n]) if k == 1 else np.arange(n + 1)
    x = values - np.average(values, weights=counts)  # less cancellation
    zero = np.zeros(1)
    sums = (np.concatenate((zero, np.cumsum(f))) for f in (counts.astype(np.float64), counts * x, counts * x * x))
    whole = _Grid(np.arange(n + 1), *sums)
    at = np.unique(np.linspace(0, n, min(CELLS, n) + 1).astype(np.int64))
    windows = [(0, len(at) - 2)] * (k - 1)  # first and last cell that cut q + 1 may lie in
    while True:
        grid = whole.take(at)
        best, cuts = _program(grid, windows)
        spacing = np.diff(at)
        if all(int(spacing[lo : hi + 1].max()) == 1 for lo, hi in windows):
            return np.concatenate(([0], at[cuts], [n]))
        windows = _windows(grid, windows, best - ROUNDING * float(whole.Q[-1]))
        at, windows = _split(at, windows)


def _program(grid: _Grid, windows: Sequence[tuple[int, int]]) -> tuple[float, list[int]]:
    """The best cuts on the grid, each within its window, and what they explain."""
    end = len(grid.at) - 1
    gain = grid.gain(np.zeros(end + 1, np.int64), np.arange(end + 1))
    arguments = []
    for (lo, hi), (first, last) in pairwise(windows):
        gain, argument = _layer(grid, gain, (lo, hi + 1), (first, last + 1))
        arguments.append(argument)
    columns = np.arange(windows[-1][0], windows[-1][1] + 2)
    total = gain[columns] + grid.gain(columns, np.full(len(columns), end))
    cuts = [int(columns[total.argmax()])]
    for argument in reversed(arguments):
        cuts.append(int(argument[cuts[-1]]))
    return float(total.max()), cuts[::-1]


def _layer(grid: _Grid, gain: Floats, columns: tuple[int, int], rows: tuple[int, int]) -> tuple[Floats, Integers]:
    """``H_b = max_{a ≤ b} gain_a + (S_b − S_a)²/(N_b − N_a)`` and the a of each, for b in `rows` and a in `columns`
    (both inclusive); −∞ elsewhere.

    The a of b is monotone in b, so that the middle row halves the columns of the rows on either side; all middles of
    one depth are treated at once.
    """
    H = np.full(len(gain), -np.inf)
    A = np.zeros(len(gain), np.int64)
    first, last = (np.array([max(rows[0], columns[0])]), np.array([rows[1]]))  # rows still without an answer
    lo, hi = (np.array([c]) for c in columns)
    while len(first := first[keep := first <= last]):
        last, lo, hi = last[keep], lo[keep], hi[keep]
        middle = (first + last) // 2
        size = np.minimum(hi, middle) - lo + 1
        starts = np.cumsum(size) - size
        a = np.arange(int(size.sum())) + np.repeat(lo - starts, size)
        total = grid.gain(a, np.repeat(middle, size)) + gain[a]
        H[middle] = best = np.maximum.reduceat(total, starts)
        hits = np.flatnonzero(total >= np.repeat(best, size))
        A[middle] = chosen = a[hits[np.searchsorted(hits, starts)]]
        first, last = np.concatenate((first, middle + 1)), np.concatenate((middle - 1, last))
        lo, hi = np.concatenate((lo, chosen)), np.concatenate((chosen, hi))
    return H, A


def _windows(grid: _Grid, windows: Sequence[tuple[int, int]], least: float) -> list[tuple[int, int]]:
    """The windows without the cells at their ends in which no solution that explains `least` cuts."""
    inside = np.diff(grid.Q)
    before = _bounds(grid, windows)
    cells = len(inside)
    after = _bounds(grid.mirrored, [(cells - 1 - hi, cells - 1 - lo) for lo, hi in reversed(windows)])
    found = []
    for (lo, hi), f, b in zip(windows, before, reversed(after), strict=True):
        alive = lo + np.flatnonzero((f + inside + b[::-1])[lo : hi + 1] >= least)
        found.append((int(alive[0]), int(alive[-1])) if len(alive) else (lo, hi))
    return found


def _bounds(grid: _Grid, windows: Sequence[tuple[int, int]]) -> list[Floats]:
    """For every cut and cell: at least what any solution with that cut in that cell explains in front of the cell.

    A cut in cell i costs no less if the values inside the cell are left out: the interval before it ends at the
    cell's lower edge and the next one starts at its upper edge. Two cuts in one cell leave nothing between them.
    """
    cells = len(grid.at) - 1
    inside = np.diff(grid.Q)
    bound = np.full(cells, -np.inf)
    lo, hi = windows[0]
    bound[lo : hi + 1] = grid.gain(np.zeros(hi + 1 - lo, np.int64), np.arange(lo, hi + 1))
    bounds = [bound]
    for (lo, hi), (first, last) in pairwise(windows):
        gain = np.concatenate(([-np.inf], bounds[-1] + inside))  # at the upper edge of the cell of the cut before
        reached, _ = _layer(grid, gain, (lo + 1, hi + 1), (first, last))
        bound = np.full(cells, -np.inf)
        bound[first : last + 1] = np.maximum(reached[:-1], bounds[-1])[first : last + 1]
        bounds.append(bound)
    return bounds


def _split(at: Integers, windows: Sequence[tuple[int, int]]) -> tuple[Integers, list[tuple[int, int]]]:
    """The grid of finer cells inside the windows and none outside, and the windows as its cells."""
    edges = [(at[lo], at[hi + 1]) for lo, hi in windows]
    steps = np.arange(SPLIT + 1)
    finer = [at[[0, -1]]]
    for lo, hi in windows:
        finer.append((at[lo : hi + 1, None] + np.diff(at[lo : hi + 2])[:, None] * steps // SPLIT).ravel())
    grid = np.unique(np.concatenate(finer))
    cells = [(int(np.searchsorted(grid, a)), int(np.searchsorted(grid, b)) - 1) for a, b in edges]
    return grid, cells
