"""ℓ0 ball against every support of size κ."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from prunelang.runtime.prox.l0_ball import L0Ball


def naive(x: list[float], kappa: int) -> list[float]:
    """Of all supports of size κ the one that keeps the most energy; the first in index order among equals."""
    supports = combinations(range(len(x)), min(kappa, len(x)))
    best = max(supports, key=lambda s: sum(x[i] ** 2 for i in s))
    return [v if i in best else 0.0 for i, v in enumerate(x)]


def test_against_all_supports() -> None:
    g = torch.Generator().manual_seed(0)
    for _ in range(30):
        x = torch.randint(-3, 4, (9,), generator=g).double()
        for kappa in range(11):
            tensors = [x[:4].clone().view(2, 2), x[4:].clone()]
            L0Ball(kappa).project_(tensors)
            assert torch.cat([t.flatten() for t in tensors]).tolist() == naive(x.tolist(), kappa)


def test_bfloat16_ties_do_not_overshoot() -> None:
    """100 000 bfloat16 weights share few magnitudes: a threshold alone keeps more than asked."""
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(1)).bfloat16()
    L0Ball(5000).project_([x])
    assert int(x.count_nonzero()) == 5000


def test_value_and_refusal() -> None:
    assert L0Ball(1).value([torch.tensor([0.0, 1.0])]) == 0.0
    assert L0Ball(1).value([torch.tensor([2.0, 1.0])]) == float("inf")
    with pytest.raises(ValueError, match="-1"):
        L0Ball(-1)
