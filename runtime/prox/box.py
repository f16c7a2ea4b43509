"""The box, and with it the ℓ∞ ball: every entry within [lo, hi]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from prunelang.runtime.prox.base import AbstractProjection, Tensors
from prunelang.runtime.prox.registry import register


@register
@dataclass(frozen=True)
class Box(AbstractProjection):
    """``C = {x : lo ≤ x_i ≤ hi}``; ``{‖·‖∞ ≤ r}`` is ``linf_ball(r)``. Bounds round inward to the dtype of a tensor."""

    name = "box"
    formula = "Π(x)_i = min(max(x_i, lo), hi)"
    reference = "Parikh and Boyd, Proximal Algorithms, Foundations and Trends in Optimization 1, 2014, §6.2"
    convex = True
    separable = True

    lo: float
    hi: float

    def __post_init__(self) -> None:
        if not self.lo <= self.hi:
            raise ValueError(f"the box [{self.lo}, {self.hi}] is empty")

    def contains(self, x: Tensors) -> bool:
        return all(bool(((t >= lo) & (t <= hi)).all()) for t in x for lo, hi in [self.bounds(t.dtype)])

    @torch.no_grad()
    def project_(self, x: Tensors) -> None:
        for t in x:
            t.detach().clamp_(*self.bounds(t.dtype))

    def bounds(self, dtype: torch.dtype) -> tuple[float, float]:
        """The least and the greatest number of the dtype inside. Raises `ValueError` where there is none."""
        lo, hi = (torch.tensor(b, dtype=dtype) for b in (self.lo, self.hi))
        lo = torch.nextafter(lo, torch.full_like(lo, torch.inf)) if float(lo) < self.lo else lo
        hi = torch.nextafter(hi, torch.full_like(hi, -torch.inf)) if float(hi) > self.hi else hi
        if lo > hi:
            raise ValueError(f"no number of type {dtype} lies in [{self.lo}, {self.hi}]")
        return float(lo), float(hi)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        return cls(-0.3, 0.9), cls(0.1, 2.0), cls(0.0, 0.0)


def linf_ball(radius: float) -> Box:
    """``{x : ‖x‖∞ ≤ radius}``."""
    return Box(-radius, radius)
