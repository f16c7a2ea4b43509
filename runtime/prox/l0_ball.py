"""The ℓ0 ball: at most κ entries are non-zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from prunelang.runtime.prox.base import AbstractProjection, Tensors
from prunelang.runtime.prox.registry import register
from prunelang.runtime.prox.scan import count_nonzero
from prunelang.runtime.prox.select import project_topk_


@register
@dataclass(frozen=True)
class L0Ball(AbstractProjection):
    """``C = {x : ‖x‖₀ ≤ κ}``; Π keeps the κ largest ``|x_i|``, ties by lowest index. `kappa`: entries, ≥ 0."""

    name = "l0_ball"
    formula = "Π(x)_i = x_i if i is among the κ largest |x_i|, else 0"
    reference = "Carreira-Perpiñán and Idelbayev, 'Learning-Compression' Algorithms for Neural Net Pruning, CVPR 2018"
    convex = False

    kappa: int

    def __post_init__(self) -> None:
        if self.kappa < 0:
            raise ValueError(f"κ counts kept entries: it cannot be {self.kappa}")

    def contains(self, x: Tensors) -> bool:
        return count_nonzero(x) <= self.kappa

    @torch.no_grad()
    def project_(self, x: Tensors) -> None:
        project_topk_(x, self.kappa)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return cls(0), cls(5), cls(10_000)
