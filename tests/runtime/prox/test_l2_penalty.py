"""ℓ2 penalties against stationarity, and Moreau's identity with the ℓ2 ball."""

from __future__ import annotations

import pytest
import torch

from prunelang.runtime.prox.l2_ball import L2Ball
from prunelang.runtime.prox.l2_penalty import L2Penalty


def vector(seed: int) -> torch.Tensor:
    return torch.randn(40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_stationarity() -> None:
    """The gradient of ``f(z) + ‖z − x‖²/(2γ)``, by autograd, is zero at the prox."""
    for power in (1, 2):
        f = L2Penalty(0.3, power)  # type: ignore[arg-type]
        x, y = vector(0), vector(0)
        f.prox_([y], 0.8)
        z = y.clone().requires_grad_()
        (0.3 * z.norm() ** power + (z - x).square().sum() / 1.6).backward()
        assert z.grad is not None
        assert float(z.grad.abs().max()) < 1e-14


def test_moreau_identity_of_the_norm() -> None:
    x = vector(1)
    y, z = x.clone(), x / 0.6
    L2Penalty(2.0, power=1).prox_([y], 0.6)
    L2Ball(2.0).project_([z])
    assert torch.allclose(x, y + 0.6 * z, atol=1e-13)


def test_a_large_coefficient_zeroes_the_whole_vector() -> None:
    x = vector(2)
    L2Penalty(100.0, power=1).prox_([x], 1.0)
    assert int(x.count_nonzero()) == 0
    assert L2Penalty(0.5).value([torch.tensor([1.0, 2.0])]) == pytest.approx(2.5)
