"""The ℓ1 penalty: soft thresholding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from prunelang.runtime.prox.base import AbstractOperator, Tensors, non_negative
from prunelang.runtime.prox.registry import register
from prunelang.runtime.prox.sums import power_sum


@register
@dataclass(frozen=True)
class L1Penalty(AbstractOperator):
    """``f(x) = α‖x‖₁``; the prox is soft thresholding. `alpha` ≥ 0."""

    name = "l1_penalty"
    formula = "prox(x)_i = sign(x_i) (|x_i| − αγ)₊"
    reference = "Daubechies, Defrise and De Mol, Comm. Pure Appl. Math. 57, 2004"
    convex = True
    separable = True

    alpha: float

    def __post_init__(self) -> None:
        non_negative("α", self.alpha)

    def value(self, x: Tensors) -> float:
        return self.alpha * power_sum(x, 1)

    @torch.no_grad()
    def prox_(self, x: Tensors, gamma: float) -> None:
        for t in x:
            soft_(t, self.alpha * gamma)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return cls(0.0), cls(0.7)


def soft_(tensor: Tensor, threshold: float) -> None:
    """``x ← sign(x)(|x| − threshold)₊``, rounded once: half precision is widened, so that the threshold is not."""
    x = tensor.detach()
    if x.dtype in (torch.float32, torch.float64):
        torch.ops.aten.softshrink.out(x, threshold, out=x)
    else:
        x.copy_(torch.nn.functional.softshrink(x.float(), threshold))
