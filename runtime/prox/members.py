"""Members of coupling groups under budgets that are products of channel counts: the problem, and a choice in it.

A kernel between two groups keeps an entry only if the member of its row and that of its column both stay:

    maximise  Σ_t Σ_{r,c} A_t[r, c] x_r x_c   subject to   R_b(k) ≤ B_b,  k_g = Σ_{u ∈ g} x_u,   x ∈ {0, 1}

with A_t the energies of the entries that a pair of members owns, and R_b a polynomial with positive coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prunelang.compiler.joint import ChannelBound

Vector = NDArray[np.float64]
Units = NDArray[np.int64]
NOBODY = -1  # the unit of indices that no group owns: they always stay


@dataclass(frozen=True)
class Block:
    """Energies ``A[r, c]`` of one tensor between the units of its rows and of its columns, each unit once, ascending:
    `NOBODY`, where it occurs, comes first."""

    rows: Units
    columns: Units
    energies: Vector

    @cached_property
    def own_rows(self) -> slice:
        return slice(int(self.rows[0] == NOBODY), None)

    @cached_property
    def own_columns(self) -> slice:
        return slice(int(self.columns[0] == NOBODY), None)

    @cached_property
    def selves(self) -> tuple[Units, Vector]:
        """Units that own a row and a column, and the energy of the entries where these meet."""
        own = np.intersect1d(self.rows[self.own_rows], self.columns[self.own_columns])
        return own, self.energies[np.searchsorted(self.rows, own), np.searchsorted(self.columns, own)]


class Members:
    """The problem on given values. Units are the members of all groups, one group after the other."""

    def __init__(
        self, bounds: Sequence[ChannelBound], values: Mapping[str, Tensor], alive: Mapping[str, Tensor] | None = None
    ) -> None:
        self.bounds = tuple(bounds)
        self.groups = tuple({g.name: g for b in bounds for g in b.groups}.values())
        ends = np.cumsum([0, *(g.size for g in self.groups)])
        self.spans = [range(int(a), int(b)) for a, b in pairwise(ends)]
        self.group_of = np.repeat(np.arange(len(self.groups)), [g.size for g in self.groups])
        self.units = int(ends[-1])
        place = {g.name: i for i, g in enumerate(self.groups)}
        self.terms = [[(c, tuple(place[b.groups[i].name] for i in at)) for c, at in b.terms] for b in bounds]
        names = dict.fromkeys(t for g in self.groups for t, _, _, _ in g.slices)
        self.blocks = [self._block(t, values[t], (alive or {}).get(t)) for t in names]
        self.rows: list[list[tuple[Block, int]]] = [[] for _ in range(self.units)]
        self.columns: list[list[tuple[Block, int]]] = [[] for _ in range(self.units)]
        self.near: list[set[int]] = [{i} for i in range(len(self.groups))]  # whose gains a change of group i touches
        self.meeting = {int(self.group_of[u]) for b in self.blocks for u in b.selves[0]}  # own rows and columns of one
        for block in self.blocks:
            for units, found in ((block.rows, self.rows), (block.columns, self.columns)):
                for i, u in enumerate(units):
                    if u != NOBODY:
                        found[u].append((block, i))
            touched = set(self.group_of[[*block.rows[block.own_rows], *block.columns[block.own_columns]]])
            for g in touched:
                self.near[g] |= touched

    def _block(self, name: str, value: Tensor, alive: Tensor | None) -> Block:
        squares = value.detach().double().square()
        squares = squares if alive is None else squares.mul_(alive)
        owners = [self.owners(name, d, n) for d, n in enumerate(value.shape)]
        owned = [d for d, units in enumerate(owners) if (units != NOBODY).any()]
        assert 1 <= len(owned) <= 2, f"{name} has members along {len(owned)} dimensions"
        rest = [d for d in range(value.dim()) if d not in owned]
        energies = squares.sum(rest) if rest else squares
        matrix = energies.reshape(energies.shape[0], -1).cpu().numpy()
        along = owners[owned[1]] if len(owned) == 2 else np.full(1, NOBODY)
        rows, by_row = np.unique(owners[owned[0]], return_inverse=True)
        columns, by_column = np.unique(along, return_inverse=True)
        folded = np.zeros((rows.size, columns.size))
        np.add.at(folded, (by_row[:, None], by_column[None, :]), matrix)
        return Block(rows, columns, folded)

    def owners(self, name: str, dimension: int, extent: int) -> Units:
        """The unit that owns each index along a dimension of a tensor."""
        units = np.full(extent, NOBODY)
        for group, span in zip(self.groups, self.spans, strict=True):
            for t, d, start, repeat in group.slices:
                if (t, d) == (name, dimension):
                    units[start : start + group.size * repeat] = np.repeat(np.asarray(span), repeat)
        return units

    @property
    def sizes(self) -> list[int]:
        return [g.size for g in self.groups]

    def excess(self, k: Sequence[int]) -> list[int]:
        """``R_b(k) − B_b`` of each bound: ≤ 0 where it holds."""
        spent = (sum(c * prod(k[i] for i in at) for c, at in terms) for terms in self.terms)
        return [b.constant + cost - b.upper for b, cost in zip(self.bounds, spent, strict=True)]

    def step(self, k: Sequence[int], i: int) -> list[int]:
        """``R_b(k) − R_b(k − e_i)`` of each bound: what the last member of group i costs."""
        out = []
        for terms in self.terms:
            powers = ((c, at, at.count(i)) for c, at in terms if i in at)
            out.append(sum(c * (k[i] ** m - (k[i] - 1) ** m) * prod(k[j] for j in at if j != i) for c, at, m in powers))
        return out


class Choice:
    """Which units stay, and the energy that each adds, or would add, to those that stay: kept up to date."""

    def __init__(self, members: Members, kept: NDArray[np.bool_]) -> None:
        self.members = members
        self.kept = kept.copy()
        self.k = [int(kept[span.start : span.stop].sum()) for span in members.spans]
        self.gains = np.zeros(members.units)
        self._least: dict[int, int] = {}
        for b in members.blocks:
            self.gains[b.rows[b.own_rows]] += (b.energies @ self._present(b.columns))[b.own_rows]
            self.gains[b.columns[b.own_columns]] += (self._present(b.rows) @ b.energies)[b.own_columns]
            units, energies = b.selves  # counted once with the row and once with the column, if the unit stays
            self.gains[units] += energies * (1.0 - 2.0 * self.kept[units])

    def _present(self, units: Units) -> Vector:
        return np.where(units == NOBODY, 1.0, self.kept[units].astype(np.float64))

    def copy(self) -> Choice:
        other = object.__new__(Choice)
        other.members, other.kept, other.k = self.members, self.kept.copy(), list(self.k)
        other.gains, other._least = self.gains.copy(), dict(self._least)
        return other

    @property
    def feasible(self) -> bool:
        return max(self.members.excess(self.k), default=0) <= 0

    def energy(self) -> float:
        """Σ v², over the tensors that have members, of the entries that stay."""
        total = (self._present(b.rows) @ b.energies @ self._present(b.columns) for b in self.members.blocks)
        return float(sum(total))

    def flip(self, unit: int) -> None:
        """Remove a unit that stays, or keep one that does not."""
        group, own = int(self.members.group_of[unit]), self.gains[unit]
        sign = -1.0 if self.kept[unit] else 1.0
        self.kept[unit] = sign > 0
        self.k[group] += int(sign)
        for b, i in self.members.rows[unit]:
            self.gains[b.columns[b.own_columns]] += sign * b.energies[i, b.own_columns]
        for b, i in self.members.columns[unit]:
            self.gains[b.rows[b.own_rows]] += sign * b.energies[b.own_rows, i]
        self.gains[unit] = own  # what a unit adds does not depend on whether it stays itself
        for g in self.members.near[group]:
            self._least.pop(g, None)

    def shared(self, a: int, b: int) -> float:
        """The energy of the entries between two units of one group: a kernel that the group enters and leaves."""
        total = 0.0
        for u, v in ((a, b), (b, a)):
            for block, i in self.members.rows[u]:
                j = int(np.searchsorted(block.columns, v))
                if j < block.columns.size and block.columns[j] == v:
                    total += float(block.energies[i, j])
        return total

    def least(self, group: int) -> int:
        """Of the units that stay, the one that adds least; of equal ones the last."""
        if group not in self._least:
            span = self.members.spans[group]
            gains = np.where(self.kept[span.start : span.stop], self.gains[span.start : span.stop], np.inf)
            self._least[group] = span.stop - 1 - int(np.argmin(gains[::-1]))
        return self._least[group]

    def most(self, group: int) -> int:
        """Of the units that do not stay, the one that would add most; of equal ones the first."""
        span = self.members.spans[group]
        gains = np.where(self.kept[span.start : span.stop], -np.inf, self.gains[span.start : span.stop])
        return span.start + int(np.argmax(gains))
