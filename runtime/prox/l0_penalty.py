"""The ℓ0 penalty: every non-zero entry costs α."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Self

import torch
from torch import Tensor

from prunelang.runtime.prox.base import AbstractOperator, Tensors, non_negative
from prunelang.runtime.prox.registry import register
from prunelang.runtime.prox.scan import count_nonzero


@register
@dataclass(frozen=True)
class L0Penalty(AbstractOperator):
    """``f(x) = α‖x‖₀``; the prox is hard thresholding. `alpha`: cost of one non-zero entry, ≥ 0."""

    name = "l0_penalty"
    formula = "prox(x)_i = x_i if |x_i| > √(2αγ), else 0"
    reference = "Blumensath and Davies, Iterative Thresholding for Sparse Approximations, J. Fourier Anal. Appl. 2008"
    convex = False
    separable = True

    alpha: float

    def __post_init__(self) -> None:
        non_negative("α", self.alpha)

    def value(self, x: Tensors) -> float:
        return self.alpha * count_nonzero(x)

    @torch.no_grad()
    def prox_(self, x: Tensors, gamma: float) -> None:
        for t in x:
            hard_(t, sqrt(2 * self.alpha * gamma))

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return cls(0.0), cls(0.3)


def hard_(tensor: Tensor, threshold: float) -> None:
    """Zeroes the entries with ``|x| ≤ threshold``. The threshold is not rounded to the dtype first."""
    level = torch.tensor(threshold, dtype=tensor.dtype)
    if float(level) > threshold:
        level = torch.nextafter(level, torch.zeros_like(level))
    x = tensor.detach()
    torch.ops.aten.hardshrink.out(x, float(level), out=x)
