"""Formulas: what is written in a spec, as mathematics that LaTeX and MathML are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from prunelang.dsl import tree
from prunelang.dsl.names import GREEK, to_unicode
from prunelang.dsl.printer import format_expr


@dataclass(frozen=True)
class Symbol:
    """A variable: one letter, in italics."""

    text: str


@dataclass(frozen=True)
class Word:
    """A name of more letters, upright; `quoted` as program text."""

    text: str
    function: bool = False


@dataclass(frozen=True)
class Number:
    """A number with its unit, as it is read: ``17 024``, ``5 %``, ``30 MMACs``."""

    text: str


@dataclass(frozen=True)
class Sign:
    """An operator or a relation."""

    text: str


@dataclass(frozen=True)
class Row:
    parts: tuple[Formula, ...]


@dataclass(frozen=True)
class Sub:
    base: Formula
    below: Formula


@dataclass(frozen=True)
class Sup:
    base: Formula
    above: Formula


@dataclass(frozen=True)
class Under:
    """Something under an operator: what a sum runs over."""

    base: Formula
    below: Formula


@dataclass(frozen=True)
class Fraction:
    above: Formula
    below: Formula


@dataclass(frozen=True)
class Fence:
    """Brackets of any kind around something."""

    opening: str
    body: Formula
    closing: str


Formula: TypeAlias = Symbol | Word | Number | Sign | Row | Sub | Sup | Under | Fraction | Fence

_LEVELS = {"except": 0, "|": 1, "+": 2, "-": 2, "*": 3, "/": 3, "^": 5}
_SIGNS = {"-": "−", "*": "·", "|": "|", "except": "∖"}
_ORDERS = {"0": "0", "1": "1", "2": "2", "inf": "∞"}


def row(*parts: Formula) -> Formula:
    return parts[0] if len(parts) == 1 else Row(parts)


def name(identifier: str) -> Formula:
    """``κ``, ``κ_fc`` with an index, ``net`` upright."""
    shown = to_unicode(identifier)
    head, _, tail = shown.partition("_")
    if len(head) == 1 and tail:
        return Sub(Symbol(head), Word(tail.replace("_", " ")))
    return Symbol(shown) if len(shown) == 1 or shown in GREEK else Word(shown)


def of(node: tree.Expr, level: int = 0) -> Formula:
    """The formula of an expression, in brackets where it binds less than `level`."""
    made = _of(node)
    loose = isinstance(node, tree.Binary) and node.operator != "/" and _LEVELS[node.operator] < level
    negative = isinstance(node, tree.Negate) and level > _LEVELS["+"]
    return Fence("(", made, ")") if loose or negative else made


def _of(node: tree.Expr) -> Formula:
    match node:
        case tree.Number():
            return Number(format_expr(node))
        case tree.Text(value=value):
            return Word(value)
        case tree.Truth(value=value):
            return Word("true" if value else "false")
        case tree.Name(id=identifier):
            return name(identifier)
        case tree.ListOf(items=items):
            return Fence("[", _list(items), "]")
        case tree.Braces(items=items):
            return Fence("{", _list(items), "}")
        case tree.Attribute(value=value, name="weights"):
            return _weights(value)
        case tree.Attribute(value=value, name=attribute):
            return Row((of(value, 6), Sign("."), Word(attribute)))
        case tree.Select(value=value, patterns=patterns):
            return Sub(of(value, 6), _list(patterns))
        case tree.Call(function=function, arguments=arguments):
            return Row((Word(function, function=True), Fence("(", _arguments(arguments), ")")))
        case tree.Norm(order=order, value=value):
            return Sub(Fence("‖", of(value), "‖"), Number(_ORDERS[order]))
        case tree.Negate(value=value):
            return Row((Sign("−"), of(value, 4)))
        case tree.SumOver(variable=variable, domain=domain, body=body):
            over = Row((name(variable), Sign("∈"), of(domain)))
            return Row((Under(Sign("∑"), over), of(body, 3)))
        case tree.Binary():
            return _binary(node)


def _weights(value: tree.Expr) -> Formula:
    """``net.weights`` is W, ``net["fc1"].weights`` and ``l.weights`` have an index."""
    if isinstance(value, tree.Select):
        return Sub(Symbol("W"), _list(value.patterns))
    if isinstance(value, tree.Name) and len(to_unicode(value.id)) == 1:
        return Sub(Symbol("W"), name(value.id))
    if isinstance(value, tree.Name):
        return Symbol("W")
    return Row((of(value, 6), Sign("."), Word("weights")))


def _binary(node: tree.Binary) -> Formula:
    level = _LEVELS[node.operator]
    if node.operator == "^":
        return Sup(of(node.left, 6), of(node.right))
    if node.operator == "/":
        return Fraction(of(node.left), of(node.right))
    unit = isinstance(node.right, tree.Number) and node.right.value == 1 and node.right.unit in ("epochs", "steps")
    if node.operator == "*" and unit:
        return Row((of(node.left, level), Word(str(node.right.unit))))  # type: ignore[union-attr]  # a number, see `unit`
    sign = _SIGNS.get(node.operator, node.operator)
    return Row((of(node.left, level), Sign(sign), of(node.right, level + 1)))


def _list(items: tuple[tree.Expr, ...]) -> Formula:
    return _separated([of(item) for item in items])


def _arguments(items: tuple[tree.Argument, ...]) -> Formula:
    made = (Row((name(a.name), Sign("="), of(a.value))) if a.name is not None else of(a.value) for a in items)
    return _separated(list(made))


def _separated(items: list[Formula]) -> Formula:
    parts: list[Formula] = []
    for i, item in enumerate(items):
        parts += [Sign(","), item] if i else [item]
    return row(*parts) if parts else Row(())


def condition(body: tree.Comparison | tree.Membership) -> Formula:
    """``E ≤ E ≤ E``, ``E ∈ set``."""
    if isinstance(body, tree.Membership):
        return Row((of(body.value), Sign("∈"), of(body.domain)))
    parts: list[Formula] = [of(body.sides[0])]
    for relation, side in zip(body.relations, body.sides[1:], strict=True):
        parts += [Sign(relation), of(side)]
    return Row(tuple(parts))


def quantified(constraint: tree.Constraint) -> Formula:
    """The condition of a constraint, and whom it holds for."""
    parts: list[Formula] = [condition(constraint.body)]
    for forall in constraint.foralls:
        parts += [Sign(","), Sign("∀"), name(forall.variable), Sign("∈"), of(forall.domain)]
    return Row(tuple(parts))
