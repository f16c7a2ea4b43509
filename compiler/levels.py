"""Sparsity levels of a problem: which items are counted together, and how many of them have to stay.

Each tensor has a level of its own, and prices decide between levels. With one level for all of them a single threshold
decides, which takes that an entry costs the same wherever it is. The members of a coupling group are a level of their
own under budgets of the remaining shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from prunelang.compiler.channels import pinned_groups
from prunelang.compiler.description import is_coded
from prunelang.compiler.graph import Items, Piece
from prunelang.compiler.problem import (
    Choice,
    Constraint,
    Count,
    Function,
    Interval,
    Kept,
    Problem,
    Structural,
    tensors_of,
)
from prunelang.compiler.shapes import Channels, ShapeTable

Granularity = Literal["auto", "global", "layer"]


def budgets(problem: Problem) -> tuple[Constraint, ...]:
    """The upper bounds on a cost of kept items."""
    kinds = (Count, Choice, Structural)
    structural = (c for c in problem.constraints if c.structural and not is_coded(c))
    return tuple(c for c in structural if isinstance(c.function, kinds) and _upper(c) is not None)


def levels(
    problem: Problem, table: ShapeTable, costs: tuple[Function, ...], granularity: Granularity = "auto"
) -> tuple[Items, ...]:
    """The levels that the functions in `costs` depend on: of entries in the order of the table, then of groups."""
    return (*_entries(problem, table, costs, granularity), *_members(problem, table, costs))


def _entries(
    problem: Problem, table: ShapeTable, costs: tuple[Function, ...], granularity: Granularity
) -> Iterator[Items]:
    counted = [f for f in costs if isinstance(f, Count | Choice)]
    pinned = {t for c in problem.constraints if isinstance(c.set, Kept) for t in tensors_of(c.function)}
    named = {t for f in counted for t in tensors_of(f)} - pinned - problem.frozen
    floors = [c for c in problem.constraints if _lower(c) is not None and isinstance(c.function, Count)]
    shared: dict[str, list[str]] = {}
    for tensor in table.tensors:
        if tensor.name in named:
            shared.setdefault("" if granularity == "global" else tensor.name, []).append(tensor.name)
    for tensors in shared.values():
        size = sum(table.tensor[t].size for t in tensors)
        least = max((_least(c, problem) for c in floors if _trained(c, problem) == set(tensors)), default=0)
        yield Items(" + ".join(tensors), tuple(tensors), size, min(least, size))


def _cost(function: Count | Choice, tensor: str) -> object:
    """What one kept entry of the tensor costs; the cheapest format of a tensor depends on its own count, and what data
    decides is not known yet."""
    if isinstance(function, Choice):
        return tensor if tensor in function.alternatives else None
    if dict(function.options).get("measured"):
        return tensor if tensor in function.coefficients else None
    return function.coefficients.get(tensor)


def told_apart(costs: Iterable[Function]) -> tuple[str, str] | None:
    """Two tensors that do not cost the same in every one of the functions; None if there are none."""
    counted = [f for f in costs if isinstance(f, Count | Choice)]
    named = tuple(dict.fromkeys(t for f in counted for t in tensors_of(f)))
    others = (t for t in named if any(_cost(f, t) != _cost(f, named[0]) for f in counted))
    return next(((named[0], t) for t in others), None)


def _members(problem: Problem, table: ShapeTable, costs: tuple[Function, ...]) -> Iterator[Items]:
    named = {g for f in costs if isinstance(f, Structural) for g in f.groups} - pinned_groups(problem, table)
    for group in table.channels:
        if group.name in named:
            pieces = tuple(_pieces(group, problem, table))
            yield Items(group.name, tuple(dict.fromkeys(p.tensor for p in pieces)), group.size, 1, pieces)


def _pieces(group: Channels, problem: Problem, table: ShapeTable) -> Iterator[Piece]:
    """The slices in trained tensors: statistics follow when a member is cut."""
    for s in group.slices:
        if table.tensor[s.tensor].role != "buffer" and s.tensor not in problem.frozen:
            yield Piece(s.tensor, s.dim, s.start, s.repeat)


def _upper(c: Constraint) -> int | None:
    return int(c.set.upper) if isinstance(c.set, Interval) and c.set.upper is not None else None


def _lower(c: Constraint) -> int | None:
    return int(c.set.lower) if isinstance(c.set, Interval) and c.set.lower is not None else None


def _trained(c: Constraint, problem: Problem) -> set[str]:
    return set(tensors_of(c.function)) - problem.frozen


def _least(c: Constraint, problem: Problem) -> int:
    """The fewest entries that a lower bound on a plain count leaves."""
    assert isinstance(c.function, Count)
    lower = _lower(c)
    assert lower is not None
    cost = max(c.function.coefficients.values(), default=1)
    return max(0, -((c.function.constant - lower) // cost))
