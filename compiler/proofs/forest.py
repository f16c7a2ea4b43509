"""Nested budgets: ``lower ≤ Σ_{t ∈ S} n_t ≤ upper`` over a family of sets of which any two are disjoint or nested.

Such a family is a forest with the tensors as leaves. Its constraint matrix is totally unimodular: sums in a subtree
take every integer between the two ends that propagation finds, and a separable concave cost is maximal at an integer
point that a greedy pass reaches. Everything is linear in the total size of the sets, up to sorting.
Reference: A. Schrijver, Combinatorial Optimization (2003), chapters 13 and 44.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from typing import Literal, TypeAlias

from prunelang.compiler.proofs.lines import Pieces, Row, at

Side: TypeAlias = Literal["lower", "upper"]
Segment: TypeAlias = tuple[int, int, int, int, int]
"""``(weight, value, cost, length, leaf)``: `length` further positions of a leaf, each with this weight."""

NOBODY = -1
NOTHING: Pieces = ((0, 0),)


@dataclass(frozen=True, slots=True)
class Optimum:
    """A best integer point: its value, its cost in the second function, and the positions it keeps (if traced)."""

    value: int
    cost: int
    kept: Mapping[str, int]


class Forest:
    """The family as a tree: leaves are ``0 … len(names)−1``, sets follow with parents before children."""

    def __init__(self, sizes: Mapping[str, int], rows: Iterable[Row]) -> None:
        self.names = list(sizes)
        self.leaf = {t: i for i, t in enumerate(self.names)}
        self.size = list(sizes.values())
        self.lows: dict[int, list[tuple[int, int]]] = {}  # node → (bound, source), sharpest first
        self.highs: dict[int, list[tuple[int, int]]] = {}
        self.visits = 0  # leaves looked at by `maximise` so far
        self.asks: set[tuple[int, int]] = set()  # (node, source)
        self.parent = [NOBODY] * len(self.names)
        self.crossing: list[Row] = []
        self._grow(rows)
        self._propagate()

    def _grow(self, rows: Iterable[Row]) -> None:
        """Hang each set below the smallest one that holds it; sets that cross an earlier one are left over."""
        members = [(sorted(self.leaf[t] for t in row.coefficients), row) for row in rows]
        members.sort(key=lambda m: -len(m[0]))
        nodes: dict[tuple[int, ...], int] = {}
        for leaves, row in members:
            key = tuple(leaves)
            if len(leaves) == 1:
                node = leaves[0]
            elif key in nodes:
                node = nodes[key]
            elif len({self.parent[i] for i in leaves}) == 1:
                node = nodes[key] = len(self.parent)
                self.parent.append(self.parent[leaves[0]])
                for i in leaves:
                    self.parent[i] = node
            else:
                self.crossing.append(row)
                continue
            self.asks.add((node, row.source))
            if row.lower is not None:
                self.lows.setdefault(node, []).append((row.lower, row.source))
            if row.upper is not None:
                self.highs.setdefault(node, []).append((row.upper, row.source))
        for bounds in self.lows.values():
            bounds.sort(reverse=True)
        for bounds in self.highs.values():
            bounds.sort()
        self.children: dict[int, list[int]] = {}
        for i, p in enumerate(self.parent):
            if p != NOBODY:
                self.children.setdefault(p, []).append(i)
        self.width = [1] * len(self.names) + [0] * (len(self.parent) - len(self.names))  # leaves below
        for v in range(len(self.parent) - 1, len(self.names) - 1, -1):
            self.width[v] = sum(self.width[k] for k in self.children[v])

    def _propagate(self) -> None:
        """The least and the greatest sum of every subtree, from the leaves up."""
        total = len(self.parent)
        leaves = len(self.names)
        self.lo, self.hi = [0] * total, [*self.size, *([0] * (total - leaves))]
        self.sum_lo, self.sum_hi = [0] * total, [0] * total
        self.violated: list[int] = []
        broken = [False] * total
        for v in (*range(leaves), *range(total - 1, leaves - 1, -1)):
            if v >= leaves:
                kids = self.children[v]
                self.lo[v] = self.sum_lo[v] = sum(self.lo[k] for k in kids)
                self.hi[v] = self.sum_hi[v] = sum(self.hi[k] for k in kids)
                broken[v] = any(broken[k] for k in kids)
            if v in self.lows:
                self.lo[v] = max(self.lo[v], self.lows[v][0][0])
            if v in self.highs:
                self.hi[v] = min(self.hi[v], self.highs[v][0][0])
            if self.lo[v] > self.hi[v] and not broken[v]:
                self.violated.append(v)
                broken[v] = True

    def root(self, leaf: int) -> int:
        while self.parent[leaf] != NOBODY:
            leaf = self.parent[leaf]
        return leaf

    def sharpest(self, node: int, side: Side, exclude: int = NOBODY) -> tuple[int, int] | None:
        """The bound of a node that matters, with its source, among all lines but one."""
        bounds = (self.lows if side == "lower" else self.highs).get(node, ())
        return next((b for b in bounds if b[1] != exclude), None)

    def deciding(self, node: int, side: Side) -> list[int]:
        """Sources of the bounds that together give the least (greatest) sum of a subtree."""
        found: list[int] = []
        stack = [node]
        while stack:
            v = stack.pop()
            ends, sums = (self.lo, self.sum_lo) if side == "lower" else (self.hi, self.sum_hi)
            inside = sums[v] if v in self.children else 0 if side == "lower" else self.size[v]
            own = self.sharpest(v, side)
            if own is not None and own[0] == ends[v] and own[0] != inside:
                found.append(own[1])
            else:
                stack.extend(self.children.get(v, ()))
        return found

    def nests(self, tensors: Iterable[str]) -> bool:
        """Whether a set could join the family: each set of the family is inside it, around it, or apart from it."""
        leaves = [self.leaf[t] for t in tensors]
        met: dict[int, int] = {}
        for i in leaves:
            v = self.parent[i]
            while v != NOBODY:
                met[v] = met.get(v, 0) + 1
                v = self.parent[v]
        return all(n in (self.width[v], len(leaves)) for v, n in met.items())

    def boxes(self) -> tuple[list[int], list[int]]:
        """The least and the greatest n of each leaf given the whole (feasible) family."""
        lo, hi = list(self.lo), list(self.hi)
        for v in range(len(self.names), len(self.parent)):  # parents come first
            for k in self.children[v]:
                lo[k] = max(self.lo[k], lo[v] - (self.sum_hi[v] - self.hi[k]))
                hi[k] = min(self.hi[k], hi[v] - (self.sum_lo[v] - self.lo[k]))
        return lo[: len(self.names)], hi[: len(self.names)]

    def interval(self, leaf: int, exclude: int = NOBODY) -> tuple[int, int]:
        """The bounds that a leaf has by itself."""
        if (leaf, exclude) not in self.asks:
            return self.lo[leaf], self.hi[leaf]
        low, high = self.sharpest(leaf, "lower", exclude), self.sharpest(leaf, "upper", exclude)
        return max(0, low[0] if low else 0), min(self.size[leaf], high[0] if high else self.size[leaf])

    def maximise(
        self,
        value: Mapping[str, Pieces],
        cost: Mapping[str, int],
        weights: tuple[int, int],
        exclude: int = NOBODY,
        trace: bool = False,
    ) -> Optimum:
        """A point of the family without line `exclude` where ``p·value(n) − q·cost(n)`` is greatest, weights = (p, q).

        The family must be feasible, p ≥ 0. Only subtrees that hold a tensor with value or cost are looked at.
        """
        p, q = weights
        tensors = value if value.keys() >= cost.keys() else {**value, **cost}
        self.visits += len(tensors)
        total = _Total(trace)
        pools: dict[int, _Pool] = {}
        for t in tensors:
            i = self.leaf[t]
            lo, hi = self.interval(i, exclude)
            pieces, a = value.get(t, NOTHING), cost.get(t, 0)
            total.start(i, lo, at(pieces, lo), a * lo)
            if len(pieces) == 1:
                s = pieces[0][0]
                segments = [(p * s - q * a, s, a, hi - lo, i)] if hi > lo else []
            else:
                segments = [(p * s - q * a, s, a, k, i) for s, k in _slopes(pieces, lo, hi)]
            self._hand_up(i, lo, segments, pools, total)
        for v in sorted(self._above(pools), reverse=True):
            pool = pools[v]
            pool.close(self.sum_lo[v], self.sum_hi[v])
            low, high = self.sharpest(v, "lower", exclude), self.sharpest(v, "upper", exclude)
            pool.raise_to(low[0] if low else 0, total)
            if high:
                pool.cut_to(high[0])
            self._hand_up(v, pool.count, pool.segments, pools, total)
        return Optimum(total.value, total.cost, {self.names[i]: n for i, n in total.kept.items()})

    def _hand_up(self, v: int, count: int, segments: list[Segment], pools: dict[int, _Pool], total: _Total) -> None:
        """Give what a subtree may still add to its parent; at a root, add all that gains."""
        parent = self.parent[v]
        if parent == NOBODY:
            for segment in segments:
                if segment[0] > 0:
                    total.add(segment, segment[3])
            return
        pool = pools.get(parent)
        if pool is None:
            pool = pools[parent] = _Pool()
        pool.count += count
        pool.segments += segments
        pool.least += self.lo[v]
        pool.most += self.hi[v]

    def _above(self, nodes: Iterable[int]) -> set[int]:
        """The nodes given and all around them."""
        found: set[int] = set()
        for v in nodes:
            while v != NOBODY and v not in found:
                found.add(v)
                v = self.parent[v]
        return found


class _Total:
    """What has been taken so far, over all trees."""

    __slots__ = ("cost", "kept", "trace", "value")

    def __init__(self, trace: bool) -> None:
        self.value = self.cost = 0
        self.trace = trace
        self.kept: dict[int, int] = {}

    def start(self, leaf: int, count: int, value: int, cost: int) -> None:
        self.value += value
        self.cost += cost
        if self.trace:
            self.kept[leaf] = count

    def add(self, segment: Segment, length: int) -> None:
        _, value, cost, _, leaf = segment
        self.value += value * length
        self.cost += cost * length
        if leaf in self.kept:
            self.kept[leaf] += length


class _Pool:
    """The sum that a subtree has already, and the segments that it may still add.

    `least` and `most` are the ends of those children that were looked at; `close` lets the others in.
    """

    __slots__ = ("count", "least", "most", "segments")

    def __init__(self) -> None:
        self.count = self.least = self.most = 0
        self.segments: list[Segment] = []

    def close(self, least: int, most: int) -> None:
        """All children that nobody looks at are one segment of weight 0; then the best segments come first."""
        rest = (most - self.most) - (least - self.least)
        self.count += least - self.least
        if rest > 0:
            self.segments.append((0, 0, 0, rest, NOBODY))
        self.segments.sort(key=_weight, reverse=True)

    def raise_to(self, low: int, total: _Total) -> None:
        """Take the best segments until the sum is at least `low`."""
        used = 0
        for segment in self.segments:
            need = low - self.count
            if need <= 0:
                break
            length = min(need, segment[3])
            total.add(segment, length)
            self.count += length
            if length < segment[3]:
                w, s, c, k, leaf = segment
                self.segments[used] = (w, s, c, k - length, leaf)
                break
            used += 1
        self.segments = self.segments[used:]

    def cut_to(self, high: int) -> None:
        """Give up the worst segments until the sum can be at most `high`."""
        room = high - self.count
        kept: list[Segment] = []
        for segment in self.segments:
            if room <= 0:
                break
            w, s, c, k, leaf = segment
            kept.append(segment if k <= room else (w, s, c, room, leaf))
            room -= k
        self.segments = kept


_weight = itemgetter(0)


def _slopes(pieces: Pieces, lo: int, hi: int) -> list[tuple[int, int]]:
    """A concave cost on the integers of [lo, hi] as ``(slope, length)``, slopes falling."""
    return _bends(pieces, lo, hi) if hi > lo else []


@lru_cache(maxsize=1 << 15)
def _bends(pieces: Pieces, lo: int, hi: int) -> list[tuple[int, int]]:
    marks = {lo, hi}
    for k, (a, c) in enumerate(pieces):
        for b, d in pieces[k + 1 :]:
            if a != b:
                cross = (d - c) // (a - b)
                marks.update(m for m in (cross, cross + 1) if lo < m < hi)
    return [((at(pieces, y) - at(pieces, x)) // (y - x), y - x) for x, y in pairwise(sorted(marks))]
