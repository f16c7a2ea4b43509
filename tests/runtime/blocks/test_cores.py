"""Sweeps over cores against least squares in each core, one after the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prunelang.runtime.blocks.cores import balanced, compose_cores, interleaved, sweep_cores, sweep_factors
from tests.runtime.blocks.generic import normal, square

CASES = [
    (((2, 3), (3, 2), (2, 2)), (2, 3)),
    (((4, 1), (1, 5)), (3,)),
    (((2, 2), (2, 3), (3, 2), (2, 1)), (4, 6, 2)),
    (((5, 4),), ()),
    (((2, 2), (2, 2)), (7,)),
]


def made(modes: tuple[tuple[int, int], ...], ranks: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    bonds = (1, *ranks, 1)
    return [normal(bonds[k], m, n, bonds[k + 1], seed=seed + k) for k, (m, n) in enumerate(modes)]


def naive_compose(cores: list[Tensor], modes: tuple[tuple[int, int], ...]) -> Tensor:
    """Entry by entry: ``W[(i₁ … i_d), (j₁ … j_d)] = G₁[i₁, j₁] ⋯ G_d[i_d, j_d]``."""
    rows = torch.cartesian_prod(*(torch.arange(m) for m, _ in modes)).view(-1, len(modes))
    columns = torch.cartesian_prod(*(torch.arange(n) for _, n in modes)).view(-1, len(modes))
    W = torch.empty(len(rows), len(columns), dtype=torch.float64)
    for a, i in enumerate(rows.tolist()):
        for c, j in enumerate(columns.tolist()):
            made = torch.eye(1, dtype=torch.float64)
            for core, x, y in zip(cores, i, j, strict=True):
                made = made @ core[:, x, y]
            W[a, c] = made
    return W


def naive_core(
    W: Tensor, cores: list[Tensor], modes: tuple[tuple[int, int], ...], k: int, tau: float, alpha: float
) -> Tensor:
    """The composed matrix is linear in one core: its columns from unit cores, then a stacked least-squares problem."""
    size = cores[k].numel()
    columns = [
        compose_cores([*cores[:k], unit.view(cores[k].shape), *cores[k + 1 :]], modes).flatten()
        for unit in torch.eye(size, dtype=torch.float64)
    ]
    A = torch.cat([torch.stack(columns, 1) * tau**0.5, torch.eye(size, dtype=torch.float64) * alpha**0.5])
    y = torch.cat([W.flatten() * tau**0.5, cores[k].flatten() * alpha**0.5])
    return torch.linalg.lstsq(A, y[:, None], driver="gelsd").solution.view(cores[k].shape)


@pytest.mark.parametrize(("modes", "ranks"), CASES)
@pytest.mark.parametrize(("tau", "alpha"), [(0.5, 0.1), (5.0, 1e-6), (0.01, 2.0)])
def test_a_sweep_is_least_squares_in_each_core(
    modes: tuple[tuple[int, int], ...], ranks: tuple[int, ...], tau: float, alpha: float
) -> None:
    cores = made(modes, ranks)
    W = normal(*compose_cores(cores, modes).shape, seed=50)
    found = sweep_cores(W, cores, modes, tau=tau, alpha=alpha)
    expected, value = list(cores), tau / 2 * square(W - compose_cores(cores, modes))
    for k in range(len(cores)):
        expected[k] = naive_core(W, expected, modes, k, tau, alpha)
        lower = tau / 2 * square(W - compose_cores([*found[: k + 1], *cores[k + 1 :]], modes))
        assert lower <= value - alpha * square(found[k] - cores[k]) * (1 - 1e-9) + 1e-13
        value = lower
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("modes", "ranks"), CASES)
def test_composing(modes: tuple[tuple[int, int], ...], ranks: tuple[int, ...]) -> None:
    cores = made(modes, ranks)
    W = compose_cores(cores, modes)
    torch.testing.assert_close(W, naive_compose(cores, modes), rtol=1e-12, atol=1e-12)
    chain = cores[0].reshape(-1, cores[0].shape[3])
    for core in cores[1:]:
        chain = (chain @ core.flatten(1)).view(-1, core.shape[3])
    torch.testing.assert_close(interleaved(W, modes).flatten(), chain.flatten(), rtol=1e-12, atol=1e-12)


def test_low_rank_is_ridge_regression() -> None:
    W, U, V, tau, alpha = normal(6, 9, seed=0), normal(6, 3, seed=1), normal(3, 9, seed=2), 0.7, 0.2
    new_U, new_V = sweep_factors(W, U, V, tau=tau, alpha=alpha)
    eye = torch.eye(3, dtype=torch.float64)
    expected_U = torch.linalg.solve(tau * V @ V.T + alpha * eye, (tau * W @ V.T + alpha * U).T).T
    expected_V = torch.linalg.solve(tau * new_U.T @ new_U + alpha * eye, tau * new_U.T @ W + alpha * V)
    torch.testing.assert_close([new_U, new_V], [expected_U, expected_V], rtol=1e-11, atol=1e-11)
    kernel = W.view(6, 1, 3, 3)
    torch.testing.assert_close(sweep_factors(kernel, U, V, tau=tau, alpha=alpha), (new_U, new_V), rtol=0, atol=0)


def test_sweeps_reach_a_tensor_that_is_a_train() -> None:
    """Without noise, and α far below τ, sweeps come back to a train from near it; never upwards on the way."""
    modes, ranks = ((3, 2), (2, 3), (2, 2)), (2, 2)
    W = compose_cores(made(modes, ranks), modes)
    cores = [g + 0.1 * normal(*g.shape, seed=9 + k) for k, g in enumerate(made(modes, ranks))]
    last = square(W - compose_cores(cores, modes))
    for _ in range(30):
        cores = sweep_cores(W, cores, modes, tau=1.0, alpha=1e-3)
        error = square(W - compose_cores(cores, modes))
        assert error <= last * (1 + 1e-12) + 1e-20
        last = error
    assert last < 1e-10 * square(W)


def test_singular_interfaces() -> None:
    """Cores of zeros leave nothing to solve for: only the proximal term, and the cores stay where they are."""
    modes = ((2, 3), (3, 2), (2, 2))
    zeros = [torch.zeros_like(g) for g in made(modes, (2, 3))]
    W = normal(12, 12, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(sweep_cores(W, zeros, modes, tau=1.0, alpha=0.1), zeros, strict=True))


def test_balanced() -> None:
    modes = ((2, 3), (3, 2), (2, 2))
    cores = [g * 10.0**k for k, g in enumerate(made(modes, (2, 3)))]
    even = balanced(cores)
    torch.testing.assert_close(compose_cores(even, modes), compose_cores(cores, modes), rtol=1e-12, atol=1e-12)
    norms = [g.norm().item() for g in even]
    assert norms == pytest.approx([norms[0]] * 3)
    cores[1] = torch.zeros_like(cores[1])
    assert all(torch.equal(a, b) for a, b in zip(balanced(cores), cores, strict=True))
