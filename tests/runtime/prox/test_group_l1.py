"""Block soft thresholding against stationarity of every group."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prunelang.runtime.prox.group_l1 import GroupL1


def groups_of(x: Tensor, by: str) -> Tensor:
    """One group a row, from their definition."""
    if by == "channel":
        return x.transpose(0, 1).reshape(x.shape[1], -1)
    matrix = x.reshape(x.shape[0], -1)
    return matrix.t() if by == "column" else matrix


@pytest.mark.parametrize("by", ["filter", "row", "channel", "column"])
def test_stationarity_of_each_group(by: str) -> None:
    """``(x_g − y_g)/γ = α y_g/‖y_g‖`` where y_g ≠ 0, and ``‖x_g‖ ≤ αγ`` where y_g = 0."""
    x = torch.randn(6, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[2] *= 0.1
    y = x.clone()
    GroupL1(1.1, by).prox_([y], 0.9)
    zeros = 0
    for a, b in zip(groups_of(x, by), groups_of(y, by), strict=True):
        if b.any():
            assert torch.allclose((a - b) / 0.9, 1.1 * b / b.norm(), atol=1e-13)
        else:
            zeros += 1
            assert float(a.norm()) <= 1.1 * 0.9
    assert zeros == (1 if by in ("filter", "row") else 0)
    expected = 1.1 * float(groups_of(x, by).norm(dim=1).sum())
    assert GroupL1(1.1, by).value([x]) == pytest.approx(expected)


def test_refusal() -> None:
    with pytest.raises(ValueError, match="head"):
        GroupL1(1.0, "head")
