"""Gradual magnitude pruning: what it keeps against adding weights one by one, and that budgets hold at its end."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

import prunelang
from benchmarks.magnitude import Budget, Training, budgets_of, gradual, kernels, largest_first, masks
from prunelang.runtime.data import Batches, Split

TASK = "model net = mlp([64, 6, 10])\ndata digits()\nminimize cross_entropy(net)\nsubject to\n"


def added_one_by_one(weights: dict[str, Tensor], budgets: list[Budget]) -> int:
    """How many of the largest are kept before one more would break a budget."""
    entries = [(abs(float(v)), name) for name, w in weights.items() for v in w.flatten()]
    spent, kept = [0] * len(budgets), 0
    for _, name in sorted(entries, key=lambda e: -e[0]):
        spent = [s + b.costs.get(name, 0) for s, b in zip(spent, budgets, strict=True)]
        if any(s > b.room for s, b in zip(spent, budgets, strict=True)):
            break
        kept += 1
    return kept


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_run_of_largest_magnitudes_is_kept(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(3, 5, generator=generator) for name in "abc"}
    rooms = torch.randint(0, 60, (2,), generator=generator).tolist()
    budgets = [Budget({"a": 1, "b": 1, "c": 1}, rooms[0]), Budget({"a": 7, "c": 2}, rooms[1])]
    order, kept = largest_first(weights, budgets)
    assert kept == added_one_by_one(weights, budgets)
    last = masks(weights, budgets, 1.0)
    assert sum(int(m.sum()) for m in last) == kept
    assert all(bool(m.all()) for m in masks(weights, budgets, 0.0))
    flat = torch.cat([w.flatten().abs() for w in weights.values()])
    assert torch.equal(flat[order], flat.sort(descending=True).values)


def test_budgets_are_those_of_the_spec() -> None:
    lines = "    ‖net.weights‖₀ ≤ 50%\n    bytes(net, format = csr) ≤ 1000 B\n"
    count, file = budgets_of(prunelang.compile(TASK + lines).problem)
    assert count == Budget({"fc1.weight": 1, "fc2.weight": 1}, 222)
    assert file.room < 1000  # what the file takes without any weight is off
    with pytest.raises(ValueError, match="weighted count"):
        budgets_of(prunelang.compile(TASK + '    net["fc1"].weights ∈ dense\n').problem)


def test_budgets_hold_after_training() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    before = {name: w.detach().clone() for name, w in kernels(net).items()}
    rates: list[tuple[int, float]] = []

    def lr(epoch: int, done: float) -> float:
        rates.append((epoch, done))
        return 0.1

    feed = Batches(Split(torch.randn(40, 8), torch.randint(0, 4, (40,))), 8, 0)
    budgets = [Budget({"0.weight": 1, "2.weight": 1}, 20), Budget({"2.weight": 3}, 9)]
    gradual(net, feed, budgets, Training(2, partial(torch.optim.SGD, momentum=0.9), lr))
    after = kernels(net)
    assert len(rates) == 10
    assert rates[-1] == (1, 0.9)
    assert all(sum(c * int(after[t].count_nonzero()) for t, c in b.costs.items()) <= b.room for b in budgets)
    assert added_one_by_one({n: w.detach() for n, w in after.items()}, budgets) >= 1
    assert not torch.equal(after["0.weight"], before["0.weight"])
