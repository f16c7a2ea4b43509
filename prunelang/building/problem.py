"""`Problem`: a spec that Python builds, statement for statement, and hands to the same checker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from prunelang.building.expressions import (
    Condition,
    Expression,
    Value,
    call_node,
    name,
    node_of,
    placeless,
    read,
)
from prunelang.dsl import tree
from prunelang.dsl.formatter import Style, format_spec
from prunelang.dsl.names import canonical
from prunelang.dsl.parser import parse
from prunelang.dsl.spans import Source

if TYPE_CHECKING:
    import torch
    from torch import nn

    from prunelang.api import ParamValue, Program
    from prunelang.compiler.shapes import ShapeTable

LANGUAGE = 1


class Problem:
    """A compression problem and the stages that solve it.

        from prunelang import Problem
        from prunelang.words import accuracy, cross_entropy, lc, norm0, sgd

        p = Problem("mlp([64, 128, 64, 10])", "digits(batch = 64)")
        p.minimize(cross_entropy(p.net))
        p.subject_to("sparsity", norm0(p.net.weights) <= "5%")
        p.solve(lc(steps=30), sgd(lr=0.1, momentum=0.9), epochs=5)
        p.report(accuracy(p.net))
        program = p.compile()

    Statements stand in the order of the calls, constraints in one block. Every method that declares something returns
    the expression that names it.
    """

    def __init__(self, model: Value | None = None, data: Value | None = None, *, weights: str | None = None) -> None:
        self._statements: list[tree.Statement] = []
        if model is not None:
            self.model("net", model, weights=weights)
        if data is not None:
            self.data(data)

    @property
    def net(self) -> Expression:
        """The network that is trained, by the name that the constructor gives it."""
        return name("net")

    @property
    def spec(self) -> tree.Spec:
        """The syntax tree."""
        return tree.Spec(tuple(self._statements))

    # ── declarations ──

    def language(self, version: int = LANGUAGE) -> None:
        """The version of the language that the text is written in."""
        self._statements.append(tree.Language(version))

    def model(
        self, identifier: str, constructor: Value, *, weights: str | None = None, frozen: bool = False
    ) -> Expression:
        """A network: the trained one, or a frozen teacher with its weights."""
        self._statements.append(tree.Model(canonical(identifier), _call(constructor), weights, frozen))
        return name(identifier)

    def data(self, constructor: Value, *, identifier: str | None = None) -> None:
        """The data set."""
        own = None if identifier is None else canonical(identifier)
        self._statements.append(tree.Data(own, _call(constructor)))

    def freeze(self, tensors: Value) -> None:
        """Tensors that keep their values."""
        self._statements.append(tree.Freeze(node_of(tensors)))

    def let(self, identifier: str, value: Value) -> Expression:
        """A name for an expression."""
        self._statements.append(tree.Let(canonical(identifier), node_of(value)))
        return name(identifier)

    def param(self, identifier: str, value: Value, low: Value | None = None, high: Value | None = None) -> Expression:
        """A number that `compile(params=…)` and ``--set`` may override, perhaps between two others."""
        least, most = (None if x is None else node_of(x) for x in (low, high))
        self._statements.append(tree.Param(canonical(identifier), node_of(value), least, most))
        return name(identifier)

    # ── the problem ──

    def minimize(self, objective: Value) -> None:
        self._objective("minimize", objective)

    def maximize(self, objective: Value) -> None:
        self._objective("maximize", objective)

    def _objective(self, sense: Literal["minimize", "maximize"], objective: Value) -> None:
        self._statements.append(tree.Objective(sense, node_of(objective)))

    def subject_to(self, label: str | Condition, condition: Condition | str | None = None) -> Expression | None:
        """A constraint, with a label or without; returns the label. A condition may be text: ``"‖net.weights‖₀ ≤ 5%"``.

        Raises TypeError for what is no condition.
        """
        if isinstance(label, Condition) or condition is None:
            self._constrain(None, label)
            return None
        self._constrain(canonical(label), condition)
        return name(label)

    def _constrain(self, label: str | None, condition: Condition | str) -> None:
        if isinstance(condition, str):
            condition = _condition(condition)
        if not isinstance(condition, Condition):
            raise TypeError(f"a constraint is a condition such as `norm0(net.weights) <= 100`, not {condition!r}")
        made = tree.Constraint(label, condition.foralls, condition.body)
        block = next((s for s in self._statements if isinstance(s, tree.SubjectTo)), None)
        if block is None:
            self._statements.append(tree.SubjectTo((made,)))
            return
        joint = tree.SubjectTo((*block.constraints, made))
        self._statements = [joint if s is block else s for s in self._statements]

    # ── stages ──

    def pretrain(self, optimizer: Value | None = None, **clauses: Value) -> None:
        """Training before anything is compressed; see `solve` for the clauses, and `minimizing` for another loss."""
        self._stage("pretrain", optimizer, clauses)

    def finetune(self, optimizer: Value | None = None, **clauses: Value) -> None:
        """Training on what a solve has left."""
        self._stage("finetune", optimizer, clauses)

    def _stage(
        self, kind: Literal["pretrain", "finetune"], optimizer: Value | None, clauses: Mapping[str, Value]
    ) -> None:
        rest = dict(clauses)
        minimizing = rest.pop("minimizing", None)
        loss = None if minimizing is None else node_of(minimizing)
        self._statements.append(tree.Stage(kind, loss, *_clauses(optimizer, rest)))

    def solve(self, solver: Value = "auto", optimizer: Value | None = None, **clauses: Value) -> None:
        """Solver and optimizer, with ``epochs=`` or ``steps=`` (or ``duration=``, text) and ``until=``."""
        node = node_of(solver)
        if not isinstance(node, tree.Name | tree.Call):
            raise TypeError(f"a solver is a call such as `lc(steps=30)`, not {solver!r}")
        self._statements.append(tree.Solve(node, *_clauses(optimizer, dict(clauses))))

    def prune(self, method: Value) -> None:
        """Weights are taken out, and nothing is trained."""
        self._statements.append(tree.Prune(_call(method)))

    def report(self, *items: Value, **titled: Value) -> None:
        """What the certificate reports beside the constraints; `titled` items carry their own title."""
        made = [tree.ReportItem(None, node_of(item)) for item in items]
        made += [tree.ReportItem(title, node_of(item)) for title, item in titled.items()]
        self._statements.append(tree.Report(tuple(made)))

    # ── what becomes of it ──

    def to_prune(self, *, style: Style = "unicode") -> str:
        """The text of the problem, as ``prune fmt`` lays it out; ``style="ascii"`` for plain letters."""
        return format_spec(self.spec, style=style)

    @classmethod
    def from_prune(cls, text: str) -> Problem:
        """The problem that a text states, to go on from. Raises `SpecError` for errors of syntax."""
        problem = cls()
        problem._statements = list(placeless(parse(text).statements))
        return problem

    def compile(
        self,
        *,
        params: Mapping[str, ParamValue] | None = None,
        shapes: ShapeTable | None = None,
        dtype: str = "float32",
        model: nn.Module | None = None,
        sample: torch.Tensor | None = None,
        folder: str | Path = ".",
    ) -> Program:
        """The program, checked as a file is; relative paths start at `folder`. Takes and raises what
        `prunelang.compile` does, with places in `to_prune()`."""
        from prunelang.api import compile_source, given_shapes

        if model is not None:
            shapes = given_shapes(model, sample)
        source = Source(self.to_prune(), "<problem>")
        return compile_source(source, Path(folder), params=params, shapes=shapes, dtype=dtype)


# ── statements of parts ──────────────────────────────────────────────────────────────────────────────────────────


def _call(value: Value) -> tree.Call:
    node = node_of(value)
    if isinstance(node, tree.Norm):  # a registered thing may be named like a norm
        return call_node(f"norm{node.order}", Expression(node.value))
    if not isinstance(node, tree.Call):
        raise TypeError(f"`{Expression(node)}` is no call: write `name(…)`")
    return node


def _condition(text: str) -> Condition:
    (block,) = placeless(parse(f"subject to\n    {text}\n", text).statements)
    (made,) = block.constraints
    return Condition(made.body, made.foralls)


def _clauses(
    optimizer: Value | None, clauses: dict[str, Value]
) -> tuple[tree.Call | None, tree.Expr | None, tree.Call | None]:
    until = clauses.pop("until", None)
    given = [(unit, clauses.pop(unit)) for unit in ("epochs", "steps", "duration") if unit in clauses]
    if clauses or len(given) > 1:
        wrong = ", ".join([*clauses, *(unit for unit, _ in given[1:])])
        raise TypeError(f"a stage takes one of epochs, steps and duration, and until and minimizing; not {wrong}")
    duration: tree.Expr | None = None
    for unit, value in given:
        node = node_of(value)
        duration = node if unit == "duration" else _times(node, unit)
    return (
        None if optimizer is None else _call(optimizer),
        duration,
        None if until is None else _call(until),
    )


def _times(node: tree.Expr, unit: str) -> tree.Expr:
    """``20 epochs``, or an expression times ``1 epochs``: what the parser makes of it."""
    if isinstance(node, tree.Number) and node.unit is None:
        return tree.Number(node.value, unit)
    return tree.Binary("*", node, read(f"1 {unit}"))
