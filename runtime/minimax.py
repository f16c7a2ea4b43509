"""The minimax under budgets in the executor: the game of a graph's nodes, with a warm exact selection on the host.

On a device a selection is a sort and a gather at a device index, so that no step ever waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prunelang.compiler.graph import (
    Confine,
    Dual,
    Items,
    Multipliers,
    Resource,
    Saddle,
    Select,
    Selection,
    Shrink,
    Sparsity,
    Start,
    walk,
)
from prunelang.compiler.graph.calibration import PREFIX, SCALE
from prunelang.runtime.game import Chosen, DeviceEntries, Entries, Game, Members, Rates, on_host
from prunelang.runtime.machine import Machine, NumericalFailure
from prunelang.runtime.price import Price
from prunelang.runtime.prox.scan import HostScan
from prunelang.runtime.prox.select import Selector, select_key
from prunelang.runtime.surrogates import current


class HostEntries(Entries):
    """Entries of contiguous tensors in the host's memory, selected from where the last selection was."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__(weights)
        self.scan, self.selector = HostScan(self.weights), Selector()

    def threshold(self, kept: int) -> tuple[float, int, int]:
        found = select_key(self.scan, kept, self.n, self.selector)
        return key_as_number(found.key, self.scan.dtype), found.ties_to_keep, found.ties

    def equal(self, w: Tensor) -> Tensor:
        if w.dtype == torch.bfloat16:
            return super().equal(w)
        return torch.from_numpy(np.flatnonzero(np.abs(w.numpy()) == self.tau))


def key_as_number(key: int, dtype: torch.dtype) -> float:
    """The magnitude whose bit pattern is `key`, without asking torch."""
    if dtype == torch.bfloat16:
        key, dtype = key << 16, torch.float32
    kinds: dict[torch.dtype, tuple[str, str]] = {torch.float16: ("u2", "f2"), torch.float32: ("u4", "f4")}
    unsigned, floating = kinds.get(dtype, ("u8", "f8"))
    return float(np.array([key], unsigned).view(floating)[0])


def level_of(items: Items, m: Machine) -> Chosen:
    """The fitting kind of level."""
    if items.pieces:
        return Members([m.tensors[p.tensor] for p in items.pieces], items.pieces, items.size)
    weights = [m.tensors[t] for t in items.tensors]
    return HostEntries(weights) if on_host(weights) else DeviceEntries(weights)


def _owned(items: Items) -> tuple[str, ...]:
    """The tensor of each piece, or of the entries."""
    return tuple(p.tensor for p in items.pieces) or items.tensors


def _made(step: Saddle, m: Machine) -> Game:
    node = m.nodes[step.allocate.levels]
    assert isinstance(node, Sparsity)
    s, y, z = (m.values[x][0] for x in (node.name, step.allocate.dual, step.allocate.multipliers))
    past = (m.values[step.past[0]][0], m.values[step.past[1]][0]) if step.past else None
    return Game(
        [level_of(items, m) for items in node.items],
        [[m.tensors[t] for t in _owned(items)] for items in node.items],
        [items.least for items in node.items],
        s,
        y,
        z,
        m.values[step.allocate.selection],
        past,
    )


def game_of(m: Machine, levels: str) -> Game:
    """The game of those levels; made once."""
    key = (id(m.nodes[levels]), 0)
    if key not in m.cache:
        step = next(s for s in walk(m.graph.program) if isinstance(s, Saddle) and s.allocate.levels == levels)
        m.cache[key] = _made(step, m)
    found = m.cache[key]
    assert isinstance(found, Game)
    return found


def _entered(m: Machine, selection: str, by: str) -> Game:
    """The game of a selection, with the optimizer that is in force."""
    node = m.nodes[selection]
    assert isinstance(node, Selection)
    game = game_of(m, node.of)
    game.enter(m.optimizers[by])
    return game


# ── executor ─────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def start(step: Start, m: Machine) -> None:
    node = m.nodes[step.multipliers]
    assert isinstance(node, Multipliers)
    free = [w is None for w in node.weights] or [True] * len(node.resources)
    game_of(m, step.levels).start(_current(node, m), free, step.share)


def recalibrated(m: Machine, bound: str) -> None:
    """Budgets whose numbers have just been measured, in the game that they are part of."""
    for node in m.nodes.values():
        if isinstance(node, Multipliers) and any(r.measured == bound for r in node.resources):
            game_of(m, node.of).settle(_current(node, m))


def settle_budgets(m: Machine, levels: str) -> None:
    """The budgets of a game as the calibrations that are known say."""
    for node in m.nodes.values():
        if isinstance(node, Multipliers) and node.of == levels:
            game_of(m, levels).settle(_current(node, m))


def _current(node: Multipliers, m: Machine) -> tuple[Resource, ...]:
    levels = m.nodes[node.of]
    assert isinstance(levels, Sparsity)
    sizes = {name: t.numel() for name, t in m.tensors.items()}
    return current(node.resources, levels.items, m.calibrations, sizes)


def select(step: Select, m: Machine) -> None:
    try:
        game_of(m, step.levels).select()
    except ArithmeticError as error:
        raise NumericalFailure("what is selected among is not finite", "selection") from error


def shrink(step: Shrink, m: Machine) -> None:
    _entered(m, step.selection, step.by).shrink()


def confine(step: Confine, m: Machine) -> None:
    if step.by is not None:
        _entered(m, step.selection, step.by).confine()
        return
    node = m.nodes[step.selection]
    assert isinstance(node, Selection)
    game_of(m, node.of).cut(step.only)


def play(step: Saddle, m: Machine) -> None:
    game = _entered(m, step.allocate.selection, step.residual.by)
    node = m.nodes[step.allocate.multipliers]
    assert isinstance(node, Multipliers)
    if node.weights:
        game.charge([None if w is None else m.value(w) for w in node.weights])
    game.play(rates_of(step), m.clocks["p"])


def rates_of(step: Saddle) -> Rates:
    """The numbers of the three moves."""
    a, r, b = step.allocate, step.residual, step.budgets
    return Rates(
        s=a.rate,
        pace=a.pace,
        spare=a.spare,
        y=r.rate,
        half=r.half,
        first=r.first,
        last=r.last,
        z=b.rate,
        reach=b.reach,
        order=step.order,
        nu=step.nu,
        kappa=step.kappa,
    )


def prices(m: Machine) -> dict[str, Price]:
    """``z_r/D_r`` of every budget, in loss per unit of the budget: of what the objective prices there is none."""
    found: dict[str, Price] = {}
    for name, node in m.nodes.items():
        if isinstance(node, Multipliers) and (id(m.nodes[node.of]), 0) in m.cache:  # its game has begun
            weights = node.weights or (None,) * len(node.resources)
            for r, weight, z in zip(_current(node, m), weights, m.values[name][0].tolist(), strict=True):
                if weight is None:
                    unit = SCALE if r.measured else 1
                    found[r.label.removeprefix(PREFIX)] = Price(z * unit / max(r.dense, 1), "surrogate")
    return found


def history(m: Machine) -> dict[str, object]:
    """Levels, duals and multipliers, by name: they are part of a run's history."""
    found: dict[str, object] = {}
    for name, node in m.nodes.items():
        if isinstance(node, Sparsity) or (isinstance(node, Dual) and isinstance(m.nodes[node.like], Sparsity)):
            found[name] = m.values[name][0].tolist()
        elif isinstance(node, Multipliers):
            labels = (r.label for r in node.resources)
            found[name] = dict(zip(labels, m.values[name][0].tolist(), strict=True))
    return found
