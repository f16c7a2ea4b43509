"""The set of everything: no entry has to go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from prunelang.runtime.prox.base import AbstractProjection, Tensors
from prunelang.runtime.prox.registry import register


@register
@dataclass(frozen=True)
class Dense(AbstractProjection):
    """``C = ℝⁿ``: every position is kept, Π is the identity."""

    name = "dense"
    formula = "Π(x) = x"
    reference = "Parikh and Boyd, Proximal Algorithms, Foundations and Trends in Optimization 1, 2014, §2.2"
    convex = True
    separable = True

    def contains(self, x: Tensors) -> bool:
        return True

    def project_(self, x: Tensors) -> None:
        return None

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return (cls(),)
