"""Singular value thresholding against a conic solver."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

from prunelang.runtime.prox.nuclear_penalty import NuclearPenalty


@pytest.mark.parametrize(("weight", "gamma"), [(0.3, 0.7), (1.0, 1.0), (5.0, 2.0), (0.0, 1.0)])
def test_against_a_conic_solver(weight: float, gamma: float) -> None:
    w = np.random.default_rng(4).standard_normal((4, 5))
    z = cp.Variable(w.shape)
    objective = weight * cp.norm(z, "nuc") + cp.sum_squares(z - w) / (2 * gamma)
    cp.Problem(cp.Minimize(objective)).solve(solver=cp.SCS, eps=1e-7)
    x = [torch.from_numpy(w.copy())]
    NuclearPenalty(weight).prox_(x, gamma)
    assert np.allclose(x[0].numpy(), z.value, atol=1e-4)
    assert NuclearPenalty(weight).value(x) == pytest.approx(weight * np.linalg.norm(x[0].numpy(), "nuc"))


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (4, 2, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_singular_values_shrink_by_the_threshold(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = np.linalg.svd(x.double().numpy().reshape(shape[0], -1), compute_uv=False)
    NuclearPenalty(1.0).prox_([x], 0.9)
    after = np.linalg.svd(x.double().numpy().reshape(shape[0], -1), compute_uv=False)
    assert np.allclose(after, np.maximum(before - 0.9, 0), atol=1e-5 if dtype == torch.float32 else 1e-12)
