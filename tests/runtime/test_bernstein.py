"""The empirical Bernstein bound: its formula against a literal transcription, and how often it is true."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from prunelang.runtime.statistics import bernstein_reach, within, within_against


def literal(values: list[float], high: float) -> float:
    """Mean + √(2V ln(2/δ)/n) + 7R ln(2/δ)/(3(n − 1)) with V = Σ_{i<j} (x_i − x_j)²/(n(n − 1)), δ = 5 %."""
    n = len(values)
    v = sum((a - b) ** 2 for i, a in enumerate(values) for b in values[:i]) / (n * (n - 1))
    return sum(values) / n + math.sqrt(2 * v * math.log(40) / n) + 7 * high * math.log(40) / (3 * (n - 1))


def test_the_formula() -> None:
    values = np.random.default_rng(0).integers(0, 50, 40).astype(float)
    found = within(values, 50.0, "≤")
    assert found.bound == pytest.approx(literal(values.tolist(), 50.0), rel=1e-12)
    assert (found.method, found.samples, found.asymptotic) == ("empirical Bernstein", 40, False)
    below = within(values, 50.0, "≥")
    assert found.bound - found.value == pytest.approx(below.value - below.bound)


def test_against_base_it_is_the_bound_of_the_differences_over_both_ranges() -> None:
    rng = np.random.default_rng(1)
    v, b = rng.integers(0, 20, 30).astype(float), rng.integers(0, 90, 30).astype(float)
    found = within_against(v, b, 0.3, (20.0, 90.0), "≤")
    assert found.bound == pytest.approx(literal((v - 0.3 * b).tolist(), 20.0 + 0.3 * 90.0), rel=1e-12)
    assert found.method == "paired, empirical Bernstein"
    with pytest.raises(ValueError, match="30 samples are compared with 29"):
        within_against(v, b[1:], 0.3, (20.0, 90.0), "≤")


def test_it_narrows_as_samples_come_and_says_nothing_of_one() -> None:
    reaches = [bernstein_reach(4.0, 10.0, n) for n in (2, 10, 100, 1000, 10_000)]
    assert all(a > b for a, b in pairwise(reaches))
    assert reaches[-1] < 0.07
    assert within(np.array([3.0]), 10.0, "≤").bound == math.inf


@pytest.mark.parametrize("samples", [20, 100, 400])
@pytest.mark.parametrize("kind", ["rare", "uniform", "mixed"])
def test_coverage(kind: str, samples: int) -> None:
    """Of 2000 data sets, the true mean lies above the bound in no more than 5 % (and their noise)."""
    rng = np.random.default_rng(samples)
    wrong = 0
    for _ in range(2000):
        if kind == "rare":  # the hard case: most samples show nothing
            values, true = 100.0 * (rng.random(samples) < 0.02), 2.0
        elif kind == "uniform":
            values, true = rng.integers(0, 101, samples).astype(float), 50.0
        else:
            values, true = rng.binomial(100, rng.choice([0.1, 0.6], samples)).astype(float), 35.0
        wrong += within(values, 100.0, "≤").bound < true
    assert wrong <= 0.05 * 2000


def test_coverage_of_paired_differences_and_what_pairing_wins() -> None:
    rng = np.random.default_rng(5)
    wrong, narrower = 0, 0
    for _ in range(1000):
        base = rng.binomial(200, rng.choice([0.2, 0.8], 200)).astype(float)
        values = rng.binomial(base.astype(int), 0.3).astype(float)  # E[v − 0.3 b] = 0
        found = within_against(values, base, 0.3, (200.0, 200.0), "≤")
        wrong += found.bound < 0.0
        narrower += np.std(values - 0.3 * base) < np.std(values)
    assert wrong <= 50
    assert narrower == 1000


def test_room_for_fresh_samples() -> None:
    """With `again` a mean that is just allowed here is rarely refused on as many fresh samples."""
    rng = np.random.default_rng(6)
    refused = {False: 0, True: 0}
    for _ in range(1000):
        first, fresh = rng.gamma(2.0, 5.0, (2, 300)).clip(max=100.0)
        for again in refused:
            limit = within(first, 100.0, "≤", again).bound
            refused[again] += within(fresh, 100.0, "≤").bound > limit
    assert refused[False] > 300
    assert refused[True] < 60
