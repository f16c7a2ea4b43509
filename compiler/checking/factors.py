"""Tensors that are made of factors: costs that count these, and the budgets that choose ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from prunelang.compiler.checking.ranks import with_modes
from prunelang.compiler.checking.selectors import Selectors
from prunelang.compiler.checking.world import World
from prunelang.compiler.compositions import agreed, apart, composition, free, stored
from prunelang.compiler.formats import best_bytes
from prunelang.compiler.forms import Composition, Sparse, TensorTrain
from prunelang.compiler.packing import factor_bytes
from prunelang.compiler.plan import ReportPlan
from prunelang.compiler.problem import (
    Affine,
    Choice,
    Constraint,
    FactorCost,
    Function,
    Interval,
    MatrixFunction,
    Problem,
    Structural,
    Term,
)
from prunelang.compiler.shapes import ShapeTable


def compositions(constraints: Iterable[Constraint], table: ShapeTable) -> tuple[Composition, ...]:
    """What tensors are made of; where lines contradict each other, as the first of them says."""
    return tuple(m.composition for m in agreed(constraints, table))


def counted(function: Function, made_of: Sequence[Composition], selectors: Selectors | None) -> Function:
    """The same cost with factors in the place of the tensors that are made of them."""
    if selectors is None or not made_of:
        return function
    match function:
        case Structural():
            return stored(function, made_of, selectors.table)
        case Choice(name="bytes", alternatives=ways) if any(t in ways for c in made_of if apart(c) for t in c.tensors):
            return _bytes(function, made_of, selectors)
        case Affine(terms=terms):
            return replace(function, terms=tuple((w, counted(f, made_of, selectors)) for w, f in terms))
    return function


def _bytes(function: Choice, made_of: Sequence[Composition], selectors: Selectors) -> FactorCost:
    """The file of the same tensors: all of the network, or the parameters of some layers."""
    table, names = selectors.table, selectors.stored.names
    if best_bytes(table, names) != function:
        kernels = function.alternatives
        layers = tuple(x.name for x in table.layers if table.tensor[x.weight].name in kernels)
        names = selectors.of_layers(replace(selectors.layers, names=layers), "params").names
    return factor_bytes(table, names, [c for c in made_of if apart(c)])


def reported(world: World, items: Iterable[ReportPlan], problem: Problem) -> list[ReportPlan]:
    """The report with costs that count factors."""
    assert world.selectors is not None
    own = compositions(problem.constraints, world.selectors.table)
    return [i if i.function is None else replace(i, function=_shown(world, i.function, own)) for i in items]


def _shown(world: World, function: Function, own: Sequence[Composition]) -> Function:
    """A function of the report: `tt_rank` without modes takes those of the train that its tensor is."""
    if isinstance(function, MatrixFunction) and function.name == "tt_rank" and not function.options:
        trains = (f for c in own if c.tensors == (function.tensor,) for f in c.forms if isinstance(f, TensorTrain))
        modes = next((f.modes for f in trains), None)
        if modes is not None:
            return replace(function, options=(("modes", modes),))
        return with_modes(world, function)
    return counted(function, own, world.selectors)


# ── ranks that nothing chooses ──────────────────────────────────────────────────────────────────────────────────────


def chosen(world: World, constraints: Sequence[Constraint], terms: Sequence[Term]) -> None:
    """Reports P236 for ranks and counts that are left out where no budget and no price speaks of them."""
    assert world.selectors is not None
    bounded = [c.function for c in constraints if isinstance(c.set, Interval) and c.set.upper is not None]
    costs = [f for f in (*bounded, *(t.function for t in terms)) if isinstance(f, FactorCost)]
    reached = {(e.tensor, e.form) for f in costs for e in f.entries}
    fixed = {t for c in constraints for t in _bounded(c, world)}
    for c in constraints:
        own = composition(c, world.selectors.table)
        if own is None or own.tensors[0] in fixed:
            continue
        if any(free(form) and (own.tensors[0], i) not in reached for i, form in enumerate(own.forms)):
            _unchosen(world, c, own)


def _bounded(c: Constraint, world: World) -> tuple[str, ...]:
    """The tensors whose rank a line of its own bounds."""
    assert world.selectors is not None
    own = composition(c, world.selectors.table)
    return () if own is None or len(own.forms) > 1 or free(own.forms[0]) else own.tensors


def _unchosen(world: World, c: Constraint, own: Composition) -> None:
    alone = len(own.forms) == 1 and isinstance(own.forms[0], Sparse)
    what = "count" if any(isinstance(f, Sparse) for f in own.forms if free(f)) else "rank"
    kinds = "`bytes(net) ≤ …`" if alone else "`params(net) ≤ …`, `macs(net) ≤ …` or `bytes(net) ≤ …`"
    world.report.error(
        "P236",
        c.span,
        f"the {what} is left out here, and no budget chooses it",
        hint=f"write the {what}, or bound what it costs: {kinds}",
    )
