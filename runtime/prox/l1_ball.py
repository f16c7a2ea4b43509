"""The ℓ1 ball, exactly, and without a sort."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import torch

from prunelang.runtime.prox.base import AbstractProjection, Tensors, non_negative
from prunelang.runtime.prox.l1_penalty import soft_
from prunelang.runtime.prox.registry import register
from prunelang.runtime.prox.sums import at_most, chunks, exact_power_sum


@register
@dataclass(frozen=True)
class L1Ball(AbstractProjection):
    """``C = {x : ‖x‖₁ ≤ κ}``, the sum taken without rounding. `kappa` ≥ 0.

    ``Π(x) = soft(x, t)`` with t ≥ 0 such that ``Σ (|x_i| − t)₊ = κ``, then rounded inward until the exact sum of the
    rounded entries is at most κ.
    """

    name = "l1_ball"
    formula = "Π(x)_i = sign(x_i) (|x_i| − t)₊ with Σ (|x_i| − t)₊ = κ, t = 0 inside"
    reference = "Condat, Fast Projection onto the Simplex and the ℓ1 Ball, Math. Program. 158, 2016"
    convex = True

    kappa: float

    def __post_init__(self) -> None:
        non_negative("κ", self.kappa)

    def contains(self, x: Tensors) -> bool:
        return at_most(x, 1, self.kappa)

    @torch.no_grad()
    def project_(self, x: Tensors) -> None:
        if self.contains(x):
            return
        step, doubled = soft_threshold(x, self.kappa), 1
        while True:
            for t in x:
                soft_(t, step)
            if self.contains(x):
                return
            excess = float(exact_power_sum(x, 1) - Fraction(self.kappa))
            step, doubled = doubled * further_threshold(x, excess), 2 * doubled

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return cls(0.0), cls(2.5), cls(1e6)


def soft_threshold(x: Tensors, kappa: float) -> float:
    """t ≥ 0 with ``Σ (|x_i| − t)₊ = κ``, for ``‖x‖₁ > κ``.

    Newton's method on the convex, piecewise linear left side, from t = 0: t grows until the entries above it stay.
    """
    t, active = 0.0, -1
    while True:
        above = total = 0.0
        for part in chunks(x):
            u = part.abs().double()
            over = u > t
            above += float(over.sum())
            total += float(u.mul_(over).sum())
        if above in (active, 0):
            return t
        t, active = max(t, (total - kappa) / above), int(above)


def further_threshold(x: Tensors, excess: float) -> float:
    """A further threshold that takes off at least `excess`, large enough for the dtype to notice."""
    largest = max(float(t.detach().abs().max()) for t in x if t.numel())
    entries = sum(int(t.detach().count_nonzero()) for t in x)
    coarsest = min(torch.finfo(t.dtype).eps for t in x)
    return max(excess / max(entries, 1), coarsest * largest / 64)
