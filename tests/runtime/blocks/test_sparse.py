"""The count of non-zeros against every support, with a weight for each tensor."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from prunelang.runtime.blocks.sparse import sparse_block
from tests.runtime.blocks.generic import normal, square


def value(S: list[Tensor], W: list[Tensor], tau: list[float]) -> Tensor:
    return sum((t / 2 * square(w - s) for s, w, t in zip(S, W, tau, strict=True)), torch.zeros(()))


@pytest.mark.parametrize(
    ("tau", "alpha"), [([0.5, 0.5], [0.1, 0.1]), ([5.0, 0.2], [0.01, 1.0]), ([1.0, 1.0], [0.5, 4.0])]
)
@pytest.mark.parametrize("seed", range(5))
def test_against_every_support(tau: list[float], alpha: list[float], seed: int) -> None:
    W, S = (
        [normal(2, 3, seed=seed), normal(4, seed=10 + seed)],
        [normal(2, 3, seed=20 + seed), normal(4, seed=30 + seed)],
    )
    S[0][0] = 0
    t = torch.cat([torch.full((x.numel(),), v) for x, v in zip(W, tau, strict=True)])
    a = torch.cat([torch.full((x.numel(),), v) for x, v in zip(W, alpha, strict=True)])
    w, s = torch.cat([x.flatten() for x in W]), torch.cat([x.flatten() for x in S])

    def phi(x: Tensor) -> float:
        return (t / 2 * (w - x).square() + a / 2 * (x - s).square()).sum().item()

    for kappa in (0, 1, 4, 9, 10, 50):
        found = sparse_block(W, S, kappa, tau=tau, alpha=alpha)
        flat = torch.cat([x.flatten() for x in found])
        assert flat.count_nonzero() <= kappa
        best = float("inf")
        for support in combinations(range(10), min(kappa, 10)):
            x = torch.zeros(10, dtype=torch.float64)
            x[list(support)] = ((t * w + a * s) / (t + a))[list(support)]
            best = min(best, phi(x))
        assert phi(flat) == pytest.approx(best, rel=1e-12)


def test_decrease_from_a_feasible_point() -> None:
    W, zero = [normal(40, 5, seed=0)], torch.zeros(40, 5, dtype=torch.float64)
    S = sparse_block([normal(40, 5, seed=1)], [zero], 30, tau=[1.0], alpha=[1.0])
    before = [S[0].clone()]
    new = sparse_block(W, S, 30, tau=[0.7], alpha=[0.2])
    assert torch.equal(S[0], before[0])  # the old iterate, should the new one be refused
    assert value(S, W, [0.7]) - value(new, W, [0.7]) >= 0.1 * square(new[0] - S[0]) * (1 - 1e-12)
