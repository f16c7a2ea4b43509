"""Group ℓ0 against a loop over groups."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prunelang.runtime.prox.group_l0 import GroupL0


def groups_of(x: Tensor, by: str) -> list[Tensor]:
    """Views of the groups, from their definition."""
    matrix = x.view(x.shape[0], -1)
    if by == "channel":
        return [x.select(1, c) for c in range(x.shape[1])]
    return [matrix[:, j] for j in range(matrix.shape[1])] if by == "column" else [matrix[i] for i in range(len(matrix))]


@pytest.mark.parametrize("by", ["filter", "row", "channel", "column"])
def test_against_a_loop(by: str) -> None:
    g = torch.Generator().manual_seed(0)
    for _ in range(10):
        x = [torch.randint(-2, 3, s, generator=g).float() for s in ((3, 2, 2, 2), (4, 5))]
        for kappa in range(8):
            y, expected = [t.clone() for t in x], [t.clone() for t in x]
            groups = [v for t in expected for v in groups_of(t, by)]
            order = sorted(range(len(groups)), key=lambda i: (-float(groups[i].square().sum()), i))
            for i in order[kappa:]:
                groups[i].zero_()
            GroupL0(kappa, by).project_(y)
            assert all(torch.equal(a, b) for a, b in zip(y, expected, strict=True))
            assert GroupL0(kappa, by).contains(y)


def test_refusal() -> None:
    with pytest.raises(ValueError, match="by head"):
        GroupL0(3, "head")
