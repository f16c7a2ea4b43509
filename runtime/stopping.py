"""Early stopping: what a loop watches, the best state that it passes through, and the way back to it."""

from __future__ import annotations

from prunelang.compiler.graph import Evaluate, Floor, Forget, KeepBest, Restore
from prunelang.compiler.problem import Measured
from prunelang.runtime.floors import COUNTS
from prunelang.runtime.machine import Machine
from prunelang.runtime.search import verdict
from prunelang.runtime.standalone import Best, miss, relaxed


def evaluate(step: Evaluate, m: Machine) -> None:
    total = 0.0
    for loss in step.losses:
        total += m.value(loss.weight) * m.measure(Measured(loss.name, step.split, loss.arguments)).value
    for penalty in step.penalties:
        weight = m.levels[penalty.weight] if isinstance(penalty.weight, str) else m.value(penalty.weight)
        total += weight * relaxed(m.values[penalty.of], penalty.function, penalty.beta)
    m.levels[step.level] = total


def forget(step: Forget, m: Machine) -> None:
    """A fresh loop: what an earlier one kept is gone."""
    tensors = {id(t): t for name in m.nodes[step.snapshot].reads() for t in m.values.get(name, ())}
    m.best[step.snapshot] = Best(list(tensors.values()))
    m.best_after.pop(step.snapshot, None)


def keep_best(step: KeepBest, m: Machine) -> None:
    if m.clocks["p"] < step.since:
        return
    score = (max((_miss(floor, m) for floor in step.floors), default=0.0), m.levels[step.level])
    levels = tuple(m.levels[name] for name in step.of if name in m.levels)
    if m.best[step.snapshot].offer(score, levels):
        m.best_after[step.snapshot] = _epochs(m)


def _miss(floor: Floor, m: Machine) -> float:
    """By how much a floor is missed. A count has to be so far inside that fresh samples are likely to meet it too."""
    if floor.name in COUNTS:
        found = verdict(floor, m, again=True)
        short = found.margin if floor.relation == "≥" else -found.margin
        return miss(found.limit + short, floor.relation, found.limit)
    value = m.measure(Measured(floor.name, floor.split, floor.arguments, floor.unit)).value
    base = m.bases[floor.label, floor.split] if floor.relative else 0.0
    return miss(value, floor.relation, floor.bound(base))


def restore(step: Restore, m: Machine) -> None:
    best = m.best[step.snapshot]
    names = [name for name in step.of if name in m.levels]
    m.levels.update(zip(names, best.restore(tuple(m.levels[n] for n in names)), strict=True))
    event = {"event": "best", "stage": step.stage, "p": 1.0, "epochs": _epochs(m)}
    kept = m.best_after.get(step.snapshot)
    if kept is not None:
        event |= {"after": kept, "loss": best.score[1], "miss": best.score[0]}
    m.observe(event)


def _epochs(m: Machine) -> float:
    """How many epochs the loop has been through."""
    return m.clocks["epoch"] + 1.0 if m.clocks["p"] > 0.0 else 0.0
