"""Description length: what training under ``minimize description_length(net)`` is, and what coded sizes need.

    DL(w) = Σ_train −log₂ p(y | x; w) + 8 · bytes(coded)

The length of a coded file has no gradient. Per prediction, and with the same number of bits for every kept weight, it
is the penalty form of a count,

    DL(w)/n ≈ nll(w) + α ‖w‖₀ + const,     α = c (b + H₂(ρ)/ρ) / n,

with n predictions of the train split, b = 8 bits for a value and H₂(ρ)/ρ for its position among N/z = 1/ρ entries, at
ρ = 5 %; c is the coefficient in the objective. Solvers that take ``α · ‖w‖₀`` descend on that. What is reported and
certified is DL itself, of a file that is written and read back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from math import log2, prod
from typing import TYPE_CHECKING, Final

from prunelang.compiler import catalog
from prunelang.compiler.problem import Constraint, Count, Measured, Objective, Problem, Term, tensors_of
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl.diagnostics import Diagnostic

if TYPE_CHECKING:
    from prunelang.compiler.plan import Plan

NAME: Final = "description_length"
VALUE_BITS: Final = 8
DENSITY: Final = Fraction(1, 20)


def bits_per_weight(density: Fraction = DENSITY) -> float:
    """b + H₂(ρ)/ρ: 13.7 bits at 5 % kept."""
    rho = float(density)
    return VALUE_BITS - log2(rho) - (1 - rho) / rho * log2(1 - rho)


def coefficient(problem: Problem) -> Fraction | None:
    """c of ``minimize c · description_length(net)``; None where the objective is another."""
    terms = problem.objective.terms
    if problem.objective.sense != "minimize" or len(terms) != 1 or not is_description(terms[0]):
        return None
    weight = terms[0].weight
    return weight if isinstance(weight, Fraction) and weight > 0 else None


def alpha(problem: Problem, predictions: int) -> Fraction:
    """Bits a prediction for each kept weight."""
    c = coefficient(problem)
    return Fraction(0) if c is None else c * Fraction(bits_per_weight()) / predictions


def penalised(problem: Problem, table: ShapeTable) -> tuple[str, ...]:
    """The kernels that the penalty counts: trained, and under no structural constraint, which decides their count."""
    held = {t for c in problem.constraints if c.structural for t in tensors_of(c.function)} | problem.frozen
    return tuple(t.name for t in table.tensors if t.role == "weight" and t.name not in held)


def penalty_form(problem: Problem, table: ShapeTable, predictions: int = 1) -> Problem:
    """The problem that solvers see: nll with α ‖w‖₀ in place of the description length; any other problem as it is."""
    if coefficient(problem) is None:
        return problem
    objective, (term,) = problem.objective, problem.objective.terms
    nll = replace(term, weight=Fraction(1), function=Measured("nll", "train", (), "bits"), text="nll(net)")
    counted = dict.fromkeys(penalised(problem, table), 1)
    count = replace(term, weight=alpha(problem, predictions), function=Count("norm0", counted, 0, ""))
    terms = (nll, replace(count, text="‖net.weights‖₀")) if counted else (nll,)
    return replace(problem, objective=Objective(objective.sense, terms, objective.span))


def penalty_plan(plan: Plan, train_size: int) -> Plan:
    """The plan of `penalty_form`, with α for so many training samples."""
    if coefficient(plan.problem) is None:
        return plan
    problem = penalty_form(plan.problem, plan.table, train_size * predictions_of(plan))
    return replace(plan, problem=problem)


def predictions_of(plan: Plan) -> int:
    """Predictions a sample: one, or one for every position of a sequence."""
    facts = catalog.DATA.get(plan.data.constructor)
    return prod(plan.table.input_shape) if facts is not None and facts.task == "language" else 1


def explained(plan: Plan) -> Iterator[str]:
    """Lines for `explain`: what stands for the description length in a stage that solves."""
    c = coefficient(plan.problem)
    if c is None:
        return
    counted = len(penalised(plan.problem, plan.table))
    if not counted:
        yield "    description length: constraints decide how many weights are kept, so that nll is what is left"
        return
    bits = float(c) * bits_per_weight()
    yield f"    description length: nll + α ‖w‖₀ with α = {bits:.4g} bits a weight / predictions of train"
    position = bits_per_weight() - VALUE_BITS
    yield f"        {VALUE_BITS} bits a value and H₂(ρ)/ρ = {position:.3g} a position at ρ = {float(DENSITY):g}"


def is_coded(constraint: Constraint) -> bool:
    """Whether the constraint is on the length of a coded file."""
    return isinstance(constraint.function, Measured) and constraint.function.name == "bytes"


def describing(plan: Plan) -> Iterator[Diagnostic]:
    """Objectives with a description length that is not all there is, and coded sizes that nothing drives."""
    problem = plan.problem
    if not any(stage.solver is not None for stage in plan.stages):
        return
    objective = problem.objective
    if any(map(is_description, objective.terms)) and coefficient(problem) is None:
        message = "a description length is minimised on its own, with a fixed positive coefficient"
        hint = "it holds the data term nll already, and its penalty is the number of coded weights"
        yield Diagnostic("P458", "error", message, objective.span, hint=hint)
    for term in objective.terms:
        if isinstance(term.function, Measured) and term.function.name == "bytes":
            message = "the length of a coded file has no derivative, and no solver searches for the shortest"
            hint = (
                "minimise ‖net.weights‖₀, of which the file holds about 12 to 14 bits each, or description_length(net)"
            )
            yield Diagnostic("P457", "error", message, term.span, hint=hint)
    drives = any(c.structural and not is_coded(c) for c in problem.constraints)
    drives = drives or any(tensors_of(t.function) or is_description(t) for t in objective.terms)
    for c in problem.constraints:
        if is_coded(c) and not drives:
            message = f"`{c.label}` is a length that the values decide, and nothing here makes it smaller"
            hint = "add a count, such as ‖net.weights‖₀ ≤ 2%: the file is then measured when the run ends"
            yield Diagnostic("P457", "error", message, c.span, hint=hint)


def is_description(term: Term) -> bool:
    """Whether the term is the description length."""
    return isinstance(term.function, Measured) and term.function.name == NAME
