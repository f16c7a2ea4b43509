"""What a plan's solvers refuse: warnings while checking, errors when it is to be run or emitted."""

from __future__ import annotations

from collections.abc import Iterator

from prunelang.compiler.plan import Plan, StagePlan
from prunelang.compiler.problem import Constraint, Problem, Term
from prunelang.compiler.solvers.base import Refusal, family, set_family, solvers
from prunelang.dsl.diagnostics import Diagnostic


def runnability(plan: Plan) -> tuple[Diagnostic, ...]:
    """An error for everything that the solver of a stage does not take, with the solvers that would."""
    return tuple(d for stage in plan.stages for d in _refused(stage, plan.problem))


def _refused(stage: StagePlan, problem: Problem) -> Iterator[Diagnostic]:
    if stage.solver is None:
        return
    for refusal in stage.solver.refusals(problem):
        subject = refusal.subject
        takers = [] if subject is None else [w for w in takers_of(subject) if w != stage.solver.word]
        who = f"{' and '.join(f'`{w}`' for w in takers)} would take it" if takers else "no solver takes it yet"
        yield Diagnostic(
            "P414",
            "error",
            f"`{stage.solver.word}` cannot run this: {refusal.reason}",
            stage.span if subject is None else subject.span,
            hint=who,
        )


def takers_of(subject: Constraint | Term) -> list[str]:
    """The solvers that declare to take a constraint or a penalty."""
    if isinstance(subject, Constraint):
        pair = (family(subject.function), set_family(subject))
        return [w for w, s in solvers().items() if pair in s.constraints]
    return [w for w, s in solvers().items() if family(subject.function) in s.penalties]


__all__ = ["Refusal", "runnability", "takers_of"]
