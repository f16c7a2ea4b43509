"""Weights and bias together against generic minimisers, for linear layers and convolutions; Gram sums of chunks."""

from __future__ import annotations

import cvxpy
import pytest
import torch
from torch import Tensor

from prunelang.runtime.blocks.layers import Convolution, Layer, Linear
from prunelang.runtime.blocks.weights import Gram, w_block
from tests.runtime.blocks.generic import minimiser, normal, square

LAYERS: list[Layer] = [Linear(6, 3), Linear(30, 2), Convolution((2, 5, 4), 3, (3, 2), (2, 1), (1, 0))]


def summed(layer: Layer, V: Tensor, R: Tensor, rows: int, known: Tensor | None = None) -> Gram:
    sums = Gram(layer, "cpu", known)
    for first in range(0, len(V), rows):
        sums.add(V[first : first + rows], R[first : first + rows])
    return sums


def case(layer: Layer, samples: int = 12) -> list[Tensor]:
    """V, U, W, b, target."""
    shapes = [(samples, *layer.input_shape), (samples, *layer.output_shape), layer.weight_shape]
    return [normal(*s, seed=k) for k, s in enumerate([*shapes, (layer.weight_shape[0],), layer.weight_shape])]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    ("rho", "tau", "alpha", "omega"), [(0.5, 0.3, 0.1, 0.0), (5.0, 0.0, 0.01, 0.2), (0.1, 5.0, 1.0, 0.7)]
)
def test_against_a_generic_minimiser(layer: Layer, rho: float, tau: float, alpha: float, omega: float) -> None:
    V, U, W, b, target = case(layer)
    n = len(V)
    sums = summed(layer, V, U - layer.apply(W, b, V), 5)
    aim = target if tau else None
    new_W, new_b = w_block(W, b, sums, n, rho=rho, alpha=alpha, tau=tau, target=aim, omega=omega)

    def f(w: Tensor, c: Tensor) -> Tensor:
        kernel = tau / 2 * square(w - target) + omega / 2 * square(w)
        return rho / 2 / n * square(U - layer.apply(w, c, V)) + kernel

    expected = minimiser(lambda w, c: f(w, c) + alpha / 2 * (square(w - W) + square(c - b)), [W, b])
    torch.testing.assert_close([new_W, new_b], expected, rtol=1e-5, atol=1e-6)
    fallen = f(W, b) - f(new_W, new_b)
    assert fallen >= (((omega + tau) / 2 + alpha) * square(new_W - W) + alpha * square(new_b - b)) * (1 - 1e-9)


@pytest.mark.parametrize("layer", LAYERS)
def test_chunks_add_up(layer: Layer) -> None:
    V, U, *_ = case(layer, samples=40)
    whole = summed(layer, V, U, 40)
    rows = torch.cat([layer.rows(V), torch.ones(len(layer.rows(V)), 1, dtype=torch.float64)], 1)
    torch.testing.assert_close(whole.gram, rows.T @ rows, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole.cross, layer.columns(U).T @ rows, rtol=1e-12, atol=1e-12)
    for size in (1, 7, 16):
        parts = summed(layer, V, U, size)
        torch.testing.assert_close(parts.gram, whole.gram, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(parts.cross, whole.cross, rtol=1e-12, atol=1e-12)


def test_against_a_conic_solver() -> None:
    layer = Linear(6, 3)
    V, U, W, b, target = case(layer)
    rho, tau, alpha, n = 0.5, 0.3, 0.1, len(V)
    w, c = cvxpy.Variable((3, 6)), cvxpy.Variable((1, 3))
    ones = torch.ones(n, 1, dtype=torch.float64).numpy()
    parts = (
        rho / 2 / n * cvxpy.sum_squares(U.numpy() - V.numpy() @ w.T - ones @ c),
        tau / 2 * cvxpy.sum_squares(w - target.numpy()),
        alpha / 2 * (cvxpy.sum_squares(w - W.numpy()) + cvxpy.sum_squares(c - b[None].numpy())),
    )
    cvxpy.Problem(cvxpy.Minimize(sum(parts))).solve(solver=cvxpy.CLARABEL)
    sums = summed(layer, V, U - layer.apply(W, b, V), 5)
    new_W, new_b = w_block(W, b, sums, n, rho=rho, alpha=alpha, tau=tau, target=target)
    torch.testing.assert_close(new_W, torch.from_numpy(w.value), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(new_b, torch.from_numpy(c.value[0]), rtol=1e-5, atol=1e-6)


def test_a_known_gram_is_used_and_left_alone() -> None:
    layer = Linear(6, 3)
    V, U, W, b, _ = case(layer)
    fresh = summed(layer, V, U, 4)
    known = fresh.gram.clone()
    again = summed(layer, V, U, 4, known)
    expected = w_block(W, b, fresh, len(V), rho=0.5, alpha=0.1)
    torch.testing.assert_close(w_block(W, b, again, len(V), rho=0.5, alpha=0.1), expected, rtol=0, atol=0)
    assert torch.equal(known, fresh.gram)


def test_weights_do_not_depend_on_the_size_of_the_data() -> None:
    """Every sample twice: the same minimiser."""
    layer = LAYERS[2]
    V, U, W, b, target = case(layer)
    R = U - layer.apply(W, b, V)
    once = w_block(W, b, summed(layer, V, R, 5), len(V), rho=0.5, alpha=0.1, tau=0.2, target=target)
    V2, R2 = torch.cat([V, V]), torch.cat([R, R])
    twice = w_block(W, b, summed(layer, V2, R2, 5), len(V2), rho=0.5, alpha=0.1, tau=0.2, target=target)
    torch.testing.assert_close(once, twice, rtol=1e-11, atol=1e-12)
