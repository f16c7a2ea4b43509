"""Confidence bounds against exact binomial tails, and how often they are true."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from prunelang.compiler.measured import fewest_samples
from prunelang.runtime import statistics
from prunelang.runtime.statistics import mean, mean_against, share, share_against, share_at_least, share_at_most

LEVEL = 0.95


def tail(hits: int, samples: int, p: Fraction, *, upper: bool) -> Fraction:
    """P[X ≥ hits] or P[X ≤ hits] of X ~ Binomial(samples, p), term by term in exact numbers."""
    ks = range(hits, samples + 1) if upper else range(hits + 1)
    return sum((math.comb(samples, k) * p**k * (1 - p) ** (samples - k) for k in ks), Fraction(0))


CASES = [(1, 1), (1, 2), (5, 10), (9, 10), (10, 10), (29, 30), (147, 149), (149, 149)]


@pytest.mark.parametrize(("hits", "samples"), CASES)
def test_the_lower_bound_is_where_the_upper_tail_is_five_percent(hits: int, samples: int) -> None:
    bound = share_at_least(hits, samples)
    low, high = (
        Fraction(bound) * Fraction(10**9 - 1, 10**9),
        min(Fraction(1), Fraction(bound) * Fraction(10**9 + 1, 10**9)),
    )
    assert tail(hits, samples, low, upper=True) <= Fraction(1, 20) <= tail(hits, samples, high, upper=True)


@pytest.mark.parametrize(("hits", "samples"), [(samples - hits, samples) for hits, samples in CASES])
def test_the_upper_bound_is_the_mirror_image(hits: int, samples: int) -> None:
    bound = share_at_most(hits, samples)
    assert bound == pytest.approx(1 - share_at_least(samples - hits, samples), abs=1e-12)
    assert float(tail(hits, samples, Fraction(bound), upper=False)) == pytest.approx(0.05, rel=1e-9)


def test_the_ends() -> None:
    assert share_at_least(0, 7) == 0.0
    assert share_at_most(7, 7) == 1.0
    for wrong in ((8, 7), (-1, 7), (0, 0)):
        with pytest.raises(ValueError, match="samples"):
            share_at_least(*wrong)
        with pytest.raises(ValueError, match="samples"):
            share_at_most(*wrong)


@pytest.mark.parametrize(("samples", "p"), [(20, 0.9), (50, 0.98), (50, 0.5)])
def test_the_statement_is_true_as_often_as_it_says(samples: int, p: float) -> None:
    """The exact coverage: the probability, over all outcomes, that the bound is at most p."""
    covered = 0.0
    for hits in range(samples + 1):
        chance = math.comb(samples, hits) * p**hits * (1 - p) ** (samples - hits)
        covered += chance if share_at_least(hits, samples) <= p else 0.0
    assert covered >= LEVEL


def test_a_share_is_the_interval_of_its_values() -> None:
    values = np.array([1.0] * 5912 + [0.0] * 88)
    found = share(values, "≥")
    assert (found.value, found.samples, found.method) == (5912 / 6000, 6000, "Clopper–Pearson")
    assert found.bound == share_at_least(5912, 6000)
    assert share(values, "≤").bound == share_at_most(5912, 6000)
    assert not found.asymptotic


def test_against_base_only_discordant_samples_count() -> None:
    """Two networks that differ on 3 of 1 000 samples are compared far more sharply than by two intervals."""
    base = np.array([1.0] * 970 + [0.0] * 30)
    values = base.copy()
    values[:2] = 0.0
    values[-1:] = 1.0
    found = share_against(values, base, 1.0, "≥")
    level = 1 - 0.05 / 2
    assert found.value == pytest.approx(-0.001)
    assert found.bound == pytest.approx(share_at_least(1, 1000, level) - share_at_most(2, 1000, level))
    assert found.bound > -0.008
    above = share_against(values, base, 1.0, "≤")
    assert above.bound == pytest.approx(share_at_most(1, 1000, level) - share_at_least(2, 1000, level))


def test_a_factor_counts_the_samples_that_both_have_right() -> None:
    base = np.array([1.0] * 90 + [0.0] * 10)
    values = np.array([1.0] * 80 + [0.0] * 10 + [1.0] * 5 + [0.0] * 5)
    found = share_against(values, base, 0.9, "≥")
    level = 1 - 0.05 / 3
    expected = (
        0.1 * share_at_least(80, 100, level) + share_at_least(5, 100, level) - 0.9 * share_at_most(10, 100, level)
    )
    assert found.value == pytest.approx(0.85 - 0.9 * 0.9)
    assert found.bound == pytest.approx(expected)


def test_paired_coverage_over_all_outcomes() -> None:
    """12 samples with cells (right, right), (right, wrong), (wrong, right), (wrong, wrong): every outcome, weighed."""
    chances, n = (0.6, 0.1, 0.2, 0.1), 12
    truth, covered = chances[1] - chances[2], 0.0
    for a in range(n + 1):
        for b in range(n - a + 1):
            for c in range(n - a - b + 1):
                d = n - a - b - c
                ways = math.factorial(n) // math.prod(map(math.factorial, (a, b, c, d)))
                chance = ways * math.prod(p**k for p, k in zip(chances, (a, b, c, d), strict=True))
                values = np.array([1.0] * (a + b) + [0.0] * (c + d))
                base = np.array([1.0] * a + [0.0] * b + [1.0] * c + [0.0] * d)
                covered += chance if share_against(values, base, 1.0, "≥").bound <= truth else 0.0
    assert covered >= LEVEL


def test_losses_have_the_normal_bound_and_say_so() -> None:
    values = np.random.default_rng(0).exponential(size=400)
    found = mean(values, "≤")
    spread = np.std(values, ddof=1) / 20
    assert found.bound == pytest.approx(values.mean() + 1.6448536269514722 * spread)
    assert mean(values, "≥").bound == pytest.approx(values.mean() - 1.6448536269514722 * spread)
    assert found.asymptotic
    assert mean(values[:1], "≤").bound == math.inf
    paired = mean_against(values, values - 0.5, 1.0, "≤")
    assert (paired.bound, paired.method) == (pytest.approx(0.5), "paired, normal")


def test_samples_of_two_splits_cannot_be_paired() -> None:
    for compare in (share_against, mean_against):
        with pytest.raises(ValueError, match="3 samples are compared with 4"):
            compare(np.ones(3), np.ones(4), 1.0, "≥")


@pytest.mark.parametrize(("floor", "needed"), [("0.95", 59), ("0.98", 149), ("0.99", 299), ("0.5", 5), ("0", 1)])
def test_the_fewest_samples_that_confirm_a_floor(floor: str, needed: int) -> None:
    assert fewest_samples(Fraction(floor)) == needed
    if needed > 1:
        assert share_at_least(needed, needed) >= float(floor) > share_at_least(needed - 1, needed - 1)


def test_a_floor_of_one_is_never_confirmed() -> None:
    assert fewest_samples(Fraction(1)) is None
    assert statistics.share_at_least(10**6, 10**6) < 1
