"""The ℓ2 ball."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from typing import Literal, Self

import torch

from prunelang.runtime.prox.base import AbstractProjection, Tensors, non_negative
from prunelang.runtime.prox.registry import register
from prunelang.runtime.prox.sums import at_most, power_sum


@register
@dataclass(frozen=True)
class L2Ball(AbstractProjection):
    """``C = {x : ‖x‖₂^power ≤ κ}``, the sum of squares taken without rounding. `kappa` ≥ 0; `power` 1 or 2."""

    name = "l2_ball"
    formula = "Π(x) = x · min(1, r / ‖x‖₂), r = κ^(1/power), rounded inward"
    reference = "Parikh and Boyd, Proximal Algorithms, Foundations and Trends in Optimization 1, 2014, §6.5"
    convex = True

    kappa: float
    power: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        non_negative("κ", self.kappa)

    @property
    def square(self) -> Fraction:
        """The bound on ``Σ x_i²``."""
        return Fraction(self.kappa) ** (2 // self.power)

    def contains(self, x: Tensors) -> bool:
        return at_most(x, 2, self.square)

    @torch.no_grad()
    def project_(self, x: Tensors) -> None:
        if self.contains(x):
            return
        largest = max(float(t.detach().abs().max()) for t in x if t.numel())
        radius = self.kappa if self.power == 1 else sqrt(self.kappa)
        norm = largest * sqrt(power_sum([t.detach().double() / largest for t in x], 2))
        factor, inward = radius / norm, max(torch.finfo(t.dtype).eps for t in x) / 2
        while True:
            for t in x:
                t.detach().mul_(factor)
            if self.contains(x):
                return
            factor, inward = max(0.0, 1 - inward), 2 * inward

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return cls(0.0), cls(1.5), cls(1.5, power=2), cls(1e6)
