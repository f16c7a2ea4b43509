"""The nuclear norm as a penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from prunelang.runtime.prox.base import AbstractOperator, Tensors, non_negative
from prunelang.runtime.prox.nuclear import nuclear_norm, soft_singular_
from prunelang.runtime.prox.registry import register


@register
@dataclass(frozen=True)
class NuclearPenalty(AbstractOperator):
    """``f(W) = weight · Σ ‖W‖_*`` over the tensors of the list, each as the matrix ``shape[0] × ∏ shape[1:]``."""

    name = "nuclear_penalty"
    formula = "prox(W) = U (Σ − γ·weight)₊ Vᵀ"
    reference = "Cai, Candès & Shen, A Singular Value Thresholding Algorithm for Matrix Completion, SIAM J. Optim. 2010"
    convex = True

    weight: float

    def __post_init__(self) -> None:
        non_negative("weight", self.weight)

    def value(self, x: Tensors) -> float:
        return self.weight * sum(nuclear_norm(w) for w in x)

    @torch.no_grad()
    def prox_(self, x: Tensors, gamma: float) -> None:
        for w in x:
            soft_singular_(w, gamma * self.weight)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return cls(0.0), cls(0.3)
