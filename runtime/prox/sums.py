"""Sums over a list of tensors: fast in float64, and exact where a norm ball must not be exceeded by a rounding."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

CHUNK = 1 << 20  # entries widened to float64 at a time
LIMB = 32  # bits of the parts that are added up in int64: exact below 2³¹ entries


def chunks(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Views (copies, where a layout asks for them) of at most CHUNK entries."""
    return [part for t in tensors if t.numel() for part in torch.split(t.detach().reshape(-1), CHUNK)]


def power_sum(tensors: Sequence[Tensor], power: int) -> float:
    """``Σ |x_i|^power`` in float64, power 1 or 2. Relative error at most (n + 1)·2⁻⁵³."""
    parts = (c.double() for c in chunks(tensors))
    return float(sum(float(c.abs().sum() if power == 1 else c.square().sum()) for c in parts))


def exact_power_sum(tensors: Sequence[Tensor], power: int) -> Fraction:
    """``Σ |x_i|^power`` without any rounding, power 1 or 2.

    Every float is M · 2^e with an integer M < 2⁵³. The M (or the limbs of M²) that share an exponent add up in int64.
    """
    total = Fraction(0)
    for part in chunks(tensors):
        mantissa, exponent = torch.frexp(part.double().abs())
        m = (mantissa * 2.0**53).long()
        least = int(exponent.min())
        bins = int(exponent.max()) - least + 1
        for shift, limb in limbs(m, power):
            sums = torch.zeros(bins, dtype=torch.int64, device=part.device).index_add_(0, exponent - least, limb)
            for e, s in enumerate(sums.tolist(), least - 53):
                total += s * Fraction(2) ** (shift + power * e) if s else 0
    return total


def limbs(m: Tensor, power: int) -> list[tuple[int, Tensor]]:
    """m^power as ``Σ 2^shift · limb`` with limbs below 2³²."""
    if power == 1:
        products = [(0, m)]
    else:
        high, low = m >> 27, m & (1 << 27) - 1
        products = [(54, high * high), (28, high * low), (0, low * low)]
    return [(s + d, p >> d & (1 << LIMB) - 1) for s, p in products for d in (0, LIMB)]


def at_most(tensors: Sequence[Tensor], power: int, bound: float | Fraction) -> bool:
    """Whether ``Σ |x_i|^power ≤ bound`` holds exactly. The exact sum is formed only where float64 cannot tell."""
    near, entries = power_sum(tensors, power), sum(t.numel() for t in tensors)
    slack = near * (entries + 2) * 2.0**-52 + entries * 2.0**-1021  # rounding, and squares that underflow
    if near + slack < bound:
        return True
    if near - slack > bound:
        return False
    return exact_power_sum(tensors, power) <= Fraction(bound)
