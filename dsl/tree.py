"""The syntax tree: what a ``.prune`` file says, node for node, before anything is known about its meaning.

All nodes are frozen and carry the `Span` of their text, which takes no part in equality: two texts that differ in
layout alone have equal trees (``parse(format(parse(x))) == parse(x)``). Names are stored in canonical form (NFKC,
Greek letters spelled out: ``κ`` and ``kappa`` are the same identifier ``kappa``), operators in their Unicode form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, TypeAlias

from prunelang.dsl.spans import NOWHERE, Span


@dataclass(frozen=True, kw_only=True)
class Node:
    span: Span = field(default=NOWHERE, compare=False, repr=False)


# ── expressions ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Number(Node):
    """``3``, ``1e-4``, ``5%``, ``30 MMACs``: the exact value as written, and the unit as written.

    `value` is in the unit written: ``5%`` is ``Number(5, "%")``, ``30 MMACs`` is ``Number(30, "MMACs")``.
    """

    value: Fraction
    unit: str | None = None


@dataclass(frozen=True)
class Text(Node):
    """A quoted string."""

    value: str


@dataclass(frozen=True)
class Truth(Node):
    """``true`` or ``false``."""

    value: bool


@dataclass(frozen=True)
class Name(Node):
    """An identifier in canonical spelling; also ``base``, ``pi``, the clocks, ``train``, ``validation``, ``test``."""

    id: str


@dataclass(frozen=True)
class ListOf(Node):
    """``[784, 300, 100, 10]``; elements may be lists."""

    items: tuple[Expr, ...]


@dataclass(frozen=True)
class Braces(Node):
    """``{-1, 0, 1}``: a set of fixed values."""

    items: tuple[Expr, ...]


@dataclass(frozen=True)
class Attribute(Node):
    """``net.weights``, ``sparsity.dual``."""

    value: Expr
    name: str


@dataclass(frozen=True)
class Select(Node):
    """``net["conv*", "block?.fc"]``; also ``label[fc1]`` with a Name inside."""

    value: Expr
    patterns: tuple[Expr, ...]


@dataclass(frozen=True)
class Argument(Node):
    """A positional argument (`name` is None) or ``name = value``."""

    name: str | None
    value: Expr


@dataclass(frozen=True)
class Call(Node):
    """``sgd(lr = 0.1)``, ``macs(net)``. A constructor without parentheses does not exist: ``solve auto`` is a Name."""

    function: str
    arguments: tuple[Argument, ...] = ()
    function_span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Norm(Node):
    """``‖w‖₀``; `order` is one of ``0 1 2 inf``. ``‖w‖₂²`` is ``Binary("^", Norm("2", w), Number(2))``."""

    order: Literal["0", "1", "2", "inf"]
    value: Expr


@dataclass(frozen=True)
class Negate(Node):
    value: Expr


@dataclass(frozen=True)
class Binary(Node):
    """`operator` is one of ``+ - * / ^ | except``."""

    operator: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class SumOver(Node):
    """``Σ_{l ∈ S} e`` and ``sum(e for l in S)``."""

    variable: str
    domain: Expr
    body: Expr


Expr: TypeAlias = (
    Number | Text | Truth | Name | ListOf | Braces | Attribute | Select | Call | Norm | Negate | Binary | SumOver
)

# ── constraints ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Comparison(Node):
    """``E ≤ E``, ``E ≥ E``, ``const ≤ E ≤ const``: n sides and n − 1 relations, each ``≤`` or ``≥``."""

    sides: tuple[Expr, ...]
    relations: tuple[str, ...]


@dataclass(frozen=True)
class Membership(Node):
    """``E ∈ set``."""

    value: Expr
    domain: Expr


@dataclass(frozen=True)
class ForAll(Node):
    """``∀ l ∈ net.layers:``."""

    variable: str
    domain: Expr


@dataclass(frozen=True)
class Constraint(Node):
    """``[label:] [∀ l ∈ set:] body``."""

    label: str | None
    foralls: tuple[ForAll, ...]
    body: Comparison | Membership
    label_span: Span | None = field(default=None, compare=False, repr=False)


# ── statements ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Language(Node):
    version: int


@dataclass(frozen=True)
class Model(Node):
    name: str
    constructor: Call
    weights: str | None = None
    frozen: bool = False
    name_span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Data(Node):
    name: str | None
    constructor: Call
    name_span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Freeze(Node):
    tensors: Expr


@dataclass(frozen=True)
class Let(Node):
    name: str
    value: Expr
    name_span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Param(Node):
    name: str
    value: Expr
    low: Expr | None = None
    high: Expr | None = None
    name_span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Objective(Node):
    sense: Literal["minimize", "maximize"]
    value: Expr


@dataclass(frozen=True)
class SubjectTo(Node):
    constraints: tuple[Constraint, ...]


@dataclass(frozen=True)
class Stage(Node):
    """``pretrain`` and ``finetune``."""

    kind: Literal["pretrain", "finetune"]
    minimizing: Expr | None
    optimizer: Call | None
    duration: Expr | None
    until: Call | None


@dataclass(frozen=True)
class Solve(Node):
    """`solver` is a `Call`, or the Name ``auto``."""

    solver: Call | Name
    optimizer: Call | None
    duration: Expr | None
    until: Call | None


@dataclass(frozen=True)
class Prune(Node):
    """``prune tamade(δ = 1%)``: weights are taken out, and nothing is trained."""

    method: Call


@dataclass(frozen=True)
class ReportItem(Node):
    title: str | None
    value: Expr


@dataclass(frozen=True)
class Report(Node):
    items: tuple[ReportItem, ...]


Statement: TypeAlias = (
    Language | Model | Data | Freeze | Let | Param | Objective | SubjectTo | Stage | Solve | Prune | Report
)


@dataclass(frozen=True)
class Comment(Node):
    """``# …`` with its text; `own_line` when nothing but blanks stands before it."""

    text: str
    own_line: bool


@dataclass(frozen=True)
class Spec(Node):
    """A whole file. Comments are kept beside the tree, in order of their spans, for the formatter."""

    statements: tuple[Statement, ...]
    comments: tuple[Comment, ...] = field(default=(), compare=False, repr=False)
