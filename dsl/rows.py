"""Statements and constraints → rows: one logical line each, with aligned keywords and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prunelang.dsl.printer import ASSIGNMENT, CLAUSE, COMMA, RELATION, Piece, Printer, Style, quoted
from prunelang.dsl.spans import NOWHERE
from prunelang.dsl.tree import (
    Comparison,
    Constraint,
    Data,
    Expr,
    ForAll,
    Freeze,
    Language,
    Let,
    Membership,
    Model,
    Name,
    Node,
    Objective,
    Param,
    Prune,
    Report,
    Solve,
    Spec,
    Stage,
    Statement,
    SubjectTo,
)

_INDENT = 4
_SUBJECT_TO = "subject to"


@dataclass(frozen=True)
class Row:
    """One logical line: `pieces` at `indent`, more lines at `hang`; `start` and `end` are its place in the source."""

    pieces: Sequence[Piece]
    indent: int
    hang: int
    start: int
    end: int
    starts_group: bool


def rows_of(spec: Spec, style: Style) -> list[Row]:
    """The rows of a spec, in order; statements of one kind that follow each other have aligned keywords."""
    rows: list[Row] = []
    previous: int | None = None
    for statement, width in zip(spec.statements, _keyword_widths(spec.statements), strict=True):
        group = _group(statement)
        rows.extend(_rows(statement, width, style, starts_group=group != previous))
        previous = group
    return rows


def _rows(statement: Statement, width: int, style: Style, *, starts_group: bool) -> Iterable[Row]:
    printer = Printer(style)
    start = statement.span.start
    if isinstance(statement, SubjectTo):
        printer.put(_SUBJECT_TO)
        yield Row(printer.pieces, 0, _INDENT, start, start + 1, starts_group)
        labels = [len(printer.name(c.label)) + 1 for c in statement.constraints if c.label is not None]
        for constraint in statement.constraints:
            yield _constraint_row(constraint, max(labels, default=0), style)
        return
    keyword = _keyword(statement)
    printer.put(keyword.ljust(width), at=None if statement.span == NOWHERE else start)
    _WRITERS[type(statement)](printer, statement)
    hang = width + 1 if isinstance(statement, Stage | Solve | Prune) else _INDENT
    yield Row(printer.pieces, 0, hang, start, max(start + 1, statement.span.end), starts_group)


def _constraint_row(constraint: Constraint, label_width: int, style: Style) -> Row:
    printer = Printer(style)
    if constraint.label is not None:
        printer.put((printer.name(constraint.label) + ":").ljust(label_width))
    for forall in constraint.foralls:
        _forall(printer, forall)
    _body(printer, constraint.body)
    span = constraint.span
    return Row(printer.pieces, _INDENT, 2 * _INDENT, span.start, max(span.start + 1, span.end), False)


# ── keywords ──


def _keyword(statement: Statement) -> str:
    if isinstance(statement, Objective):
        return statement.sense
    if isinstance(statement, Stage):
        return statement.kind
    return type(statement).__name__.lower()


_GROUPS: dict[type[Node], int] = {Language: 0, Model: 1, Data: 1, Freeze: 2, Let: 3, Param: 3}
_GROUPS |= {Objective: 4, SubjectTo: 4, Stage: 5, Solve: 5, Prune: 5, Report: 6}
_ALIGNED = frozenset({1, 5})


def _group(statement: Statement) -> int:
    return _GROUPS[type(statement)]


def _keyword_widths(statements: Sequence[Statement]) -> list[int]:
    """How wide the keyword of each statement is written: stages that follow each other alike, and so model and data."""
    widths = [len(_keyword(s)) for s in statements]
    i = 0
    while i < len(statements):
        group = _group(statements[i])
        stop = i + 1
        while group in _ALIGNED and stop < len(statements) and _group(statements[stop]) == group:
            stop += 1
        widths[i:stop] = [max(widths[i:stop])] * (stop - i)
        if isinstance(statements[i], Objective) and stop < len(statements) and isinstance(statements[stop], SubjectTo):
            widths[i] = len(_SUBJECT_TO)
        i = stop
    return widths


# ── statements ──


def _language(printer: Printer, node: Language) -> None:
    printer.put(str(node.version), gap=True)


def _model(printer: Printer, node: Model) -> None:
    _assigned(printer, node.name, node.constructor)
    if node.weights is not None:
        printer.put("from", gap=True, rank=CLAUSE)
        printer.put(quoted(node.weights), gap=True)
    if node.frozen:
        printer.put("frozen", gap=True)


def _data(printer: Printer, node: Data) -> None:
    if node.name is None:
        _spaced(printer, node.constructor)
    else:
        _assigned(printer, node.name, node.constructor)


def _freeze(printer: Printer, node: Freeze) -> None:
    _spaced(printer, node.tensors)


def _let(printer: Printer, node: Let) -> None:
    _assigned(printer, node.name, node.value)


def _param(printer: Printer, node: Param) -> None:
    _assigned(printer, node.name, node.value)
    if node.low is not None and node.high is not None:
        printer.put("in", gap=True, rank=CLAUSE)
        first = len(printer.pieces)
        printer.items((node.low, node.high), "[", "]")
        printer.pieces[first].gap = True


def _objective(printer: Printer, node: Objective) -> None:
    _spaced(printer, node.value)


def _stage(printer: Printer, node: Stage) -> None:
    if node.minimizing is not None:
        printer.put("minimizing", gap=True)
        _spaced(printer, node.minimizing)
    _clauses(printer, node)


def _solve(printer: Printer, node: Solve) -> None:
    _spaced(printer, node.solver)
    _clauses(printer, node)


def _clauses(printer: Printer, node: Stage | Solve) -> None:
    if node.optimizer is not None:
        first = len(printer.pieces) == 1
        printer.put("with", gap=True, rank=None if first else CLAUSE)
        _spaced(printer, node.optimizer)
    if node.duration is not None:
        printer.put("for", gap=True, rank=COMMA)
        first_piece = len(printer.pieces)
        printer.duration(node.duration)
        printer.pieces[first_piece].gap = True
    if node.until is not None:
        printer.put("until", gap=True, rank=COMMA)
        bare = not node.until.arguments
        _spaced(printer, Name(node.until.function, span=node.until.span) if bare else node.until)


def _prune(printer: Printer, node: Prune) -> None:
    _spaced(printer, node.method)


def _report(printer: Printer, node: Report) -> None:
    for i, item in enumerate(node.items):
        if i:
            printer.put(",")
        first = len(printer.pieces)
        if item.title is not None:
            printer.put(f"{quoted(item.title)}:")
            _spaced(printer, item.value)
        else:
            printer.expr(item.value)
        printer.pieces[first].gap = True
        printer.pieces[first].rank = COMMA if i else None


_WRITERS: dict[type[Node], Callable[..., None]] = {
    Language: _language,
    Model: _model,
    Data: _data,
    Freeze: _freeze,
    Let: _let,
    Param: _param,
    Objective: _objective,
    Stage: _stage,
    Solve: _solve,
    Prune: _prune,
    Report: _report,
}


def _assigned(printer: Printer, name: str, value: Expr) -> None:
    printer.put(printer.name(name), gap=True)
    printer.put("=", gap=True)
    _spaced(printer, value, rank=ASSIGNMENT)


def _spaced(printer: Printer, value: Expr, rank: int | None = None) -> None:
    first = len(printer.pieces)
    printer.expr(value)
    printer.pieces[first].gap = True
    printer.pieces[first].rank = rank


# ── constraints ──

_ASCII = {"≤": "<=", "≥": ">=", "∈": "in"}


def _forall(printer: Printer, node: ForAll) -> None:
    printer.put("∀" if printer.is_unicode else "forall", gap=bool(printer.pieces))
    printer.put(printer.name(node.variable), gap=True)
    printer.put("∈" if printer.is_unicode else "in", gap=True)
    _spaced(printer, node.domain)
    printer.put(":")


def _body(printer: Printer, body: Comparison | Membership) -> None:
    opens = bool(printer.pieces)
    if isinstance(body, Membership):
        first, rest = body.value, [("∈", body.domain)]
    else:
        first, rest = body.sides[0], list(zip(body.relations, body.sides[1:], strict=True))
    _first_side(printer, first, gap=opens)
    for relation, side in rest:
        printer.put(relation if printer.is_unicode else _ASCII[relation], gap=True, rank=RELATION)
        _spaced(printer, side)


def _first_side(printer: Printer, side: Expr, *, gap: bool) -> None:
    """No line starts with a sign: it would go on with the one before."""
    first = len(printer.pieces)
    printer.expr(side)
    if not gap and printer.pieces[first].text.startswith("-"):
        del printer.pieces[first:]
        printer.put("(")
        printer.expr(side)
        printer.put(")")
    printer.pieces[first].gap = gap
