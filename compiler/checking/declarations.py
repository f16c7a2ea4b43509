"""Networks, data, params, lets and frozen tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import cast

from prunelang.compiler.arguments import Signature
from prunelang.compiler.catalog import LOADING
from prunelang.compiler.checking.arguments import plain_arguments
from prunelang.compiler.checking.calls import function_span
from prunelang.compiler.checking.expressions import evaluate
from prunelang.compiler.checking.values import Layers, Network, Tensors, Value, Wrong, kind_of
from prunelang.compiler.checking.world import World
from prunelang.compiler.plan import DataPlan, ModelPlan, TeacherPlan
from prunelang.dsl.diagnostics import did_you_mean
from prunelang.dsl.names import to_unicode
from prunelang.dsl.spans import Span
from prunelang.dsl.tree import Call, Data, Freeze, Model


def is_teacher(node: Model) -> bool:
    return node.frozen


def declare_model(world: World, node: Model) -> None:
    value = Network(node.name, node.frozen)
    world.scope.declare(node.name, "model", lambda: value, node.name_span)


def model(world: World, node: Model) -> ModelPlan | None:
    """The trained network."""
    found = _constructor(world, node)
    if found is None or not _weights(world, node):
        return None
    values, text = found
    return ModelPlan(node.name, node.constructor.function, values, text, node.weights, node.span)


def teacher(world: World, node: Model) -> TeacherPlan | None:
    """A frozen network, which needs weights to be worth anything."""
    found = _constructor(world, node)
    if node.weights is None:
        message = f"`{to_unicode(node.name)}` is frozen and has no weights"
        world.report.error("P547", node.span, message, hint='write `… from "weights.safetensors" frozen`')
        return None
    if found is None or not _weights(world, node):
        return None
    values, text = found
    return TeacherPlan(node.name, node.constructor.function, values, text, node.weights, node.span)


def _constructor(world: World, node: Model) -> tuple[Mapping[str, object], str] | None:
    call = node.constructor
    facts = world.catalog.models.get(call.function)
    if facts is None:
        near = did_you_mean(call.function, world.catalog.models)
        if call.function in world.catalog.data:
            near = "it is a data set: write `data …`"
        where = function_span(call)
        world.report.error(
            "P540", where, f"there is no network `{to_unicode(call.function)}`", hint=near or _registering("model")
        )
        return None
    needed = facts.requires
    if needed is not None and not needed.met:
        message = f"`{facts.name}` needs {needed.package}, which is not installed"
        hint = f'install the extra: `pip install "prunelang[{needed.extra}]"`'
        world.report.error("P470", function_span(call), message, hint=hint)
        return None
    values = plain_arguments(world, facts.signature, call.arguments, call)
    return None if values is None else (values, facts.text(values))


def _registering(what: str) -> str:
    return f"one's own are registered with `@prunelang.register.{what}` in a file given as `--with FILE`"


def _weights(world: World, node: Model) -> bool:
    if node.weights is None or node.weights.endswith(".safetensors"):
        return True
    world.report.error(
        "P546",
        node.span,
        f"weights load from safetensors files alone, not from `{node.weights}`",
        hint="convert the file first",
    )
    return False


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def declare_data(world: World, node: Data) -> None:
    if node.name is not None:
        value = Wrong()
        world.scope.declare(node.name, "data", lambda: value, node.name_span)


def data(world: World, node: Data) -> DataPlan | None:
    call = node.constructor
    facts = world.catalog.data.get(call.function)
    if facts is None:
        near = did_you_mean(call.function, world.catalog.data)
        if call.function in world.catalog.models:
            near = "it is a network: write `model net = …`"
        where = function_span(call)
        world.report.error(
            "P541", where, f"there is no data set `{to_unicode(call.function)}`", hint=near or _registering("data")
        )
        return None
    own = [p.name for p in facts.signature.parameters]
    loading = tuple(p for p in LOADING if p.name not in own)
    signature = Signature(facts.name, facts.signature.parameters + loading, facts.signature.doc, facts.signature.rule)
    values = plain_arguments(world, signature, call.arguments, call)
    if values is None:
        return None
    share = Fraction(cast(Fraction, values["validation"]))
    if share == 1:
        world.report.error(
            "P542", _argument(call, "validation"), "`validation` leaves nothing to train on", hint="the default is 10%"
        )
        return None
    return DataPlan(
        constructor=call.function,
        arguments={k: v for k, v in values.items() if k in own},
        text=signature.text(values),
        batch=cast(int, values["batch"]),
        validation=share,
        seed=cast(int, values["seed"]),
        reads_validation=False,
        span=node.span,
    )


def _argument(call: Call, name: str) -> Span:
    return next((a.span for a in call.arguments if a.name == name), call.span)


def shapes_fit(world: World, network: ModelPlan, data: DataPlan, call: Call) -> bool:
    """Whether the data set can yield what the network takes, as far as both say it."""
    facts, inputs = world.catalog.data[data.constructor], world.catalog.models[network.constructor].input_shape
    if facts.sample_shapes is None or inputs is None:
        return True
    offered = facts.sample_shapes(data.arguments)
    wanted = inputs(network.arguments)
    if wanted in offered:
        _encoding_fits(world, network, data, call)
        return True
    gives = " or ".join(map(_shape, offered))
    world.report.error(
        "P548",
        call.span,
        f"`{network.constructor}` takes inputs of {_shape(wanted)}; `{data.constructor}` gives {gives}",
        hint=_fitting(world, network, offered),
    )
    return False


def _encoding_fits(world: World, network: ModelPlan, data: DataPlan, call: Call) -> None:
    """Whether entries that are read as probabilities are such."""
    if network.arguments.get("encoding") != "poisson" or data.arguments.get("center") is not True:
        return
    message = f"`{network.constructor}` draws spikes from entries in 0…1; `{data.constructor}` subtracts the mean image"
    world.report.warning("P471", call.span, message, hint="write `center = false`")


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _fitting(world: World, network: ModelPlan, offered: tuple[tuple[int, ...], ...]) -> str | None:
    """The one argument that would make the network fit, for networks that count their inputs."""
    flat = next((s[0] for s in offered if len(s) == 1), None)
    names = [p.name for p in world.catalog.models[network.constructor].signature.parameters]
    if flat is None:
        return None
    if "inputs" in names:
        return f"write `inputs = {flat}`"
    return f"the first of `sizes` is the number of inputs: {flat}" if "sizes" in names else None


# ── tensors that keep their values ───────────────────────────────────────────────────────────────────────────────


def frozen(world: World, node: Freeze) -> frozenset[str]:
    value: Value = evaluate(world, node.tensors)
    if isinstance(value, Wrong) or world.selectors is None:
        return frozenset()
    if isinstance(value, Layers):
        value = world.selectors.of_layers(value, "params")
    if isinstance(value, Tensors) and not (value.start or value.moved):
        return frozenset(value.names)
    fix = f"{world.text(node.tensors)}.params" if isinstance(value, Network) else None
    world.report.error("P207", node.tensors.span, f"`freeze` takes tensors or layers, not {kind_of(value)}", fix=fix)
    return frozenset()


def with_validation(world: World, plan: DataPlan, reads: bool, node: Data) -> DataPlan:
    """The data plan, once it is known whether anything reads the validation split."""
    own = world.catalog.data[plan.constructor].own_validation
    if reads and own is False and plan.validation == 0:
        message = "something reads the validation split, and there is none"
        hint = "give it a share of train: `validation = 10%`, or name another split: `on = train`"
        world.report.error("P545", node.span, message, hint=hint)
    return replace(plan, reads_validation=reads)
