"""Calls: the arguments to the signature of the function, then to its own construction."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from prunelang.compiler.arguments import Signature as Arguments
from prunelang.compiler.checking.arguments import plain_arguments
from prunelang.compiler.checking.binding import argument, bind
from prunelang.compiler.checking.functions import LATER, build
from prunelang.compiler.checking.values import ONE, WRONG, Combination, Domain, Piece, Value, Wrong
from prunelang.compiler.checking.world import Locals, World
from prunelang.compiler.functions import FUNCTIONS, SETS, Signature, loss
from prunelang.compiler.problem import Measured
from prunelang.dsl.diagnostics import did_you_mean
from prunelang.dsl.names import to_unicode
from prunelang.dsl.spans import Span
from prunelang.dsl.tree import Call, Norm

ORDERS: Final = {"0": "norm0", "1": "norm1", "2": "norm2", "inf": "norminf"}


def call(world: World, node: Call, local: Locals) -> Value:
    where = function_span(node)
    registered = world.catalog.losses.get(node.function)
    if registered is not None:
        return _registered_loss(world, node, loss(node.function, registered.doc), registered, local)
    signature = FUNCTIONS.get(node.function) or SETS.get(node.function)
    if signature is None or node.function == "values":
        return _unknown(world, node, where)
    bound = bind(world, signature, node, local)
    if bound is None:
        return WRONG
    if signature.group == "set":
        return Domain(signature, tuple(bound.items()), span=node.span)
    return build(world, signature, bound, node)


def norm(world: World, node: Norm, local: Locals) -> Value:
    """``‖w‖₀`` and its like are calls of `norm0` and its like."""
    signature = FUNCTIONS[ORDERS[node.order]]
    value = argument(world, signature, signature.parameters[0], node.value, local)
    return WRONG if value is None else build(world, signature, {"w": value}, node)


def _registered_loss(world: World, node: Call, signature: Signature, options: Arguments, local: Locals) -> Value:
    """A loss that the user's own code registered: the network, its own options, and the split."""
    own = [a for a in node.arguments if a.name not in (None, "on", "net")]
    shared = tuple(a for a in node.arguments if a not in own)
    bound = bind(world, signature, replace(node, arguments=shared), local)
    values = plain_arguments(world, options, tuple(own), node, local)
    if bound is None or values is None:
        return WRONG
    arguments = tuple(values.items())
    function = Measured(signature.name, str(bound["on"] or LATER), arguments, signature.unit)
    return Combination((Piece(ONE, function, signature, None, node.span),))


def function_span(node: Call) -> Span:
    """Where the function's name stands."""
    return node.function_span if node.function_span.end > node.function_span.start else node.span


def _unknown(world: World, node: Call, where: Span) -> Wrong:
    names = (*FUNCTIONS, *(s for s in SETS if s != "values"), *world.catalog.losses)
    if node.function in world.scope:
        return world.report.error("P205", where, f"`{to_unicode(node.function)}` is not a function")
    near = did_you_mean(node.function, names)
    return world.report.error("P205", where, f"there is no function `{to_unicode(node.function)}`", hint=near)
