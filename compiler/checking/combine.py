"""A combination of functions as one function of the Problem: ``E = (f / scale) + constant``, in exact numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

from prunelang.compiler.checking.arithmetic import as_fraction, units_differ
from prunelang.compiler.checking.numbers import NoValue, value_of
from prunelang.compiler.checking.reporter import listing
from prunelang.compiler.checking.units import unit_words
from prunelang.compiler.checking.values import Combination, Piece
from prunelang.compiler.checking.world import World
from prunelang.compiler.functions.base import Result
from prunelang.compiler.problem import Affine, Choice, Count, Function, GroupCount, Structural
from prunelang.dsl.tree import Expr

COUNTED = (Count, Choice, GroupCount, Structural)


@dataclass(frozen=True)
class Reduced:
    """``function = scale · (E − constant)``; a negative `scale` turns ≤ into ≥."""

    function: Function
    scale: Fraction
    constant: Fraction  # in `unit`
    unit: str
    result: Result  # how a bound is read
    dense: Fraction | None  # value of E at full density, constant included
    name: str  # of the function, for messages
    single: bool  # one function: a ratio then lies in [0, 1]

    @property
    def integral(self) -> bool:
        """Whether the function takes whole numbers only."""
        return self.result in ("count", "cost")


def reduce(world: World, node: Expr, value: Combination) -> Reduced | None:
    """The canonical function of one side, or None after reporting why there is none."""
    weighted = _weights(world, node, value.pieces)
    if weighted is None:
        return None
    unit = value.unit
    if unit is None:
        a, b = sorted({p.signature.unit for p in value.pieces})[:2]
        units_differ(world, node, a, b)
        return None
    constant = _constant(world, node, value, unit)
    if constant is None:
        return None
    if len(weighted) == 1:
        return _single(*weighted[0], unit, constant)
    if all(isinstance(p.function, Count) for _, p in weighted):
        return _counts(world, node, weighted, unit, constant)
    return _affine(world, node, weighted, unit, constant)


def _weights(world: World, node: Expr, pieces: Sequence[Piece]) -> list[tuple[Fraction, Piece]] | None:
    """Exact weights, equal functions merged, zeros dropped."""
    merged: list[tuple[Fraction, Piece]] = []
    counts = all(isinstance(p.function, Count) for p in pieces)
    for piece in pieces:
        try:
            weight = value_of(piece.weight)
        except NoValue as error:
            world.report.error("P227", node.span, f"this coefficient has no value: {error}")
            return None
        if weight is None:
            world.report.error(
                "P226", node.span, "a coefficient in a constraint cannot move with the clocks", hint="the bound can"
            )
            return None
        same = None if counts else next((i for i, (_, p) in enumerate(merged) if p.function == piece.function), None)
        if same is None:
            merged.append((weight, piece))
        else:
            merged[same] = (merged[same][0] + weight, piece)
    left = [(w, p) for w, p in merged if w]
    if not left:
        world.report.error("P216", node.span, "nothing depends on the weights here: the functions cancel")
        return None
    return left


def _constant(world: World, node: Expr, value: Combination, unit: str) -> Fraction | None:
    if value.constant is None:
        return Fraction(0)
    if value.constant.unit != unit and not (unit in ("nats", "bits", "") and value.constant.unit in ("", "%", "pp")):
        world.report.error(
            "P208", node.span, f"{unit_words(unit)} and {unit_words(value.constant.unit)} cannot be added"
        )
        return None
    return as_fraction(world, node, value.constant)


def _single(weight: Fraction, piece: Piece, unit: str, constant: Fraction) -> Reduced:
    dense = None if piece.dense is None else weight * piece.dense + constant
    signature = piece.signature
    return Reduced(
        piece.function, 1 / weight, constant, unit, signature.result, dense, signature.sign or signature.name, True
    )


def _total_dense(weighted: Sequence[tuple[Fraction, Piece]], constant: Fraction) -> Fraction | None:
    known = [(w, p.dense) for w, p in weighted if p.dense is not None]
    return sum((w * d for w, d in known), constant) if len(known) == len(weighted) else None


def _counts(
    world: World, node: Expr, weighted: list[tuple[Fraction, Piece]], unit: str, constant: Fraction
) -> Reduced | None:
    costs: dict[str, Fraction] = {}
    fixed = Fraction(0)
    for weight, piece in weighted:
        assert isinstance(piece.function, Count)
        fixed += weight * piece.function.constant
        for tensor, cost in piece.function.coefficients.items():
            costs[tensor] = costs.get(tensor, Fraction(0)) + weight * cost
    costs = {t: c for t, c in costs.items() if c}
    if not costs:
        world.report.error("P216", node.span, "nothing depends on the weights here: the counts cancel")
        return None
    sign = -1 if all(c < 0 for c in costs.values()) else 1
    falling = [t for t, c in costs.items() if sign * c < 0]
    if falling:
        _negative(world, node, falling)
        return None
    multiple = lcm(*(c.denominator for c in costs.values()), fixed.denominator)
    scale = Fraction(sign * multiple)
    names = {p.signature.name for _, p in weighted}
    options = {p.function.options for _, p in weighted if isinstance(p.function, Count)}
    name = names.pop() if len(names) == 1 and len(options) == 1 else "sum"
    shared = options.pop() if name != "sum" else ()
    kept = max(fixed * scale, Fraction(0))
    moved = fixed - kept / scale  # a constant part of a count is never negative: the rest goes to the other side
    whole = {t: int(c * scale) for t, c in costs.items()}
    function = Count(name, whole, int(kept), unit, shared)
    return Reduced(function, scale, constant + moved, unit, "count", _total_dense(weighted, constant), name, False)


def _negative(world: World, node: Expr, tensors: list[str]) -> None:
    world.report.error(
        "P215",
        node.span,
        "a difference of counts must still fall when a weight becomes zero",
        hint="bound the two sides apart, or move the smaller set out with `except`",
        notes=(f"here zeros in {listing(tensors)} would raise it",),
    )


def _affine(
    world: World, node: Expr, weighted: list[tuple[Fraction, Piece]], unit: str, constant: Fraction
) -> Reduced | None:
    counted = [(w, p) for w, p in weighted if isinstance(p.function, COUNTED)]
    sign = -1 if counted and all(w < 0 for w, _ in counted) else 1
    if any(sign * w < 0 for w, _ in counted):
        _negative(world, node, [p.signature.name for w, p in counted if sign * w < 0])
        return None
    function = Affine(tuple((sign * w, p.function) for w, p in weighted), Fraction(0), unit)
    results = {p.signature.result for _, p in weighted}
    result: Result = results.pop() if len(results) == 1 else "count" if results <= {"count", "cost"} else "value"
    if result in ("count", "cost") and any(w.denominator != 1 for w, _ in weighted):
        result = "value"
    return Reduced(function, Fraction(sign), constant, unit, result, _total_dense(weighted, constant), "sum", False)
