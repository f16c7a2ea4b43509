"""The executor: one function per kind of step, and the one training loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial, singledispatch

import torch

from prunelang.compiler.graph import (
    Aim,
    Ascend,
    Assign,
    Batches,
    Bracket,
    Calibrate,
    Certify,
    Compose,
    Confine,
    Evaluate,
    Factor,
    Fill,
    Finish,
    Forget,
    Hit,
    Join,
    KeepBest,
    Level,
    Materialize,
    Observe,
    Offset,
    Outer,
    Phase,
    Project,
    ProjectBalls,
    Prox,
    Reach,
    Recalibrate,
    Record,
    Reproject,
    Restore,
    Retain,
    Saddle,
    Search,
    Select,
    Shrink,
    Split,
    Start,
    Steer,
    SteerGates,
    SteerPenalty,
    Step,
    Sweep,
    Tabulate,
    Tighten,
)
from prunelang.runtime import bcd, composed, kernels, minimax, relaxed, standalone, stopping, thresholds
from prunelang.runtime.calibration import calibrate, tighten
from prunelang.runtime.compress import apply_prox, counts, project, project_balls, require_feasible
from prunelang.runtime.coupling import steer_gates
from prunelang.runtime.descent import Descent, require_finite
from prunelang.runtime.machine import Interrupted, Machine, NumericalFailure
from prunelang.runtime.pruning import bracket, reach
from prunelang.runtime.search import observe, search


def run(machine: Machine) -> None:
    """Execute the whole program. Raises `NumericalFailure` or `Interrupted` with the last good weights restored."""
    try:
        with flushed():
            for step in machine.graph.program:
                execute(step, machine)
    except (NumericalFailure, Interrupted):
        machine.restore_good()
        raise


@contextmanager
def flushed() -> Iterator[None]:
    """Numbers below the normal range are 0: weights that shrink step by step arrive there, and on the host every
    operation on them takes tens of times as long. The mode is the thread's; it is left as it was found."""
    smallest = torch.full((), 5e-324, dtype=torch.float64)
    if float(smallest * 1.0) == 0.0 or not torch.set_flush_denormal(True):
        yield
        return
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@singledispatch
def execute(step: Step, m: Machine) -> None:
    raise TypeError(f"no executor for {type(step).__name__}")


@execute.register
def _(step: Phase, m: Machine) -> None:
    m.observe({"event": "begin", "stage": step.name})
    m.clocks.update(k=0.0, epoch=0.0, step=0.0, p=0.0)
    m.stage_span = (0.0, 1.0)
    for inner in step.body:
        execute(inner, m)
    require_finite(m, step.name)
    m.keep_good()


@execute.register
def _(step: Outer, m: Machine) -> None:
    for k in range(step.count):
        m.clocks.update(k=float(k), p=k / step.count)
        m.stage_span = (k / step.count, (k + 1) / step.count)
        for name in step.levels:
            node = m.nodes[name]
            assert isinstance(node, Level) and node.schedule is not None
            m.levels[name] = m.value(node.schedule)
        for inner in step.body:
            execute(inner, m)
    m.clocks["p"] = 1.0


@execute.register
def _(step: Batches, m: Machine) -> None:
    length = max(1, round(m.value(step.duration)))
    batches = len(m.feed)
    total = length * batches if step.unit == "epochs" else length
    start, end = m.stage_span
    m.clocks.update(epoch=0.0, step=0.0, p=start)
    descent = Descent(m, step, tuple(partial(execute, inner, m) for inner in step.body[1:]))
    done = epoch = 0
    watched: list[float] = []
    while done < total:
        m.clocks["epoch"] = float(epoch)
        descent.begin_epoch()
        for x, y in m.feed.epoch(m.epochs):
            m.clocks["step"] = float(done)
            m.clocks["p"] = start + (end - start) * done / total
            descent.step(x, y, start + (end - start) * (done + 1) / total)
            done += 1
            if done == total:
                break
        m.epochs += 1
        epoch += 1
        m.clocks["p"] = start + (end - start) * done / total
        for inner in step.settle:
            execute(inner, m)
        descent.end_epoch()
        m.keep_good()
        for inner in step.each_epoch:
            execute(inner, m)
        if m.stop():
            raise Interrupted
        if step.until is not None and m.clocks["p"] >= step.until.since:
            watched.append(m.levels[step.until.level])
            if kernels.saturated(watched, step.until.window):
                m.clocks["p"] = end
                break
    descent.close()


@execute.register
def _(step: Assign, m: Machine) -> None:
    with torch.no_grad():
        if step.target in m.levels:
            m.levels[step.target] = 0.0
            return
        terms = [(sign / m.levels[level] if level else float(sign), m.values[n]) for sign, n, level in step.value.terms]
        kernels.combine_(m.values[step.target], terms)


@execute.register
def _(step: Ascend, m: Machine) -> None:
    with torch.no_grad():
        mu = m.levels[step.step]
        for sign, name, _ in step.residual.terms:
            for dual, x in zip(m.values[step.dual], m.values[name], strict=True):
                dual.add_(x, alpha=-mu * sign)


@execute.register
def _(step: Project, m: Machine) -> None:
    project(step, m)


@execute.register
def _(step: ProjectBalls, m: Machine) -> None:
    project_balls(step, m)


@execute.register
def _(step: Prox, m: Machine) -> None:
    apply_prox(step, m)


execute.register(Compose)(composed.write)
execute.register(Factor)(composed.factor)
execute.register(Reproject)(composed.reproject)

execute.register(Split)(bcd.split)
execute.register(Sweep)(bcd.sweep)
execute.register(Join)(bcd.join)

execute.register(Aim)(thresholds.aim)
execute.register(Fill)(thresholds.fill)
execute.register(Hit)(thresholds.hit)
execute.register(Materialize)(thresholds.materialize)
execute.register(Offset)(thresholds.offset)
execute.register(Retain)(thresholds.retain)
execute.register(Steer)(thresholds.steer)
execute.register(SteerPenalty)(relaxed.steer_penalty)
execute.register(Tabulate)(thresholds.tabulate)

execute.register(Calibrate)(calibrate)
execute.register(Tighten)(tighten)
execute.register(SteerGates)(steer_gates)
execute.register(Start)(minimax.start)
execute.register(Select)(minimax.select)
execute.register(Shrink)(minimax.shrink)
execute.register(Confine)(minimax.confine)
execute.register(Saddle)(minimax.play)
execute.register(Evaluate)(stopping.evaluate)
execute.register(Forget)(stopping.forget)
execute.register(KeepBest)(stopping.keep_best)
execute.register(Restore)(stopping.restore)


@execute.register
def _(step: Finish, m: Machine) -> None:
    execute(Assign(step.of, step.value), m)
    if step.factors:
        composed.write(Compose(step.of, step.factors, exact=True), m)
    require_feasible(step.onto, m, step.of, step.support)


@execute.register
def _(step: Bracket, m: Machine) -> None:
    bracket(step, m)


@execute.register
def _(step: Reach, m: Machine) -> None:
    reach(step, m)


@execute.register
def _(step: Recalibrate, m: Machine) -> None:
    standalone.recalibrate(m.model, m.feed.epoch(m.epochs), step.batches)


@execute.register
def _(step: Record, m: Machine) -> None:
    event: dict[str, object] = {
        "event": step.what,
        "stage": step.stage,
        **{c: m.clocks[c] for c in ("k", "epoch", "p")},
    }
    event["loss"] = m.last_loss
    m.prices |= minimax.prices(m)
    if step.counted:
        found = counts(m.feasible, m, step.counted)
        event["constraints"] = [
            {"label": label, "value": got, "bound": bound, "price": m.price(label)} for label, got, bound in found
        ]
    if step.copy and step.of:
        event["distance"] = standalone.distance(m.values[step.of], m.values[step.copy])
    played = minimax.history(m) if step.stage == "solve" else {}  # before it they are zeros, after it they rest
    event["levels"] = thresholds.history(m) | played
    if step.what == "stage" and m.cuts:
        event["cuts"] = {", ".join(labels): cut for labels, cut in m.cuts.items()}
    m.observe(event)


@execute.register
def _(step: Observe, m: Machine) -> None:
    observe(step, m)


@execute.register
def _(step: Search, m: Machine) -> None:
    search(step, m, execute)


@execute.register
def _(step: Certify, m: Machine) -> None:
    m.observe({"event": "trained"})
