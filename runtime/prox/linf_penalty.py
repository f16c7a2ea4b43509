"""The ℓ∞ penalty: the largest magnitude costs α."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from prunelang.runtime.prox.base import AbstractOperator, Tensors, non_negative
from prunelang.runtime.prox.l1_ball import soft_threshold
from prunelang.runtime.prox.registry import register
from prunelang.runtime.prox.sums import power_sum


@register
@dataclass(frozen=True)
class LinfPenalty(AbstractOperator):
    """``f(x) = α‖x‖∞``. `alpha` ≥ 0. By Moreau's identity the prox is x less its projection onto ``{‖·‖₁ ≤ αγ}``."""

    name = "linf_penalty"
    formula = "prox(x)_i = clip(x_i, −s, s) with Σ (|x_i| − s)₊ = αγ, or 0 where ‖x‖₁ ≤ αγ"
    reference = "Parikh and Boyd, Proximal Algorithms, Foundations and Trends in Optimization 1, 2014, §6.5"
    convex = True

    alpha: float

    def __post_init__(self) -> None:
        non_negative("α", self.alpha)

    def value(self, x: Tensors) -> float:
        return self.alpha * max((float(t.detach().abs().max()) for t in x if t.numel()), default=0.0)

    @torch.no_grad()
    def prox_(self, x: Tensors, gamma: float) -> None:
        budget = self.alpha * gamma
        if budget == 0:
            return
        level = soft_threshold(x, budget) if power_sum(x, 1) > budget else 0.0
        for t in x:
            t.detach().clamp_(-level, level)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return cls(0.0), cls(1.2), cls(1e6)
