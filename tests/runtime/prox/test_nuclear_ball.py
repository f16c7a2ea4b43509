"""The nuclear ball against a conic solver and the singular values' own projection."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

from prunelang.runtime.prox.l1_ball import L1Ball
from prunelang.runtime.prox.nuclear import MARGIN, nuclear_norm, project_nuclear_
from prunelang.runtime.prox.nuclear_ball import NuclearBall


def naive(w: np.ndarray, kappa: float) -> np.ndarray:
    u, s, vh = np.linalg.svd(w, full_matrices=False)
    sigma = torch.from_numpy(s.copy())
    L1Ball(kappa).project_([sigma])
    return np.asarray((u * sigma.numpy()) @ vh)


@pytest.mark.parametrize("kappa", [0.0, 0.1, 1.0, 6.0, 100.0])
@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5), (1, 7)])
def test_against_the_ball_of_the_singular_values(shape: tuple[int, int], kappa: float) -> None:
    w = np.random.default_rng(1).standard_normal(shape)
    x = torch.from_numpy(w.copy())
    NuclearBall(kappa).project_([x])
    assert np.allclose(x.numpy(), naive(w, kappa), atol=1e-9)


@pytest.mark.parametrize("kappa", [0.5, 3.0])
def test_against_a_conic_solver(kappa: float) -> None:
    w = np.random.default_rng(2).standard_normal((4, 5))
    z = cp.Variable(w.shape)
    cp.Problem(cp.Minimize(cp.sum_squares(z - w)), [cp.norm(z, "nuc") <= kappa]).solve(solver=cp.SCS, eps=1e-7)
    x = torch.from_numpy(w.copy())
    NuclearBall(kappa).project_([x])
    assert np.allclose(x.numpy(), z.value, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_the_norm_of_the_rounded_entries_never_exceeds_the_bound(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(3)
    for _ in range(20):
        w = torch.randn(7, 3, 2, generator=g).to(dtype)
        kappa = float(torch.rand(1, generator=g)) * 12
        before = nuclear_norm(w)
        project_nuclear_(w, kappa)
        other = np.linalg.svd(w.double().numpy().reshape(7, 6), compute_uv=False).sum()  # another routine agrees
        assert other <= kappa
        assert nuclear_norm(w) >= min(before, kappa) * (1 - 40 * max(MARGIN, torch.finfo(dtype).eps))
