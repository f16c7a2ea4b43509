"""What a plan's solvers refuse: warnings while checking, errors when it is to be run or emitted."""

from __future__ import annotations

from collections.abc import Iterator

from prunelang.compiler.bridges import bridge
from prunelang.compiler.description import describing, penalty_form
from prunelang.compiler.feasible import NoProjection, feasible_set
from prunelang.compiler.plan import Plan, StagePlan
from prunelang.compiler.problem import Constraint, Count, Interval, Measured, Problem, Relative, Structural, Term
from prunelang.compiler.pruners.base import removable
from prunelang.compiler.reversed import forward
from prunelang.compiler.selecting import selecting
from prunelang.compiler.solvers.base import Refusal, compressed, solvers
from prunelang.compiler.synops import driven_plan
from prunelang.dsl.diagnostics import Diagnostic, Label


def runnability(plan: Plan) -> tuple[Diagnostic, ...]:
    """An error for everything that the solver of a stage does not take, with the solvers that would."""
    problem = forward(penalty_form(driven_plan(plan).problem, plan.table))
    found = [
        d
        for stage in plan.stages
        for d in (*_refused(stage, problem), *_unmet(stage, problem), *_idle(stage, plan), *_spared(stage, plan))
    ]
    if not found and any(stage.solver is not None for stage in plan.stages):
        found += _projections(plan)
    found += [*selecting(plan), *describing(plan)]
    return tuple(found)


def _idle(stage: StagePlan, plan: Plan) -> Iterator[Diagnostic]:
    """A stage that has nothing to change."""
    trained = {t.name for t in plan.table.tensors if t.role != "buffer"} - plan.problem.frozen
    if not trained:
        yield Diagnostic(
            "P409", "error", "there is nothing to train: every tensor of the network is frozen", stage.span
        )


def _spared(stage: StagePlan, plan: Plan) -> Iterator[Diagnostic]:
    """A pruner to which the constraints leave nothing, or whose options contradict each other."""
    if stage.pruner is None:
        return
    yield from stage.pruner.conditions(stage)
    problem = solved_problem(plan)
    kernels = {t.name for t in plan.table.tensors if t.role == "weight"} - problem.frozen
    speaks = compressed(problem) or kernels
    named = tuple(t.name for t in plan.table.tensors if t.name in speaks)
    if named and not removable(problem, named)[0]:
        yield Diagnostic(
            "P445",
            "error",
            f"`{stage.pruner.word}` has nothing to remove: {', '.join(f'`{n}`' for n in named)} may not lose positions",
            stage.span,
            hint="tensors under `dense`, `blocks` or a lower bound keep theirs; drop the line, or constrain others too",
        )


def _unmet(stage: StagePlan, problem: Problem) -> Iterator[Diagnostic]:
    """What is understood and checked, but no solver of this version carries out; and broken conditions."""
    if stage.solver is not None:
        if stage.until is not None:
            rule = stage.solver.stopping(bridge(problem, stage.solver.constraints).problem)
            if isinstance(rule, str):
                message = f"`until {stage.until.name}` cannot end a stage of `{stage.solver.word}`"
                yield Diagnostic("P416", "error", message, stage.span, hint=rule)
        yield from stage.solver.conditions(stage)
        yield from stage.solver.conflicts(stage, problem)


def _projections(plan: Plan) -> Iterator[Diagnostic]:
    """Constraints whose intersection cannot be projected onto, and bounds that move with the clocks."""
    for c in plan.problem.constraints:
        if c.schedule is not None:
            message = f"`{c.label}` has a bound that follows a schedule, which no solver of this version does"
            yield Diagnostic("P417", "error", message, c.span, hint="give the final bound")
    uneven = [c for c in plan.problem.constraints if _is_uneven_floor(c)]
    for c in uneven:
        reason = "a lower bound needs the same coefficient for all its tensors"
        yield Diagnostic("P415", "error", f"`{c.label}` has no projection here: {reason}", c.span)
    held = [c for c in plan.problem.constraints if _never_falls(c)]
    for c in held:
        reason = "no channel of its layers can be removed, so that it never falls"
        yield Diagnostic("P415", "error", f"`{c.label}` has no projection here: {reason}", c.span)
    if uneven or held:
        return
    try:
        feasible_set(solved_problem(plan), plan.table)
    except NoProjection as refused:
        first, *others = refused.constraints
        yield Diagnostic(
            "P415",
            "error",
            f"these constraints have no joint projection: {refused.reason}",
            first.span,
            secondary=tuple(Label(c.span, "together with this") for c in others),
            conflict=tuple(c.label for c in refused.constraints),
        )


def _is_uneven_floor(c: Constraint) -> bool:
    """Whether a weighted count with differing weights has a lower bound."""
    below = isinstance(c.set, Interval) and c.set.lower is not None
    return below and isinstance(c.function, Count) and len(set(c.function.coefficients.values())) > 1


def _never_falls(c: Constraint) -> bool:
    """Whether a cost of the remaining shapes is to fall though it speaks of no coupling group."""
    f = c.function
    if not isinstance(f, Structural) or f.groups or not isinstance(c.set, Interval) or c.set.upper is None:
        return False
    return c.set.upper < f.dense


def _refused(stage: StagePlan, problem: Problem) -> Iterator[Diagnostic]:
    if stage.solver is None:
        return
    for refusal in stage.solver.refusals(problem):
        subject = refusal.subject
        takers = [] if subject is None else takers_of(subject, problem)
        relative = isinstance(subject, Constraint) and isinstance(subject.set, Relative)
        nobody = "give the bound as a number" if relative else "no solver takes it yet"
        who = f"{_listed(takers)} would take it" if takers else nobody
        yield Diagnostic(
            "P414",
            "error",
            f"`{stage.solver.word}` cannot run this: {refusal.reason}",
            stage.span if subject is None else subject.span,
            hint=who,
        )


def _listed(words: list[str]) -> str:
    """`a`, `b` and `c`."""
    *first, last = [f"`{w}`" for w in words]
    return f"{', '.join(first)} and {last}" if first else last


def solved_problem(plan: Plan) -> Problem:
    """The problem as the first solver sees it."""
    takes = next((s.solver.constraints for s in plan.stages if s.solver is not None), frozenset())
    return bridge(forward(penalty_form(driven_plan(plan).problem, plan.table)), takes).problem


def takers_of(subject: Constraint | Term, problem: Problem) -> list[str]:
    """The solvers that refuse neither a constraint or a penalty of this problem nor the losses that it minimises."""
    needed = {_name(subject), *(t.text for t in problem.objective.terms if isinstance(t.function, Measured))}
    refused = {w: {_name(r.subject) for r in s.model_construct().refusals(problem)} for w, s in solvers().items()}
    return [word for word, names in refused.items() if needed.isdisjoint(names)]


def _name(subject: Constraint | Term | None) -> str:
    """What stays the same of a subject when a bridge rewrites it."""
    return "" if subject is None else subject.label if isinstance(subject, Constraint) else subject.text


__all__ = ["Refusal", "runnability", "takers_of"]
