"""Budgets of synaptic operations: which are driven by a count while a network is trained, and where rates are measured.

``synops(net) ≤ B`` is a measured constraint: it is decided on fresh samples. Beside it, for solvers that can follow,
stands a weighted count ``Σ_t c_t · nnz(t) ≤ B`` with the numbers of a calibration (see `graph.calibration`).
`spikes` has no such count: a weight does not cost spikes, it makes or prevents them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from prunelang.compiler.graph import (
    Batches,
    Calibrate,
    Calibration,
    Outer,
    Project,
    Saddle,
    Step,
    Tighten,
)
from prunelang.compiler.graph.calibration import PREFIX, SPLIT, named_bounds
from prunelang.compiler.graph.minimax import Multipliers
from prunelang.compiler.measured import certified_on, is_surrogate
from prunelang.compiler.plan import Plan, StagePlan
from prunelang.compiler.problem import Constraint, Count, Interval, Measured, Problem, Relative, tensors_of
from prunelang.compiler.reversed import conditions, floors, is_reversed
from prunelang.compiler.shapes import ShapeTable

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering

NAME: Final = "synops"
MEASURED: Final = ("synops", "spikes", "energy")
"""Functions that only a spiking network has."""
ROUNDS: Final = 16  # of tightening, at most
SETTLING: Final = 4  # calibrations before a projection of weights that were not projected before


def speaks_of_activity(problem: Problem) -> bool:
    """Whether a constraint is on what neurons do."""
    return any(isinstance(c.function, Measured) and c.function.name in MEASURED for c in problem.constraints)


def budgets(problem: Problem) -> tuple[Constraint, ...]:
    """The upper bounds on synaptic operations that a count can drive: none inside a search, which only measures."""
    if is_reversed(problem):
        return ()
    return tuple(c for c in problem.constraints if _is_upper(c))


def _is_upper(c: Constraint) -> bool:
    if not isinstance(c.function, Measured) or c.function.name != NAME:
        return False
    match c.set:
        case Interval(upper=upper):
            return upper is not None
        case Relative(relation=relation):
            return relation == "≤"
    return False


# ── the problem that a solver follows ────────────────────────────────────────────────────────────────────────────


def driven(problem: Problem, table: ShapeTable) -> Problem:
    """The problem with a count beside each budget; any other problem as it is."""
    found = budgets(problem)
    if not found:
        return problem
    counts = (_surrogate(c, bound_name(i, len(found)), problem, table) for i, c in enumerate(found))
    return replace(problem, constraints=(*problem.constraints, *counts))


def driven_plan(plan: Plan) -> Plan:
    """The plan of what its solvers follow, where one of them can."""
    if not any(_drives(stage) for stage in plan.stages):
        return plan
    problem = driven(plan.problem, plan.table)
    return plan if problem is plan.problem else replace(plan, problem=problem)


def followed(problem: Problem, stage: StagePlan) -> Problem:
    """What the solver of a stage sees of a driven problem: the counts only if it can follow them."""
    if _drives(stage):
        return problem
    kept = tuple(c for c in problem.constraints if not is_surrogate(c))
    return problem if len(kept) == len(problem.constraints) else replace(problem, constraints=kept)


def _drives(stage: StagePlan) -> bool:
    return stage.solver is not None and stage.solver.drives


def bound_name(index: int, total: int) -> str:
    """The state that holds the numbers of a budget."""
    return "B" if total == 1 else f"B_{index + 1}"


def _surrogate(c: Constraint, name: str, problem: Problem, table: ShapeTable) -> Constraint:
    """The count with every neuron firing at every step in the place of rates, no two coefficients the same: what holds
    of it whatever its numbers turn out to be, holds of it."""
    kernels = [t.name for t in table.tensors if t.role == "weight" and t.name not in problem.frozen]
    costs = {t: 1000 * max(1, table.uses[t]) + i for i, t in enumerate(kernels)}
    dense = sum(a * table.tensor[t].size for t, a in costs.items())
    function = Count(NAME, costs, 0, "", (("measured", name),))
    text = f"Σ c_t nnz(t) ≤ {name}"
    return Constraint(PREFIX + c.label, function, Interval(upper=dense), c.span, text, asked=f"≤ {name}")


# ── what a stage does about it ───────────────────────────────────────────────────────────────────────────────────


def declare(low: Lowering) -> None:
    """The states that hold the numbers of the budgets of the plan under construction."""
    problem = low.plan.problem
    for count in filter(is_surrogate, problem.constraints):
        c = problem.constraint(count.label.removeprefix(PREFIX))
        (floor,) = (f for f in conditions(c, SPLIT) if f.relation == "≤")
        assert isinstance(c.function, Measured)
        tensors, split = tensors_of(count.function), certified_on(problem, c.function.split)
        low.declare(Calibration(_state_of(count), floor, tensors, split))


def calibrated(low: Lowering, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps with a measurement of rates before each projection onto a driven budget, on the weights that it will
    replace, and before and after each epoch of a loop that prices one."""
    return tuple(x for s in steps for x in _calibrated(low, s))


def _calibrated(low: Lowering, step: Step) -> Iterator[Step]:
    if isinstance(step, Project):
        inside = step.target in {name for _, name, _ in step.source.terms}
        onto, rounds = (step.onto, SETTLING) if inside else (None, 1)
        yield from (Calibrate(name, step.target, onto, rounds) for name in named_bounds(step))
        yield step
    elif isinstance(step, Outer):
        yield replace(step, body=calibrated(low, step.body))
    elif isinstance(step, Batches):
        measuring = tuple(Calibrate(name, "W", low.feasible()) for name in _priced(low, step))
        yield from measuring
        yield replace(step, each_epoch=(*measuring, *step.each_epoch)) if measuring else step
    else:
        yield step


def _priced(low: Lowering, loop: Batches) -> tuple[str, ...]:
    """The calibrations behind the resources that a loop ascends on."""
    names = {s.budgets.multipliers for s in loop.body if isinstance(s, Saddle)}
    states = [s for s in low.state if isinstance(s, Multipliers) and s.name in names]
    return tuple(dict.fromkeys(r.measured for s in states for r in s.resources if r.measured))


def tightened(low: Lowering, batches: int) -> tuple[Step, ...]:
    """The end of a stage that followed a budget, and of the epochs that come after it: less and less, until the budget
    holds on the split that choices read."""
    names = tuple(_state_of(c) for c in low.problem.constraints if is_surrogate(c))
    found = tuple(f for f in floors(low.plan.problem) if f.name == NAME and f.relation == "≤")
    return (Tighten("W", low.feasible(), "m", names, found, ROUNDS, batches),) if names and found else ()


def _state_of(c: Constraint) -> str:
    assert isinstance(c.function, Count)
    return str(dict(c.function.options)["measured"])


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────────────


def explained(plan: Plan, stage: StagePlan) -> Iterator[str]:
    """Lines for `explain`: how a solve treats what is measured on spikes."""
    driving = _drives(stage)
    for c in plan.problem.constraints:
        if not isinstance(c.function, Measured) or c.function.name not in MEASURED:
            continue
        decided = f"decided on {certified_on(plan.problem, c.function.split)}"
        if driving and c in budgets(plan.problem):
            counted = f"Σ c_t · nnz(t), c_t the spikes that a kept weight reads on {SPLIT}"
            yield f"follows `{c.label}` by {counted}; {decided}"
        else:
            yield f"does not follow `{c.label}`, which is {decided}"


__all__ = ["MEASURED", "NAME", "PREFIX", "budgets", "calibrated", "declare", "driven", "driven_plan", "explained"]
__all__ += ["followed", "speaks_of_activity", "tightened"]
