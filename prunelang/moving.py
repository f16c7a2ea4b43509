"""A plan with another bound, or with shorter stages: what `probe` solves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from prunelang.compiler.plan import Duration, Plan
from prunelang.compiler.problem import Constraint, Interval, VectorNorm
from prunelang.compiler.proofs import prove
from prunelang.compiler.reversed import is_reversed
from prunelang.compiler.schedule import Apply, constant, evaluate, is_constant
from prunelang.dsl.diagnostics import Diagnostic, SpecError
from prunelang.dsl.numbers import grouped


@dataclass(frozen=True)
class Bound:
    """An upper bound B and where it is moved to, in whole numbers where it counts something."""

    label: str
    unit: str
    below: Fraction  # B(1 − δ)
    at: Fraction
    above: Fraction  # B(1 + δ)


def movable(plan: Plan, delta: Fraction) -> tuple[tuple[Bound, ...], tuple[Diagnostic, ...]]:
    """The upper bounds that can be moved, and a warning for each that cannot. Raises `SpecError` if none can."""
    bounds, problems = [], []
    for c in _bounded(plan):
        bound = _moved(c, delta)
        problem = _too_small(c, bound, delta) or _impossible(plan, c, bound)
        if problem is None:
            bounds.append(bound)
        else:
            problems.append(problem)
    if not bounds:
        raise SpecError([replace(d, severity="error") for d in problems] or [_nothing(plan)], plan.source)
    return tuple(bounds), tuple(problems)


def _bounded(plan: Plan) -> Iterator[Constraint]:
    if is_reversed(plan.problem) or not any(s.solver for s in plan.stages):
        return
    yield from (
        c for c in plan.problem.constraints if c.structural and isinstance(c.set, Interval) and c.set.upper is not None
    )


def _moved(c: Constraint, delta: Fraction) -> Bound:
    assert isinstance(c.set, Interval)
    assert c.set.upper is not None
    at = Fraction(c.set.upper)
    ends = [at * (1 - delta), at * (1 + delta)]
    if not isinstance(c.function, VectorNorm):  # all others count something
        ends = [Fraction(round(e)) for e in ends]
    return Bound(c.label, c.function.unit, ends[0], at, ends[1])


def _nothing(plan: Plan) -> Diagnostic:
    objective = plan.problem.objective
    if is_reversed(plan.problem):
        why = "the objective is a count, so that there is no loss for a price to be in"
        return Diagnostic("P480", "error", f"nothing to probe: {why}", objective.span, hint="probe the forward problem")
    if not any(s.solver for s in plan.stages):
        return Diagnostic("P480", "error", "nothing to probe: no stage solves under the bounds", objective.span)
    why = "no constraint bounds a cost of the stored weights from above by a number"
    return Diagnostic("P480", "error", f"nothing to probe: {why}", objective.span)


def _too_small(c: Constraint, bound: Bound, delta: Fraction) -> Diagnostic | None:
    if 0 < bound.at and bound.below < bound.at < bound.above:
        return None
    moved = f"±{float(delta):.6g} of {number(bound.at)} is less than one" if bound.at else "a share of 0 is 0"
    hint = f"a δ of {float(1 / bound.at):.3g} or more moves it" if bound.at > 1 else None
    return Diagnostic("P481", "warning", f"`{c.label}` is too small to be moved: {moved}", c.span, hint=hint)


def _impossible(plan: Plan, c: Constraint, bound: Bound) -> Diagnostic | None:
    """Why the problem with the lower of the two bounds has no solution, where that is proved."""
    found = prove(moved(plan, c.label, bound.below).problem, plan.table)
    if not found.infeasible:
        return None
    notes = tuple(d.message for d in found.diagnostics if d.severity == "error")
    message = f"`{c.label}` cannot be moved down to {number(bound.below)}: nothing satisfies the constraints then"
    return Diagnostic("P482", "warning", message, c.span, notes=notes, hint="a smaller δ may leave room")


def moved(plan: Plan, label: str, upper: Fraction) -> Plan:
    """The plan with another upper bound of one constraint."""
    number = int(upper) if upper.denominator == 1 else upper
    constraints = tuple(
        replace(c, set=replace(c.set, upper=number)) if c.label == label and isinstance(c.set, Interval) else c
        for c in plan.problem.constraints
    )
    return replace(plan, problem=plan.problem.with_constraints(constraints))


def shortened(plan: Plan, share: Fraction, train_size: int) -> Plan:
    """The plan with inner loops of a share of their lengths, at least an epoch where they last one."""
    batches = -(-train_size // plan.data.batch)
    stages = tuple(replace(s, duration=_shortened(s.duration, share, batches)) for s in plan.stages)
    return plan if share == 1 else replace(plan, stages=stages)


def _shortened(d: Duration, share: Fraction, batches: int) -> Duration:
    least = 1 if d.unit == "epochs" else batches
    if is_constant(d.value):
        length = Fraction(evaluate(d.value, {}))
        return replace(d, value=constant(max(min(length, Fraction(least)), Fraction(round(share * length)))))
    floor = Apply("min", (constant(least), d.value))
    return replace(d, value=Apply("max", (floor, Apply("*", (constant(share), d.value)))))


def number(value: Fraction) -> str:
    """A bound as people read it."""
    return grouped(int(value)) if value.denominator == 1 else f"{float(value):.6g}"
