"""A plan as a page of mathematics: objective, constraints with their numbers, what stands where, how it is solved."""

from __future__ import annotations

from dataclasses import dataclass

from prunelang.compiler.plan import Plan
from prunelang.compiler.problem import Constraint, Measured
from prunelang.dsl import tree
from prunelang.dsl.names import to_unicode
from prunelang.dsl.numbers import grouped
from prunelang.explain import call_text, length_text
from prunelang.notation.formula import Formula, Number, Sign, Symbol, Word, name, of, quantified, row
from prunelang.report import bound_text

MOST = 6
"""Lines of numbers of one written constraint, at most: `∀` over a large network has hundreds."""


@dataclass(frozen=True)
class Condition:
    """A constraint as it is written, and what it is in numbers: one text, or several with their labels."""

    label: str
    formula: Formula
    numbers: tuple[tuple[str, str], ...]
    left_out: int = 0


@dataclass(frozen=True)
class Stated:
    """Everything that a reader needs to see the problem."""

    sense: str  # "min" or "max"
    objective: Formula
    splits: tuple[str, ...]  # that its data terms are on
    conditions: tuple[Condition, ...]
    where: tuple[tuple[Formula, str], ...]  # symbols and what they are
    stages: tuple[tuple[str, str], ...]  # "solve" and what is called, with its length


def stated(plan: Plan) -> Stated:
    """The problem as its spec writes it, with the values of params in force."""
    objective = next(s for s in plan.spec.statements if isinstance(s, tree.Objective))
    splits = dict.fromkeys(t.function.split for t in plan.problem.objective.terms if isinstance(t.function, Measured))
    return Stated(
        {"minimize": "min", "maximize": "max"}[objective.sense],
        of(objective.value),
        tuple(splits),
        tuple(_condition(c, plan) for c in _written(plan)),
        tuple(_where(plan)),
        tuple(_stages(plan)),
    )


def _written(plan: Plan) -> list[tree.Constraint]:
    return [c for s in plan.spec.statements if isinstance(s, tree.SubjectTo) for c in s.constraints]


def _condition(written: tree.Constraint, plan: Plan) -> Condition:
    """A canonical constraint stands inside the written one that it came from."""
    found = [c for c in plan.problem.constraints if _inside(c, written)]
    texts = dict.fromkeys(bound_text(c) for c in found)
    label = written.label or (found[0].label if len(found) == 1 else "")
    if len(texts) == 1:
        each = f"each {next(iter(texts))}" if len(found) > 1 else next(iter(texts))
        return Condition(to_unicode(label), quantified(written), (("", each),))
    numbers = tuple((to_unicode(c.label), bound_text(c)) for c in found[:MOST])
    return Condition(to_unicode(label), quantified(written), numbers, max(len(found) - MOST, 0))


def _inside(c: Constraint, written: tree.Constraint) -> bool:
    return written.span.start <= c.span.start and c.span.end <= written.span.end


def _where(plan: Plan) -> list[tuple[Formula, str]]:
    kernels = sum(t.size for t in plan.table.tensors if t.role == "weight")
    found: list[tuple[Formula, str]] = [(Symbol("W"), f"the {grouped(kernels)} kernel weights of {plan.model.text}")]
    for statement in plan.spec.statements:
        if isinstance(statement, tree.Param):
            text = plan.parameters.get(statement.name)
            found.append((_equal(name(statement.name), Number(text)) if text else name(statement.name), "param"))
        elif isinstance(statement, tree.Let):
            found.append((_equal(name(statement.name), of(statement.value)), "let"))
    if any(_speaks_of_base(side) for c in _written(plan) for side in _sides(c)):
        found.append((Word("base"), "the value with the weights that enter the first solve"))
    return found


def _equal(left: Formula, right: Formula) -> Formula:
    return row(left, Sign("="), right)


def _sides(c: tree.Constraint) -> tuple[tree.Expr, ...]:
    return c.body.sides if isinstance(c.body, tree.Comparison) else ()


def _speaks_of_base(node: object) -> bool:
    if isinstance(node, tree.Name):
        return node.id == "base"
    if isinstance(node, tree.Binary):
        return _speaks_of_base(node.left) or _speaks_of_base(node.right)
    return isinstance(node, tree.Negate) and _speaks_of_base(node.value)


def _stages(plan: Plan) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for s in plan.stages:
        if s.pruner is not None:
            found.append((s.kind, call_text(s.pruner)))
            continue
        parts = [] if s.solver is None else [call_text(s.solver)]
        if s.solver is None or s.solver.descends:
            parts += [call_text(s.optimizer), length_text(s)]
        found.append((s.kind, ", ".join(parts)))
    return found
