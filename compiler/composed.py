"""Parts of a feasible set whose tensors are made of factors: each composition, and the budgets that join them.

Compositions are independent unless a budget counts several of them: then their ranks and counts are chosen together. A
plain ``‖w‖₀ ≤ κ`` over tensors of a byte budget is a sparse form of κ entries there, since the budget counts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import prod
from typing import Literal

from prunelang.compiler.compositions import Clash, Made, made
from prunelang.compiler.forms import Box, Codebook, Composition, Fixed, LowRank, Nuclear, Sparse, TensorTrain
from prunelang.compiler.graph.state import Part
from prunelang.compiler.problem import (
    Budget,
    Constraint,
    Count,
    FactorCost,
    FactorTerm,
    Interval,
    Kept,
    Problem,
    VectorNorm,
    tensors_of,
)
from prunelang.compiler.shapes import ShapeTable
from prunelang.compiler.wording import shown

Exactness = Literal["exact", "gap", "approximate"]


def composed_parts(structural: Sequence[Constraint], problem: Problem, table: ShapeTable) -> list[Part]:
    """The parts with compositions. Raises `Clash` where other lines speak of their tensors."""
    found = [*made(structural, table)]
    if not found:
        return []
    budgets = [c for c in structural if _upper(c) is not None and isinstance(c.function, FactorCost)]
    found += _counted(structural, budgets, found, table)
    _alone(structural, found, problem.frozen)
    joined = [_budget(c, found, table) for c in budgets]
    return [_part(group, own, table) for group, own in _groups(found, list(zip(budgets, joined, strict=True)))]


def _upper(c: Constraint) -> int | None:
    match c.set:
        case Interval(None, upper) if upper is not None:
            return int(upper)
    return None


def _counted(
    structural: Sequence[Constraint], budgets: Sequence[Constraint], found: Sequence[Made], table: ShapeTable
) -> list[Made]:
    """Plain counts over tensors that a byte budget counts by their entries, and that no other line speaks of."""
    held = {t for m in found for t in m.composition.tensors}
    counted = {e.tensor for c in budgets if isinstance(c.function, FactorCost) for e in c.function.entries}
    speakers = [c for c in structural if not isinstance(c.function, FactorCost)]
    out: list[Made] = []
    for c in speakers:
        f, most = c.function, _upper(c)
        if not isinstance(f, Count) or most is None or f.constant or set(f.coefficients.values()) != {1}:
            continue
        names = set(f.coefficients)
        others = (set(tensors_of(o.function)) for o in speakers if o is not c)
        if names <= counted - held and all(names.isdisjoint(o) for o in others):
            own = [table.tensor[t] for t in f.coefficients]
            shapes = tuple(t.shape for t in own)
            out.append(Made(Composition(tuple(t.name for t in own), (Sparse(most),), shapes), (c,)))
    return out


def _alone(structural: Sequence[Constraint], found: Sequence[Made], frozen: frozenset[str]) -> None:
    """No other line may speak of the entries of a tensor that is made of something."""
    owner = {t: m for m in found for t in m.composition.tensors}
    asking = {c.label for m in found for c in m.constraints}
    for c in structural:
        if c.label in asking or isinstance(c.function, FactorCost):
            continue
        shared = next((t for t in tensors_of(c.function) if t in owner and t not in frozen), None)
        if shared is not None:
            raise Clash((*owner[shared].constraints, c), _reason(c, shared, owner[shared].composition))


def _reason(c: Constraint, tensor: str, composition: Composition) -> str:
    what = words(composition)
    if composition.forms == (Sparse(),):
        return f"a budget chooses how many entries of `{tensor}` are kept; write `sparse(n)` where a line bounds them"
    if isinstance(c.set, Kept):
        return f"`{tensor}` is {what}; `dense` would keep every position of it as well"
    if isinstance(c.function, VectorNorm):
        return f"`{tensor}` is {what}, and has no joint projection with a norm ball"
    return (
        f"`{tensor}` is {what}, whose zeros nobody chooses: positions cannot be bounded with it; "
        "a sum such as `low_rank(4) + sparse(1%)` has positions of its own, `except` takes tensors out of a line"
    )


def words(c: Composition) -> str:
    """What a tensor is, for messages: ``a sum of a matrix of low rank and a sparse correction``."""
    parts = [_WORDS[type(f)] for f in c.forms]
    return parts[0] if len(parts) == 1 else f"a sum of {', '.join(parts[:-1])} and {parts[-1]}"


_WORDS = {
    LowRank: "a matrix of low rank",
    TensorTrain: "a tensor train",
    Codebook: "of a codebook",
    Fixed: "of fixed values",
    Sparse: "sparse",
    Box: "in a box",
    Nuclear: "in a ball of the nuclear norm",
}


def _budget(c: Constraint, found: Sequence[Made], table: ShapeTable) -> Budget:
    assert isinstance(c.function, FactorCost) and isinstance(c.set, Interval) and c.set.upper is not None
    own = [t for m in found for t in m.composition.tensors]
    return Budget(c.label, folded(c.function, own, table), int(c.set.upper))


def folded(cost: FactorCost, made_of: Iterable[str], table: ShapeTable) -> FactorCost:
    """The cost in the sizes of compositions alone: a tensor in none of them costs what it costs when dense.

    `made_of` are tensors that are in a composition although the cost counts their entries: a sparse form of them.
    """
    held, constant = set(made_of), cost.constant
    entries: list[FactorTerm] = []
    for e in cost.entries:
        if e.form >= 0:
            entries.append(e)
        elif e.tensor in held:
            entries.append(replace(e, form=0))
        else:
            constant += e.value((prod(table.tensor[e.tensor].shape),))
    return replace(cost, constant=constant, entries=tuple(entries))


def _groups(
    found: Sequence[Made], budgets: Sequence[tuple[Constraint, Budget]]
) -> list[tuple[list[Made], list[tuple[Constraint, Budget]]]]:
    """Compositions joined by the budgets that count them, in the order of their lines."""
    at = {t: i for i, m in enumerate(found) for t in m.composition.tensors}
    group = list(range(len(found)))
    for _, budget in budgets:
        own = sorted({group[at[t]] for t in tensors_of(budget.cost)})
        group = [own[0] if g in own else g for g in group]
    out: dict[int, tuple[list[Made], list[tuple[Constraint, Budget]]]] = {g: ([], []) for g in sorted(set(group))}
    for m, g in zip(found, group, strict=True):
        out[g][0].append(m)
    for c, budget in budgets:
        names = tensors_of(budget.cost)
        if names:  # else nothing is left to choose under it
            out[group[at[names[0]]]][1].append((c, budget))
    return list(out.values())


def _part(group: Sequence[Made], budgets: Sequence[tuple[Constraint, Budget]], table: ShapeTable) -> Part:
    compositions = tuple(m.composition for m in group)
    lines = _once([*(c for m in group for c in m.constraints), *(c for c, _ in budgets)])
    names = {t for c in compositions for t in c.tensors}
    stored = any(not isinstance(c.forms[0], Box | Nuclear) for c in compositions)
    return Part(
        tensors=tuple(t.name for t in table.tensors if t.name in names),
        labels=tuple(c.label for c in lines),
        text=", ".join(shown(c) for c in lines),
        exactness=_exactness(compositions, [b for _, b in budgets]),
        keeps="factors" if stored else "project each step",
        compositions=compositions,
        budgets=tuple(b for _, b in budgets),
    )


def _once(constraints: Iterable[Constraint]) -> list[Constraint]:
    return list({c.label: c for c in constraints}.values())


def _exactness(compositions: Sequence[Composition], budgets: Sequence[Budget]) -> Exactness:
    """Exact: single forms with a closed projection, and at most one budget over ranks of matrices alone."""
    forms = [f for c in compositions for f in c.forms]
    if any(isinstance(f, TensorTrain) for f in forms) or any(len(c.forms) > 1 for c in compositions):
        return "approximate"
    if not budgets or (all(isinstance(f, LowRank) for f in forms) and len(budgets) == 1):
        return "exact"
    return "gap"
