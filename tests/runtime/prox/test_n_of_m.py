"""n of m against a loop over rows and cells."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prunelang.runtime.prox.n_of_m import NofM


def naive(matrix: Tensor, n: int, m: int) -> Tensor:
    """Each cell of m columns by a stable sort; the last one may be shorter."""
    out = torch.zeros_like(matrix)
    for i, row in enumerate(matrix):
        for start in range(0, len(row), m):
            cell = row[start : start + m].tolist()
            best = sorted(range(len(cell)), key=lambda j: (-abs(cell[j]), j))[:n]
            for j in best:
                out[i, start + j] = cell[j]
    return out


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 2), (3, 5), (0, 3), (4, 4), (2, 100)])
@pytest.mark.parametrize("shape", [(6, 12), (5, 7), (3, 4, 3, 3), (9,), (2, 0)])
def test_against_a_loop(n: int, m: int, shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(0)
    for x in (torch.randn(shape, generator=g), torch.randint(-2, 3, shape, generator=g).float()):
        y = x.clone()
        NofM(n, m).project_([y])
        assert torch.equal(y.flatten(), naive(x.reshape(shape[0], -1 if x.numel() else 0), n, m).flatten())


def test_contains_and_refusal() -> None:
    assert NofM(2, 4).contains([torch.tensor([[1.0, 0, 1, 0, 0, 0, 1, 1]])])
    assert not NofM(2, 4).contains([torch.tensor([[1.0, 0, 1, 1, 0, 0, 0, 0]])])
    assert not NofM(1, 4).contains([torch.tensor([[0.0, 0, 0, 0, 2, 1]])])
    with pytest.raises(ValueError, match="5:4"):
        NofM(5, 4)
