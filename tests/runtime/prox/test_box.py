"""Box against clipping one entry at a time, with bounds that the dtype cannot hold."""

from __future__ import annotations

import pytest
import torch

from prunelang.runtime.prox.box import Box, linf_ball


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_rounds_inward(dtype: torch.dtype) -> None:
    x = torch.randn(400, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = x.clone()
    Box(-1 / 3, 0.1).project_([y])
    assert all(-1 / 3 <= v <= 0.1 for v in y.tolist())
    inside = (x.double() >= -1 / 3) & (x.double() <= 0.1)
    assert torch.equal(y[inside], x[inside])
    assert float((y.double() - x.double().clamp(-1 / 3, 0.1)).abs().max()) <= torch.finfo(dtype).eps


def test_refusals_and_the_ball() -> None:
    with pytest.raises(ValueError, match="empty"):
        Box(1.0, 0.0)
    with pytest.raises(ValueError, match="bfloat16"):
        Box(0.1, 0.1).project_([torch.ones(2, dtype=torch.bfloat16)])
    x = torch.tensor([3.0, -0.5, -9.0])
    linf_ball(2.0).project_([x])
    assert x.tolist() == [2.0, -0.5, -2.0]
