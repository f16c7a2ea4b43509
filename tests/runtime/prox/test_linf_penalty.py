"""ℓ∞ penalty against Moreau's identity and a search over the level."""

from __future__ import annotations

import torch

from prunelang.runtime.prox.l1_ball import L1Ball
from prunelang.runtime.prox.linf_penalty import LinfPenalty


def test_moreau_identity() -> None:
    for alpha in (0.0, 0.4, 5.0, 500.0):
        x = torch.randn(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        y, z = x.clone(), x / 0.7
        LinfPenalty(alpha).prox_([y], 0.7)
        L1Ball(alpha).project_([z])
        assert torch.allclose(x, y + 0.7 * z, atol=1e-12)


def test_against_all_levels() -> None:
    """The prox clips at some level s: the best of a fine grid is no better."""
    x = torch.tensor([2.0, -1.5, 0.2, 0.9], dtype=torch.float64)
    y = x.clone()
    LinfPenalty(0.8).prox_([y], 1.0)
    levels = torch.linspace(0, 2, 20_001, dtype=torch.float64)
    costs = 0.8 * levels + (x.abs() - levels[:, None]).clamp_min(0).square().sum(1) / 2
    assert abs(float(y.abs().max()) - float(levels[costs.argmin()])) < 2e-4
    assert LinfPenalty(2.0).value([x]) == 4.0
