"""The ReLU block against brute force: a grid over each entry, made finer around its best points."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prunelang.runtime.blocks.relu import relu_prox, u_hidden
from tests.runtime.blocks.generic import normal


def value(u: Tensor, a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    return (u.clamp(min=0) - a).square() / 2 + g / 2 * (u - b).square()


def brute_force(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    """The least value on grids: the whole range on each side of zero, then twice around the best point of each side."""
    least = torch.full_like(a, torch.inf)
    for sign in (-1.0, 1.0):
        low, high = torch.zeros_like(a), sign * (a.abs() + b.abs() + 1)
        for _ in range(3):
            grid = low + (high - low) * torch.linspace(0, 1, 65, dtype=torch.float64)[:, None]
            values = value(grid, a, b, g)
            best = grid.gather(0, values.argmin(0, keepdim=True))[0]
            least = torch.minimum(least, values.min(0).values)
            width = (high - low) / 64
            low, high = ((best - width) * sign).clamp(min=0) * sign, (best + width * 1.0)
            high = (high * sign).clamp(min=0) * sign
    return least


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_against_brute_force(scale: float) -> None:
    """34 000 cases a scale, all with a g of their own, none beaten by its grid, none far below it."""
    for k, g in enumerate(torch.logspace(-2, 2, 17, dtype=torch.float64).tolist()):
        a, b = normal(2000, seed=k) * scale, normal(2000, seed=100 + k)
        found = value(relu_prox(a, b, g), a, b, torch.tensor(g))
        grid = brute_force(a, b, torch.tensor(g))
        assert (found <= grid * (1 + 1e-12) + 1e-15).all()
        assert (grid - found <= (1 + g) * ((a.abs() + b.abs() + 1) / 64**3) ** 2 * 4 + 1e-12).all()


@given(
    st.floats(-1e3, 1e3, allow_subnormal=False),
    st.floats(-1e3, 1e3, allow_subnormal=False),
    st.floats(1e-3, 1e3),
    st.floats(-1e3, 1e3),
)
def test_nothing_is_below_it(a: float, b: float, g: float, u: float) -> None:
    A, B, G = (torch.tensor(x, dtype=torch.float64) for x in (a, b, g))
    found = value(relu_prox(A, B, g), A, B, G)
    others = torch.tensor([u, 0.0, b, a, (a + g * b) / (1 + g)], dtype=torch.float64)
    assert (found <= value(others, A, B, G) * (1 + 1e-12) + 1e-12).all()


def test_the_tie_between_both_sides() -> None:
    """At b = −c a both parabolas are equally low; just beside it the better one is taken."""
    for g in (0.01, 1.0, 50.0):
        a = torch.tensor([2.0], dtype=torch.float64)
        tie = -((1 + 1 / g) ** 0.5 - 1) * a
        low, high = relu_prox(a, tie - 1e-9, g), relu_prox(a, tie + 1e-9, g)
        assert low.item() == pytest.approx((tie - 1e-9).item(), abs=1e-15)
        assert high.item() == pytest.approx(((a + g * tie) / (1 + g)).item(), abs=1e-8)
        assert high > 0 > low


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_block_lowers_its_part(dtype: torch.dtype) -> None:
    V, Z, U = (normal(400, 30, seed=k).to(dtype) for k in range(3))
    for gamma, rho, alpha in ((0.5, 0.5, 0.1), (5.0, 0.1, 1.0), (0.1, 5.0, 1e-3)):
        new = u_hidden(V, Z, U, gamma=gamma, rho=rho, alpha=alpha)
        assert new.dtype == dtype

        def part(u: Tensor, gamma: float = gamma, rho: float = rho) -> Tensor:
            u, v, z = u.double(), V.double(), Z.double()
            return gamma / 2 * (v - u.relu()).square() + rho / 2 * (u - z).square()

        fallen = part(U) - part(new) - alpha / 2 * (new.double() - U.double()).square()
        assert fallen.min() >= -1e-5 * (dtype == torch.float32) - 1e-13
        assert fallen.max() > 0.1
