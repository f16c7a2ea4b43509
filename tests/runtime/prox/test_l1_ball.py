"""ℓ1 ball against the sorted formula, a general solver, and exact sums."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from prunelang.runtime.prox.l1_ball import L1Ball
from prunelang.runtime.prox.sums import exact_power_sum


def naive(v: np.ndarray, kappa: float) -> np.ndarray:
    """Sort u = |v| downwards; ρ = max{j : u_j > (Σ_{i≤j} u_i − κ)/j}; t = (Σ_{i≤ρ} u_i − κ)/ρ."""
    u = np.sort(np.abs(v))[::-1]
    if u.sum() <= kappa:
        return v
    j = np.arange(1, u.size + 1)
    means = (np.cumsum(u) - kappa) / j
    rho = int(np.max(j[u > means], initial=1))
    return np.sign(v) * np.maximum(np.abs(v) - max(means[rho - 1], 0.0), 0.0)


@pytest.mark.parametrize("kappa", [0.0, 0.01, 0.5, 3.0, 40.0, 1e4])
def test_against_the_sorted_formula(kappa: float) -> None:
    rng = np.random.default_rng(0)
    for v in (rng.standard_normal(100), np.round(rng.standard_normal(100)), 10.0 ** rng.uniform(-9, 3, 100)):
        x = torch.from_numpy(v.copy())
        parts = [x[:30].view(5, 6), x[30:]]
        L1Ball(kappa).project_(parts)
        assert np.allclose(x.numpy(), naive(v, kappa), rtol=1e-10, atol=1e-13)


def test_against_a_general_solver() -> None:
    v = np.array([1.5, -0.2, 0.7, -2.0, 0.05])
    within = {"type": "ineq", "fun": lambda z: 1.3 - z.sum()}  # z ≥ 0 are the magnitudes
    start, signs = np.full(5, 0.1), [(0, None)] * 5
    found = minimize(lambda z: ((z - np.abs(v)) ** 2).sum(), start, bounds=signs, constraints=within)
    x = torch.from_numpy(v.copy())
    L1Ball(1.3).project_([x])
    assert np.allclose(x.numpy(), np.sign(v) * found.x, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_the_exact_sum_never_exceeds_the_bound(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    for _ in range(40):
        x = torch.randn(300, generator=g).to(dtype)
        kappa = float(torch.rand(1, generator=g)) * 200
        L1Ball(kappa).project_([x])
        total = sum((abs(Fraction(v)) for v in x.double().tolist()), Fraction(0))
        assert total == exact_power_sum([x], 1)
        assert total <= kappa
        assert float(total) >= kappa * (1 - 40 * torch.finfo(dtype).eps)
