"""Soft thresholding against a grid search, and Moreau's identity with the ℓ∞ ball."""

from __future__ import annotations

import torch

from prunelang.runtime.prox.box import linf_ball
from prunelang.runtime.prox.l1_penalty import L1Penalty


def test_against_a_grid() -> None:
    grid = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
    for v in (-2.0, -0.3, 0.0, 0.8, 1.7):
        x = torch.tensor([v], dtype=torch.float64)
        L1Penalty(0.5).prox_([x], 1.2)
        best = grid[(0.5 * grid.abs() + (grid - v).square() / 2.4).argmin()]
        assert abs(float(x) - float(best)) < 2e-4


def test_moreau_identity() -> None:
    """``x = prox_{γf}(x) + γ Π(x/γ)`` with Π onto the ball of the dual norm, radius α."""
    x = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, z = x.clone(), x / 0.7
    L1Penalty(0.9).prox_([y], 0.7)
    linf_ball(0.9).project_([z])
    assert torch.allclose(x, y + 0.7 * z, atol=1e-14)


def test_half_precision_does_not_round_the_threshold() -> None:
    x = torch.tensor([1.0], dtype=torch.bfloat16)
    L1Penalty(0.2).prox_([x], 1.0)
    assert x.item() == torch.tensor(0.8).bfloat16().item()
    assert L1Penalty(2.0).value([torch.tensor([1.0, -3.0])]) == 8.0
