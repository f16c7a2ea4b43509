"""n:m sparsity: at most n non-zero of every m consecutive entries along the input dimension."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from prunelang.runtime.prox.base import AbstractProjection, Tensors
from prunelang.runtime.prox.feasibility import most_in_cells
from prunelang.runtime.prox.registry import register
from prunelang.runtime.prox.structure import n_of_m_mask


@register
@dataclass(frozen=True)
class NofM(AbstractProjection):
    """Each tensor as a matrix shape[0] × ∏ shape[1:]: at most `n` non-zero in columns km … km + m − 1 of each row.

    A last part of fewer than m columns may keep n, too. 0 ≤ n ≤ m, m ≥ 1.
    """

    name = "n_of_m"
    formula = "Π keeps the n largest |x_i| of every m consecutive columns, ties by lowest column"
    reference = "Mishra et al., Accelerating Sparse Deep Neural Networks, arXiv 2104.08378"
    convex = False

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 <= self.n <= self.m or self.m < 1:
            raise ValueError(f"{self.n}:{self.m} is not n of m with 0 ≤ n ≤ m")

    def contains(self, x: Tensors) -> bool:
        return all(most_in_cells(t.detach() != 0, self.m) <= self.n for t in x)

    @torch.no_grad()
    def project_(self, x: Tensors) -> None:
        for t in x:
            t.detach().masked_fill_(~n_of_m_mask(t, self.n, self.m), 0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return cls(2, 4), cls(1, 3), cls(0, 2), cls(4, 4)
