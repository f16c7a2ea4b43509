"""ℓ2 ball against the formula in high precision, its square, and exact sums."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from prunelang.runtime.prox.l2_ball import L2Ball
from prunelang.runtime.prox.sums import exact_power_sum


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("power", [1, 2])
def test_scales_and_rounds_inward(dtype: torch.dtype, power: int) -> None:
    g = torch.Generator().manual_seed(0)
    for _ in range(30):
        v = torch.randn(200, generator=g).to(dtype)
        kappa = 20 * float(torch.rand(1, generator=g))
        radius = kappa if power == 1 else kappa**0.5
        x = [v[:50].clone(), v[50:].clone()]
        L2Ball(kappa, power).project_(x)  # type: ignore[arg-type]
        found = torch.cat(x)
        exact = sum((Fraction(e) ** 2 for e in found.double().tolist()), Fraction(0))
        assert exact == exact_power_sum(x, 2)
        assert exact <= Fraction(kappa) ** (2 // power)
        wanted = v.double() * min(1.0, radius / float(v.double().norm()))
        assert torch.allclose(found.double(), wanted, rtol=8 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).tiny)


def test_extreme_magnitudes() -> None:
    for size in (1e-200, 1e90):
        x = torch.tensor([3.0, 4.0], dtype=torch.float64) * size
        L2Ball(1e-210).project_([x])
        assert torch.allclose(x * 1e210, torch.tensor([0.6, 0.8], dtype=torch.float64))
