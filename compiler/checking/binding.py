"""Arguments of a call against the signature of its function: every parameter's value in the parameter's own type."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Final

from prunelang.compiler.checking.arithmetic import as_fraction
from prunelang.compiler.checking.modes import read_modes
from prunelang.compiler.checking.units import unit_words
from prunelang.compiler.checking.values import (
    Amount,
    Domain,
    Items,
    Layers,
    Network,
    Tensors,
    Value,
    Wrong,
    kind_of,
)
from prunelang.compiler.checking.world import Locals, World
from prunelang.compiler.functions import SETS, Parameter, Signature
from prunelang.compiler.functions.base import KIND_WORDS
from prunelang.dsl.diagnostics import did_you_mean
from prunelang.dsl.names import to_unicode
from prunelang.dsl.spans import Span
from prunelang.dsl.tree import Attribute, Call, Expr, Name, Text


def bind(world: World, signature: Signature, node: Call, local: Locals) -> dict[str, object] | None:
    """Every parameter's value, checked; None after reporting what does not fit."""
    given = _place(world, signature, node)
    if given is None:
        return None
    bound: dict[str, object] = {}
    good = True
    for parameter in signature.parameters:
        if parameter.many:
            values = [argument(world, signature, parameter, e, local) for e in given.get(parameter.name, [])]
            bound[parameter.name] = tuple(values)
            good = good and None not in values
        elif parameter.name in given:
            value = argument(world, signature, parameter, given[parameter.name][0], local)
            bound[parameter.name] = value
            good = good and value is not None
        else:
            bound[parameter.name] = parameter.default
    return bound if good else None


def _place(world: World, signature: Signature, node: Call) -> dict[str, list[Expr]] | None:
    """The expressions by parameter; reports unknown, doubled, missing and surplus arguments."""
    given: dict[str, list[Expr]] = {}
    order = list(signature.parameters)
    report, what = world.report, f"`{signature.name}`"
    good = True
    for argument in node.arguments:
        if argument.name is None:
            if not order:
                report.error("P206", argument.span, f"{what} takes fewer arguments", hint=f"it is `{signature.text()}`")
                return None
            parameter = order[0]
            if not parameter.many:
                order.pop(0)
        else:
            found = signature.parameter(argument.name)
            if found is None or found.many:
                near = did_you_mean(argument.name, [p.name for p in signature.parameters])
                shown = to_unicode(argument.name)
                report.error(
                    "P206",
                    argument.span,
                    f"{what} has no argument `{shown}`",
                    hint=near or f"it is `{signature.text()}`",
                )
                good = False
                continue
            parameter = found
            order = [p for p in order if p is not parameter]
        if parameter.name in given and not parameter.many:
            report.error("P206", argument.span, f"`{parameter.name}` is given twice")
            good = False
        given.setdefault(parameter.name, []).append(argument.value)
    missing = [p.name for p in signature.parameters if p.required and p.name not in given]
    if missing and good:
        hint = f"it is `{signature.text()}`"
        report.error("P206", node.span, f"{what} needs {' and '.join(f'`{m}`' for m in missing)}", hint=hint)
    return given if good and not missing else None


def argument(world: World, signature: Signature, parameter: Parameter, node: Expr, local: Locals) -> object | None:
    """The value of one argument in the parameter's own type, None after reporting why not."""
    if parameter.kind in ("choice", "split"):
        return _member(world, parameter, node)
    if parameter.kind == "modes":
        return read_modes(world, node, local)
    value = world.evaluate(node, local)
    if isinstance(value, Wrong):
        return None
    return _READERS[parameter.kind](world, signature, parameter, node, value, local)


def _member(world: World, parameter: Parameter, node: Expr) -> str | None:
    word = node.id if isinstance(node, Name) else node.value if isinstance(node, Text) else None
    if word is not None and word in parameter.choices:
        return word
    near = did_you_mean(word, parameter.choices) if word else None
    world.report.error(
        "P207",
        node.span,
        f"`{parameter.name}` is one of {', '.join(parameter.choices)}",
        hint=near,
        found=world.text(node),
    )
    return None


def mismatch(world: World, parameter: Parameter, node: Expr, value: Value, **more: str | None) -> None:
    world.report.error(
        "P207",
        node.span,
        f"`{to_unicode(parameter.name)}` takes {KIND_WORDS[parameter.kind]}, not {kind_of(value)}",
        **more,
    )


# ── readers by kind ──────────────────────────────────────────────────────────────────────────────────────────────


def _network(world: World, s: Signature, p: Parameter, node: Expr, value: Value, local: Locals) -> Network | None:
    if not isinstance(value, Network):
        mismatch(world, p, node, value, hint=f"write `{world.trained}`" if world.trained else None)
        return None
    if value.frozen:
        message = f"`{value.name}` is frozen; `{s.name}` is of the trained network `{world.trained}`"
        world.report.error("P207", node.span, message)
        return None
    return value


def _teacher(world: World, s: Signature, p: Parameter, node: Expr, value: Value, local: Locals) -> Network | None:
    if isinstance(value, Network) and value.frozen:
        return value
    mismatch(world, p, node, value, hint='declare one: `model teacher = … from "weights.safetensors" frozen`')
    return None


def _owners(
    world: World, s: Signature, p: Parameter, node: Expr, value: Value, local: Locals
) -> Network | Layers | None:
    if isinstance(value, Layers) or (isinstance(value, Network) and not value.frozen):
        return value
    hint = None
    if isinstance(value, Tensors) and isinstance(node, Attribute):
        hint = f"write `{world.text(node.value)}`"
    mismatch(world, p, node, value, hint=hint)
    return None


def _tensors(world: World, s: Signature, p: Parameter, node: Expr, value: Value, local: Locals) -> Tensors | None:
    if isinstance(value, (Layers, Network)) and not (isinstance(value, Network) and value.frozen):
        mismatch(world, p, node, value, fix=f"{world.text(node)}.weights")
        return None
    if not isinstance(value, Tensors):
        mismatch(world, p, node, value)
        return None
    return value


def _matrix(world: World, s: Signature, p: Parameter, node: Expr, value: Value, local: Locals) -> Tensors | None:
    tensors = _tensors(world, s, p, node, value, local)
    if tensors is None or single(world, f"`{s.name}`", node, tensors):
        return tensors
    return None


def single(world: World, what: str, node: Expr, tensors: Tensors) -> bool:
    """Whether there is one tensor; otherwise reports with the constraint rewritten for each layer."""
    if len(tensors.names) == 1:
        return True
    message = f"{what} takes one tensor; here are {len(tensors.names)}"
    rewritten = _one_by_one(world, node)
    if rewritten is None or world.body is None:
        world.report.error(
            "P214", node.span, message, hint="write a constraint for each: `∀ l ∈ net.layers: …(l.weights)`"
        )
    else:
        world.report.error("P214", node.span, message, fix=rewritten, fix_span=world.body)
    return False


def _one_by_one(world: World, node: Expr) -> str | None:
    """The constraint under check as ``∀ l ∈ S: …`` with ``l.weights`` in place of ``S.weights``."""
    body = world.body
    if body is None or not isinstance(node, Attribute) or node.name not in ("weights", "biases"):
        return None
    if not body.start <= node.span.start < node.span.end <= body.end:
        return None
    owner = world.text(node.value)
    domain = f"{owner}.layers" if isinstance(node.value, Name) else owner
    before = world.source.slice(Span(body.start, node.span.start))
    after = world.source.slice(Span(node.span.end, body.end))
    variable = next(v for v in ("l", "m", "layer", "each_layer", "one_layer") if v not in world.scope)
    return f"∀ {variable} ∈ {domain}: {before}{variable}.{node.name}{after}"


def _number(world: World, s: Signature, p: Parameter, node: Expr, value: Value, local: Locals) -> Fraction | None:
    if not isinstance(value, Amount) or value.unit not in ("", "%"):
        mismatch(world, p, node, value)
        return None
    number = as_fraction(world, node, value)
    return number if number is not None and in_range(world, p, node, number) else None


def in_range(world: World, p: Parameter, node: Expr, value: Fraction) -> bool:
    low = p.low is None or (value > p.low if p.above else value >= p.low)
    if low and (p.high is None or value <= p.high):
        return True
    world.report.error("P223", node.span, f"`{to_unicode(p.name)}` must be {p.range_text()}")
    return False


def _integer(world: World, s: Signature, p: Parameter, node: Expr, value: Value, local: Locals) -> int | None:
    if not isinstance(value, Amount) or value.unit != "":
        mismatch(world, p, node, value)
        return None
    number = as_fraction(world, node, value)
    if number is None or not in_range(world, p, node, number):
        return None
    if number.denominator != 1:
        world.report.error("P223", node.span, f"`{to_unicode(p.name)}` is a whole number")
        return None
    return int(number)


def _ranks(
    world: World, s: Signature, p: Parameter, node: Expr, value: Value, local: Locals
) -> int | tuple[int, ...] | None:
    if not isinstance(value, Items):
        return _integer(world, s, p, node, value, local)
    found = [_integer(world, s, p, item, world.evaluate(item, local), local) for item in value.items]
    if not found:
        mismatch(world, p, node, value, hint="there is one rank for each bond: `[8, 4]` for three cores")
        return None
    return None if None in found else tuple(n for n in found if n is not None)


def _size(world: World, s: Signature, p: Parameter, node: Expr, value: Value, local: Locals) -> Amount | int | None:
    if isinstance(value, Amount) and value.unit == "%":
        share = as_fraction(world, node, value)
        if share is not None and not 0 <= share <= 1:
            world.report.error("P212", node.span, "a share of the entries lies between 0% and 100%")
            return None
        return None if share is None else value
    if isinstance(value, Amount) and value.unit == "":
        number = as_fraction(world, node, value)
        if number is not None and number.denominator != 1:
            hint = f"for a share of the entries write `{float(number * 100):g}%`" if 0 < number < 1 else None
            world.report.error("P211", node.span, f"`{s.name}` counts whole entries", hint=hint)
            return None
    return _integer(world, s, p, node, value, local)


def _epochs(world: World, s: Signature, p: Parameter, node: Expr, value: Value, local: Locals) -> int | None:
    if isinstance(value, Amount) and value.unit == "epochs":
        return _integer(world, s, p, node, Amount(value.schedule), local)
    text = world.text(node)
    fix = f"{text} epochs" if isinstance(value, Amount) and value.unit == "" else None
    mismatch(world, p, node, value, fix=fix)
    return None


def _scalar(world: World, s: Signature, p: Parameter, node: Expr, value: Value, local: Locals) -> Amount | None:
    if isinstance(value, Amount):
        return value
    mismatch(world, p, node, value)
    return None


def _time(world: World, s: Signature, p: Parameter, node: Expr, value: Value, local: Locals) -> Amount | None:
    if isinstance(value, Amount) and value.unit in ("", "%", "epochs", "steps"):
        return value
    if isinstance(value, Amount):
        world.report.error(
            "P208", node.span, f"a time is in epochs or steps, or a share of the stage, not {unit_words(value.unit)}"
        )
        return None
    mismatch(world, p, node, value)
    return None


def _change(
    world: World, s: Signature, p: Parameter, node: Expr, value: Value, local: Locals
) -> tuple[Amount, Amount] | None:
    if not isinstance(value, Items) or len(value.items) != 2:
        mismatch(world, p, node, value)
        return None
    time, later = (world.evaluate(item, local) for item in value.items)
    if isinstance(time, Wrong) or isinstance(later, Wrong):
        return None
    first = _time(world, s, p, value.items[0], time, local)
    second = _scalar(world, s, p, value.items[1], later, local)
    return None if first is None or second is None else (first, second)


def _values(world: World, s: Signature, p: Parameter, node: Expr, value: Value, local: Locals) -> object | None:
    if isinstance(value, Domain) and value.signature is SETS["values"]:
        return dict(value.values)["values"]
    mismatch(world, p, node, value)
    return None


Reader = Callable[[World, Signature, Parameter, Expr, Value, Locals], object | None]
_READERS: Final[dict[str, Reader]] = {
    "network": _network,
    "teacher": _teacher,
    "owners": _owners,
    "tensors": _tensors,
    "matrix": _matrix,
    "number": _number,
    "integer": _integer,
    "ranks": _ranks,
    "size": _size,
    "epochs": _epochs,
    "scalar": _scalar,
    "time": _time,
    "change": _change,
    "values": _values,
}
