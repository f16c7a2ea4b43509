"""Layers of factors against dense layers, in every order of contraction, and the operations that torch counts."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prunelang.compiler.trains import contraction, evaluate, macs
from prunelang.runtime.factored import Cores, LowRankConv2d, LowRankLinear, TrainConv2d, TrainLinear
from prunelang.runtime.factors import train64
from prunelang.runtime.trace import trace

MODES, RANKS = ((4, 3), (2, 5), (3, 2)), (3, 4)
F64 = {"dtype": torch.float64}


def operations(module: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, int]:
    with FlopCounterMode(display=False) as count:
        y = module(x)
    return y, count.get_total_flops()


def traced(module: nn.Module, shape: tuple[int, ...]) -> int:
    table = trace(module, shape, model_text="layer", dtype=torch.float64)
    return sum(x.uses * table.tensor[x.weight].size for x in table.layers)


def whole(cores: Cores) -> torch.Tensor:
    return torch.tensor(train64([c.detach().numpy() for c in cores.cores]))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_train_in_every_order(order: tuple[int, ...]) -> None:
    layer = TrainLinear(MODES, RANKS, order=order, **F64)
    cores = [torch.randn(r, m, n, s, **F64) for r, (m, n), s in zip((1, *RANKS), MODES, (*RANKS, 1), strict=True)]
    layer.set_cores(cores)
    assert all(torch.equal(a, b) for a, b in zip(layer.cores, cores, strict=True))
    x = torch.randn(2, 7, 30, **F64)
    y, flops = operations(layer, x)
    torch.testing.assert_close(y, x @ whole(layer).T)
    cost = evaluate(macs(MODES, order), RANKS)
    assert (flops, traced(layer, (30,))) == (2 * 14 * cost, cost)


def test_the_order_is_the_compilers() -> None:
    assert TrainLinear(MODES, RANKS).order == contraction(MODES, RANKS).order


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("padding", "mode", "stride", "dilation"),
    [(1, "zeros", 2, 1), ("same", "zeros", 1, 2), (0, "zeros", 1, 1), ((2, 1), "reflect", 2, 1)],
)
def test_convolutions(groups: int, padding: int | str, mode: str, stride: int, dilation: int) -> None:
    rest = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": mode} | F64
    dense = nn.Conv2d(6, 8, 3, **rest)  # type: ignore[arg-type]
    n = 6 // groups * 9
    low = LowRankConv2d(6, 8, 3, 2, **rest)  # type: ignore[arg-type]
    modes = ((4, n // 3), (2, 3))
    train = TrainConv2d(modes, (3,), 6, 8, 3, **rest)  # type: ignore[arg-type]
    x = torch.randn(5, 6, 9, 9, **F64)
    costs = {low: 2 * (8 + groups * n), train: groups * contraction(modes, (3,)).macs((3,))}
    matrices = {low: low.U.reshape(8, 2) @ low.V.reshape(2, -1), train: whole(train.train_of)}
    for layer, each in costs.items():
        with torch.no_grad():
            dense.weight.copy_(matrices[layer].reshape(dense.weight.shape))
            layer.bias.copy_(dense.bias)
        expected = dense(x)
        y, flops = operations(layer, x)
        torch.testing.assert_close(y, expected)
        positions = expected[0, 0].numel()
        assert flops == 2 * 5 * positions * each
        assert traced(layer, (6, 9, 9)) == positions * each


def test_rank_zero_gives_the_bias() -> None:
    linear, conv = LowRankLinear(6, 8, 0), LowRankConv2d(6, 8, 3, 0, padding=1)
    assert torch.equal(linear(torch.randn(5, 6)), torch.zeros(5, 8))
    assert torch.equal(conv(torch.randn(5, 6, 9, 9)), torch.zeros(5, 8, 9, 9))


def test_modes_and_orders_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="inner ranks"):
        TrainLinear(MODES, (3,))
    with pytest.raises(ValueError, match="no order"):
        TrainLinear(MODES, RANKS, order=(0, 1, 1))
    with pytest.raises(ValueError, match="do not multiply"):
        TrainConv2d(((4, 3), (2, 5)), (3,), 6, 8, 3)
