"""The group lasso penalty: the norm of every group costs α."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from prunelang.compiler.joint import GROUPINGS
from prunelang.runtime.prox.base import AbstractOperator, Tensors, non_negative
from prunelang.runtime.prox.registry import register
from prunelang.runtime.prox.structure import group_sums, spread_groups


@register
@dataclass(frozen=True)
class GroupL1(AbstractOperator):
    """``f(x) = α Σ_g ‖x_g‖₂``; the prox is block soft thresholding. `alpha` ≥ 0; `by` as in `group_l0`."""

    name = "group_l1"
    formula = "prox(x)_g = x_g (1 − αγ / ‖x_g‖₂)₊"
    reference = "Yuan and Lin, Model Selection and Estimation in Regression with Grouped Variables, JRSS B 68, 2006"
    convex = True

    alpha: float
    by: str = "filter"

    def __post_init__(self) -> None:
        non_negative("α", self.alpha)
        if self.by not in GROUPINGS:
            raise ValueError(f"groups are by {', '.join(GROUPINGS)}, not by {self.by}")

    def value(self, x: Tensors) -> float:
        return self.alpha * sum(float(group_sums(t.detach().double().square(), self.by).sqrt().sum()) for t in x)

    @torch.no_grad()
    def prox_(self, x: Tensors, gamma: float) -> None:
        for t in x:
            norms = group_sums(t.detach().double().square(), self.by).sqrt()
            factors = torch.where(norms > 0, 1 - self.alpha * gamma / norms.clamp_min(1e-300), 0.0).clamp_min_(0)
            t.detach().mul_(spread_groups(factors, t.shape, self.by))

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (*(cls(0.8, by) for by in GROUPINGS), cls(0.0))
