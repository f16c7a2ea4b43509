"""From reductions to nodes: one method for each rule or alias of grammar.lark, named like it."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from prunelang.dsl.diagnostics import Diagnostic, did_you_mean
from prunelang.dsl.names import CLOCKS, RESERVED
from prunelang.dsl.spans import Span
from prunelang.dsl.tokens import Token, error
from prunelang.dsl.tree import (
    Argument,
    Attribute,
    Binary,
    Braces,
    Call,
    Comparison,
    Constraint,
    Data,
    Expr,
    ForAll,
    Freeze,
    Language,
    Let,
    ListOf,
    Membership,
    Model,
    Name,
    Negate,
    Norm,
    Number,
    Objective,
    Param,
    Prune,
    Report,
    ReportItem,
    Select,
    Solve,
    Spec,
    Stage,
    SubjectTo,
    SumOver,
    Text,
    Truth,
)

LANGUAGE_VERSION = 1
OPERATORS = {"·": "*", "×": "*"}
RELATIONS = {"<=": "≤", ">=": "≥"}
NORMS = {"norm0": "0", "norm1": "1", "norm2": "2", "norminf": "inf"}
_ORDERS = {"₀": "0", "₁": "1", "₂": "2", "∞": "inf"}


class TreeBuilder:
    """Methods take the span of the text and the children that grammar.lark keeps; findings go to `report`."""

    def __init__(self, report: Callable[[Diagnostic], None]) -> None:
        self._report = report

    # ── statements ──

    def spec(self, span: Span, children: list[Any]) -> Spec:
        return Spec(tuple(children), span=span)

    def language(self, span: Span, children: list[Any]) -> Language:
        (token,) = children
        value, unit = token.value
        if unit is not None or value != LANGUAGE_VERSION:
            message = f"this version of prunelang reads `language {LANGUAGE_VERSION}`, not `{token.text}`"
            self._report(error("P130", message, token.start, token.end, fix=str(LANGUAGE_VERSION)))
        return Language(LANGUAGE_VERSION, span=span)

    def model(self, span: Span, children: list[Any]) -> Model:
        name, constructor, weights, frozen = children
        path = None if weights is None else weights.value
        return Model(self._declared(name), constructor, path, frozen is not None, span=span, name_span=name.span)

    def data(self, span: Span, children: list[Any]) -> Data:
        name, constructor = children
        if name is None:
            return Data(None, constructor, span=span)
        return Data(self._declared(name), constructor, span=span, name_span=name.span)

    def freeze(self, span: Span, children: list[Any]) -> Freeze:
        return Freeze(children[0], span=span)

    def let(self, span: Span, children: list[Any]) -> Let:
        name, value = children
        return Let(self._declared(name), value, span=span, name_span=name.span)

    def param(self, span: Span, children: list[Any]) -> Param:
        name, value, low, high = children
        return Param(self._declared(name), value, low, high, span=span, name_span=name.span)

    def objective(self, span: Span, children: list[Any]) -> Objective:
        sense, value = children
        return Objective(sense.text, value, span=span)

    def subject_to(self, span: Span, children: list[Any]) -> SubjectTo:
        if not children:
            hint = "write one constraint a line: `sparsity: ‖net.weights‖₀ ≤ 5%`"
            message = "`subject to` has no constraint under it"
            self._report(error("P112", message, span.start, span.end, hint=hint))
        return SubjectTo(tuple(children), span=span)

    def constraint(self, span: Span, children: list[Any]) -> Constraint:
        label, foralls, body = children
        if label is None:
            return Constraint(None, foralls, body, span=span)
        return Constraint(label.value, foralls, body, span=span, label_span=label.span)

    def foralls(self, span: Span, children: list[Any]) -> tuple[ForAll, ...]:
        return tuple(children)

    def forall(self, span: Span, children: list[Any]) -> ForAll:
        variable, domain = children
        return ForAll(self._declared(variable), domain, span=span)

    def comparison(self, span: Span, children: list[Any]) -> Comparison:
        sides = tuple(c for c in children[::2] if c is not None)
        relations = tuple(RELATIONS.get(c.text, c.text) for c in children[1::2] if c is not None)
        return Comparison(sides, relations, span=span)

    def membership(self, span: Span, children: list[Any]) -> Membership:
        return Membership(*children, span=span)

    def stage(self, span: Span, children: list[Any]) -> Stage:
        kind, minimizing, optimizer, duration, until = children
        return Stage(kind.text, minimizing, optimizer, duration, until, span=span)

    def solve(self, span: Span, children: list[Any]) -> Solve:
        solver, optimizer, duration, until = children
        if isinstance(solver, Token):
            if solver.value != "auto":
                message = f"the solver `{solver.text}` needs parentheses, with its options if any"
                hint = "only `solve auto` has none"
                call = f"{solver.text}()"
                self._report(error("P110", message, solver.start, solver.end, hint=hint, fix=call))
            solver = Name(solver.value, span=solver.span)
        return Solve(solver, optimizer, duration, until, span=span)

    def prune(self, span: Span, children: list[Any]) -> Prune:
        return Prune(children[0], span=span)

    def bare_test(self, span: Span, children: list[Any]) -> Call:
        """``until saturated`` is ``until saturated()``."""
        return Call(children[0].value, span=span, function_span=span)

    def measured_duration(self, span: Span, children: list[Any]) -> Binary:
        value, unit = children
        return Binary("*", value, Number(Fraction(1), unit.text, span=unit.span), span=span)

    def report(self, span: Span, children: list[Any]) -> Report:
        return Report(tuple(children), span=span)

    def report_item(self, span: Span, children: list[Any]) -> ReportItem:
        title, value = children
        return ReportItem(None if title is None else title.value, value, span=span)

    def reserved_label(self, span: Span, children: list[Any]) -> Attribute:
        label, instance, attribute = children
        value: Expr = Name(label.value, span=label.span)
        if instance is not None:
            value = Select(value, (instance,), span=span)
        return Attribute(value, attribute.value, span=span)

    # ── expressions ──

    def binary(self, span: Span, children: list[Any]) -> Binary:
        left, sign, right = children
        return Binary(OPERATORS.get(sign.text, sign.text), left, right, span=span)

    def negate(self, span: Span, children: list[Any]) -> Negate:
        return Negate(children[1], span=span)

    def sum_over(self, span: Span, children: list[Any]) -> SumOver:
        variable, domain, body = children
        return SumOver(self._declared(variable), domain, body, span=span)

    def comprehension(self, span: Span, children: list[Any]) -> Expr:
        function, body, variable, domain = children
        if function.value != "sum":
            message = f"only `sum` goes over a set with `for`, not `{function.text}`"
            hint = did_you_mean(function.text, ["sum"])
            self._report(error("P114", message, function.start, function.end, hint=hint, fix="sum"))
        return SumOver(self._declared(variable), domain, body, span=span)

    def attribute(self, span: Span, children: list[Any]) -> Attribute:
        value, name = children
        return Attribute(value, name.value, span=span)

    def select(self, span: Span, children: list[Any]) -> Select:
        value, *patterns = children
        return Select(value, tuple(patterns), span=span)

    def parentheses(self, span: Span, children: list[Any]) -> Any:
        return children[0]

    def call(self, span: Span, children: list[Any]) -> Call:
        function, *arguments = children
        return Call(function.value, tuple(arguments), span=span, function_span=function.span)

    def application(self, span: Span, children: list[Any]) -> Expr:
        """A call where a value stands: ``norm0(w)`` is ‖w‖₀ there, and a constructor elsewhere."""
        call: Call = children[0]
        order: Any = NORMS.get(call.function)
        if order is None:
            return call
        arguments = call.arguments
        if len(arguments) != 1 or arguments[0].name is not None:
            message = f"`{call.function}` takes one set of weights and no option"
            self._report(error("P115", message, span.start, span.end, hint=f"write `{call.function}(net.weights)`"))
        return Norm(order, arguments[0].value if arguments else Name("weights", span=span), span=span)

    def norm(self, span: Span, children: list[Any]) -> Expr:
        value, close = children
        order: Any = _ORDERS[close.text[1]]
        if not close.text.endswith("²"):
            return Norm(order, value, span=span)
        inner = Norm(order, value, span=Span(span.start, span.end - 1))
        return Binary("^", inner, Number(Fraction(2), span=Span(span.end - 1, span.end)), span=span)

    def positional(self, span: Span, children: list[Any]) -> Argument:
        return Argument(None, children[0], span=span)

    def option(self, span: Span, children: list[Any]) -> Argument:
        name, value = children
        return Argument(name.value, value, span=span)

    def name(self, span: Span, children: list[Any]) -> Name:
        return Name(children[0].value, span=span)

    def number(self, span: Span, children: list[Any]) -> Number:
        value, unit = children[0].value
        return Number(value, unit, span=span)

    def negative(self, span: Span, children: list[Any]) -> Negate:
        _, number = children
        return Negate(self.number(number.span, [number]), span=span)

    def text(self, span: Span, children: list[Any]) -> Text:
        return Text(children[0].value, span=span)

    def truth(self, span: Span, children: list[Any]) -> Truth:
        return Truth(children[0].text == "true", span=span)

    def list_of(self, span: Span, children: list[Any]) -> ListOf:
        return ListOf(tuple(children), span=span)

    def braces(self, span: Span, children: list[Any]) -> Braces:
        return Braces(tuple(children), span=span)

    # ── what a tree cannot say ──

    def _declared(self, name: Token) -> str:
        """The canonical name that is declared here, after a look at the reserved words."""
        declared: str = name.value
        if declared in RESERVED:
            role = "a clock" if declared in CLOCKS else "reserved"
            message = f"`{name.text}` is {role} and cannot be declared"
            fix = f"my_{declared}"
            self._report(error("P109", message, name.start, name.end, hint="choose another name", fix=fix))
        return declared
