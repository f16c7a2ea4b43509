"""Expressions of the language as Python values: ``norm0(net["fc1"].weights) <= "5%"`` is the tree of that text.

Nothing is checked here but that there is a text: names, kinds and units are the checker's, as in a file. Where an
expression is expected, a string is text of the language (``"5%"``, ``"base - 0.5 pp"``); `quoted` makes a string of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal, TypeAlias, cast

from prunelang.dsl import tree
from prunelang.dsl.names import canonical
from prunelang.dsl.parser import parse
from prunelang.dsl.printer import format_expr
from prunelang.dsl.spans import NOWHERE

Value: TypeAlias = "Expression | str | bool | int | float | Fraction | Decimal | Sequence[Value]"
"""What Python may write for an expression; a list is a list of the language."""
Relation = Literal["≤", "≥"]

_ORDERS: dict[str, Literal["0", "1", "2", "inf"]] = {"norm0": "0", "norm1": "1", "norm2": "2", "norminf": "inf"}


@dataclass(frozen=True, eq=False)
class Expression:
    """An expression: operators, attributes and ``[…]`` are those of the language, ``**`` is its ``^``."""

    node: tree.Expr

    def __str__(self) -> str:
        return format_expr(self.node)

    def __repr__(self) -> str:
        return f"<{self}>"

    def __getattr__(self, name: str) -> Expression:
        """``net.weights``, ``net.layers``, ``sparsity.dual``: whatever the language knows."""
        if name.startswith("__"):
            raise AttributeError(name)
        return Expression(tree.Attribute(self.node, canonical(name.rstrip("_") or name)))

    def __getitem__(self, patterns: str | Expression | tuple[str | Expression, ...]) -> Expression:
        """``net["conv*", "fc1"]``: names of layers, with ``*``."""
        given = patterns if isinstance(patterns, tuple) else (patterns,)
        chosen = tuple(tree.Text(p) if isinstance(p, str) else p.node for p in given)
        return Expression(tree.Select(self.node, chosen))

    # ── arithmetic ──

    def _with(self, operator: str, other: Value) -> Expression:
        return Expression(tree.Binary(operator, self.node, node_of(other)))

    def _after(self, operator: str, other: Value) -> Expression:
        return Expression(tree.Binary(operator, node_of(other), self.node))

    def __add__(self, other: Value) -> Expression:
        return self._with("+", other)

    def __radd__(self, other: Value) -> Expression:
        return self._after("+", other)

    def __sub__(self, other: Value) -> Expression:
        return self._with("-", other)

    def __rsub__(self, other: Value) -> Expression:
        return self._after("-", other)

    def __mul__(self, other: Value) -> Expression:
        return self._with("*", other)

    def __rmul__(self, other: Value) -> Expression:
        return self._after("*", other)

    def __truediv__(self, other: Value) -> Expression:
        return self._with("/", other)

    def __rtruediv__(self, other: Value) -> Expression:
        return self._after("/", other)

    def __pow__(self, other: Value) -> Expression:
        return self._with("^", other)

    def __rpow__(self, other: Value) -> Expression:
        return self._after("^", other)

    def __or__(self, other: Value) -> Expression:
        """Both sets of tensors or layers."""
        return self._with("|", other)

    def __ror__(self, other: Value) -> Expression:
        return self._after("|", other)

    def without(self, other: Value) -> Expression:
        """``a except b``."""
        return self._with("except", other)

    def __neg__(self) -> Expression:
        return Expression(tree.Negate(self.node))

    # ── conditions ──

    def __le__(self, other: Value) -> Condition:
        return Condition(tree.Comparison((self.node, node_of(other)), ("≤",)))

    def __ge__(self, other: Value) -> Condition:
        return Condition(tree.Comparison((self.node, node_of(other)), ("≥",)))

    def between(self, low: Value, high: Value) -> Condition:
        """``low ≤ self ≤ high``."""
        return Condition(tree.Comparison((node_of(low), self.node, node_of(high)), ("≤", "≤")))

    def in_(self, domain: Value) -> Condition:
        """``self ∈ domain``."""
        return Condition(tree.Membership(self.node, node_of(domain)))

    def __bool__(self) -> bool:
        raise TypeError(f"`{self}` is an expression of a problem: it has no truth value here")

    def __iter__(self) -> Any:
        raise TypeError(f"`{self}` is an expression of a problem: `each` and `total` go over its layers")


@dataclass(frozen=True, eq=False)
class Condition:
    """A condition of a problem: a comparison or a membership, perhaps for all layers of a set."""

    body: tree.Comparison | tree.Membership
    foralls: tuple[tree.ForAll, ...] = ()

    def __bool__(self) -> bool:
        raise TypeError("a condition of a problem has no truth value here; for `a ≤ x ≤ b` write `x.between(a, b)`")


# ── values of Python ─────────────────────────────────────────────────────────────────────────────────────────────


def node_of(value: Value) -> tree.Expr:
    """The tree of what Python wrote. Raises TypeError for what has none, `SpecError` for text that is no expression."""
    if isinstance(value, Expression):
        return value.node
    if isinstance(value, bool):
        return tree.Truth(value)
    if isinstance(value, str):
        return read(value)
    if isinstance(value, int | Fraction | Decimal):
        return _number(Fraction(value))
    if isinstance(value, float):
        return _number(Fraction(repr(value)))
    if isinstance(value, list | tuple):
        return tree.ListOf(tuple(node_of(v) for v in value))
    raise TypeError(f"a {type(value).__name__} is no expression of the language")


def _number(value: Fraction) -> tree.Expr:
    return tree.Negate(tree.Number(-value)) if value < 0 else tree.Number(value)


def read(text: str) -> tree.Expr:
    """The expression that a text of the language is."""
    (statement,) = parse(f"let _ = {text}\n", text).statements
    assert isinstance(statement, tree.Let)
    return cast(tree.Expr, placeless(statement.value))


def placeless(node: Any) -> Any:
    """A tree without the places that it had in a text."""
    if isinstance(node, tuple):
        return tuple(placeless(x) for x in node)
    if not isinstance(node, tree.Node):
        return node
    spans = {f.name: NOWHERE for f in fields(node) if f.name.endswith("span")}
    inner = {f.name: placeless(getattr(node, f.name)) for f in fields(node) if f.name not in spans}
    return replace(node, **inner, **spans)


def name(identifier: str) -> Expression:
    """What was declared under a name, or will be."""
    return Expression(tree.Name(canonical(identifier)))


def quoted(text: str) -> Expression:
    """A string of the language: a path, a pattern."""
    return Expression(tree.Text(text))


def braces(*members: Value) -> Expression:
    """``{-1, 0, 1}``."""
    return Expression(tree.Braces(tuple(map(node_of, members))))


def call(function: str, /, *positional: Value, **named: Value) -> Expression:
    """``function(…)`` by name: networks, data sets and losses that are registered. A trailing ``_`` of an argument's
    name is left out, for names that Python keeps for itself."""
    node = call_node(function, *positional, **named)
    if function in _ORDERS and len(node.arguments) == 1 and node.arguments[0].name is None:
        return Expression(tree.Norm(_ORDERS[function], node.arguments[0].value))
    return Expression(node)


def call_node(function: str, /, *positional: Value, **named: Value) -> tree.Call:
    arguments = [tree.Argument(None, node_of(v)) for v in positional]
    arguments += [tree.Argument(canonical(k.removesuffix("_") or k), node_of(v)) for k, v in named.items()]
    return tree.Call(function, tuple(arguments))


# ── over sets ────────────────────────────────────────────────────────────────────────────────────────────────────


def each(domain: Value, condition: Callable[[Expression], Condition]) -> Condition:
    """``∀ l ∈ domain: condition(l)``; the variable is named as the function's parameter is."""
    variable = _variable(condition)
    inner = condition(name(variable))
    outer = tree.ForAll(canonical(variable), node_of(domain))
    return Condition(inner.body, (outer, *inner.foralls))


def total(domain: Value, term: Callable[[Expression], Expression]) -> Expression:
    """``Σ_{l ∈ domain} term(l)``."""
    variable = _variable(term)
    return Expression(tree.SumOver(canonical(variable), node_of(domain), term(name(variable)).node))


def _variable(function: Callable[..., Any]) -> str:
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) != 1:
        raise TypeError("`each` and `total` take a function of one layer, such as `lambda l: …`")
    return parameters[0]
