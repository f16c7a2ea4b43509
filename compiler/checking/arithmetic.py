"""``+ - * / ^``, ``|`` and ``except`` on values of every kind. Units are types: nothing converts silently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from prunelang.compiler.checking.numbers import NoValue, apply, value_of
from prunelang.compiler.checking.units import unit_words
from prunelang.compiler.checking.values import (
    ONE,
    WRONG,
    Amount,
    Base,
    Combination,
    Domain,
    Layers,
    Network,
    Tensors,
    Value,
    Wrong,
    kind_of,
)
from prunelang.compiler.checking.world import World
from prunelang.compiler.problem import VectorNorm
from prunelang.compiler.schedule import Schedule, constant
from prunelang.dsl.tree import Binary, Expr, Number


def negate(world: World, node: Expr, value: Value) -> Value:
    match value:
        case Wrong():
            return WRONG
        case Amount(schedule, unit):
            return Amount(apply("neg", schedule), unit)
        case Combination():
            return scale(value, constant(-1))
        case Base(factor, offset, unit):
            return Base(-factor, -offset, unit)
    return world.report.error("P231", node.span, f"{kind_of(value)} has no negative")


def binary(world: World, node: Binary, a: Value, b: Value) -> Value:
    """``a operator b``; `node` is where it stands."""
    if isinstance(a, Wrong) or isinstance(b, Wrong):
        return WRONG
    try:
        match node.operator:
            case "+":
                return add(world, node, a, b)
            case "-":
                return _subtract(world, node, a, b)
            case "*":
                return _multiply(world, node, a, b)
            case "/":
                return _divide(world, node, a, b)
            case "^":
                return _power(world, node, a, b)
            case "|":
                return _union(world, node, a, b)
            case _:
                return _except(world, node, a, b)
    except NoValue as error:
        return world.report.error("P227", node.span, f"this has no value: {error}")


# ── sums ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def add(world: World, node: Binary, a: Value, b: Value) -> Value:
    match a, b:
        case Amount(), Amount():
            return _add_amounts(world, node, a, b)
        case Combination(), Combination():
            return total(world, node, [a, b])
        case (Combination() as c, Amount() as n) | (Amount() as n, Combination() as c):
            constant_part = n if c.constant is None else _add_amounts(world, node, c.constant, n)
            return WRONG if isinstance(constant_part, Wrong) else replace(c, constant=constant_part)
        case (Base() as base, Amount() as n) | (Amount() as n, Base() as base):
            return _offset(world, node, base, n)
        case Domain(), Domain():
            parts = (a.parts or (a,)) + (b.parts or (b,))
            return Domain(None, parts=parts, span=node.span)
    return _cannot(world, node, a, b)


def total(world: World, node: Expr, parts: Sequence[Combination]) -> Value:
    """The sum of many combinations in one pass."""
    constant_part: Amount | None = None
    for part in parts:
        if part.constant is None:
            continue
        if constant_part is None:
            constant_part = part.constant
            continue
        summed = _add_amounts(world, node, constant_part, part.constant)
        if isinstance(summed, Wrong):
            return WRONG
        constant_part = summed
    return Combination(tuple(p for part in parts for p in part.pieces), constant_part)


def _add_amounts(world: World, node: Expr, a: Amount, b: Amount) -> Amount | Wrong:
    unit = a.unit
    if a.unit != b.unit:
        if {a.unit, b.unit} != {"", "%"}:
            return units_differ(world, node, a.unit, b.unit)
        unit = ""
    return Amount(apply("+", a.schedule, b.schedule), unit)


def units_differ(world: World, node: Expr, a: str, b: str) -> Wrong:
    return world.report.error(
        "P208",
        node.span,
        f"{unit_words(a)} and {unit_words(b)} cannot be added or compared",
        hint="1 MAC is 2 FLOPs; bring both sides to one unit" if {a, b} == {"MACs", "FLOPs"} else None,
    )


def _offset(world: World, node: Binary, base: Base, n: Amount) -> Value:
    if n.unit == "%":
        return world.report.error("P210", node.span, "`base ± x%` can be read in two ways", hint=_percent_hint(node))
    value = value_of(n.schedule)
    if value is None:
        return world.report.error("P227", node.span, "what is added to `base` must not move with the clocks")
    if base.offset and base.unit != n.unit:
        return units_differ(world, node, base.unit, n.unit)
    return Base(base.factor, base.offset + value, n.unit)


def _percent_hint(node: Binary) -> str:
    literal = next((x for x in (node.right, node.left) if isinstance(x, Number) and x.unit == "%"), None)
    if literal is None:
        return "for accuracy say `base - 0.5 pp` (percentage points); for a share of it `99.5% * base`"
    sign = -1 if node.operator == "-" else 1
    share = f"{float(100 + sign * literal.value):g}"
    points = f"base {node.operator} {float(literal.value):g} pp"
    return f"for accuracy say `{points}` (percentage points); for a share of it `{share}% * base`"


def _subtract(world: World, node: Binary, a: Value, b: Value) -> Value:
    if isinstance(a, Tensors) and isinstance(b, Tensors):
        if b.start and not a.start and a.names == b.names:
            return Tensors(a.names, moved=True)
        return world.report.error(
            "P231",
            node.span,
            "tensors subtract from their own start alone",
            hint="write `w - start(w)` with the same w",
        )
    match b:
        case Amount() | Combination() | Base():
            return add(world, node, a, negate(world, node.right, b))
    return _cannot(world, node, a, b)


# ── products ─────────────────────────────────────────────────────────────────────────────────────────────────────


def scale(value: Combination, factor: Schedule) -> Combination:
    """``factor · value``."""
    pieces = tuple(replace(p, weight=apply("*", factor, p.weight)) for p in value.pieces)
    c = value.constant
    return Combination(pieces, None if c is None else Amount(apply("*", factor, c.schedule), c.unit))


def _multiply(world: World, node: Binary, a: Value, b: Value) -> Value:
    match a, b:
        case Amount(), Amount():
            units = [u for u in (a.unit, b.unit) if u not in ("", "%")]
            if len(units) == 2:
                return world.report.error("P208", node.span, f"{units[0]} times {units[1]} has no meaning here")
            return Amount(apply("*", a.schedule, b.schedule), units[0] if units else "")
        case (Amount() as n, Combination() as c) | (Combination() as c, Amount() as n):
            return WRONG if _has_unit(world, node, n) else scale(c, n.schedule)
        case (Amount() as n, Base() as base) | (Base() as base, Amount() as n):
            if _has_unit(world, node, n):
                return WRONG
            return _scale_base(world, node, base, n)
        case Combination(), Combination():
            return world.report.error(
                "P231", node.span, "two functions cannot be multiplied: the problem is linear in them"
            )
    return _cannot(world, node, a, b)


def _scale_base(world: World, node: Binary, base: Base, n: Amount) -> Value:
    factor = value_of(n.schedule)
    if factor is None:
        return world.report.error("P227", node.span, "the factor of `base` must not move with the clocks")
    return Base(base.factor * factor, base.offset * factor, base.unit)


def _has_unit(world: World, node: Binary, n: Amount) -> bool:
    if n.unit in ("", "%"):
        return False
    world.report.error("P208", node.span, f"a coefficient is a plain number, not {kind_of(n)}")
    return True


def _divide(world: World, node: Binary, a: Value, b: Value) -> Value:
    match a, b:
        case Amount(), Amount():
            if b.unit in ("", "%"):
                return Amount(apply("/", a.schedule, b.schedule), "" if a.unit == "%" else a.unit)
            if a.unit == b.unit:
                return Amount(apply("/", a.schedule, b.schedule))
            return world.report.error("P208", node.span, f"{kind_of(a)} cannot be divided by {kind_of(b)}")
        case Combination() | Base(), Amount():
            inverse = Amount(apply("/", ONE, b.schedule), b.unit)
            return _multiply(world, node, a, inverse)
        case _, Combination():
            return world.report.error(
                "P231",
                node.span,
                "nothing can be divided by a function",
                hint="a percentage as the bound already refers to the dense value: `nonzeros(net) ≤ 5%`",
            )
    return _cannot(world, node, a, b)


def _power(world: World, node: Binary, a: Value, b: Value) -> Value:
    match a, b:
        case Amount(unit="" | "%"), Amount(unit="" | "%"):
            return Amount(apply("^", a.schedule, b.schedule))
        case Combination(pieces=(piece,), constant=None), Amount(unit=""):
            function = piece.function
            if (
                isinstance(function, VectorNorm)
                and function.name == "norm2"
                and function.power == 1
                and piece.weight == ONE
            ):
                if b.schedule == constant(2):
                    return Combination((replace(piece, function=replace(function, power=2)),))
                if b.schedule == constant(1):
                    return a
    if isinstance(a, Combination):
        return world.report.error("P231", node.span, "only ‖w‖₂ may be raised to a power, and only to 2: `‖w‖₂²`")
    return _cannot(world, node, a, b)


# ── sets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _union(world: World, node: Binary, a: Value, b: Value) -> Value:
    if world.selectors is None:
        return WRONG
    match a, b:
        case Tensors(), Tensors() if not (a.start or b.start or a.moved or b.moved):
            return world.selectors.union(a, b)
        case Layers(), Layers():
            return world.selectors.union_layers(a, b)
        case (Layers(), Tensors()) | (Tensors(), Layers()):
            where = node.left if isinstance(a, Layers) else node.right
            return world.report.error(
                "P207",
                where.span,
                "`|` joins tensors with tensors, or layers with layers",
                fix=f"{world.text(where)}.weights",
            )
    return _cannot(world, node, a, b)


def _except(world: World, node: Binary, a: Value, b: Value) -> Value:
    if world.selectors is None:
        return WRONG
    match a, b:
        case Tensors(), Tensors():
            left: Tensors | Layers = world.selectors.without(a, b)
        case Tensors(), Layers():
            left = world.selectors.without(a, world.selectors.of_layers(b, "params"))
        case Layers(), Layers():
            left = world.selectors.without_layers(a, b)
        case _:
            return _cannot(world, node, a, b)
    if not left.names:
        return world.report.error(
            "P213", node.span, "`except` leaves nothing over", hint="everything on its left is taken away"
        )
    return left


_WORDS = {
    "+": "{a} and {b} cannot be added",
    "-": "{b} cannot be subtracted from {a}",
    "*": "{a} and {b} cannot be multiplied",
    "/": "{a} cannot be divided by {b}",
    "^": "{a} cannot be raised to {b}",
    "|": "`|` joins tensors with tensors, or layers with layers, not {a} and {b}",
    "except": "`except` takes tensors or layers away from such, not {b} from {a}",
}


def _cannot(world: World, node: Binary, a: Value, b: Value) -> Wrong:
    sentence = _WORDS.get(node.operator, "{a} and {b} do not go together").format(a=kind_of(a), b=kind_of(b))
    hint = None
    if isinstance(a, Network) or isinstance(b, Network):
        hint = f"say which tensors: `{world.trained or 'net'}.weights`"
    elif (isinstance(a, Base) and isinstance(b, (Base, Combination))) or (
        isinstance(b, Base) and isinstance(a, Combination)
    ):
        hint = "`base` stands on one side of a constraint, alone but for a factor and a number"
    return world.report.error("P231", node.span, sentence, hint=hint)


def as_fraction(world: World, node: Expr, amount: Amount) -> Fraction | None:
    """The exact value of a constant; reports one that moves with the clocks or has no value."""
    try:
        value = value_of(amount.schedule)
    except NoValue as error:
        world.report.error("P227", node.span, f"this has no value: {error}")
        return None
    if value is None:
        world.report.error("P226", node.span, "this value cannot move with the clocks")
    return value
