"""Block budgets against every choice of blocks."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from prunelang.runtime.prox.blocks import Blocks


def blocks_of(tensors: list[Tensor], p: int, q: int) -> list[tuple[int, slice, slice]]:
    return [
        (t, slice(i, i + p), slice(j, j + q))
        for t, x in enumerate(tensors)
        for i in range(0, x.shape[0], p)
        for j in range(0, x.flatten(1).shape[1], q)
    ]


@pytest.mark.parametrize(("p", "q"), [(1, 1), (2, 2), (2, 3), (5, 1), (3, 9)])
def test_against_all_choices(p: int, q: int) -> None:
    g = torch.Generator().manual_seed(0)
    x = [torch.randint(-3, 4, (3, 4), generator=g).float(), torch.randint(-3, 4, (2, 1, 2), generator=g).float()]
    blocks = blocks_of(x, p, q)
    energies = [float(x[t].flatten(1)[i, j].square().sum()) for t, i, j in blocks]
    for kappa in range(min(len(blocks), 3) + 1):
        best = max(combinations(range(len(blocks)), kappa), key=lambda c: sum(energies[b] for b in c))
        expected = [torch.zeros_like(t) for t in x]
        for t, i, j in (blocks[b] for b in best):
            expected[t].flatten(1)[i, j] = x[t].flatten(1)[i, j]
        y = [t.clone() for t in x]
        Blocks(p, q, kappa).project_(y)
        assert all(torch.equal(a, b) for a, b in zip(y, expected, strict=True))
        assert Blocks(p, q, kappa).contains(y)


def test_refusal() -> None:
    with pytest.raises(ValueError, match="0 × 4"):
        Blocks(0, 4, 1)
