"""Calls to functions of the Problem: tensor names instead of selectors, exact integers instead of words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import cast

from prunelang.compiler.channels import structural
from prunelang.compiler.checking.modes import largest_tt_rank, modes_fit
from prunelang.compiler.checking.numbers import NoValue, apply
from prunelang.compiler.checking.values import (
    ONE,
    WRONG,
    Amount,
    Combination,
    Layers,
    Network,
    Piece,
    Tensors,
    Value,
    Wrong,
)
from prunelang.compiler.checking.world import World
from prunelang.compiler.formats import affine_bytes, best_bytes
from prunelang.compiler.forms import Modes
from prunelang.compiler.functions import Signature
from prunelang.compiler.problem import Count, Function, GroupCount, MatrixFunction, Measured, VectorNorm
from prunelang.compiler.schedule import Ramp, Shape, Steps, Unit, constant
from prunelang.compiler.shapes import Tensor
from prunelang.dsl.tree import Call, Expr, Norm

Bound = Mapping[str, object]
ACTIVITY = ("synops", "spikes", "energy")
LATER = ""  # a split that the place of use will decide


def build(world: World, signature: Signature, bound: Bound, node: Call | Norm) -> Value:
    """The value of a call whose arguments are checked."""
    if signature.group == "schedule":
        return _schedule(world, signature, bound, node)
    if world.selectors is None:
        return world.needs_table(node.span)
    if signature.name == "size":
        return Amount(constant(world.selectors.size(cast(Tensors, bound["S"]).names)))
    if signature.name == "start":
        return _start(world, bound, node)
    made = _function(world, signature, bound, node)
    if made is None:
        return WRONG
    function, dense = made
    return Combination((Piece(ONE, function, signature, dense, node.span),))


def _function(
    world: World, signature: Signature, bound: Bound, node: Call | Norm
) -> tuple[Function, int | None] | None:
    name = signature.name
    match signature.group:
        case "data term" | "metric":
            arguments: tuple[tuple[str, object], ...] = ()
            if name == "distill":
                teacher = cast(Network, bound["teacher"])
                arguments = (("teacher", teacher.name), ("T", plain(bound["T"])))
            return Measured(name, str(bound["on"] or LATER), arguments, signature.unit), None
        case "norm":
            return _norm(world, signature, bound, node)
        case "matrix function":
            return _matrix_function(world, signature, bound, node)
        case _:
            return _resource(world, signature, bound, node)


def plain(value: object) -> object:
    """A number as plain data: an int when whole."""
    if not isinstance(value, Fraction):
        return value
    return int(value) if value.denominator == 1 else float(value)


# ── tensors ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _start(world: World, bound: Bound, node: Call | Norm) -> Value:
    tensors = cast(Tensors, bound["w"])
    if tensors.start or tensors.moved:
        return world.report.error("P207", node.span, "`start` takes tensors themselves")
    return Tensors(tensors.names, start=True)


def _norm(world: World, signature: Signature, bound: Bound, node: Call | Norm) -> tuple[Function, int | None] | None:
    selectors = world.selectors
    assert selectors is not None
    name, tensors = signature.name, cast(Tensors, bound["w"])
    if tensors.start or (tensors.moved and signature.result == "count"):
        hint = "‖w - start(w)‖₁, ‖·‖₂ and ‖·‖∞ are known"
        world.report.error(
            "P207", node.span, f"`{name}` takes tensors themselves, not their values at the start", hint=hint
        )
        return None
    if name == "norm0":
        return Count("norm0", {t.name: 1 for t in selectors.get(tensors.names)}, 0, ""), selectors.size(tensors.names)
    options: list[tuple[str, object]] = [("from", "start")] if tensors.moved else []
    if "by" in bound:
        by = str(bound["by"])
        if by == "head":
            world.report.error(
                "P223", node.span, "the table of this network states no attention heads", hint="group by row"
            )
            return None
        groups = sum(_groups(t, by) for t in selectors.get(tensors.names))
        if name == "group_norm0":
            return GroupCount(name, tensors.names, by), groups
        options.append(("by", by))
    if "beta" in bound:
        options.append(("beta", plain(bound["beta"])))
    return VectorNorm(name, tensors.names, options=tuple(options), unit=signature.unit), None


def _groups(tensor: Tensor, by: str) -> int:
    rows, columns = tensor.matrix
    if by in ("filter", "row"):
        return rows
    return columns if by == "column" else (tensor.shape[1] if len(tensor.shape) > 1 else 1)


def _matrix_function(
    world: World, signature: Signature, bound: Bound, node: Call | Norm
) -> tuple[Function, int | None] | None:
    selectors = world.selectors
    assert selectors is not None
    tensors = cast(Tensors, bound["W"])
    if tensors.start or tensors.moved:
        world.report.error("P207", node.span, f"`{signature.name}` takes a tensor itself, not its value at the start")
        return None
    (tensor,) = selectors.get(tensors.names)
    rows, columns = tensor.matrix
    modes = cast(Modes | None, bound.get("modes"))
    if modes is not None and not modes_fit(world, argument_node(node, "modes", 1), modes, rows, columns):
        return None
    options = () if modes is None else (("modes", modes),)
    dense = {"rank": min(rows, columns), "tt_rank": None if modes is None else largest_tt_rank(modes)}.get(
        signature.name
    )
    return MatrixFunction(signature.name, tensor.name, options), dense


def argument_node(node: Call | Norm, name: str, position: int) -> Expr:
    """The expression given for a parameter, for pointing at it."""
    if isinstance(node, Norm):
        return node.value
    named = next((a.value for a in node.arguments if a.name == name), None)
    positional = [a.value for a in node.arguments if a.name is None]
    return named or (positional[position] if len(positional) > position else node)


# ── resources ────────────────────────────────────────────────────────────────────────────────────────────────────


def _resource(
    world: World, signature: Signature, bound: Bound, node: Call | Norm
) -> tuple[Function, int | None] | None:
    selectors = world.selectors
    assert selectors is not None
    name, unit = signature.name, signature.unit
    if name in ACTIVITY and not selectors.table.steps:
        hint = "`sparse_macs(net)` counts what a network without spikes multiplies"
        net = cast(Network, bound["net"]).name
        world.report.error("P475", node.span, f"`{name}` counts spikes, and `{net}` has none", hint=hint)
        return None
    if name in ("description_length", *ACTIVITY):
        return Measured(
            name, str(bound.get("on") or ("train" if name == "description_length" else LATER)), (), unit
        ), None
    owner = cast("Network | Layers", bound["x"])
    layers = selectors.layers if isinstance(owner, Network) else owner
    if not layers.names:
        world.report.error("P213", node.span, "the network has no layer with weights")
        return None
    if name in ("params", "nonzeros", "bytes"):
        return _storage(world, signature, bound, owner, layers)
    return _operations(world, signature, owner, layers)


def _storage(
    world: World, signature: Signature, bound: Bound, owner: Network | Layers, layers: Layers
) -> tuple[Function, int | None]:
    selectors = world.selectors
    assert selectors is not None
    whole = isinstance(owner, Network)
    trained = (selectors.params if whole else selectors.of_layers(layers, "params")).names
    dense = selectors.size(trained)
    if signature.name == "params":
        return structural("params", layers.names, dense, "", dict.fromkeys(trained, 1), selectors.table), dense
    if signature.name == "nonzeros":
        return Count("nonzeros", dict.fromkeys(trained, 1), 0, ""), dense
    stored = selectors.stored.names if whole else trained
    # A table of these tensors alone: a file per layer must not cost a look at every tensor of the network.
    table = replace(selectors.table, layers=(), products=(), tensors=tuple(selectors.get(stored)))
    file = affine_bytes(table, stored, "dense")
    full = file.constant + sum(c * table.tensor[t].size for t, c in file.coefficients.items())
    match str(bound["format"]):
        case "best":
            return best_bytes(table, stored), full
        case "dense":
            return file, full
        case "bitmask":
            return affine_bytes(table, stored, "bitmask"), full
        case "csr":
            return affine_bytes(table, stored, "csr"), full
    arguments = (("format", "coded"), ("tensors", stored))
    return Measured("bytes", "train", arguments, "B"), None


def _operations(
    world: World, signature: Signature, owner: Network | Layers, layers: Layers
) -> tuple[Function, int | None]:
    selectors = world.selectors
    assert selectors is not None
    table, name = selectors.table, signature.name
    each = 2 if name.endswith("flops") else 1
    uses: dict[str, int] = {}
    for layer in (table.layer[n] for n in layers.names):
        tensor = table.tensor[layer.weight].name
        uses[tensor] = uses.get(tensor, 0) + each * layer.uses
    products = each * sum(p.macs for p in table.products) if isinstance(owner, Network) else 0
    dense = products + sum(cost * table.tensor[t].size for t, cost in uses.items())
    if name in ("macs", "flops"):
        return structural(name, layers.names, dense, signature.unit, uses, table), dense
    return Count(name, {t: c for t, c in uses.items() if c}, products, signature.unit), dense


# ── scalars ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _schedule(world: World, signature: Signature, bound: Bound, node: Call | Norm) -> Value:
    try:
        match signature.name:
            case "ramp":
                return _ramp(world, bound, node)
            case "steps":
                return _steps(world, bound, node)
        arguments = [cast(Amount, bound[p.name]) for p in signature.parameters]
        unit = _common_unit(world, node, arguments)
        if isinstance(unit, Wrong):
            return WRONG
        if signature.name not in ("min", "max", "floor"):
            if unit not in ("", "%"):
                return world.report.error(
                    "P208", node.span, f"`{signature.name}` takes a plain number, not an amount in {unit}"
                )
            unit = ""
        return Amount(apply(signature.name, *(a.schedule for a in arguments)), unit)
    except NoValue as error:
        return world.report.error("P227", node.span, f"this has no value: {error}")


def _common_unit(world: World, node: Call | Norm, amounts: list[Amount]) -> str | Wrong:
    units = {a.unit for a in amounts}
    if len(units) == 1:
        return units.pop()
    if units == {"", "%"}:
        return ""
    return world.report.error(
        "P208", node.span, f"its values have different units: {', '.join(u or 'none' for u in sorted(units))}"
    )


def _time_unit(world: World, node: Call | Norm, times: list[Amount]) -> Unit | Wrong:
    units = {"p" if t.unit in ("", "%") else t.unit for t in times}
    if len(units) == 1:
        return cast(Unit, units.pop())
    return world.report.error(
        "P208", node.span, "its times have different units", hint="give all in epochs, all in steps, or all as shares"
    )


def _ramp(world: World, bound: Bound, node: Call | Norm) -> Value:
    a, b, start, end = (cast(Amount, bound[n]) for n in ("a", "b", "start", "end"))
    unit, times = _common_unit(world, node, [a, b]), _time_unit(world, node, [start, end])
    if isinstance(unit, Wrong) or isinstance(times, Wrong):
        return WRONG
    shape = cast(Shape, bound["shape"])
    return Amount(Ramp(a.schedule, b.schedule, start.schedule, end.schedule, times, shape), unit)


def _steps(world: World, bound: Bound, node: Call | Norm) -> Value:
    first = cast(Amount, bound["v0"])
    changes = cast("tuple[tuple[Amount, Amount], ...]", bound["changes"])
    if not changes:
        return world.report.error(
            "P206", node.span, "`steps` needs at least one [time, value]", hint="`steps(0.1, [30 epochs, 0.01])`"
        )
    unit = _common_unit(world, node, [first, *(v for _, v in changes)])
    times = _time_unit(world, node, [t for t, _ in changes])
    if isinstance(unit, Wrong) or isinstance(times, Wrong):
        return WRONG
    pairs = tuple((t.schedule, v.schedule) for t, v in changes)
    return Amount(Steps(first.schedule, pairs, times), unit)
