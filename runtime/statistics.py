"""What a finite split says about the distribution that it was drawn from: one-sided bounds at a stated confidence.

Shares of right answers have exact bounds (Clopper–Pearson), means of numbers with a known range those of the empirical
Bernstein inequality, which hold for every sample size; means of losses have the normal one, which holds for large
samples only and says so. Against `base`, the same samples are compared one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from prunelang.compiler.problem import CONFIDENCE

Array = NDArray[np.float64]
Side = Literal["≤", "≥"]
Method = Literal[
    "Clopper–Pearson",
    "paired, Clopper–Pearson",
    "normal",
    "paired, normal",
    "empirical Bernstein",
    "paired, empirical Bernstein",
]
AGAIN: Final = 2.0
"""Standard deviations between two means of equally many samples that a choice leaves room for: 98 % of the cases."""


@dataclass(frozen=True)
class Interval:
    """A one-sided bound on a mean over the distribution: at least `low`, or at most `high`."""

    value: float  # the mean on the split
    bound: float
    samples: int
    method: Method

    @property
    def asymptotic(self) -> bool:
        """Whether the bound holds for large samples only."""
        return self.method.endswith("normal")


def share_at_least(hits: int, samples: int, level: float = float(CONFIDENCE)) -> float:
    """The Clopper–Pearson lower bound on p, of `hits` ~ Binomial(samples, p): the p with P[X ≥ hits] = 1 − level.

    0 for no hits. Errors: ValueError unless 0 ≤ hits ≤ samples and samples ≥ 1.
    Clopper & Pearson, The use of confidence or fiducial limits, Biometrika 26, 1934.
    """
    _require(hits, samples)
    if hits == 0:
        return 0.0
    # half a second, for runs that have measured constraints alone
    from scipy.stats import beta

    return float(beta.ppf(1.0 - level, hits, samples - hits + 1))


def share_at_most(hits: int, samples: int, level: float = float(CONFIDENCE)) -> float:
    """The upper bound: the p with P[X ≤ hits] = 1 − level; 1 where every sample is a hit."""
    _require(hits, samples)
    if hits == samples:
        return 1.0
    from scipy.stats import beta

    return float(beta.ppf(level, hits + 1, samples - hits))


def _require(hits: int, samples: int) -> None:
    if samples < 1 or not 0 <= hits <= samples:
        raise ValueError(f"{hits} of {samples} samples")


def share(values: Array, side: Side) -> Interval:
    """The bound on the mean of 0/1 values from the given side."""
    hits, samples = int(values.sum()), len(values)
    found = share_at_least(hits, samples) if side == "≥" else share_at_most(hits, samples)
    return Interval(hits / samples, found, samples, "Clopper–Pearson")


def share_against(values: Array, base: Array, factor: float, side: Side) -> Interval:
    """The bound on E[v − factor·b] of 0/1 values v and b on the same samples.

    The mean is Σ c·P over the four cells (v, b) with c = v − factor·b; the probability of every cell with c ≠ 0 gets
    its own exact bound at level 1 − (1 − CONFIDENCE)/#cells, which hold together by Bonferroni's inequality. For
    factor 1 these are the two discordant cells.
    """
    _aligned(values, base)
    samples = len(values)
    cells = [(1.0 - factor, (values == 1) & (base == 1)), (1.0, (values == 1) & (base == 0))]
    cells.append((-factor, (values == 0) & (base == 1)))
    found = [(c, int(mask.sum())) for c, mask in cells if c != 0.0]
    level = 1.0 - (1.0 - float(CONFIDENCE)) / len(found)
    bound = 0.0
    for c, hits in found:
        low = (c > 0) == (side == "≥")
        bound += c * (share_at_least if low else share_at_most)(hits, samples, level)
    return Interval(float((values - factor * base).mean()), bound, samples, "paired, Clopper–Pearson")


def mean(values: Array, side: Side) -> Interval:
    """The normal bound ``x̄ ± z·s/√n``, s² the unbiased variance; ±∞ of a single sample."""
    return _normal(values, side, "normal")


def mean_against(values: Array, base: Array, factor: float, side: Side) -> Interval:
    """The normal bound on E[v − factor·b] from the differences on the same samples."""
    _aligned(values, base)
    return _normal(values - factor * base, side, "paired, normal")


def _normal(values: Array, side: Side, method: Method) -> Interval:
    n, sign = len(values), 1.0 if side == "≤" else -1.0
    centre = math.fsum(values.tolist()) / n
    if n < 2:
        return Interval(centre, sign * math.inf, n, method)
    from scipy.stats import norm

    spread = math.sqrt(math.fsum(((values - centre) ** 2).tolist()) / (n - 1) / n)
    return Interval(centre, centre + sign * float(norm.ppf(float(CONFIDENCE))) * spread, n, method)


def bernstein_reach(variance: float, width: float, samples: int, level: float = float(CONFIDENCE)) -> float:
    """How far the expectation may lie above the mean of n independent numbers in an interval of length R, with unbiased
    sample variance V: ``√(2V ln(2/δ)/n) + 7 R ln(2/δ)/(3(n − 1))``, δ = 1 − level; ∞ of a single one.

    Maurer & Pontil, Empirical Bernstein bounds and sample variance penalization, COLT 2009, theorem 4.
    """
    if samples < 2:
        return math.inf
    log = math.log(2.0 / (1.0 - level))
    return math.sqrt(2.0 * variance * log / samples) + 7.0 * width * log / (3.0 * (samples - 1))


def within(values: Array, high: float, side: Side, again: bool = False) -> Interval:
    """The empirical Bernstein bound on the mean of numbers in [0, high]. With `again`, so far on the safe side that the
    bound of as many fresh samples is likely to lie there too."""
    return _bernstein(values, high, side, "empirical Bernstein", again)


def within_against(
    values: Array, base: Array, factor: float, highs: tuple[float, float], side: Side, again: bool = False
) -> Interval:
    """The same on E[v − factor·b] with v in [0, highs[0]] and b in [0, highs[1]], from the differences on the same
    samples, which lie in an interval of length ``highs[0] + factor · highs[1]``."""
    _aligned(values, base)
    width = highs[0] + factor * highs[1]
    return _bernstein(values - factor * base, width, side, "paired, empirical Bernstein", again)


def _bernstein(values: Array, width: float, side: Side, method: Method, again: bool) -> Interval:
    n, sign = len(values), 1.0 if side == "≤" else -1.0
    centre = math.fsum(values.tolist()) / n
    variance = math.fsum(((values - centre) ** 2).tolist()) / (n - 1) if n > 1 else 0.0
    reach = bernstein_reach(variance, width, n)
    if again:
        reach += AGAIN * math.sqrt(2.0 * variance / n)
    return Interval(centre, centre + sign * reach, n, method)


def _aligned(values: Array, base: Array) -> None:
    if values.shape != base.shape:
        raise ValueError(f"{len(values)} samples are compared with {len(base)}")
