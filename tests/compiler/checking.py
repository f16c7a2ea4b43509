"""Checks specs against hand-written shape tables, with a small catalog of things that the zoo does not have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from prunelang.compiler import catalog as built_in
from prunelang.compiler.arguments import Parameter, Signature
from prunelang.compiler.catalog import DataFacts, ModelFacts, Requirement
from prunelang.compiler.check import Catalog, TableError, check
from prunelang.compiler.plan import DataPlan, ModelPlan, Plan
from prunelang.compiler.problem import Constraint, Count, Interval
from prunelang.compiler.shapes import Layer, Product, ShapeTable, Tensor
from prunelang.dsl.diagnostics import Diagnostic, SpecError, render
from prunelang.dsl.parser import parse
from prunelang.dsl.spans import Source
from prunelang.dsl.tree import Spec
from tests.shape_tables import chain, lenet_5, lenet_300_100, resnet50, snn_mlp

MODELS = {
    **built_in.MODELS,
    "unbuildable": ModelFacts(Signature("unbuildable"), lambda _: (784,)),
    "narrow": ModelFacts(Signature("narrow"), lambda _: (784,)),
    "tied": ModelFacts(Signature("tied"), lambda _: (784,)),
    "spiking": ModelFacts(Signature("spiking"), lambda _: (784,)),
    "distant": ModelFacts(Signature("distant"), lambda _: (784,), requires=Requirement("no_such_package", "snn")),
    "chain": ModelFacts(Signature("chain", (Parameter("layers", "int", 3),)), lambda _: (8,)),
}
DATA = {
    **built_in.DATA,
    "prices": DataFacts(Signature("prices"), "regression", lambda _: ((784,),)),
    "anything": DataFacts(Signature("anything"), None),
}
LOSSES = {"focal": Signature("focal", (Parameter("gamma", "float", 2.0),), "Focal loss.")}
CATALOG = Catalog(MODELS, DATA, LOSSES)
HEAD = "model net = lenet_300_100()\ndata mnist()\nminimize cross_entropy(net)\n"


def table_of(model: ModelPlan, data: DataPlan) -> ShapeTable:
    if model.constructor == "unbuildable":
        raise TableError("its layers do not fit together", "look at `unbuildable`")
    if model.constructor == "chain":
        return chain(int(model.arguments["layers"]))
    if model.constructor == "spiking":
        return replace(lenet_300_100(), steps=4)
    if model.constructor == "narrow":
        return replace(lenet_300_100(), outputs=(5,))
    return TABLES[model.constructor]()


def tied() -> ShapeTable:
    """Two layers of 8 × 8 that share a kernel, used at 1 and at 3 positions, and a normalisation."""
    layers = (Layer("a", "linear", "a.weight", "a.bias", 1), Layer("b", "linear", "a.weight", None, 3))
    tensors = (
        Tensor("a.weight", (8, 8), "weight", aliases=("b.weight",)),
        Tensor("a.bias", (8,), "bias"),
        Tensor("norm.weight", (8,), "norm"),
        Tensor("norm.mean", (8,), "buffer"),
    )
    return ShapeTable("tied()", (784,), layers, tensors, products=(Product("attention", 100),), outputs=(10,))


TABLES = {"lenet_300_100": lenet_300_100, "lenet_5": lenet_5, "resnet50": resnet50, "tied": tied, "snn_mlp": snn_mlp}


def plan_of(text: str, **overrides: str) -> Plan:
    return check(parse(text), Source(text, "spec.prune"), table_of=table_of, catalog=CATALOG, parameters=overrides)


def plan_of_tree(spec: Spec, text: str = "") -> Plan:
    return check(spec, Source(text, "spec.prune"), table_of=table_of, catalog=CATALOG)


def findings(text: str, overrides: Mapping[str, str] | None = None) -> tuple[Diagnostic, ...]:
    """Every diagnostic of a spec, whether it can be accepted or not."""
    try:
        return plan_of(text, **(overrides or {})).diagnostics
    except SpecError as error:
        return error.diagnostics


def codes(text: str, overrides: Mapping[str, str] | None = None) -> list[str]:
    return [d.code for d in findings(text, overrides) if d.severity == "error"]


def transcript(text: str) -> str:
    """What ``prune check`` would print; lines ``# --set name=value`` at the top are overrides."""
    overrides = dict(re.findall(r"^# --set (\w+)=(.*)$", text, flags=re.MULTILINE))
    return render(findings(text, overrides), Source(text, "spec.prune")) + "\n"


def constrained(lines: str, *, head: str = HEAD, solve: str = "solve auto\n") -> Plan:
    """The plan of a spec with these constraints on LeNet-300-100."""
    return plan_of(f"{head}subject to\n{lines}\n{solve}")


def only(lines: str) -> Constraint:
    found = constrained(lines).problem.constraints
    assert len(found) == 1
    return found[0]


def upper(lines: str) -> Fraction | int | None:
    """The upper bound of the only constraint."""
    interval = only(lines).set
    assert isinstance(interval, Interval)
    return interval.upper


def count(lines: str) -> Count:
    function = only(lines).function
    assert isinstance(function, Count)
    return function
