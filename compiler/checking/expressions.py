"""Expressions to values: names, attributes, selectors, sums; every error is reported once and then stays silent."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from prunelang.compiler.checking import arithmetic, calls
from prunelang.compiler.checking.numbers import NoValue, apply
from prunelang.compiler.checking.reporter import listing
from prunelang.compiler.checking.selectors import ATTRIBUTES
from prunelang.compiler.checking.units import unit_of
from prunelang.compiler.checking.values import (
    WRONG,
    Amount,
    Base,
    Combination,
    Domain,
    Flag,
    Items,
    Layers,
    Network,
    Tensors,
    Value,
    Words,
    Wrong,
    kind_of,
)
from prunelang.compiler.checking.world import MAX_INSTANCES, NO_LOCALS, Locals, World
from prunelang.compiler.functions import FUNCTIONS, SETS, SPLITS
from prunelang.compiler.schedule import CLOCKS, Apply, Clock, constant
from prunelang.dsl.diagnostics import did_you_mean
from prunelang.dsl.names import to_unicode
from prunelang.dsl.tree import (
    Attribute,
    Binary,
    Braces,
    Call,
    Expr,
    ListOf,
    Name,
    Negate,
    Norm,
    Number,
    Select,
    SumOver,
    Text,
    Truth,
)

COMPOUND: Final = (Attribute, Select, Call, Norm, Negate, Binary, SumOver)


def evaluate(world: World, expr: Expr, local: Locals = NO_LOCALS) -> Value:
    """The value of `expr`; `local` holds the variables of ∀ and Σ around it."""
    if not local or not isinstance(expr, COMPOUND):
        return _evaluate(world, expr, local)
    if not local.keys().isdisjoint(world.names_in(expr)):
        return _evaluate(world, expr, local)
    key = id(expr)
    if key not in world.memo:
        world.memo[key] = _evaluate(world, expr, NO_LOCALS)
    return world.memo[key]


def _evaluate(world: World, expr: Expr, local: Locals) -> Value:
    match expr:
        case Number():
            return amount_of(world, expr)
        case Name():
            return _name(world, expr, local)
        case Attribute():
            return _attribute(world, expr, local)
        case Select():
            return _select(world, expr, local)
        case Norm():
            return calls.norm(world, expr, local)
        case Call():
            return calls.call(world, expr, local)
        case Binary():
            left, right = evaluate(world, expr.left, local), evaluate(world, expr.right, local)
            return arithmetic.binary(world, expr, left, right)
        case Negate():
            return arithmetic.negate(world, expr, evaluate(world, expr.value, local))
        case SumOver():
            return _sum(world, expr, local)
        case Text(value):
            return Words(value)
        case Truth(value):
            return Flag(value)
        case ListOf(items):
            return Items(items)
        case Braces():
            return _braces(world, expr, local)
    raise TypeError(expr)


def amount_of(world: World, node: Number) -> Value:
    known = unit_of(node.unit)
    if known is None:
        return world.report.error("P208", node.span, f"`{node.unit}` is no unit of the language")
    unit, factor = known
    try:
        return Amount(apply("+", constant(0), constant(node.value * factor)), unit)
    except NoValue as error:
        return world.report.error("P227", node.span, f"this has no value: {error}")


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _name(world: World, node: Name, local: Locals) -> Value:
    if node.id in local:
        return local[node.id]
    for clock in CLOCKS:
        if node.id == clock:
            return Amount(Clock(clock))
    if node.id == "base":
        return Base(Fraction(1))
    if node.id == "pi":
        return Amount(Apply("pi", ()))
    if node.id in SPLITS:
        return world.report.error(
            "P207", node.span, f"`{node.id}` is a split of the data: it is named as `on = {node.id}`"
        )
    known = world.scope.look_up(node.id, node.span)
    if known is not None:
        return known
    if node.id == "dense":
        return Domain(SETS["dense"], span=node.span)
    return _unknown_name(world, node, local)


def _unknown_name(world: World, node: Name, local: Locals) -> Wrong:
    signature = FUNCTIONS.get(node.id) or SETS.get(node.id)
    shown = to_unicode(node.id)
    if signature is not None:
        return world.report.error(
            "P201", node.span, f"`{shown}` needs its arguments", hint=f"write `{signature.text()}`"
        )
    if world.selectors is not None and node.id in world.selectors.table.layer:
        return world.report.error(
            "P201", node.span, f"`{shown}` is a layer, not a name of the spec", fix=f'{world.trained}["{node.id}"]'
        )
    near = did_you_mean(shown, [*map(to_unicode, (*local, *world.scope.names())), *SETS])
    return world.report.error("P201", node.span, f"nothing is called `{shown}`", hint=near)


# ── attributes and selectors ─────────────────────────────────────────────────────────────────────────────────────


def _attribute(world: World, node: Attribute, local: Locals) -> Value:
    value = evaluate(world, node.value, local)
    if isinstance(value, Wrong):
        return WRONG
    if world.selectors is None:
        return world.needs_table(node.span)
    if not isinstance(value, (Network, Layers)):
        hint = (
            "its value, bound, margin or dual are read in `report`"
            if node.name in ("value", "bound", "margin", "dual")
            else None
        )
        return world.report.error("P205", node.span, f"{kind_of(value)} has no attribute `{node.name}`", hint=hint)
    if node.name not in ATTRIBUTES:
        return _unknown_attribute(world, node, value)
    if _is_frozen(world, node.value, value):
        return WRONG
    if isinstance(value, Network):
        found: Tensors | Layers = getattr(world.selectors, node.name)
    else:
        found = value if node.name == "layers" else world.selectors.of_layers(value, node.name)
    if not found.names:
        return world.report.error(
            "P213", node.span, f"{kind_of(value)} has no {node.name}", hint="nothing would be selected"
        )
    return found


def _is_frozen(world: World, node: Expr, value: Value) -> bool:
    if not (isinstance(value, Network) and value.frozen):
        return False
    world.report.error(
        "P207",
        node.span,
        f"`{value.name}` is frozen; functions, constraints and sets are of the trained network `{world.trained}`",
    )
    return True


def _unknown_attribute(world: World, node: Attribute, value: Network | Layers) -> Wrong:
    selectors = world.selectors
    assert selectors is not None
    if isinstance(value, Network) and node.name in selectors.table.layer:
        return world.report.error(
            "P205",
            node.span,
            "layers are selected by name, not as attributes",
            fix=f'{world.text(node.value)}["{node.name}"]',
        )
    near = did_you_mean(node.name, ATTRIBUTES)
    return world.report.error(
        "P205",
        node.span,
        f"{kind_of(value)} has no attribute `{node.name}`",
        hint=near or f"it has {', '.join(ATTRIBUTES)}",
    )


def _select(world: World, node: Select, local: Locals) -> Value:
    value = evaluate(world, node.value, local)
    if isinstance(value, Wrong):
        return WRONG
    if world.selectors is None:
        return world.needs_table(node.span)
    if _is_frozen(world, node.value, value):
        return WRONG
    if isinstance(value, Network):
        value = world.selectors.layers
    if not isinstance(value, Layers):
        return world.report.error(
            "P207", node.span, f"{kind_of(value)} cannot be selected from; networks and layer sets can"
        )
    patterns: list[str] = []
    for pattern in node.patterns:
        if not isinstance(pattern, Text):
            hint = f'write `"{pattern.id}"`' if isinstance(pattern, Name) else None
            return world.report.error("P207", pattern.span, "a layer is selected by its name in quotes", hint=hint)
        if not world.selectors.glob(value, (pattern.value,)).names:
            return _nothing_matched(world, pattern, value)
        patterns.append(pattern.value)
    return world.selectors.glob(value, tuple(patterns))


def _nothing_matched(world: World, pattern: Text, layers: Layers) -> Wrong:
    assert world.selectors is not None
    near = world.selectors.nearest(pattern.value)
    hint = "did you mean " + " or ".join(f'`"{n}"`' for n in near) + "?" if near else None
    return world.report.error(
        "P213",
        pattern.span,
        f'no layer is called "{pattern.value}"'
        if not set("*?[") & set(pattern.value)
        else f'no layer fits "{pattern.value}"',
        hint=hint,
        notes=(f"the layers are {listing(layers.names)}",),
    )


def members(world: World, node: Expr, value: Value) -> list[tuple[str, Value]] | None:
    """The elements that a variable of ∀ or Σ runs over, with their names; None after reporting what is no set."""
    match value:
        case Wrong():
            return None
        case Layers(names):
            return [(n, Layers((n,))) for n in names]
        case Tensors(names, start=False, moved=False):
            return [(n, Tensors((n,))) for n in names]
    hint = f"write `{world.text(node)}.layers`" if isinstance(value, Network) else None
    world.report.error(
        "P207", node.span, f"a variable runs over layers or tensors, not over {kind_of(value)}", hint=hint
    )
    return None


def _sum(world: World, node: SumOver, local: Locals) -> Value:
    elements = members(world, node.domain, evaluate(world, node.domain, local))
    if not variable_is_free(world, node.variable, local, node) or elements is None:
        return WRONG
    if len(elements) > MAX_INSTANCES:
        return world.report.error("P233", node.span, f"this sum has {len(elements)} terms; the most is {MAX_INSTANCES}")
    outer, world.report.unrolling = world.report.unrolling, True
    values = [evaluate(world, node.body, {**local, node.variable: element}) for _, element in elements]
    world.report.unrolling = outer
    if any(isinstance(v, Wrong) for v in values):
        return WRONG
    combinations = [v for v in values if isinstance(v, Combination)]
    if len(combinations) == len(values):
        return arithmetic.total(world, node, combinations)
    amounts = [v for v in values if isinstance(v, Amount)]
    if len(amounts) != len(values):
        return world.report.error("P231", node.body.span, f"{kind_of(values[0])} cannot be summed")
    result: Value = amounts[0]
    for amount in amounts[1:]:
        result = arithmetic.binary(world, Binary("+", node.body, node.body, span=node.span), result, amount)
    return result


def variable_is_free(world: World, name: str, local: Locals, node: Expr) -> bool:
    """Whether ∀ or Σ may bind `name`; reports a reserved or taken one."""
    if name in local or name in world.scope:
        world.report.error(
            "P203", node.span, f"`{to_unicode(name)}` is already a name here", hint="choose another variable"
        )
        return False
    return world.scope.admissible(name, node.span)


def _braces(world: World, node: Braces, local: Locals) -> Value:
    values: list[Fraction] = []
    for item in node.items:
        value = evaluate(world, item, local)
        if isinstance(value, Wrong):
            return WRONG
        if not isinstance(value, Amount) or value.unit not in ("", "%"):
            return world.report.error("P207", item.span, f"a set of values holds plain numbers, not {kind_of(value)}")
        number = arithmetic.as_fraction(world, item, value)
        if number is None:
            return WRONG
        if number in values:
            return world.report.error("P223", item.span, "this value stands in the set twice")
        values.append(number)
    return Domain(SETS["values"], (("values", tuple(sorted(values))),), span=node.span)
