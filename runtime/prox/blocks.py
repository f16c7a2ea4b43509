"""Block sparsity: at most κ blocks of p × q hold a non-zero entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from prunelang.runtime.prox.base import AbstractProjection, Tensors
from prunelang.runtime.prox.registry import register
from prunelang.runtime.prox.select import topk_mask_
from prunelang.runtime.prox.structure import block_energies, block_mask


@register
@dataclass(frozen=True)
class Blocks(AbstractProjection):
    """Each tensor as a matrix shape[0] × ∏ shape[1:], cut into blocks of `rows` × `columns`, smaller at the edge.

    At most `kappa` blocks, over all tensors, hold a non-zero entry. rows, columns ≥ 1, kappa ≥ 0.
    """

    name = "blocks"
    formula = "Π keeps the κ blocks with the largest Σ x_i², ties by lowest index"
    reference = "Gray, Radford and Kingma, GPU Kernels for Block-Sparse Weights, 2017"
    convex = False

    rows: int
    columns: int
    kappa: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1 or self.kappa < 0:
            raise ValueError(f"not a block and a budget: {self.rows} × {self.columns}, κ = {self.kappa}")

    def contains(self, x: Tensors) -> bool:
        marks = (block_energies((t.detach() != 0).float(), self.rows, self.columns)[0] for t in x)
        return sum(int(m.count_nonzero()) for m in marks) <= self.kappa

    @torch.no_grad()
    def project_(self, x: Tensors) -> None:
        energies = [block_energies(t, self.rows, self.columns)[0] for t in x]
        keep = [torch.empty_like(e, dtype=torch.bool) for e in energies]
        topk_mask_(energies, self.kappa, keep)
        for t, m in zip(x, keep, strict=True):
            t.detach().masked_fill_(~block_mask(m, t.shape, self.rows, self.columns), 0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return cls(2, 3, 2), cls(1, 1, 5), cls(4, 4, 0), cls(3, 2, 1000)
