"""Every registered pruner after every solver, on every problem that the solver takes: what was reached still holds."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from prunelang.compiler.pruners.base import pruners
from prunelang.runtime.machine import Event, Machine
from tests.conformance.test_solvers import MADE, PROBLEMS, TAKEN, arrays, flat, spec
from tests.runtime.solving import solve

# How each pruner is called here.
CALLS = {
    "tamade": ("tamade(δ = 3%, on = train)",),
    "reachability": ("reachability()", "reachability(method = random_gradient, draws = 1)"),
}
# `lc` takes every problem; of the others what matters is the end. Under `blocks` alone there is nothing to remove, and
# what is made of factors or codes may lose no positions.
TRIED = dict.fromkeys((w for w in TAKEN if w != "factors"), ("global", "pinned")) | {
    "lc": tuple(n for n in PROBLEMS if n != "blocks" and n not in MADE)
}
pairs = pytest.mark.parametrize(("solver", "name"), [(w, n) for w in TRIED for n in TRIED[w] if n in TAKEN[w]])


def pruned(solver: str, constraints: str, *calls: str) -> str:
    """Every method one after the other, then training."""
    last = "finetune with sgd(lr = 0.1, momentum = 0.9) for 1 epochs\n"
    return spec(solver, constraints) + "".join(f"prune {c}\n" for c in calls) + last


def test_every_pruner_has_a_row() -> None:
    assert set(CALLS) == set(pruners())


@pairs
def test_a_pruner_keeps_every_constraint_and_so_does_the_training_after_it(solver: str, name: str) -> None:
    constraints, allowed = PROBLEMS[name]
    held: list[bool] = []
    supports: list[dict[str, Tensor]] = []

    def watch(machine: Machine, event: Event) -> None:
        if event["event"] == "pruned" or (event["event"] == "epoch" and supports):
            kept = dict(zip(machine.names("m"), machine.values["m"], strict=True))
            outside = any(bool(machine.tensors[n].detach()[~k].any()) for n, k in kept.items())
            held.append(allowed(arrays(machine)) and not outside)
            supports.append({n: k.clone() for n, k in kept.items()})

    calls = [c for word in CALLS for c in CALLS[word]]
    solve(pruned(solver, constraints, *calls), dtype="float32", observe=watch)
    assert held == [True] * (len(calls) + 1)
    for before, after in pairwise(supports):
        assert all(bool((after[n] <= k).all()) for n, k in before.items()), "positions only go"


@pytest.mark.parametrize("call", [c for calls in CALLS.values() for c in calls])
def test_twice_the_same_bits(call: str) -> None:
    text = pruned("lc", "‖net.weights‖₀ ≤ 10%", call)
    assert torch.equal(flat(solve(text, dtype="float32")), flat(solve(text, dtype="float32")))
