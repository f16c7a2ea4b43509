"""Gradual magnitude pruning under any number of weighted counts: what minimax allocation is compared with.

The kept weights are the longest run of largest magnitudes, over all kernels together, that every budget allows. Under
one plain count these are the κ largest; under others the magnitudes alone still decide the order, and a budget only
says where it ends. Sparsity rises as in Zhu & Gupta 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import prunelang
from prunelang.compiler.problem import Count, Interval, Problem
from prunelang.inputs import load_data
from prunelang.runtime.data import Batches
from prunelang.runtime.registry import models

RENEW = 100  # optimizer steps between two choices of what is kept
REACH = 0.6  # share of the training at which the budgets hold


@dataclass(frozen=True)
class Budget:
    """``Σ_t costs_t · nnz(t) ≤ room``, over named tensors."""

    costs: Mapping[str, int]
    room: int


@dataclass(frozen=True)
class Training:
    """Epochs, an optimizer over parameters, and its rate by the epoch and by the share of all steps done."""

    epochs: int
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    lr: Callable[[int, float], float]


def budgets_of(problem: Problem) -> list[Budget]:
    """The upper bounds of a problem. Raises ValueError for a constraint that is no bound on a weighted count."""
    found = []
    for constraint in problem.constraints:
        match constraint.function, constraint.set:
            case Count(coefficients=costs, constant=constant), Interval(lower=None, upper=int(upper)):
                found.append(Budget(costs, upper - constant))
            case _:
                raise ValueError(f"`{constraint.label}` is no upper bound on a weighted count")
    return found


def kernels(net: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in net.named_parameters() if p.dim() > 1}


def largest_first(weights: Mapping[str, Tensor], budgets: Sequence[Budget]) -> tuple[Tensor, int]:
    """The order of all entries by falling magnitude, and how many of the first satisfy every budget."""
    order = torch.cat([w.detach().abs().flatten() for w in weights.values()]).argsort(descending=True, stable=True)
    kept = len(order)
    for budget in budgets:
        price = [torch.full((w.numel(),), budget.costs.get(name, 0)) for name, w in weights.items()]
        kept = min(kept, int((torch.cat(price)[order].cumsum(0) <= budget.room).sum()))
    return order, kept


def masks(weights: Mapping[str, Tensor], budgets: Sequence[Budget], done: float) -> list[Tensor]:
    """Which entries stay when the share `done` of the way to the budgets is behind: all at 0, the last at 1."""
    order, kept = largest_first(weights, budgets)
    flat = torch.zeros(len(order), dtype=torch.bool)
    flat[order[: round(kept + (len(order) - kept) * (1 - done) ** 3)]] = True
    parts = flat.split([w.numel() for w in weights.values()])
    return [m.view_as(w) for m, w in zip(parts, weights.values(), strict=True)]


def gradual(net: nn.Module, feed: Batches, budgets: Sequence[Budget], training: Training) -> None:
    """Train `net` while its smallest weights go; from `REACH` on, what is kept stays and satisfies every budget."""
    weights = kernels(net)
    kept, reached = masks(weights, budgets, 0.0), False
    optimizer = training.optimizer(list(net.parameters()))
    step, total = 0, training.epochs * len(feed)
    net.train()
    for epoch in range(training.epochs):
        for x, y in feed.epoch(epoch):
            for group in optimizer.param_groups:
                group["lr"] = training.lr(epoch, step / total)
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            step += 1
            done = min(1.0, step / total / REACH)
            if not reached and (step % RENEW == 0 or step == total):
                kept, reached = masks(weights, budgets, done), done >= 1.0
            _apply(weights.values(), kept)
    net.eval()


@torch.no_grad()
def _apply(weights: Iterable[Tensor], kept: Iterable[Tensor]) -> None:
    for w, m in zip(weights, kept, strict=True):
        w.mul_(m)


def pruned(text: str, weights: Path, out: Path, seed: int, training: Training) -> Path:
    """The file of weights that gradual pruning ends at, from those in `weights`, under the budgets of a spec."""
    program = prunelang.compile(text)
    model = program.plan.model
    net = models[model.constructor].build(**model.arguments)
    net.load_state_dict(load_file(weights))
    train = load_data(program.plan, program.folder, "cpu", "float32").train
    gradual(net, Batches(train, program.plan.data.batch, seed), budgets_of(program.problem), training)
    out.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), out / "by_hand.safetensors")
    return out / "by_hand.safetensors"
