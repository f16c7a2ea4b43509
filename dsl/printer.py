"""Expressions → text, with as few parentheses as the precedence of the language allows.

Text is made of pieces that know where a line may be broken before them, and where they stood in the source, so that
the formatter can wrap long lines and put comments back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from prunelang.dsl.names import to_unicode
from prunelang.dsl.numbers import write_number
from prunelang.dsl.tree import (
    Argument,
    Attribute,
    Binary,
    Braces,
    Call,
    Expr,
    ListOf,
    Name,
    Negate,
    Norm,
    Number,
    Select,
    SumOver,
    Text,
    Truth,
)

Style: TypeAlias = Literal["unicode", "ascii"]

# Precedence, loosest first: the level at which an operator binds.
_LEVELS = {"except": 0, "|": 1, "+": 2, "-": 2, "*": 3, "/": 3, "^": 5}
_UNARY, _ATOM = 4, 6

_ORDER_SIGNS = {"0": "‖₀", "1": "‖₁", "2": "‖₂", "inf": "‖∞"}
_DURATION_UNITS = frozenset({"epoch", "epochs", "step", "steps"})

CLAUSE, COMMA, RELATION, OPERATOR, DEEPER, ASSIGNMENT = 0, 1, 2, 3, 10, 19
"""Ranks of places to break a line, best first; `DEEPER` is added for every bracket around one.

After the ``=`` of a statement is worse than inside one bracket, and better than inside two.
"""


@dataclass(slots=True)
class Piece:
    """`gap`: a blank goes before it; `rank`: a line may be broken before it; `at`: its known offset in the source."""

    text: str
    gap: bool = False
    rank: int | None = None
    at: int | None = None


def format_expr(expr: Expr, style: Style = "unicode") -> str:
    """One line of text that parses to `expr`: ``‖net.weights‖₀``, or ``norm0(net.weights)`` in ASCII."""
    printer = Printer(style)
    printer.expr(expr)
    return joined(printer.pieces)


def joined(pieces: Sequence[Piece]) -> str:
    """The pieces on one line."""
    return "".join(" " + p.text if p.gap and i else p.text for i, p in enumerate(pieces))


class Printer:
    """Appends pieces; the text after each call is complete."""

    def __init__(self, style: Style) -> None:
        self.pieces: list[Piece] = []
        self.is_unicode = style == "unicode"
        self._depth = 0

    def put(self, text: str, *, gap: bool = False, rank: int | None = None, at: int | None = None) -> None:
        rank = None if rank is None else rank + DEEPER * self._depth
        self.pieces.append(Piece(text, gap, rank, at))

    def name(self, name: str) -> str:
        return to_unicode(name) if self.is_unicode else name

    def expr(self, node: Expr, level: int = 0) -> None:
        """Print `node` where something that binds at `level` is allowed."""
        if _level(node, self.is_unicode) < level:
            self._open("(")
            self.expr(node)
            self._close(")")
            return
        first = len(self.pieces)
        self._bare(node)
        start = self.pieces[first]
        if start.at is None and node.span.end:
            start.at = node.span.start

    def items(self, items: Sequence[Expr | Argument], opening: str, closing: str) -> None:
        """``[a, b]``"""
        self._open(opening)
        for i, item in enumerate(items):
            if i:
                self.put(",")
            self._item(item, gap=i > 0)
        self._close(closing)

    def duration(self, node: Expr) -> None:
        """``20 epochs``, ``ramp(40, 20, 0, 1) epochs``"""
        unit = _duration_unit(node)
        if unit is None or not isinstance(node, Binary):
            self.expr(node)
            return
        plain = isinstance(node.left, Name | Call | Attribute | Select)
        self.expr(node.left, 0 if plain else _ATOM + 1)
        self.put(unit, gap=True)

    # ── one kind of node each ──

    def _bare(self, node: Expr) -> None:
        match node:
            case Number():
                self.put(_number(node))
            case Text(value=value):
                self.put(quoted(value))
            case Truth(value=value):
                self.put("true" if value else "false")
            case Name(id=name):
                self.put(self.name(name))
            case ListOf(items=items):
                self.items(items, "[", "]")
            case Braces(items=items):
                self.items(items, "{", "}")
            case Attribute(value=value, name=name):
                self._postfix(value)
                self.put(f".{name}")
            case Select(value=value, patterns=patterns):
                self._postfix(value)
                self.items(patterns, "[", "]")
            case Call(function=function, arguments=arguments):
                self.put(function)
                self.items(arguments, "(", ")")
            case Norm(order=order, value=value):
                self._norm(order, value)
            case Negate(value=value):
                self.put("-")
                self.expr(value, _UNARY)
            case SumOver():
                self._sum(node)
            case Binary():
                self._binary(node)

    def _item(self, item: Expr | Argument, *, gap: bool) -> None:
        first = len(self.pieces)
        if isinstance(item, Argument) and item.name is not None:
            self.put(self.name(item.name), at=item.span.start if item.span.end else None)
            self.put("=", gap=True)
            value = len(self.pieces)
            self.expr(item.value)
            self.pieces[value].gap = True
        else:
            self.expr(item.value if isinstance(item, Argument) else item)
        self.pieces[first].gap = gap
        self.pieces[first].rank = COMMA + DEEPER * self._depth

    def _postfix(self, value: Expr) -> None:
        self.expr(value, _ATOM + 1 if isinstance(value, Number | Truth) else _ATOM)

    def _norm(self, order: str, value: Expr) -> None:
        if not self.is_unicode:
            self.put(f"norm{order}")
            self.items((value,), "(", ")")
            return
        self._open("‖")
        self.expr(value)
        self._close(_ORDER_SIGNS[order])

    def _sum(self, node: SumOver) -> None:
        variable = self.name(node.variable)
        if self.is_unicode:
            self._open("Σ_{")
            self.put(variable)
            self.put("∈", gap=True)
            self._spaced(node.domain)
            self._close("}")
            self._spaced(node.body, _UNARY)
            return
        self.put("sum")
        self._open("(")
        self.expr(node.body)
        self.put("for", gap=True, rank=CLAUSE)
        self.put(variable, gap=True)
        self.put("in", gap=True)
        self._spaced(node.domain)
        self._close(")")

    def _spaced(self, node: Expr, level: int = 0, rank: int | None = None) -> None:
        first = len(self.pieces)
        self.expr(node, level)
        self.pieces[first].gap = True
        if rank is not None:
            self.pieces[first].rank = rank + DEEPER * self._depth

    def _binary(self, node: Binary) -> None:
        level = _LEVELS[node.operator]
        if node.operator == "^":
            if self.is_unicode and _is_square(node) and isinstance(node.left, Norm):
                self.expr(node.left)
                self.pieces[-1].text += "²"
                return
            self.expr(node.left, _ATOM)
            self.put("^")
            self.expr(node.right, _UNARY)
            return
        self.expr(node.left, level)
        if node.operator == "|":  # the one operator that no line starts with
            self.put("|", gap=True)
            self._spaced(node.right, level + 1, OPERATOR + level)
            return
        self.put(node.operator, gap=True, rank=OPERATOR + level)
        self._spaced(node.right, level + 1)

    def _open(self, sign: str) -> None:
        self.put(sign)
        self._depth += 1

    def _close(self, sign: str) -> None:
        self._depth -= 1
        self.put(sign)


def quoted(value: str) -> str:
    """A string literal."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _level(node: Expr, is_unicode: bool) -> int:
    match node:
        case Binary():
            squared = is_unicode and _is_square(node) and isinstance(node.left, Norm)
            return _ATOM if squared else _LEVELS[node.operator]
        case Negate():
            return _UNARY
        case SumOver():
            return _UNARY if is_unicode else _ATOM
        case Number(value=value) if value < 0:
            return _UNARY
        case Number() if not _is_decimal(node.value):
            return _LEVELS["/"]
    return _ATOM


def _is_square(node: Binary) -> bool:
    return node.operator == "^" and node.right == Number(Fraction(2))


def _duration_unit(node: Expr) -> str | None:
    """The unit of a duration written ``E epochs``."""
    if isinstance(node, Binary) and node.operator == "*" and isinstance(node.right, Number) and node.right.value == 1:
        return node.right.unit if node.right.unit in _DURATION_UNITS else None
    return None


def _number(node: Number) -> str:
    """Numbers that no literal can be (a computed −1, 1/3) are shown as the expression that makes them."""
    if node.value < 0:
        return "-" + _number(Number(-node.value, node.unit))
    if _is_decimal(node.value):
        return write_number(node)
    return f"{node.value.numerator} / {node.value.denominator}{' ' + node.unit if node.unit else ''}"


def _is_decimal(value: Fraction) -> bool:
    denominator = value.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1
