"""Structural costs as polynomials in the numbers of kept members of coupling groups.

A tensor keeps, along each dimension d, ``remaining_d = free_d + Σ_g repeat_g · k_g`` indices, where g runs over the
groups that own slices of d. A cost is ``Σ_t c_t · ∏_d remaining_d(t)``: linear at a depthwise kernel or a bias, a
product of two groups at a kernel between them. It grows with every k_g, so that corners of a box bound it exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TypeAlias

from prunelang.compiler.problem import Kept, Problem, Structural, tensors_of
from prunelang.compiler.shapes import Channels, ShapeTable

Monomial: TypeAlias = tuple[int, tuple[int, ...]]
"""``coefficient · ∏ k_i`` over the places i of groups."""


@dataclass(frozen=True)
class Polynomial:
    """``constant + Σ c·∏ k_i``, k in the order of `groups`; coefficients are at least 1."""

    groups: tuple[Channels, ...]
    terms: tuple[Monomial, ...]
    constant: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Members of each group: the dense k."""
        return tuple(g.size for g in self.groups)

    def value(self, k: Sequence[int]) -> int:
        return self.constant + sum(c * prod(k[i] for i in places) for c, places in self.terms)

    def holding(self, names: frozenset[str]) -> Polynomial:
        """The same cost where every member of the named groups is kept: what is left to decide."""
        left = [i for i, g in enumerate(self.groups) if g.name not in names]
        place = {old: new for new, old in enumerate(left)}
        found: dict[tuple[int, ...], int] = {}
        for c, places in self.terms:
            factor = prod(self.groups[i].size for i in places if i not in place)
            key = tuple(place[i] for i in places if i in place)
            found[key] = found.get(key, 0) + c * factor
        constant = self.constant + found.pop((), 0)
        return Polynomial(tuple(self.groups[i] for i in left), _ordered(found), constant)


def removable(table: ShapeTable, frozen: frozenset[str] = frozenset()) -> tuple[Channels, ...]:
    """The groups whose members may go: traced as such, and no tensor of theirs is frozen."""
    return tuple(g for g in table.channels if not g.reason and not frozen.intersection(trained(g, table)))


def trained(group: Channels, table: ShapeTable) -> tuple[str, ...]:
    """The tensors in which a removed member is zero: all of its slices but those of statistics."""
    names = dict.fromkeys(table.tensor[s.tensor].name for s in group.slices)
    return tuple(n for n in names if table.tensor[n].role != "buffer")


def pinned_groups(problem: Problem, table: ShapeTable) -> frozenset[str]:
    """The groups whose members all stay, since a line keeps every position of a tensor of theirs."""
    pinned = {t for c in problem.constraints if isinstance(c.set, Kept) for t in tensors_of(c.function)}
    return frozenset(g.name for g in table.channels if not pinned.isdisjoint(trained(g, table)))


def structural(
    name: str, layers: tuple[str, ...], dense: int, unit: str, costs: Mapping[str, int], table: ShapeTable
) -> Structural:
    """The function with the groups that lower it; `costs` is per entry and by first names of tensors."""
    return with_groups(Structural(name, layers, dense, unit, costs=tuple(costs.items())), removable(table), table)


def with_groups(function: Structural, groups: Iterable[Channels], table: ShapeTable) -> Structural:
    """The function with those of `groups` that own a tensor it counts, and without what no group touches."""
    costs = {t: c for t, c in function.costs if c}
    owners = [g for g in groups if not costs.keys().isdisjoint(trained(g, table))]
    owned = {t for g in owners for t in trained(g, table)}
    tensors = tuple(t.name for t in table.tensors if t.name in owned)
    left = tuple((t, c) for t, c in costs.items() if t in owned)
    return replace(function, tensors=tensors, groups=tuple(g.name for g in owners), costs=left)


def freed(function: Structural, table: ShapeTable, frozen: frozenset[str]) -> Structural:
    """The function where groups that own a frozen tensor keep every member."""
    if frozen.isdisjoint(function.tensors):
        return function
    named = set(function.groups)
    return with_groups(function, (g for g in removable(table, frozen) if g.name in named), table)


def polynomial(function: Structural, table: ShapeTable) -> Polynomial:
    """The cost as a function of the kept members of `function.groups`."""
    by_name = {g.name: g for g in table.channels}
    groups = tuple(by_name[n] for n in function.groups)
    found: dict[tuple[int, ...], int] = {}
    for name, cost in function.costs:
        for places, c in _size(name, groups, table).items():
            found[places] = found.get(places, 0) + cost * c
    touched = sum(cost * table.tensor[name].size for name, cost in function.costs)
    constant = function.dense - touched + found.pop((), 0)
    return Polynomial(groups, _ordered(found), constant)


def _size(name: str, groups: Sequence[Channels], table: ShapeTable) -> dict[tuple[int, ...], int]:
    """``∏_d remaining_d`` of one tensor, expanded: places of groups → coefficient."""
    tensor = table.tensor[name]
    total: dict[tuple[int, ...], int] = {(): 1}
    for d, extent in enumerate(tensor.shape):
        factor: dict[tuple[int, ...], int] = {}
        for i, g in enumerate(groups):
            repeat = sum(s.repeat for s in g.slices if s.dim == d and table.tensor[s.tensor].name == tensor.name)
            if repeat:
                factor[i,] = repeat
        factor[()] = extent - sum(r * groups[i].size for (i,), r in factor.items())
        total = _times(total, factor)
    return total


def _times(a: Mapping[tuple[int, ...], int], b: Mapping[tuple[int, ...], int]) -> dict[tuple[int, ...], int]:
    out: dict[tuple[int, ...], int] = {}
    for p, c in a.items():
        for q, d in b.items():
            if c * d:
                key = tuple(sorted(p + q))
                out[key] = out.get(key, 0) + c * d
    return out


def _ordered(terms: Mapping[tuple[int, ...], int]) -> tuple[Monomial, ...]:
    return tuple((c, places) for places, c in sorted(terms.items()) if c)
