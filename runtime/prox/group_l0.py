"""Group ℓ0: at most κ groups hold a non-zero entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from prunelang.compiler.joint import GROUPINGS
from prunelang.runtime.prox.base import AbstractProjection, Tensors
from prunelang.runtime.prox.registry import register
from prunelang.runtime.prox.select import topk_mask_
from prunelang.runtime.prox.structure import group_sums, spread_groups


@register
@dataclass(frozen=True)
class GroupL0(AbstractProjection):
    """``C = {x : Σ_g 1[x_g ≠ 0] ≤ κ}`` over the groups of all tensors. `kappa`: groups, ≥ 0.

    `by`: filter or row (slices of dimension 0), channel (of dimension 1), column (of shape[0] × ∏ shape[1:]).
    """

    name = "group_l0"
    formula = "Π(x)_g = x_g if g is among the κ largest ‖x_g‖₂, else 0; ties by lowest index"
    reference = "Baldassarre et al., Group-Sparse Model Selection, IEEE Trans. Inf. Theory 62, 2016"
    convex = False

    kappa: int
    by: str = "filter"

    def __post_init__(self) -> None:
        if self.kappa < 0 or self.by not in GROUPINGS:
            raise ValueError(f"not a group bound: κ = {self.kappa} by {self.by}")

    def contains(self, x: Tensors) -> bool:
        marks = (group_sums((t.detach() != 0).long(), self.by) for t in x)
        return sum(int(m.count_nonzero()) for m in marks) <= self.kappa

    @torch.no_grad()
    def project_(self, x: Tensors) -> None:
        energies = [group_sums(t.detach().double().square(), self.by) for t in x]
        keep = [torch.empty_like(e, dtype=torch.bool) for e in energies]
        topk_mask_(energies, self.kappa, keep)
        for t, m in zip(x, keep, strict=True):
            t.detach().masked_fill_(~spread_groups(m, t.shape, self.by), 0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (*(cls(3, by) for by in GROUPINGS), cls(0), cls(1000, "column"))
