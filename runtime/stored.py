"""What a recount stands on, and what it comes to: `Stored` tensors, and the `Outcome` of one constraint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from prunelang.compiler.shapes import ShapeTable
from prunelang.runtime.exact import Array, Value
from prunelang.runtime.factors import NO_FACTORS, Factors
from prunelang.runtime.weights import nonzero

Positions: TypeAlias = Literal["non-zero values", "kept positions"]
Relation: TypeAlias = Literal["≤", "≥", "between", "∈"]


class NotRecounted(Exception):
    """There is no recount of this function or set here; the message says of what."""


class Contradiction(Exception):
    """Two ways of counting differ: a bug in the compiler, or a problem that belongs to another network."""


@dataclass(frozen=True)
class Stored:
    """The tensors of a file and, where a tensor has them, its kept positions (else: where it is not zero)."""

    arrays: Mapping[str, Array]
    supports: Mapping[str, Array]
    table: ShapeTable
    frozen: frozenset[str] = frozenset()  # tensors that the compiler counts in full, as part of constants
    factors: Factors = NO_FACTORS  # what some of the tensors are made of, of which they are the rounded sum

    def array(self, name: str) -> Array:
        return self.arrays[self.name(name)]

    def name(self, name: str) -> str:
        """The first name of a tensor. Raises `Contradiction` for one that the network has not."""
        if name not in self.table.tensor:
            raise Contradiction(f"it speaks of `{name}`, which {self.table.model} has not")
        return self.table.tensor[name].name

    def mask(self, name: str, which: Positions) -> Array:
        own = self.name(name)
        return self.supports[own] if which == "kept positions" and own in self.supports else nonzero(self.arrays[own])

    @cached_property
    def nonzeros(self) -> dict[str, int]:
        return {n: int(np.count_nonzero(nonzero(a))) for n, a in self.arrays.items()}

    @cached_property
    def kept(self) -> dict[str, int]:
        return self.nonzeros | {n: int(np.count_nonzero(m)) for n, m in self.supports.items()}

    @cached_property
    def _positions(self) -> dict[Positions, dict[str, int]]:
        names = self.table.tensor.items()
        return {
            "non-zero values": {n: self.nonzeros[t.name] for n, t in names},
            "kept positions": {n: self.kept[t.name] for n, t in names},
        }

    def positions(self, which: Positions) -> Mapping[str, int]:
        """Entries by tensor, under every name that it has."""
        return self._positions[which]

    def stray(self) -> list[str]:
        """Tensors with a non-zero value outside their kept positions."""
        return [n for n, m in self.supports.items() if (nonzero(self.arrays[n]) & ~m).any()]

    def joined(self, names: tuple[str, ...]) -> list[Array]:
        """The arrays behind `names`, each once: functions act on the concatenation."""
        return [self.arrays[n] for n in dict.fromkeys(map(self.name, names))]


@dataclass(frozen=True)
class Outcome:
    """``lower ≤ value ≤ upper`` as found; `kept` is the value on kept positions, which a lower bound on counts asks."""

    relation: Relation
    counted: str  # what `value` is a number of
    lower: Fraction | None = None
    upper: Fraction | None = None
    value: Value | None = None
    kept: Value | None = None
    satisfied: bool | None = None  # None: not decided here, and `remark` says why
    remark: str = ""

    @property
    def margin(self) -> Fraction | None:
        """Distance to the nearer bound, negative where it is violated."""
        if self.value is None:
            return None
        above = [] if self.upper is None else [self.upper - self.value.middle]
        below = [] if self.lower is None else [(self.kept or self.value).middle - self.lower]
        return min(above + below, default=None)


def decided(outcome: Outcome) -> Outcome:
    """With `satisfied` from the value and both bounds."""
    if outcome.value is None:
        return outcome
    found: list[bool | None] = [True]
    if outcome.upper is not None:
        found.append(outcome.value.at_most(outcome.upper))
    if outcome.lower is not None:
        found.append((outcome.kept or outcome.value).at_least(outcome.lower))
    satisfied = False if False in found else None if None in found else True
    remark = "" if satisfied is not None else "the value is too close to the bound to be told apart"
    return replace(outcome, satisfied=satisfied, remark=remark)


def distinct(arrays: list[Array]) -> tuple[Array, Array]:
    """The different values of all arrays together, and how often each occurs."""
    flat = [a.reshape(-1) for a in arrays]
    return np.unique(np.concatenate(flat) if flat else np.zeros(0), return_counts=True)
