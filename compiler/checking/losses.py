"""What a stage descends on: data terms; a metric stands for its loss."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Final

from prunelang.compiler.checking.bounds import Ends
from prunelang.compiler.checking.expressions import evaluate
from prunelang.compiler.checking.objective import terms
from prunelang.compiler.checking.world import World
from prunelang.compiler.functions import FUNCTIONS
from prunelang.compiler.problem import Affine, Function, Measured, Problem, Term
from prunelang.compiler.schedule import SCHEDULES, Apply
from prunelang.dsl.tree import Expr

LOSS_OF: Final = {"accuracy": "cross_entropy", "error": "cross_entropy"}
ONE: Final = Fraction(1)


def default_losses(world: World, problem: Problem) -> tuple[Term, ...]:
    """Data terms of the objective; else of the constraints; else the losses of their metrics; else nothing."""
    sign = 1 if problem.objective.sense == "minimize" else -1
    objective = problem.objective.terms
    found = [_signed(t, sign) for t in objective if is_data_term(world, t.function)]
    found += [
        Term(ONE, Measured("nll", "train", (), "bits"), t.span, "nll(net)")
        for t in objective
        if _names(t.function, "description_length")
    ]
    if found:
        return tuple(found)
    in_constraints = [(f, c.span) for c in problem.constraints for f in _parts(c.function)]
    losses = {_on_train(f): span for f, span in reversed(in_constraints) if is_data_term(world, f)}
    if losses:
        return tuple(Term(ONE, f, span, f.name) for f, span in reversed(losses.items()))
    metrics = [*((t.function, t.span) for t in objective), *in_constraints]
    standing = {LOSS_OF[f.name]: span for f, span in reversed(metrics) if isinstance(f, Measured) and f.name in LOSS_OF}
    return tuple(Term(ONE, Measured(n, "train", (), FUNCTIONS[n].unit), span, n) for n, span in standing.items())


def _names(function: Function, name: str) -> bool:
    return isinstance(function, Measured) and function.name == name


def _signed(term: Term, sign: int) -> Term:
    if sign == 1:
        return term
    weight = Apply("neg", (term.weight,)) if isinstance(term.weight, SCHEDULES) else -term.weight
    return Term(weight, term.function, term.span, term.text)


def _parts(function: Function) -> Iterable[Function]:
    return [f for _, f in function.terms] if isinstance(function, Affine) else [function]


def _on_train(function: Function) -> Measured:
    assert isinstance(function, Measured)
    return Measured(function.name, "train", function.arguments, function.unit)


def is_data_term(world: World, function: Function) -> bool:
    """Whether a function is a differentiable loss of the data."""
    if not isinstance(function, Measured):
        return False
    signature = FUNCTIONS.get(function.name)
    return function.name in world.catalog.losses or (signature is not None and signature.group == "data term")


def stage_losses(world: World, node: Expr) -> tuple[Term, ...] | None:
    """``minimizing E``: data terms alone, a metric standing for its loss."""
    found = terms(world, node, evaluate(world, node), Ends({"p": 0.0}, {"p": 1.0}))
    if found is None:
        return None
    out: list[Term] = []
    for term in found:
        function = term.function
        if is_data_term(world, function):
            out.append(term)
        elif isinstance(function, Measured) and function.name in LOSS_OF:
            name = LOSS_OF[function.name]
            out.append(Term(ONE, Measured(name, "train", (), FUNCTIONS[name].unit), term.span, name))
        else:
            hint = "penalties belong to the objective; decay of weights to the optimizer"
            world.report.error(
                "P409", term.span, f"a stage of training descends on data terms, not on `{function.name}`", hint=hint
            )
            return None
    return tuple(out)
