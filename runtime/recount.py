"""`recount`: what a constraint's function is worth on stored weights, counted anew with NumPy and exact numbers.

It knows nothing of solvers, masks in memory or projections: the saved file, the kept positions beside it, the shape
table and the constraint decide. What has no recount here is said to have none; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from math import prod

import numpy as np

from prunelang.compiler.problem import (
    Affine,
    Choice,
    Constraint,
    Count,
    Entries,
    FactorCost,
    Function,
    GroupCount,
    Interval,
    MatrixFunction,
    Measured,
    Relative,
    Structural,
    VectorNorm,
)
from prunelang.compiler.shapes import ShapeTable
from prunelang.runtime.costs import compiled, rederived
from prunelang.runtime.exact import Array, Value, entropy, largest, sums
from prunelang.runtime.factor_costs import factor_cost
from prunelang.runtime.made import matrix_value
from prunelang.runtime.membership import membership
from prunelang.runtime.removed import remaining, removed
from prunelang.runtime.stored import (
    Contradiction,
    NotRecounted,
    Outcome,
    Positions,
    Relation,
    Stored,
    decided,
    distinct,
)

COMBINED = re.compile(r"[-+*·×/−Σ]|\bsum\b|^$")
"""In a constraint's text: more than one function, or an unknown text."""


def recount(constraint: Constraint, stored: Stored, base: Fraction | None = None) -> Outcome:
    """The outcome of a structural constraint on stored weights; `base` is what a bound relative to it refers to."""
    try:
        if isinstance(constraint.function, Entries):
            return decided(membership(constraint.function, constraint.set, stored))
        lower, upper = limits(constraint, base)
        function = constraint.function
        if isinstance(function, MatrixFunction):
            found, what = matrix_value(function, stored, lower is not None)
            return decided(Outcome(_relation(lower, upper), what, lower, upper, found))
        plain = COMBINED.search(re.sub(r'"[^"]*"', "", constraint.text)) is None
        counts = _counts(function)
        kept = value_of(function, stored, "kept positions", plain) if counts and lower is not None else None
        value = kept if upper is None and kept is not None else value_of(function, stored, "non-zero values", plain)
        counted = ("kept positions" if value is kept else "non-zero values") if counts else "stored values"
        outcome = decided(Outcome(_relation(lower, upper), counted, lower, upper, value, kept))
        return _described(function, stored, outcome)
    except NotRecounted as reason:
        return Outcome(relation_of(constraint), "", remark=f"there is no recount of {reason}")
    except Contradiction as reason:
        return Outcome(relation_of(constraint), "", satisfied=False, remark=str(reason))


def _described(function: Function, stored: Stored, outcome: Outcome) -> Outcome:
    """Of a coded file that fits, also its entropy and what its values lost."""
    if not (isinstance(function, Measured) and function.name == "bytes" and outcome.satisfied):
        return outcome
    from prunelang.runtime.coded import coded  # the codec is needed for the length of its files alone

    file = coded(function, stored.table, stored.arrays)
    said = f"entropy of positions and values {file.entropy} B; values rounded by up to {file.rounding:.3g}"
    return replace(outcome, remark=said)


def limits(constraint: Constraint, base: Fraction | None) -> tuple[Fraction | None, Fraction | None]:
    """Lower and upper bound. Raises `NotRecounted` where they refer to a `base` that is not known."""
    match constraint.set:
        case Interval(lower=lower, upper=upper):
            return None if lower is None else Fraction(lower), None if upper is None else Fraction(upper)
        case Relative(relation=relation, factor=factor, offset=offset):
            if base is None:
                raise NotRecounted("a bound relative to `base`, whose value is not recorded")
            bound = factor * base + offset
            return (None, bound) if relation == "≤" else (bound, None)
    raise NotRecounted(f"`{constraint.function.name}` in a set of this kind")


def _counts(function: Function) -> bool:
    """Whether it counts positions, so that a lower bound asks for kept ones."""
    if isinstance(function, Affine):
        return all(_counts(f) for _, f in function.terms)
    return isinstance(function, Count | Choice | GroupCount)


# ── functions ────────────────────────────────────────────────────────────────────────────────────────────────────


def value_of(function: Function, stored: Stored, which: Positions, plain: bool = False) -> Value:
    """The value on non-zero values or on kept positions; `plain` where the spec names one function without arithmetic.

    Raises `NotRecounted`, and `Contradiction` where a plain function's compiled value and this checker's own differ.
    """
    match function:
        case Count() | Choice():
            return Value.exact(_cost(function, stored, which, plain))
        case Structural():
            return Value.exact(_remaining(function, stored, plain))
        case FactorCost():
            return Value.exact(factor_cost(function, stored, plain))
        case MatrixFunction():
            return matrix_value(function, stored, False)[0]
        case GroupCount(tensors=tensors, by=by):
            masks = [stored.mask(n, which) for n in dict.fromkeys(map(stored.name, tensors))]
            return Value.exact(sum(int(np.count_nonzero(grouped(m, by).any(axis=1))) for m in masks))
        case Measured(name="bytes"):  # structural where it is of coded bytes: the file is made of the stored values
            from prunelang.runtime.coded import coded

            return Value.exact(len(coded(function, stored.table, stored.arrays).content))
        case VectorNorm():
            return _norm(function, stored).to_power(function.power)
        case Affine(terms=terms, constant=constant):
            total = Value.exact(constant)
            for factor, term in terms:
                total += value_of(term, stored, which).times(factor)
            return total
    raise NotRecounted(f"`{function.name}`")


def _cost(function: Count | Choice, stored: Stored, which: Positions, plain: bool) -> int:
    names = function.coefficients if isinstance(function, Count) else function.alternatives
    positions = stored.positions(which)
    for name in names:
        stored.name(name)
    value = compiled(function, positions)
    own = rederived(function, positions, stored.table)
    if plain and not stored.frozen and own is not None and own != value:
        raise Contradiction(f"the compiled `{function.name}` gives {value}, counted from layers and bytes it is {own}")
    return value


def _remaining(function: Structural, stored: Stored, plain: bool) -> int:
    """The cost of the shapes that are left when every member goes whose stored slices are all zero."""
    gone = removed(stored)
    own = rederived(function, {}, stored.table, remaining(gone, stored.table))
    if own is None:
        raise NotRecounted(f"`{function.name}`")
    counted = remaining({name: gone[name] for name in function.groups}, stored.table)
    value = function.dense - sum(cost * _lost(name, counted, stored.table) for name, cost in function.costs)
    if plain and not stored.frozen and own != value:
        raise Contradiction(f"the compiled `{function.name}` is {value}, counted from the layers it is {own}")
    return value


def _lost(name: str, shapes: Mapping[str, tuple[int, ...]], table: ShapeTable) -> int:
    """How many entries a tensor has lost with whole members."""
    tensor = table.tensor[name]
    return tensor.size - prod(shapes.get(tensor.name, tensor.shape))


def grouped(array: Array, by: str) -> Array:
    """One group a row: filters and rows are slices of the first dimension, channels of the second."""
    if array.size == 0:
        return np.zeros((0, 0), array.dtype)
    matrix = array.reshape(array.shape[0], -1) if array.ndim else array.reshape(1, 1)
    if by in {"filter", "row"}:
        return matrix
    if by == "column":
        return np.ascontiguousarray(matrix.T)
    if by == "channel" and array.ndim > 1:
        return np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)
    raise NotRecounted(f"groups by {by}")


def _norm(function: VectorNorm, stored: Stored) -> Value:
    arrays = stored.joined(function.tensors)
    options = dict(function.options)
    by = str(options.pop("by", ""))
    if options or (by != "") != (function.name == "group_norm1"):
        raise NotRecounted(f"`{function.name}` with these options")
    match function.name:
        case "norm1":
            return Value.exact(sum((_sum(a, 1) for a in arrays), Fraction(0)))
        case "norm2":
            return Value.root(sum((_sum(a, 2) for a in arrays), Fraction(0)))
        case "norminf":
            return Value.exact(max(map(largest, arrays), default=Fraction(0)))
        case "group_norm1":
            total = Value.exact(0)
            for a in arrays:
                for square in sums(grouped(a, by), 2):
                    total += Value.root(square)
            return total
        case "entropy":
            return entropy(int(n) for n in distinct(arrays)[1])
    raise NotRecounted(f"`{function.name}`")


def _sum(array: Array, power: int) -> Fraction:
    return sum(sums(array.reshape(1, -1), power), Fraction(0)) if array.size else Fraction(0)


def relation_of(constraint: Constraint) -> Relation:
    """How the constraint is written."""
    match constraint.set:
        case Interval(lower=lower, upper=upper):
            return _relation(lower, upper)
        case Relative(relation=relation):
            return relation
    return "∈"


def _relation(lower: Fraction | int | None, upper: Fraction | int | None) -> Relation:
    return "between" if lower is not None and upper is not None else "≤" if lower is None else "≥"
