"""Corners of structural costs: products of kept members grow with each of them, so that a box bounds them exactly.

From below, a group keeps at least what the positions that other lines keep in its tensors need; from above, at most
what fits into another budget with nothing else kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from prunelang.compiler.channels import Polynomial, polynomial, trained
from prunelang.compiler.problem import Structural
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl.numbers import grouped

MOST_SHOWN = 6  # terms of a sum


@dataclass(frozen=True)
class Place:
    """Where a group lies along one dimension of a tensor: `repeat` indices a member, `entries` at each index."""

    tensor: str
    repeat: int
    extent: int
    entries: int

    def needed(self, kept: int, members: int) -> int:
        """The fewest members with which the tensor can hold so many positions, all other groups dense."""
        indices = -(-kept // self.entries) if self.entries else 0
        return max(0, -((self.extent - self.repeat * members - indices) // self.repeat))


@dataclass(frozen=True)
class Channelled:
    """The cost of a structural line as a polynomial, with the places of its groups."""

    cost: Polynomial
    places: tuple[tuple[Place, ...], ...]  # by group

    @property
    def tensors(self) -> frozenset[str]:
        return frozenset(p.tensor for places in self.places for p in places)

    def fewest(self, kept: Callable[[str], int]) -> tuple[int, ...]:
        """Members that each group needs where tensors hold at least `kept` positions."""
        pairs = zip(self.places, self.cost.sizes, strict=True)
        return tuple(min(n, max((p.needed(kept(p.tensor), n) for p in places), default=0)) for places, n in pairs)

    def most(self, others: Sequence[tuple[Channelled, int]]) -> int:
        """No k within the other budgets ``(cost, bound)`` costs more."""
        caps = {g.name: g.size for g in self.cost.groups}
        best: list[int] = []
        for other, bound in others:
            for i, g in enumerate(other.cost.groups):
                if g.name in caps:
                    caps[g.name] = min(caps[g.name], _fits(other.cost, i, bound))
            scale = self.multiple(other)
            if scale is not None:
                best.append(self.cost.constant + int(scale * (bound - other.cost.constant)))
        return min([self.cost.value([caps[g.name] for g in self.cost.groups]), *best])

    def multiple(self, other: Channelled) -> Fraction | None:
        """λ where the two costs, without their constants, are ``f = λ·other``; None where they are not."""
        own, theirs = _named(self.cost), _named(other.cost)
        if own.keys() != theirs.keys() or not own:
            return None
        ratios = {Fraction(c, theirs[key]) for key, c in own.items()}
        return ratios.pop() if len(ratios) == 1 else None

    def sum_of(self, k: Sequence[int]) -> str:
        """``784 · 300 + 10 · 100 + 4 000``: the cost at k in figures."""
        terms = [(c, [k[i] for i in at]) for c, at in self.cost.terms]
        texts = [" · ".join(grouped(x) for x in (c, *of)) for c, of in terms if all(of)]
        texts += [grouped(self.cost.constant)] if self.cost.constant or not texts else []
        more = [f"… {len(texts) - MOST_SHOWN + 1} more terms"] if len(texts) > MOST_SHOWN else []
        return " + ".join([*texts[: MOST_SHOWN - 1 if more else MOST_SHOWN], *more])

    def members(self, k: Sequence[int]) -> str:
        """``fc1 at 300 of 300`` of the groups that keep some."""
        pairs = zip(self.cost.groups, k, strict=True)
        return ", ".join(f"{g.name} at {grouped(n)} of {grouped(g.size)}" for g, n in pairs if n)


def channelled(f: Structural, table: ShapeTable) -> Channelled:
    """The structural function with the places of its groups in the tensors that are trained."""
    cost = polynomial(f, table)
    found: list[tuple[Place, ...]] = []
    for g in cost.groups:
        repeats: dict[tuple[str, int], int] = {}
        own = trained(g, table)
        for s in g.slices:
            name = table.tensor[s.tensor].name
            if name in own:
                repeats[name, s.dim] = repeats.get((name, s.dim), 0) + s.repeat
        found.append(tuple(_place(t, d, r, table) for (t, d), r in repeats.items()))
    return Channelled(cost, tuple(found))


def _place(tensor: str, dim: int, repeat: int, table: ShapeTable) -> Place:
    t = table.tensor[tensor]
    return Place(tensor, repeat, t.shape[dim], t.size // t.shape[dim] if t.shape[dim] else 0)


def _fits(cost: Polynomial, group: int, bound: int) -> int:
    """The most members of one group that cost at most `bound`, all others without any; 0 where none do."""
    low, high = 0, cost.groups[group].size
    while low < high:
        middle = (low + high + 1) // 2
        k = [0] * len(cost.groups)
        k[group] = middle
        low, high = (middle, high) if cost.value(k) <= bound else (low, middle - 1)
    return low


def _named(cost: Polynomial) -> Mapping[tuple[str, ...], int]:
    return {tuple(sorted(cost.groups[i].name for i in at)): c for c, at in cost.terms}


def reasons(f: Structural, table: ShapeTable) -> tuple[str, ...]:
    """Why groups of the function's layers keep all their members, as the network was traced."""
    kernels = {table.tensor[table.layer[n].weight].name for n in f.layers}
    found = (g for g in table.channels if g.reason and kernels.intersection(trained(g, table)))
    return tuple(f"{g.name}: {g.reason}" for g in found)
