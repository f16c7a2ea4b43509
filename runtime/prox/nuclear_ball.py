"""The ball of the nuclear norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from prunelang.runtime.prox.base import AbstractProjection, Tensors, non_negative
from prunelang.runtime.prox.nuclear import nuclear_norm, project_nuclear_
from prunelang.runtime.prox.registry import register


@register
@dataclass(frozen=True)
class NuclearBall(AbstractProjection):
    """``C = {W : ‖W‖_* ≤ κ}`` for every tensor of the list, each as the matrix ``shape[0] × ∏ shape[1:]``. `kappa` ≥ 0.

    The singular values of a projection are those of W projected onto the ℓ1 ball: ``(σ_i − t)₊``, Σ = κ.
    """

    name = "nuclear_ball"
    formula = "Π(W) = U (Σ − t)₊ Vᵀ with Σ (σ_i − t)₊ = κ, t = 0 inside"
    reference = "Cai, Candès & Shen, A Singular Value Thresholding Algorithm for Matrix Completion, SIAM J. Optim. 2010"
    convex = True

    kappa: float

    def __post_init__(self) -> None:
        non_negative("κ", self.kappa)

    def contains(self, x: Tensors) -> bool:
        return all(nuclear_norm(w) <= self.kappa for w in x)

    @torch.no_grad()
    def project_(self, x: Tensors) -> None:
        for w in x:
            project_nuclear_(w, self.kappa)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return cls(0.0), cls(2.5), cls(1e6)
