"""`Plan`: a checked spec. The canonical `Problem`, and the stages that will solve it, with every name resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from prunelang.compiler.optimizers import Optimizer
from prunelang.compiler.problem import Function, Problem, Term
from prunelang.compiler.pruners.base import Pruner
from prunelang.compiler.schedule import Schedule
from prunelang.compiler.shapes import ShapeTable
from prunelang.compiler.solvers.base import Solver
from prunelang.dsl.diagnostics import Diagnostic
from prunelang.dsl.spans import NOWHERE, Source, Span
from prunelang.dsl.tree import Spec


@dataclass(frozen=True)
class ModelPlan:
    """The trained network: constructor and plain arguments; `text` is its canonical call."""

    name: str
    constructor: str
    arguments: Mapping[str, Any]
    text: str
    weights: str | None = None  # a safetensors file to start from
    span: Span = NOWHERE


@dataclass(frozen=True)
class TeacherPlan:
    """A frozen network, in evaluation mode, with its weights."""

    name: str
    constructor: str
    arguments: Mapping[str, Any]
    text: str
    weights: str
    span: Span = NOWHERE


@dataclass(frozen=True)
class DataPlan:
    constructor: str
    arguments: Mapping[str, Any]
    text: str
    batch: int  # samples per optimizer step
    validation: Fraction  # share of train that is cut off for validation
    seed: int  # of the split
    reads_validation: bool  # something in the spec reads the validation split
    span: Span = NOWHERE


@dataclass(frozen=True)
class Duration:
    """Length of one inner loop; the value may use k."""

    value: Schedule
    unit: Literal["epochs", "steps"]


@dataclass(frozen=True)
class Until:
    """A stopping test that ends a stage early; the duration is then the upper limit."""

    name: str
    arguments: Mapping[str, Any]
    split: str


@dataclass(frozen=True)
class StagePlan:
    """`losses` are the data terms that the stage descends on, weights included.

    A `prune` stage trains nothing: its losses are what a pruner measures, its optimizer and duration mean nothing.
    """

    kind: Literal["pretrain", "solve", "finetune", "prune"]
    losses: tuple[Term, ...]
    optimizer: Optimizer
    duration: Duration
    until: Until | None = None
    solver: Solver | None = None
    pruner: Pruner | None = None
    because: str = ""  # why `solve auto` chose this solver
    span: Span = NOWHERE


@dataclass(frozen=True)
class ReportPlan:
    """One line of the report: a function on a split, or a field of a labelled constraint."""

    title: str
    function: Function | None = None
    label: str | None = None
    field: Literal["value", "bound", "margin", "dual"] | None = None


@dataclass(frozen=True)
class Plan:
    spec: Spec
    source: Source
    model: ModelPlan
    data: DataPlan
    table: ShapeTable
    problem: Problem
    stages: tuple[StagePlan, ...]
    report: tuple[ReportPlan, ...] = ()
    teachers: tuple[TeacherPlan, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)  # every param with the value in force, as text
    diagnostics: tuple[Diagnostic, ...] = ()  # warnings and notes; errors never get this far
