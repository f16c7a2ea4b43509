"""Blocks of hidden activations against generic minimisers; residuals of the conjugate gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prunelang.runtime.blocks.hidden import gain, v_convolution, v_linear
from prunelang.runtime.blocks.layers import Convolution, Layer, Linear
from tests.runtime.blocks.generic import minimiser, normal, square

CONVOLUTION = Convolution((2, 5, 4), 3, (3, 2), (2, 1), (1, 0))


def case(layer: Layer, samples: int = 3, seed: int = 0) -> list[Tensor]:
    """U, V, U_next, W, b."""
    shapes = [(samples, *layer.input_shape)] * 2 + [(samples, *layer.output_shape), layer.weight_shape]
    return [normal(*s, seed=seed + k) for k, s in enumerate([*shapes, (layer.weight_shape[0],)])]


def part(layer: Layer, U: Tensor, U_next: Tensor, W: Tensor, b: Tensor, gamma: float, rho: float, v: Tensor) -> Tensor:
    return gamma / 2 * square(v - U.relu()) + rho / 2 * square(U_next - layer.apply(W, b, v))


@pytest.mark.parametrize("layer", [Linear(7, 3), Linear(4, 6), Linear(5, 5)])
@pytest.mark.parametrize(("gamma", "rho", "alpha"), [(0.5, 0.7, 0.1), (0.1, 5.0, 0.01), (5.0, 0.1, 1.0)])
def test_linear(layer: Linear, gamma: float, rho: float, alpha: float) -> None:
    U, V, U_next, W, b = case(layer)
    K = gain(W, gamma=gamma, rho=rho, alpha=alpha)
    found = v_linear(U, V, U_next, W, b, K, gamma=gamma, alpha=alpha)

    def f(v: Tensor) -> Tensor:
        return part(layer, U, U_next, W, b, gamma, rho, v)

    (expected,) = minimiser(lambda v: f(v) + alpha / 2 * square(v - V), [V])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    A = rho * W.T @ W + (gamma + alpha) * torch.eye(layer.inputs, dtype=torch.float64)
    rhs = rho * (U_next - b) @ W + gamma * U.relu() + alpha * V
    torch.testing.assert_close(found, torch.linalg.solve(A, rhs.T).T, rtol=1e-11, atol=1e-11)
    assert f(V) - f(found) >= (gamma / 2 + alpha) * square(found - V) * (1 - 1e-9)


def test_linear_behind_a_flattened_image() -> None:
    layer = Linear(12, 3)
    U, V, U_next, W, b = case(layer)
    K = gain(W, gamma=0.5, rho=1.0, alpha=0.2)
    flat = v_linear(U, V, U_next, W, b, K, gamma=0.5, alpha=0.2)
    image = v_linear(U.view(3, 3, 2, 2), V.view(3, 3, 2, 2), U_next, W, b, K, gamma=0.5, alpha=0.2)
    assert torch.equal(image.flatten(1), flat)


def test_inputs_are_left_alone() -> None:
    for layer in (Linear(7, 3), CONVOLUTION):
        tensors = case(layer)
        before = [t.clone() for t in tensors]
        U, V, U_next, W, b = tensors
        if isinstance(layer, Linear):
            v_linear(U, V, U_next, W, b, gain(W, gamma=1.0, rho=1.0, alpha=1.0), gamma=1.0, alpha=1.0)
        else:
            v_convolution(layer, U, V, U_next, W, b, gamma=1.0, rho=1.0, alpha=1.0)
        assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True))


@pytest.mark.parametrize(("gamma", "rho", "alpha"), [(0.5, 0.7, 0.1), (0.1, 5.0, 0.01), (5.0, 0.1, 1.0)])
def test_convolution(gamma: float, rho: float, alpha: float) -> None:
    layer = CONVOLUTION
    U, V, U_next, W, b = case(layer)
    found = v_convolution(
        layer, U, V, U_next, W, b, gamma=gamma, rho=rho, alpha=alpha, tolerance=1e-10, most=400
    )  # fmt: skip
    assert found.residual.item() <= 1e-10

    def f(v: Tensor) -> Tensor:
        return part(layer, U, U_next, W, b, gamma, rho, v)

    (expected,) = minimiser(lambda v: f(v) + alpha / 2 * square(v - V), [V])
    torch.testing.assert_close(found.V, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("most", [1, 2, 5, 11, 100])
def test_decrease_whatever_the_residual(most: int) -> None:
    """However early the conjugate gradients end, the fall of L is the one that the exact minimiser promises."""
    layer, gamma, rho, alpha = CONVOLUTION, 0.05, 5.0, 0.01
    U, V, U_next, W, b = case(layer, samples=20)
    found = v_convolution(
        layer, U, V, U_next, W, b, gamma=gamma, rho=rho, alpha=alpha, tolerance=1e-9, most=most
    )  # fmt: skip
    fallen = part(layer, U, U_next, W, b, gamma, rho, V) - part(layer, U, U_next, W, b, gamma, rho, found.V)
    assert fallen >= (gamma / 2 + alpha) * square(found.V - V) * (1 - 1e-9)
    assert found.steps == most or found.residual.item() <= 1e-9
    assert most > 5 or found.residual.item() > 1e-2


def test_residual_is_that_of_the_equations() -> None:
    """Recomputed from the matrix of the convolution, sample by sample; the largest of all samples."""
    layer, gamma, rho, alpha = CONVOLUTION, 0.5, 2.0, 0.1
    U, V, U_next, W, b = case(layer, samples=6)
    found = v_convolution(layer, U, V, U_next, W, b, gamma=gamma, rho=rho, alpha=alpha, most=4)
    unit = torch.eye(V[0].numel(), dtype=torch.float64).view(-1, *layer.input_shape)
    A = layer.apply(W, torch.zeros_like(b), unit).flatten(1).T
    rhs = rho * (U_next - b[:, None, None]).flatten(1) @ A + (gamma * U.relu() + alpha * V).flatten(1)
    left = rhs - found.V.flatten(1) @ (rho * A.T @ A + (gamma + alpha) * torch.eye(A.shape[1], dtype=torch.float64))
    assert found.residual.item() == pytest.approx((left.norm(dim=1) / rhs.norm(dim=1)).max().item(), rel=1e-9)


def test_a_solved_sample_stays_solved() -> None:
    """Where V already solves its equations, the directions vanish: no NaN, nothing moves."""
    layer = CONVOLUTION
    U, V, U_next, W, b = (torch.zeros_like(t) for t in case(layer))
    found = v_convolution(layer, U, V, U_next, W, b, gamma=1.0, rho=1.0, alpha=1.0)
    assert found.V.count_nonzero() == 0
    assert found.residual.item() == 0.0
    U, _, U_next, W, b = case(layer, samples=1)
    one = v_convolution(layer, U, V[:1], U_next, W, b, gamma=1.0, rho=1.0, alpha=1.0, tolerance=1e-14, most=500)
    assert one.V.isfinite().all()


def test_float32_reaches_its_tolerance() -> None:
    layer = Convolution((8, 7, 7), 8, (3, 3))
    U, V, U_next, W, b = (t.float() for t in case(layer, samples=10))
    found = v_convolution(layer, U, V, U_next, W / 8, b, gamma=0.5, rho=1.0, alpha=0.1)
    assert found.V.dtype == torch.float32
    assert found.residual.item() <= 2e-5
