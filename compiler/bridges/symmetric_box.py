"""Boxes around zero."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from prunelang.compiler.bridges.base import AbstractBridge
from prunelang.compiler.problem import Constraint, Entries, Interval, Named, VectorNorm


class SymmetricBox(AbstractBridge):
    """Rewrites membership in a box around zero into a bound on the largest magnitude.

    **From** ``w ∈ box(−c, c)``
    **To** ``‖w‖∞ ≤ c``
    **Inverse** the same weights; c has no other meaning, so a price stays.
    """

    name: ClassVar[str] = "symmetric-box"

    def accepts(self, constraint: Constraint) -> bool:
        if not (isinstance(constraint.function, Entries) and isinstance(constraint.set, Named)):
            return False
        ends = dict(constraint.set.arguments)
        return (
            constraint.set.name == "box" and None not in (ends.get("lo"), ends.get("hi")) and -ends["lo"] == ends["hi"]
        )

    def apply(self, constraint: Constraint) -> Constraint:
        assert isinstance(constraint.function, Entries) and isinstance(constraint.set, Named)
        c = dict(constraint.set.arguments)["hi"]
        return replace(constraint, function=VectorNorm("norminf", constraint.function.tensors), set=Interval(upper=c))

    def price(self, original: Constraint, price: float) -> float:
        return price
