"""Bounds on the ranks of tensor trains: a list of them, and the modes that a bound leaves to the compiler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from prunelang.compiler.checking.binding import argument
from prunelang.compiler.checking.domains import Member
from prunelang.compiler.checking.modes import train
from prunelang.compiler.checking.values import ONE, Combination, Items, Value
from prunelang.compiler.checking.world import Locals, World
from prunelang.compiler.functions import SETS
from prunelang.compiler.problem import Entries, Function, Interval, MatrixFunction, Set
from prunelang.compiler.trains import choose_modes
from prunelang.dsl.tree import Comparison


def is_list(values: Sequence[Value]) -> bool:
    """Whether a comparison bounds a function by a list."""
    kinds = {type(v) for v in values}
    return len(values) == 2 and kinds == {Combination, Items}


def listed(world: World, body: Comparison, values: Sequence[Value], local: Locals) -> Member | None:
    """``tt_rank(W) ≤ [r₁, …, r_{d−1}]`` is ``W ∈ tt([r₁, …])``; None after reporting what is no such line."""
    first = isinstance(values[0], Combination)
    side, node = (values[0], body.sides[1]) if first else (values[1], body.sides[0])
    assert isinstance(side, Combination)
    function = side.pieces[0].function if len(side.pieces) == 1 else None
    trained = isinstance(function, MatrixFunction) and function.name == "tt_rank"
    if not trained or side.constant is not None or side.pieces[0].weight != ONE:
        world.report.error(
            "P207", node.span, "only `tt_rank` is bounded by a list: one rank for each bond of its train"
        )
        return None
    if (body.relations[0] == "≤") != first:
        world.report.error("P207", node.span, "a list of ranks is an upper bound", hint="write `tt_rank(…) ≤ […]`")
        return None
    assert isinstance(function, MatrixFunction) and world.selectors is not None
    signature = SETS["tt"]
    parameter = next(p for p in signature.parameters if p.name == "r")
    ranks = argument(world, signature, parameter, node, local)
    if not isinstance(ranks, tuple):
        return None
    rows, columns = world.selectors.table.tensor[function.tensor].matrix
    found = train(world, node.span, ranks, dict(function.options).get("modes"), rows, columns)
    return None if found is None else Member(Entries((function.tensor,)), found)


def with_modes(world: World, function: Function, set: Set | None = None) -> Function:
    """`tt_rank` with the modes that its upper bound chooses where none are given; any other function as it is."""
    if not isinstance(function, MatrixFunction) or function.name != "tt_rank" or function.options:
        return function
    assert world.selectors is not None
    upper = set.upper if isinstance(set, Interval) else None
    rows, columns = world.selectors.table.tensor[function.tensor].matrix
    modes = choose_modes(rows, columns, None if upper is None else max(1, int(upper)))
    return replace(function, options=(("modes", modes), ("chosen", True)))
