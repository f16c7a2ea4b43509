"""Penalties that are descended on, in the script: their room, their gradients, and the controller of their weight."""

from __future__ import annotations

from prunelang.compiler.codegen.program import Program
from prunelang.compiler.graph import Descend, Penalty, SteerPenalty
from prunelang.compiler.schedule import SCHEDULES


def rooms(head: Descend, p: Program) -> None:
    """What the gradients are formed in, once for the loop."""
    for number, penalty in enumerate(head.penalties, 1):
        names = _rooms(number, penalty)
        p.writer.comment(f"room for the gradient of {penalty}")
        for name in names:
            p.writer.line(f"{name} = [torch.empty_like(w.detach()) for w in {p.name(penalty.of)}]")


def gradients(head: Descend, p: Program) -> None:
    """Every penalty's gradient, onto that of the data terms."""
    for number, penalty in enumerate(head.penalties, 1):
        weights, weight = p.name(penalty.of), penalty.weight
        alpha = p.expression(weight) if isinstance(weight, SCHEDULES) else p.name(weight)
        values = [f"{p.kernel('gradients')}({weights})", weights, *_rooms(number, penalty), alpha]
        if penalty.function == "drr":
            values.append(repr(penalty.beta))
        p.writer.call(f"{p.kernel(f'add_{penalty.function}_')}(", values)


def _rooms(number: int, penalty: Penalty) -> list[str]:
    return [f"signs_{number}", *([f"decays_{number}"] if penalty.function == "drr" else [])]


def steer_penalty(step: SteerPenalty, p: Program) -> None:
    """The same arithmetic as the executor's, at the end of an epoch."""
    w, alpha, before, cut = p.writer, p.name(step.level), p.name(step.before), p.name(step.cut)
    of, copy = p.name(step.of), p.name(step.copy)
    w.comment(step.line())
    w.line(f"last, {cut} = {cut}, {p.kernel('relative_change')}({of}, {copy})")
    w.line(f"left = {p.kernel('epochs_left')}(p, epoch, {step.reach!r})")
    w.line(f"now = {alpha}")
    with w.block("if now == 0.0:"):
        change = f"{p.kernel('largest_change')}({of}, {copy})"
        pace = f"{p.kernel('pace')}({p.name(step.optimizer)}, {of})"
        values = [change, repr(step.slope), pace, f"left * {step.batches}"]
        w.call(f"{alpha} = {p.kernel('first_weight')}(", values)
    with w.block("else:"):
        w.line(f"{alpha} = {p.kernel('raised')}(now, {before}, {cut}, last, {step.residue!r}, left)")
    w.line(f"{before} = now")
