"""Params: their literal, their range, and the value that `--set` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from prunelang.compiler.checking.expressions import evaluate
from prunelang.compiler.checking.numbers import value_of
from prunelang.compiler.checking.units import show, unit_words
from prunelang.compiler.checking.values import Amount, Value, Wrong, kind_of
from prunelang.compiler.checking.world import World, canonical_text
from prunelang.dsl.diagnostics import SpecError, did_you_mean, suggest
from prunelang.dsl.names import canonical, to_unicode
from prunelang.dsl.parser import parse
from prunelang.dsl.spans import NOWHERE, Span
from prunelang.dsl.tree import Expr, Param, Spec


@dataclass(frozen=True)
class InForce:
    """A param's value and its text."""

    value: Value
    text: str


def params(world: World, spec: Spec, overrides: Mapping[str, str]) -> dict[str, InForce]:
    """Every param with the value in force; overrides of unknown names are reported."""
    given = {canonical(name): text for name, text in overrides.items()}
    written = {canonical(name): name for name in overrides}
    declared = {s.name: s for s in spec.statements if isinstance(s, Param)}
    for name in given:
        if name not in declared:
            _unknown(world, name, written[name], declared)
    return {name: _in_force(world, node, given.get(name)) for name, node in declared.items()}


def _unknown(world: World, name: str, shown: str, declared: Mapping[str, Param]) -> None:
    near = suggest(name, declared)
    at: Span = declared[near[0]].name_span if near else next((p.name_span for p in declared.values()), NOWHERE)
    names = (
        f"the params are {', '.join(f'`{to_unicode(n)}`' for n in declared)}" if declared else "the spec has no param"
    )
    hint = did_you_mean(shown, map(to_unicode, declared)) or names
    world.report.error("P220", at, f"`--set {shown}=…` names no param of this spec", hint=hint)


def _in_force(world: World, node: Param, override: str | None) -> InForce:
    declared = evaluate(world, node.value)
    low, high = (None if side is None else evaluate(world, side) for side in (node.low, node.high))
    if isinstance(declared, Wrong) or isinstance(low, Wrong) or isinstance(high, Wrong):
        return InForce(Wrong(), "")
    if not _ordered(world, node, declared, low, high) or not _inside(
        world, node, node.value, declared, low, high, None
    ):
        return InForce(Wrong(), "")
    if override is None:
        return InForce(declared, canonical_text(node.value))
    expr = _literal(world, node, override)
    value = Wrong() if expr is None else evaluate(world, expr)
    fits = not isinstance(value, Wrong) and _same_kind(world, node, override, declared, value)
    if expr is None or not fits or not _inside(world, node, node.value, value, low, high, override):
        return InForce(declared, canonical_text(node.value))
    return InForce(value, canonical_text(expr))


def _literal(world: World, node: Param, text: str) -> Expr | None:
    """The literal that `--set` gave, read by the parser of the language; nothing but one literal is taken."""
    try:
        spec = parse(f"param value = {text}\n")
    except SpecError as error:
        spec, reason = None, error.diagnostics[0].message
    else:
        reason = "it is a literal: a number with its unit, a string, true or false, or a list"
    statement = spec.statements[0] if spec is not None and len(spec.statements) == 1 else None
    if isinstance(statement, Param) and statement.low is None:
        return statement.value
    shown = to_unicode(node.name)
    world.report.error("P221", node.name_span, f"`--set {shown}={text}` gives no value for `{shown}`: {reason}")
    return None


def _same_kind(world: World, node: Param, text: str, declared: Value, value: Value) -> bool:
    same = type(declared) is type(value)
    if same and isinstance(declared, Amount) and isinstance(value, Amount):
        same = declared.unit == value.unit
    if same:
        return True
    shown = to_unicode(node.name)
    fix = _converted(declared, value)
    world.report.error(
        "P221",
        node.value.span,
        f"`{shown}` is {kind_of(declared)}; `--set {shown}={text}` gives {kind_of(value)}",
        fix=fix,
        hint=None if fix is None else f"say `--set {shown}={fix}`",
    )
    return False


def _converted(declared: Value, value: Value) -> str | None:
    """The value that was meant, in the declared kind: 0.05 over a percentage is 5%."""
    if not isinstance(declared, Amount) or not isinstance(value, Amount) or {declared.unit, value.unit} != {"%", ""}:
        return None
    number = value_of(value.schedule)
    return None if number is None else show(number, declared.unit)


def _ordered(world: World, node: Param, value: Value, low: Value | None, high: Value | None) -> bool:
    if low is None or high is None:
        return True
    assert node.low is not None and node.high is not None
    for side, limit in ((node.low, low), (node.high, high)):
        if not isinstance(value, Amount) or not isinstance(limit, Amount) or limit.unit != value.unit:
            unit = unit_words(value.unit) if isinstance(value, Amount) else kind_of(value)
            world.report.error(
                "P221",
                side.span,
                f"the range of `{to_unicode(node.name)}` is of another kind: {kind_of(limit)} for {unit}",
            )
            return False
    a, b = _number(low), _number(high)
    if a is not None and b is not None and a > b:
        world.report.error(
            "P222", node.low.span.to(node.high.span), "the range is empty: its lower end lies above its upper"
        )
        return False
    return True


def _number(value: Value | None) -> Fraction | None:
    return value_of(value.schedule) if isinstance(value, Amount) else None


def _inside(
    world: World, node: Param, where: Expr, value: Value, low: Value | None, high: Value | None, override: str | None
) -> bool:
    number, a, b = _number(value), _number(low), _number(high)
    if number is None or a is None or b is None or a <= number <= b:
        return True
    unit = value.unit if isinstance(value, Amount) else ""
    shown = to_unicode(node.name)
    what = f"`{shown}` = {show(number, unit)}" if override is None else f"`--set {shown}={override}`"
    world.report.error("P222", where.span, f"{what} lies outside its range [{show(a, unit)}, {show(b, unit)}]")
    return False
