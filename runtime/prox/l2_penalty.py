"""The ℓ2 penalty, squared (weight decay) or not (the whole vector as one group)."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal, Self

import torch

from prunelang.runtime.prox.base import AbstractOperator, Tensors, non_negative
from prunelang.runtime.prox.registry import register
from prunelang.runtime.prox.sums import power_sum


@register
@dataclass(frozen=True)
class L2Penalty(AbstractOperator):
    """``f(x) = α‖x‖₂^power``. `alpha` ≥ 0; `power` 1 or 2. Neither yields single zeros; power 1 can zero everything."""

    name = "l2_penalty"
    formula = "power 2: prox(x) = x / (1 + 2αγ);  power 1: prox(x) = x (1 − αγ / ‖x‖₂)₊"
    reference = "Parikh and Boyd, Proximal Algorithms, Foundations and Trends in Optimization 1, 2014, §6.5"
    convex = True

    alpha: float
    power: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        non_negative("α", self.alpha)

    def value(self, x: Tensors) -> float:
        square = power_sum(x, 2)
        return self.alpha * (square if self.power == 2 else sqrt(square))

    @torch.no_grad()
    def prox_(self, x: Tensors, gamma: float) -> None:
        if self.power == 2:
            factor = 1 / (1 + 2 * self.alpha * gamma)
        else:
            norm = sqrt(power_sum(x, 2))
            factor = max(0.0, 1 - self.alpha * gamma / norm) if norm > 0 else 1.0
        for t in x:
            t.detach().mul_(factor)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return cls(0.4), cls(0.4, power=1), cls(50.0, power=1)
