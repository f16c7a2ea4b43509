"""Arguments of networks, data sets and registered losses: plain values against `compiler.arguments.Signature`."""

from __future__ import annotations

from collections.abc import Sequence

from prunelang.compiler.arguments import ArgumentError, Signature
from prunelang.compiler.arguments import Parameter as ArgumentParameter
from prunelang.compiler.arguments import Value as Plain
from prunelang.compiler.checking.arithmetic import as_fraction
from prunelang.compiler.checking.values import WRONG, Amount, Flag, Items, Words, Wrong, kind_of
from prunelang.compiler.checking.world import NO_LOCALS, Locals, World
from prunelang.dsl.names import to_unicode
from prunelang.dsl.tree import Argument, Call, Expr, Name


def plain_arguments(
    world: World, signature: Signature, arguments: Sequence[Argument], node: Call, local: Locals = NO_LOCALS
) -> dict[str, Plain] | None:
    """Every parameter's plain value, checked, defaults filled in; None after reporting what does not fit."""
    positional: list[object] = []
    named: dict[str, object] = {}
    at: dict[str | None, Argument] = {}
    good = True
    for argument in arguments:
        parameter = _parameter(signature, argument, len(positional))
        value = _plain(world, argument.value, parameter, local)
        good = good and not isinstance(value, Wrong)
        if parameter is not None:
            at.setdefault(parameter.name, argument)
        if argument.name is None:
            positional.append(value)
        elif argument.name in named:
            world.report.error("P542", argument.span, f"`{to_unicode(argument.name)}` is given twice")
            good = False
        else:
            at.setdefault(argument.name, argument)
            named[argument.name] = value
    if not good:
        return None
    try:
        return signature.bind(positional, named)
    except ArgumentError as error:
        where = at.get(error.argument)
        near = " or ".join(f"`{s}`" for s in error.suggestions)
        span = (
            node.span if where is None else where.span if error.argument not in _names(signature) else where.value.span
        )
        world.report.error("P542", span, error.message, hint=f"did you mean {near}?" if near else None)
        return None


def _names(signature: Signature) -> list[str]:
    return [p.name for p in signature.parameters]


def _parameter(signature: Signature, argument: Argument, position: int) -> ArgumentParameter | None:
    if argument.name is None:
        return signature.parameters[position] if position < len(signature.parameters) else None
    return next((p for p in signature.parameters if p.name == argument.name), None)


def _plain(world: World, node: Expr, parameter: ArgumentParameter | None, local: Locals) -> object:
    """A plain Python value. A bare name given to an enumeration is its member."""
    if parameter is not None and parameter.kind == "choice" and isinstance(node, Name) and node.id not in world.scope:
        return node.id
    value = world.evaluate(node, local)
    match value:
        case Wrong():
            return WRONG
        case Flag(truth):
            return truth
        case Words(text):
            return text
        case Amount(unit="" | "%"):
            number = as_fraction(world, node, value)
            return WRONG if number is None else int(number) if number.denominator == 1 else number
        case Items(items):
            inner = [_plain(world, item, None, local) for item in items]
            return WRONG if any(isinstance(x, Wrong) for x in inner) else tuple(inner)
    return world.report.error("P542", node.span, f"arguments are plain values, not {kind_of(value)}")
