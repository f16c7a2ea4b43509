"""Counts in which every kept position costs the same."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil, floor
from typing import ClassVar

from prunelang.compiler.bridges.base import AbstractBridge
from prunelang.compiler.problem import Constraint, Count, Interval


class UniformCount(AbstractBridge):
    """Rewrites a count with one cost a per kept position into a plain count.

    **From** ``l ≤ Σ_t a·nnz(t) + c ≤ u``, a ≥ 1: `sparse_macs` where every layer is used once, `bytes` as bitmask
    **To** ``⌈(l − c)/a⌉ ≤ Σ_t nnz(t) ≤ ⌊(u − c)/a⌋``
    **Inverse** a value v is a·v + c; a price per position is a times the price per unit.
    """

    name: ClassVar[str] = "uniform-count"

    def accepts(self, constraint: Constraint) -> bool:
        f = constraint.function
        return isinstance(f, Count) and isinstance(constraint.set, Interval) and len(set(f.coefficients.values())) == 1

    def apply(self, constraint: Constraint) -> Constraint:
        f, bounds = constraint.function, constraint.set
        assert isinstance(f, Count) and isinstance(bounds, Interval)
        (a,) = set(f.coefficients.values())
        lower = None if bounds.lower is None else ceil(Fraction(bounds.lower - f.constant) / a)
        upper = None if bounds.upper is None else floor(Fraction(bounds.upper - f.constant) / a)
        return replace(
            constraint, function=Count("norm0", dict.fromkeys(f.coefficients, 1), 0, ""), set=Interval(lower, upper)
        )

    def price(self, original: Constraint, price: float) -> float:
        assert isinstance(original.function, Count)
        return price / next(iter(original.function.coefficients.values()))
