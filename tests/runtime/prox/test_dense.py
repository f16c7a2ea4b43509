"""Everything is kept."""

from __future__ import annotations

import torch

from prunelang.runtime.prox.dense import Dense


def test_is_the_identity() -> None:
    x = torch.randn(5, generator=torch.Generator().manual_seed(0))
    y = x.clone()
    Dense().project_([y])
    assert torch.equal(x, y)
    assert Dense().value([x]) == 0.0
