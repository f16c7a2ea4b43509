"""Blocks of the last layer against a generic minimiser, and the fall of L that they promise."""

from __future__ import annotations

import pytest
import torch

from prunelang.runtime.blocks.outputs import u_last, v_last
from tests.runtime.blocks.generic import minimiser, normal, square

SETTINGS = [(0.5, 0.7, 0.3), (5.0, 0.1, 1.0), (0.01, 3.0, 0.02)]


@pytest.mark.parametrize(("gamma", "rho", "alpha"), SETTINGS)
def test_v(gamma: float, rho: float, alpha: float) -> None:
    Y, U, V = (normal(7, 3, seed=k) for k in range(3))
    found = v_last(Y, U, V, gamma=gamma, alpha=alpha)

    def f(v: torch.Tensor) -> torch.Tensor:
        return square(v - Y) / 2 + gamma / 2 * square(v - U)

    (expected,) = minimiser(lambda v: f(v) + alpha / 2 * square(v - V), [V])
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    assert f(V) - f(found) >= ((1 + gamma) / 2 + alpha) * square(found - V) * (1 - 1e-9)


@pytest.mark.parametrize(("gamma", "rho", "alpha"), SETTINGS)
def test_u(gamma: float, rho: float, alpha: float) -> None:
    V, Z, U = (normal(7, 3, seed=k) for k in range(3))
    found = u_last(V, Z, U, gamma=gamma, rho=rho, alpha=alpha)

    def f(u: torch.Tensor) -> torch.Tensor:
        return gamma / 2 * square(V - u) + rho / 2 * square(u - Z)

    (expected,) = minimiser(lambda u: f(u) + alpha / 2 * square(u - U), [U])
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    assert f(U) - f(found) >= ((gamma + rho) / 2 + alpha) * square(found - U) * (1 - 1e-9)


def test_labels_of_another_type() -> None:
    Y = torch.eye(3, dtype=torch.int64)
    U = V = torch.zeros(3, 3)
    assert torch.equal(v_last(Y, U, V, gamma=1.0, alpha=2.0), torch.eye(3) / 4)
