"""How a soft threshold rises: shapes f on [0, 1] with f(0) = 0 and f(1) = 1, in closed form of the clocks.

The threshold is d(x) = D·f(x). Identity-gradient soft thresholding is then the proximal gradient method for L + μ‖w‖₁
with μ = Δd/η, so a shape is a schedule of the ℓ1 coefficient: `lats` keeps it constant under any learning rate,
`s_lats` under a cosine, `pgh` lets it fall geometrically.
Source: A Unified Framework for Soft Threshold Pruning, ICLR 2023.

Executor, emitted script and `explain` compute with these same functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

Shape = Callable[[float], float]


def clipped(x: float) -> float:
    """x moved into [0, 1]: before and after the rise a threshold stands still."""
    return min(1.0, max(0.0, x))


def s_lats(x: float) -> float:
    """``f(x) = x + sin(πx)/π``: Δf ∝ 1 + cos πx, as a cosine step size falls."""
    x = clipped(x)
    return x + math.sin(math.pi * x) / math.pi


def stds_sine(x: float) -> float:
    """``f(x) = (1 + sin π(x − ½))/2``"""
    return (1.0 + math.sin(math.pi * (clipped(x) - 0.5))) / 2.0


def stds_linear(x: float) -> float:
    """``f(x) = x``"""
    return clipped(x)


def at_once(x: float) -> float:
    """``f(x) = 1``: the threshold is there from the start, μ = 0 from then on."""
    return 1.0


def pgh(x: float, beta: float) -> float:
    """Δf ∝ β^x (1 + cos πx): under a cosine step size μ falls as β^x. β = 1 is `s_lats`, β → 0 prunes early.

    ``f(x) = N(x)/N(1)`` with ``N(x) = (β^x − 1)/ℓ + [β^x (ℓ cos πx + π sin πx) − ℓ]/(ℓ² + π²)`` and ℓ = ln β; in this
    form nothing cancels as β → 1.
    """
    return _pgh_integral(clipped(x), beta) / _pgh_integral(1.0, beta)


def _pgh_integral(x: float, beta: float) -> float:
    """``∫₀ˣ β^u (1 + cos πu) du``"""
    ell = math.log(beta)
    first = math.expm1(ell * x) / ell if ell else x
    wave = ell * math.cos(math.pi * x) + math.pi * math.sin(math.pi * x)
    return first + (math.exp(ell * x) * wave - ell) / (ell * ell + math.pi * math.pi)


def lats(x: float, sums: Sequence[float], reach: float) -> float:
    """``f = Σ_{i<t} η_i / Σ_{i<T} η_i`` with the rates really used, hence Δd/η constant; T is the step at `reach`.

    `sums` are the sums ``Σ_{i<t} η_i`` at every step of the stage, linear in between.
    """
    return between(sums, clipped(x) * reach) / between(sums, reach)


def shape_of(name: str, reach: float, beta: float | None = None, sums: Sequence[float] = ()) -> Shape:
    """f by its name: `beta` is of pgh, `sums` are of lats."""
    match name:
        case "pgh":
            assert beta is not None
            return partial(pgh, beta=beta)
        case "lats":
            return partial(lats, sums=sums, reach=reach)
    return PLAIN[name]


def between(sums: Sequence[float], p: float) -> float:
    """The table at the share p of its length, linear between its entries."""
    t = p * (len(sums) - 1)
    i = min(int(t), len(sums) - 2)
    return sums[i] + (t - i) * (sums[i + 1] - sums[i])


def prefix_sums(rate: Callable[[float, float, float], float], total: int, batches: int) -> list[float]:
    """``Σ_{i<t} rate(epoch, step, p)`` for t = 0 … total, with the clocks of each step; compensated summation."""
    sums, value, lost = [0.0], 0.0, 0.0
    for i in range(total):
        term = rate(float(i // batches), float(i), i / total) - lost
        after = value + term
        lost = (after - value) - term
        value = after
        sums.append(value)
    return sums


PLAIN: Mapping[str, Shape] = {
    "s_lats": s_lats,
    "stds_sine": stds_sine,
    "stds_linear": stds_linear,
    "at_once": at_once,
}
