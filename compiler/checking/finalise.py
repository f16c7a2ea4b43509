"""Last looks at a whole problem: what can be pruned at all, frozen tensors, the splits that are read, tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from prunelang.compiler.catalog import DataFacts
from prunelang.compiler.channels import freed
from prunelang.compiler.checking import factors
from prunelang.compiler.checking.reporter import listing
from prunelang.compiler.checking.world import World
from prunelang.compiler.plan import ReportPlan, StagePlan
from prunelang.compiler.problem import (
    Affine,
    Choice,
    Constraint,
    Count,
    Entries,
    Function,
    GroupCount,
    Kept,
    MatrixFunction,
    Measured,
    Objective,
    Problem,
    Structural,
    Term,
    VectorNorm,
    tensors_of,
)
from prunelang.dsl.spans import Span

T = TypeVar("T")
RESOURCES: Final = frozenset(
    {"nonzeros", "bytes", "sparse_macs", "sparse_flops", "params", "macs", "flops", "sum"}  # these name no tensor
)
CLASSIFYING: Final = frozenset({"cross_entropy", "nll", "accuracy", "error"})


def parts(function: Function) -> Iterable[Function]:
    """The functions in a combination; the function itself if it is none."""
    return [p for _, f in function.terms for p in parts(f)] if isinstance(function, Affine) else [function]


def prunable(
    world: World, constraints: Iterable[Constraint], terms: Iterable[Term], frozen: frozenset[str]
) -> frozenset[str]:
    """Kernels, and tensors that a norm or a set names; whatever is frozen is not."""
    assert world.selectors is not None
    named = set(world.selectors.weights.names)
    for constraint in constraints:
        if not isinstance(constraint.set, Kept):
            named.update(*(tensors_of(f) for f in parts(constraint.function) if f.name not in RESOURCES))
    for term in terms:
        named.update(*(tensors_of(f) for f in parts(term.function) if f.name not in RESOURCES))
    return frozenset(named) - frozen


def restricted(world: World, function: Function, keep: frozenset[str], frozen: frozenset[str]) -> Function:
    """The same function with tensors that cannot shrink as part of the constant, at full density."""
    assert world.selectors is not None
    table = world.selectors.table
    match function:
        case Count(coefficients=costs) if not costs.keys() <= keep:
            fixed = sum(c * table.tensor[t].size for t, c in costs.items() if t not in keep)
            return replace(function, coefficients=_only(costs, keep), constant=function.constant + fixed)
        case Choice(alternatives=ways) if not ways.keys() <= keep:
            full = (min(a * table.tensor[t].size + c for _, a, c in ways[t]) for t in ways if t not in keep)
            return replace(function, alternatives=_only(ways, keep), constant=function.constant + sum(full))
        case Structural():
            return freed(function, table, frozen)
        case Affine(terms=terms):
            return replace(function, terms=tuple((w, restricted(world, f, keep, frozen)) for w, f in terms))
    return function


def _only(mapping: Mapping[str, T], keep: frozenset[str]) -> dict[str, T]:
    return {t: v for t, v in mapping.items() if t in keep}


def finalise(world: World, objective: Objective, constraints: Iterable[Constraint], frozen: frozenset[str]) -> Problem:
    """The problem with constants settled; frozen tensors where nothing may be frozen are reported."""
    found = list(constraints)
    keep = prunable(world, found, objective.terms, frozen)
    for constraint in found:
        check_frozen(world, constraint.function, constraint.span, frozen)
    for term in objective.terms:
        check_frozen(world, term.function, term.span, frozen)
    compositions = factors.compositions(found, world.selectors.table) if world.selectors else ()

    def settled(function: Function) -> Function:
        return restricted(world, factors.counted(function, compositions, world.selectors), keep, frozen)

    terms = tuple(replace(t, function=settled(t.function)) for t in objective.terms)
    found = [replace(c, function=settled(c.function)) for c in found]
    factors.chosen(world, found, terms)
    return Problem(replace(objective, terms=terms), tuple(found), frozen)


def check_frozen(world: World, function: Function, span: Span, frozen: frozenset[str]) -> None:
    """Counts may hold frozen tensors as constants, but not these alone; values of frozen tensors nobody knows here."""
    if not frozen:
        return
    for part in parts(function):
        names = tensors_of(part)
        held = [n for n in names if n in frozen]
        if not held:
            continue
        if len(held) == len(names):
            world.report.error(
                "P228",
                span,
                f"{listing(held)} {_is(held)} frozen: nothing here can change",
                hint="drop the line, or the `freeze`",
            )
        elif isinstance(part, (Entries, GroupCount, VectorNorm, MatrixFunction)):
            world.report.error(
                "P228",
                span,
                f"{listing(held)} {_is(held)} frozen and cannot follow this line",
                hint="take frozen tensors out with `except`",
            )


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def measured(problem: Problem, report: Iterable[ReportPlan]) -> list[tuple[Measured, Span]]:
    """Every function that data decides, with where it stands; report items have no place of their own."""
    out = [(f, t.span) for t in problem.objective.terms for f in parts(t.function) if isinstance(f, Measured)]
    out += [(f, c.span) for c in problem.constraints for f in parts(c.function) if isinstance(f, Measured)]
    for item in report:
        if item.function is not None:
            out += [(f, Span(0, 0)) for f in parts(item.function) if isinstance(f, Measured)]
    return out


def reads_validation(problem: Problem, stages: Iterable[StagePlan], report: Iterable[ReportPlan]) -> bool:
    """Whether a constraint, a stopping test, a pruner or a report reads the validation split."""
    if any(f.split == "validation" for f, _ in measured(problem, report)):
        return True
    read = {s.until.split for s in stages if s.until is not None}
    read |= {split for s in stages if s.pruner is not None for split in s.pruner.splits}
    return "validation" in read


def tasks_fit(world: World, problem: Problem, facts: DataFacts) -> None:
    """Functions of classes need classes, and an output for each."""
    assert world.selectors is not None
    outputs = max(world.selectors.table.outputs, default=facts.classes)
    for function, span in measured(problem, ()):
        if function.name not in CLASSIFYING:
            continue
        if outputs < facts.classes:
            message = f"the network has {outputs} outputs; `{facts.name}` has {facts.classes} classes"
            world.report.error("P548", span, message, hint="give the network an output for each class")
        if facts.task == "regression":
            world.report.error(
                "P544",
                span,
                f"`{function.name}` needs classes; this data set has numbers as targets",
                hint="use `mse(net)`",
            )
