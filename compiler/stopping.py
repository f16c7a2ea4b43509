"""Early stopping of a stage: what its loop watches, what it keeps, and that it goes back to the best of it.

`until` stops the loop when the loss on a split has stopped to fall. `finetune` under measured constraints keeps the
best state that meets them, with `until` or without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from prunelang.compiler.bridges import bridge
from prunelang.compiler.graph import (
    Batches,
    Buffers,
    Descend,
    Evaluate,
    Floor,
    Forget,
    KeepBest,
    Optimizer,
    Record,
    Restore,
    Saturated,
    Snapshot,
    Step,
    walk,
)
from prunelang.compiler.measured import watched
from prunelang.compiler.problem import Problem
from prunelang.compiler.reversed import floors
from prunelang.compiler.schedule import is_constant
from prunelang.compiler.solvers.base import Stopping
from prunelang.compiler.synops import tightened

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering
    from prunelang.compiler.plan import StagePlan


def watched_loops(low: Lowering, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps of the stage, its loops with what stopping and keeping need; unchanged where nothing asks for it."""
    stage = low.stage
    found = floors(low.plan.problem) if stage.kind == "finetune" else ()
    conditions = tuple(f for f in found if low.based or not f.relative)
    if stage.until is None and not conditions:
        return steps
    return tuple(x for s in steps for x in (_watched(low, s, conditions) if isinstance(s, Batches) else (s,)))


def ending(stage: StagePlan, problem: Problem) -> Iterator[str]:
    """Lines for `explain`: how the stage may end, and in which of its states. `problem` is the forward one."""
    rule: Stopping | str = Stopping(keeps=True)
    if stage.solver is not None:
        rule = stage.solver.stopping(bridge(problem, stage.solver.constraints).problem)
    if stage.until is not None:
        arguments = ", ".join(f"{k} = {v}" for k, v in stage.until.arguments.items())
        yield f"until {stage.until.name}({arguments}) on {watched(problem, stage.until.split)}"
        if isinstance(rule, str):
            yield f"    not here: {rule}"
            return
        since = f"counting from p = {rule.since:g} on; " if rule.since else ""
        yield f"    {since}{'back to its best epoch' if rule.keeps else 'its last state stays'}"
    conditions = floors(problem) if stage.kind == "finetune" else ()
    if conditions:
        yield f"keeps its best state with {' and '.join(map(str, conditions))}"


def restores(steps: Sequence[Step]) -> bool:
    """Whether the steps end in a state that was evaluated as it is, statistics of batch normalisation included."""
    return bool(steps) and isinstance(steps[-1], Restore)


def _watched(low: Lowering, loop: Batches, conditions: tuple[Floor, ...]) -> Iterator[Step]:
    stage = low.stage
    assert stage.kind != "prune"
    rule = Stopping(keeps=True) if stage.solver is None else stage.solver.stopping(low.problem)
    assert isinstance(rule, Stopping)  # a refusal is reported before anything is lowered
    split = low.watched(stage.until.split if stage.until else "validation")
    if stage.until is None and not any(f.split == split for f in conditions):
        split = conditions[0].split
    level = low.level(f"L_{split}")
    head = loop.body[0]
    assert isinstance(head, Descend)
    # A penalty of fixed weight is part of what falls; one that is steered or scheduled would make epochs incomparable.
    fixed = tuple(x for x in head.penalties if x.schedule is not None and is_constant(x.schedule))
    evaluate = Evaluate(level, split, low.losses(), fixed)
    test = None
    if stage.until is not None:
        test = Saturated(level, int(stage.until.arguments["window"]), rule.since)
    if not rule.keeps:
        yield replace(loop, each_epoch=_before_record(loop, evaluate), until=test)
        return
    narrowing = tightened(low, 0) if stage.solver is None else ()
    loop = replace(loop, each_epoch=_before_record(loop, *narrowing))
    of = _changed(low, loop)
    best = low.declare(Snapshot("best", of)).name
    keep = KeepBest(best, level, of, conditions, rule.since)
    yield Forget(best)
    if stage.solver is None:  # the state that the stage starts from is a candidate too
        yield from (evaluate, keep)
    yield replace(loop, each_epoch=_before_record(loop, evaluate, keep), until=test)
    yield Restore(best, of, stage.kind)


def _before_record(loop: Batches, *steps: Step) -> tuple[Step, ...]:
    """The steps of each epoch with these before the line of the history, which tells their outcome."""
    records = tuple(s for s in loop.each_epoch if isinstance(s, Record))
    return (*(s for s in loop.each_epoch if s not in records), *steps, *records)


def _changed(low: Lowering, loop: Batches) -> tuple[str, ...]:
    """What the loop writes, but for optimizers, in the order of declaration; statistics change as the net is used."""
    written = {name for step in walk((loop,)) for name in step.writes()}
    state = [s for s in low.state if not isinstance(s, Optimizer)]
    return tuple(s.name for s in state if s.name in written or isinstance(s, Buffers))
