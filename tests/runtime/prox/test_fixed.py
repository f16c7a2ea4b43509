"""Fixed values against a search over all values, scaled ones against all assignments and the closed forms."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from prunelang.runtime.prox.fixed import nearest, scale, scaled_codes

SETS = [(-1.0, 1.0), (-1.0, 0.0, 1.0), (0.0, 1.0), (1.0, 3.0), (-2.0, 0.5, 1.0), (5.0, -1.0, 2.0, -4.0), (0.0,), (2.0,)]


def lost(v: Tensor, values: tuple[float, ...], dtype: torch.dtype = torch.float64) -> float:
    """‖v − s c‖² of what is found."""
    s = scale(v, values, dtype)
    made = s.double() * torch.tensor(values, dtype=torch.float64)[scaled_codes(v, s, values)]
    return float((v - made).square().sum())


def naive(v: Tensor, values: tuple[float, ...]) -> float:
    """The least ‖v − s c‖² over all assignments, each with its own best scale."""
    best = float(v.square().sum())
    for picked in product(values, repeat=len(v)):
        c = torch.tensor(picked, dtype=torch.float64)
        if (norm := float(c @ c)) > 0:
            best = min(best, float(v @ v) - float(v @ c) ** 2 / norm)
    return best


@pytest.mark.parametrize("values", SETS, ids=str)
def test_scaled_against_every_assignment(values: tuple[float, ...]) -> None:
    g = torch.Generator().manual_seed(3)
    for n in range(1, 7):
        for _ in range(6):
            v = torch.randn(n, generator=g, dtype=torch.float64) + torch.randn(1, generator=g, dtype=torch.float64)
            v[torch.rand(n, generator=g) < 0.2] = 0.0
            assert lost(v, values) == pytest.approx(naive(v, values), rel=1e-9, abs=1e-12)


def test_closed_forms() -> None:
    v = torch.randn(5000, generator=torch.Generator().manual_seed(0)).double()
    assert float(scale(v, (-1.0, 1.0), torch.float64)) == pytest.approx(float(v.abs().mean()), rel=1e-12)
    sums = v.abs().sort(descending=True).values.cumsum(0)
    j = int((sums / torch.arange(1, 5001).sqrt()).argmax()) + 1
    assert float(scale(v, (0.0, 1.0, -1.0), torch.float64)) == pytest.approx(float(sums[j - 1] / j), rel=1e-12)


def test_scale_is_of_the_type_and_codes_are_nearest_to_it() -> None:
    v = torch.randn(300, generator=torch.Generator().manual_seed(5)).double()
    for dtype in (torch.float16, torch.float32):
        s = scale(v, (-1.0, 0.0, 2.0), dtype)
        assert s.dtype == dtype
        assert s.shape == ()
        distances = (v[:, None] - s.double() * torch.tensor([-1.0, 0.0, 2.0])).abs()
        picked = scaled_codes(v, s, (-1.0, 0.0, 2.0))
        assert torch.equal(distances.gather(1, picked[:, None])[:, 0], distances.min(1).values)
        assert lost(v, (-1.0, 0.0, 2.0), dtype) == pytest.approx(lost(v, (-1.0, 0.0, 2.0)), rel=1e-5)


def test_nothing_to_explain() -> None:
    assert float(scale(torch.zeros(4), (-1.0, 1.0), torch.float32)) == 0.0
    assert float(scale(torch.ones(4), (0.0,), torch.float32)) == 0.0


def test_a_negative_scale() -> None:
    v = torch.tensor([-3.0, -3.0, 0.1])
    assert float(scale(v, (0.0, 1.0), torch.float32)) == -3.0
    assert scaled_codes(v, torch.tensor(-3.0), (0.0, 1.0)).tolist() == [1, 1, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_nearest_in_the_type(dtype: torch.dtype) -> None:
    values = (0.1, -1 / 3, 2.0, 0.7)
    v = torch.randn(400, generator=torch.Generator().manual_seed(2)).to(dtype)
    c = torch.tensor(values, dtype=dtype).double()
    distances = (v.double()[:, None] - c).abs()
    assert torch.equal(distances.gather(1, nearest(v, values, dtype)[:, None])[:, 0], distances.min(1).values)
    assert nearest(torch.tensor([1.0]), (2.0, 0.0), torch.float32).tolist() == [1]  # halfway: the lower
