"""The reversed form: ``minimize ‖w‖₀ subject to accuracy(net) ≥ a`` as a search over forward problems.

For a value of κ the forward problem is ``minimize L subject to ‖w‖₀ ≤ κ`` with the further structural constraints; a
search finds the smallest κ whose solution meets the measured ones. L is what the stages descend on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, Any, Final

from prunelang.compiler.description import is_coded
from prunelang.compiler.graph import Floor, Observe, Part, Search, Step
from prunelang.compiler.measured import is_measured, measured_constraints, watched
from prunelang.compiler.plan import Plan, StagePlan
from prunelang.compiler.problem import (
    Choice,
    Constraint,
    Count,
    Function,
    GroupCount,
    Interval,
    Measured,
    Objective,
    Problem,
    Relative,
    Term,
)
from prunelang.compiler.proofs import prove
from prunelang.compiler.schedule import exact
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl.numbers import grouped

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering

LEVEL: Final = "κ"
PROBES: Final = 12
TOLERANCE: Final = 0.05
UNKNOWN: Final = 2**53
"""Stands for the bound where the network is not at hand: whether a solver takes it does not depend on its value."""


def is_reversed(problem: Problem) -> bool:
    """Whether the objective holds no data, and constraints do: what is trained on stands in the constraints."""
    terms = problem.objective.terms
    return bool(measured_constraints(problem)) and not any(isinstance(t.function, Measured) for t in terms)


def searched(problem: Problem) -> Term | None:
    """The count that a search makes small; None where the objective is none."""
    terms = problem.objective.terms
    if not is_reversed(problem) or len(terms) != 1 or not isinstance(terms[0].weight, Fraction) or not terms[0].weight:
        return None
    return terms[0] if isinstance(terms[0].function, Count | Choice | GroupCount) else None


def bounded(term: Term, upper: int) -> Constraint:
    """``f ≤ κ`` as a constraint of the forward problem: of a count in which all positions cost the same, the plain
    count, whose smallest value gives the smallest cost."""
    text = shown(term)
    return Constraint(
        f"minimize {term.text or term.function.name}",
        counted(term),
        Interval(upper=upper),
        term.span,
        f"{text} ≤ {LEVEL}",
        asked=f"≤ {LEVEL}",
    )


def counted(term: Term) -> Function:
    f = term.function
    uniform = isinstance(f, Count) and len(set(f.coefficients.values())) == 1
    return Count("norm0", dict.fromkeys(f.coefficients, 1), 0, "") if uniform and isinstance(f, Count) else f


def shown(term: Term) -> str:
    """What the level bounds, as the listing names it."""
    text = term.text or term.function.name
    return text if counted(term) == term.function or term.function.name == "norm0" else f"positions of {text}"


def forward(problem: Problem, losses: tuple[Term, ...] = (), upper: int = UNKNOWN) -> Problem:
    """The forward problem that solvers see, with the count bounded by `upper`; any other problem as it is."""
    term = searched(problem)
    if term is None:
        return problem
    objective = Objective("minimize", losses, problem.objective.span)
    return replace(problem, objective=objective, constraints=(bounded(term, upper), *problem.constraints))


def forward_plan(plan: Plan) -> Plan:
    """The plan with its forward problem, bounded by the dense value."""
    term = searched(plan.problem)
    if term is None:
        return plan
    losses = next((s.losses for s in plan.stages if s.solver is not None), ())
    return replace(plan, problem=forward(plan.problem, losses, dense(term, plan.table)))


def dense(term: Term, table: ShapeTable) -> int:
    """The value of the bounded count with every position kept."""
    match counted(term):
        case Count(coefficients=costs, constant=constant):
            return constant + sum(a * table.tensor[t].size for t, a in costs.items())
        case Choice(alternatives=ways, constant=constant):
            sizes = {t: table.tensor[t].size for t in ways}
            return constant + sum(min(a * sizes[t] + c for _, a, c in found) for t, found in ways.items())
        case GroupCount(tensors=tensors, by=by):
            return sum(_groups(tuple(table.tensor[t].shape), by) for t in tensors)
    raise ValueError(f"`{term.function.name}` is no count")


def _groups(shape: tuple[int, ...], by: str) -> int:
    return {"filter": shape[0], "row": shape[0], "channel": shape[1], "column": prod(shape[1:])}[by]


def search_options(stages: tuple[StagePlan, ...]) -> tuple[int, float]:
    """`probes` and `tolerance` as the solves give them, the first that does."""
    solvers = [s.solver for s in stages if s.solver is not None]
    probes = next((s.probes for s in solvers if s.probes is not None), PROBES)
    given = next((exact(s.tolerance) for s in solvers if s.tolerance is not None), None)
    return probes, TOLERANCE if given is None else float(given)


# ── floors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def floors(problem: Problem) -> tuple[Floor, ...]:
    """The measured constraints as conditions on the splits that choices may read: `test` is none of them."""
    found = []
    for c in measured_constraints(problem):
        assert isinstance(c.function, Measured)
        if c.function.split != "test":
            found += conditions(c, watched(problem, c.function.split))
    return tuple(found)


def conditions(c: Constraint, split: str) -> list[Floor]:
    """A measured constraint on a split: one condition for each of its bounds."""
    f = c.function
    assert isinstance(f, Measured)

    def floor(relation: Any, offset: Fraction | int, factor: Fraction | int = 0) -> Floor:
        return Floor(c.label, f.name, split, relation, str(offset), str(factor), f.arguments, f.unit)

    match c.set:
        case Interval(lower, upper):
            found = [] if lower is None else [floor("≥", lower)]
            return found if upper is None else [*found, floor("≤", upper)]
        case Relative(relation, factor, offset):
            return [floor(relation, offset, factor)]
    return []


# ── the search around the solve ──────────────────────────────────────────────────────────────────────────────────


def entering(stages: tuple[StagePlan, ...]) -> int:
    """The stage before which `base` is what it is: the first solve, or where there is none what follows pretraining."""
    solves = [i for i, s in enumerate(stages) if s.solver is not None]
    later = [i for i, s in enumerate(stages) if s.kind != "pretrain"]
    return next(iter(solves or later), len(stages))


def selecting(low: Lowering, asked: Plan, body: tuple[Step, ...]) -> list[Step]:
    """The first solve and what follows it, with what measured constraints need around them."""
    found, steps = floors(asked.problem), []
    if any(isinstance(c.set, Relative) and (is_measured(c) or is_coded(c)) for c in asked.problem.constraints):
        steps.append(Observe(tuple(f for f in found if f.relative)))
    term = searched(asked.problem)
    if term is None or not any(s.solver is not None for s in asked.stages):
        return [*steps, *body]
    level, top = low.level(LEVEL), dense(term, asked.table)
    inner = tuple(with_level(s, term, top, level) for s in body)
    probes, tolerance = search_options(asked.stages)
    return [*steps, Search(level, top, _least(low.plan, term), found, inner, probes, tolerance)]


def _least(plan: Plan, term: Term) -> int:
    """A level that the further constraints certainly leave room for nothing below."""
    proof = prove(plan.problem, plan.table)[bounded(term, 0).label]
    return int(proof.range.lower or 0)


# ── the level in place of its value ──────────────────────────────────────────────────────────────────────────────


def with_level(step: Step, term: Term, upper: int, level: str) -> Step:
    """The step with the level's name wherever it holds the bound of the searched count."""
    constraint, text = bounded(term, upper), shown(term)
    was, now = f"{text} ≤ {grouped(upper)}", f"{text} ≤ {level}"

    def named(value: Any) -> Any:
        if isinstance(value, Part) and constraint.label in value.labels:
            value = replace(value, text=value.text.replace(was, now))
        if is_dataclass(value) and not isinstance(value, type):
            changed = {f.name: named(getattr(value, f.name)) for f in fields(value)}
            if changed.get("label", constraint.label) == constraint.label and changed.get("kappa") == upper:
                changed["kappa"] = level
            same = all(changed[k] is getattr(value, k) for k in changed)
            return value if same else replace(value, **changed)
        if isinstance(value, Mapping):
            mine = value.get("name") == constraint.label and "upper" in value
            return {**value, "upper": level} if mine else value
        if isinstance(value, tuple):
            new = tuple(map(named, value))
            return value if all(a is b for a, b in zip(new, value, strict=True)) else new
        return value

    found: Step = named(step)
    return found
