"""The exact codebook against every partition of small inputs, against a plain dynamic program, and its time."""

from __future__ import annotations

from itertools import combinations, pairwise, product
from time import process_time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunelang.runtime.prox import codebook
from prunelang.runtime.prox.codebook import centres, clusters, codes


def cost(x: np.ndarray, m: np.ndarray, cuts: tuple[int, ...]) -> float:
    """``Σ m (x − mean)²`` over the intervals between cuts, one at a time."""
    total = 0.0
    for a, b in pairwise(cuts):
        mean = float(np.average(x[a:b], weights=m[a:b]))
        total += float((m[a:b] * (x[a:b] - mean) ** 2).sum())
    return total


def naive(x: np.ndarray, m: np.ndarray, k: int) -> float:
    """The least cost over all cuts."""
    return min(cost(x, m, (0, *cuts, len(x))) for cuts in combinations(range(1, len(x)), k - 1))


def plain(x: np.ndarray, m: np.ndarray, k: int) -> float:
    """``F_q[b] = min_a F_{q−1}[a] + cost(a, b)`` over all a, in O(k n²)."""
    n, x = len(x), x - np.average(x, weights=m)
    N, S, Q = (np.concatenate(([0.0], np.cumsum(f))) for f in (m, m * x, m * x * x))
    F = np.full(n + 1, np.inf)
    F[0] = 0.0
    for _ in range(k):
        G = F.copy()
        F = np.full(n + 1, np.inf)
        for b in range(1, n + 1):
            a = np.arange(b)
            F[b] = (G[a] + Q[b] - Q[a] - (S[b] - S[a]) ** 2 / (N[b] - N[a])).min()
    return float(F[n])


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grids so coarse that small inputs go through several rounds of bounds and splits."""
    monkeypatch.setattr(codebook, "CELLS", 6)
    monkeypatch.setattr(codebook, "SPLIT", 2)


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_every_partition(k: int) -> None:
    random = np.random.default_rng(k)
    for n in range(k, 13):
        x = np.unique(random.standard_normal(n) * random.choice([1.0, 1e4]) + random.choice([0.0, 1e3]))
        m = random.integers(1, 9, len(x))
        cuts = tuple(int(c) for c in clusters(x, m, k))
        assert cuts[0] == 0
        assert cuts[-1] == len(x)
        assert len(cuts) == k + 1
        assert all(np.diff(cuts) > 0)
        assert cost(x, m, cuts) == pytest.approx(naive(x, m, k), rel=1e-9, abs=1e-15 * float((m * x * x).sum()))


def test_no_other_assignment_is_nearer() -> None:
    """Codes that are no intervals cannot win: all k^n assignments of a few values."""
    v = torch.tensor([0.3, -1.2, 0.31, 2.0, -1.1, 0.9, 0.3])
    c = centres(v, 3, torch.float64)
    found = float((v.double() - c[codes(v, c)]).square().sum())
    best = min(
        sum(
            float((part - part.mean()).square().sum())
            for j in range(3)
            if len(part := v.double()[torch.tensor(a) == j])
        )
        for a in product(range(3), repeat=len(v))
    )
    assert found == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("law", ["normal", "spikes", "integers", "uniform grid", "two scales"])
@pytest.mark.parametrize("k", [2, 3, 7, 16])
def test_plain_dynamic_program(law: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codebook, "CELLS", 20)
    random = np.random.default_rng(7)
    drawn = {
        "normal": random.standard_normal(400),
        "spikes": np.concatenate([random.normal(c, 1e-3, 100) for c in (-2, -1.99, 0, 5)]),
        "integers": random.integers(-30, 30, 400).astype(float),
        "uniform grid": np.arange(300) / 7,  # many cuts that are equally good
        "two scales": np.concatenate([random.normal(0, 1e-4, 200), random.normal(0, 10, 200)]),
    }[law]
    x, m = np.unique(drawn, return_counts=True)
    cuts = tuple(int(c) for c in clusters(x, m, k))
    spread = float((m * (x - np.average(x, weights=m)) ** 2).sum())  # costs are differences of sums as large as this
    assert cost(x, m, cuts) == pytest.approx(plain(x, m.astype(float), k), rel=1e-9, abs=1e-12 * spread)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9), st.integers(1, 5))
def test_ties_and_repeats(values: list[int], k: int) -> None:
    v = torch.tensor(values, dtype=torch.float32)
    x, m = np.unique(v.double().numpy(), return_counts=True)
    c = centres(v, k, torch.float32)
    assert c.shape == (k,)
    assert bool((c[1:] >= c[:-1]).all())
    found = float((v.double() - c.double()[codes(v, c)]).square().sum())
    assert found == pytest.approx(naive(x, m, min(k, len(x))), rel=1e-5, abs=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_codes_are_nearest_and_centres_are_of_the_type(dtype: torch.dtype) -> None:
    v = torch.randn(500, generator=torch.Generator().manual_seed(1)).to(dtype).double()
    c = centres(v, 5, dtype)
    assert c.dtype == dtype
    distances = (v[:, None] - c.double()).abs()
    assert torch.equal(distances.gather(1, codes(v, c)[:, None])[:, 0], distances.min(1).values)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no codebook of 0 values"):
        clusters(np.zeros(1), np.ones(1, np.int64), 0)
    with pytest.raises(ValueError, match="over 0 of them"):
        clusters(np.zeros(0), np.ones(0, np.int64), 2)


@pytest.mark.parametrize(("k", "seconds"), [(2, 0.5), (4, 0.8), (16, 2.0)])
def test_a_whole_network_is_exact_in_time(k: int, seconds: float) -> None:
    """266 200 weights, as of LeNet-300-100: no approximation by size. No single cut can be moved to win."""
    g = torch.Generator().manual_seed(0)
    v = torch.cat([torch.randn(n, generator=g) * s for n, s in ((235_200, 0.05), (30_000, 0.1), (1_000, 0.2))])
    start = process_time()
    c = centres(v, k, torch.float64)
    assert process_time() - start < seconds
    found = (v.double() - c[codes(v, c)]).square().sum()
    for shift in (-1e-3, 1e-3):
        for j in range(k):
            moved = c.clone()
            moved[j] += shift
            assert (v.double() - moved[codes(v, moved)]).square().sum() > found
