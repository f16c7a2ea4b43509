"""``parse``: text → `Spec`, or every syntax error of the text at once.

Limits come first, then characters, lines and brackets, then the grammar. After an error the parser goes on at the next
line, and where it is plain what was meant (`=` for `≤`, a misspelt word) it goes on at once.
"""

from __future__ import annotations

from dataclasses import replace

from prunelang.dsl.diagnostics import Diagnostic, SpecError
from prunelang.dsl.lalr import END, Automaton, TooDeep, tables
from prunelang.dsl.layout import Layout, NestedTooDeeply
from prunelang.dsl.scanner import CONTROL, MAX_ERRORS, Scanner, TooManyErrors
from prunelang.dsl.spans import Source, Span
from prunelang.dsl.tokens import LINE_END, Token, error
from prunelang.dsl.tree import Comment, Language, Spec
from prunelang.dsl.tree_builder import TreeBuilder

MAX_BYTES = 256_000

_BREAKS_ITS_LINE = frozenset({"P102", "P103", "P106", "P107", "P108", "P111", "P113"})
"""Findings about characters and brackets after which a further finding in the same line is most likely an echo."""


def parse(text: str, name: str = "<text>") -> Spec:
    """The syntax tree of a spec. Raises `SpecError` with all its syntax errors (codes P1xx)."""
    spec, diagnostics = parse_tolerant(text, name)
    if diagnostics:
        raise SpecError(diagnostics, Source(text, name))
    return spec


def parse_bytes(data: bytes, name: str = "<text>") -> Spec:
    """`parse` of a file's content, which must be UTF-8 (a byte order mark is skipped)."""
    return parse(decode(data, name).text, name)


def decode(data: bytes, name: str = "<text>") -> Source:
    """A file's content as text. Raises `SpecError` if it is too large, or not UTF-8."""
    if len(data) > MAX_BYTES:
        raise SpecError([_too_large()], Source("", name))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as failure:
        at = len(data[: failure.start].decode("utf-8"))
        message = f"byte 0x{data[failure.start]:02X} is not UTF-8"
        found = error("P126", message, at, at + 1, hint="save the file as UTF-8")
        raise SpecError([found], Source(data.decode("utf-8", errors="replace"), name)) from None
    return Source(text, name)


def parse_tolerant(text: str, name: str = "<text>") -> tuple[Spec, tuple[Diagnostic, ...]]:
    """What could be parsed, and the errors in what could not, in the order of the text. Never raises on any text."""
    run = _Run()
    spec = run.parse(text)
    return spec, tuple(run.diagnostics)


def _too_large() -> Diagnostic:
    return error("P120", f"the text is larger than {MAX_BYTES // 1000} kB", 0, 0)


class _Run:
    """One parse."""

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self._tables = tables()
        builder = TreeBuilder(self.diagnostics.append)
        self._automaton = Automaton(lambda action: getattr(builder, action))
        self._tokens: list[Token] = []
        self._line = 0  # index of the first token of the line
        self._kept = list(self._automaton.stack)  # the stack where the line starts
        self._fed: list[str] = []  # terminals since then
        self._lost: list[int] = []  # where lines with errors are

    def parse(self, text: str) -> Spec:
        if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            self.diagnostics.append(_too_large())
            return Spec(())
        spec = Spec(())
        comments: tuple[Comment, ...] = ()
        try:
            comments = self._read(text)
            spec = self._parse_tokens()
            self._check_language(spec)
        except (TooManyErrors, NestedTooDeeply):
            pass
        self._finish()
        return replace(spec, comments=comments, span=Span(0, len(text)))

    def _read(self, text: str) -> tuple[Comment, ...]:
        """Fill `_tokens`; the comments."""
        mark = 1 if text.startswith("\ufeff") else 0
        scanner = Scanner(" " * mark + CONTROL.sub(" ", text[mark:]))
        layout = Layout(scanner.tokens, scanner.report)
        try:
            for control in CONTROL.finditer(text):
                message = f"the control character U+{ord(control[0]):04X} has no place in a spec"
                scanner.report(error("P127", message, control.start(), control.end(), fix=""))
            scanner.run()
            layout.run()
        finally:
            self.diagnostics += scanner.diagnostics
        self._tokens = layout.tokens
        return tuple(scanner.comments)

    # ── tokens → tree ──

    def _parse_tokens(self) -> Spec:
        i = 0
        while i < len(self._tokens):
            token = self._tokens[i]
            actions = self._automaton.actions
            kind = next((k for k in token.kinds if k in actions), token.kind)
            try:
                fed = self._automaton.feed(kind, token, token.start, token.end)
            except TooDeep as part:
                hint = "name a part of it with `let`, or write a sum over a set: `sum(e for l in S)`"
                self._report(
                    error("P125", "this expression is too long or nested too deeply", part.start, part.end, hint=hint)
                )
                i = self._skip(i)
                continue
            if not fed:
                i = self._recover(i)
                continue
            i += 1
            self._fed.append(kind)
            if kind in (LINE_END, "_SUBJECT_TO"):
                self._line, self._kept, self._fed = i, list(self._automaton.stack), []
        result = self._automaton.result()
        assert isinstance(result, Spec)
        return result

    def _restart_line(self) -> None:
        self._automaton.stack[:] = self._kept
        self._fed.clear()

    def _states(self, fed: list[str]) -> list[int]:
        """The states after the start of the line and these terminals."""
        automaton = Automaton(lambda _: lambda _span, _children: None)
        automaton.stack[:] = self._kept
        for kind in fed:
            automaton.feed(kind, None, 0, 0)
        return automaton.states

    # ── errors ──

    def _report(self, diagnostic: Diagnostic) -> None:
        self.diagnostics.append(diagnostic)
        if len(self.diagnostics) >= MAX_ERRORS:
            raise TooManyErrors

    def _recover(self, i: int) -> int:
        """Say why token i cannot follow; the index to go on at."""
        from prunelang.dsl.mistakes import explain  # only ever needed once something is wrong
        from prunelang.dsl.syntax_errors import Situation

        self._lost.append(self._tokens[i].start)
        end = next(j for j in range(i, len(self._tokens)) if self._tokens[j].kind in (LINE_END, END))
        if self._is_echo(self._tokens[self._line].start, self._tokens[end].end):
            return self._skip(i)
        states, start = self._states(self._fed), self._states([])
        situation = Situation(
            line=tuple(self._tokens[self._line : end + 1]),
            at=i - self._line,
            expected=self._tables.expected(states),
            expected_first=self._tables.expected(start),
            follows=lambda *kinds: self._tables.accepts(states, *kinds),
            starts=lambda *kinds: self._tables.accepts(start, *kinds),
        )
        problem = explain(situation)
        self._report(problem.diagnostic)
        if problem.repair is None:
            return self._skip(i)
        at = self._line + problem.at
        self._tokens[at : at + problem.length] = problem.repair
        self._restart_line()
        return self._line

    def _is_echo(self, start: int, end: int) -> bool:
        return any(d.code in _BREAKS_ITS_LINE and start <= d.span.start <= end for d in self.diagnostics)

    def _skip(self, i: int) -> int:
        """Drop the rest of the line, and what was read of it; a ``s.t.`` in it starts a line of its own."""
        self._restart_line()
        states = self._automaton.states
        while self._tokens[i].kind not in (LINE_END, END):
            if self._tokens[i].kind == "_SUBJECT_TO" and self._tables.accepts(states, "_SUBJECT_TO"):
                break
            i += 1
        if self._tokens[i].kind == LINE_END and not self._tables.accepts(states, LINE_END):
            i += 1
        self._line = i
        return i

    # ── the text as a whole ──

    def _check_language(self, spec: Spec) -> None:
        for statement in spec.statements[1:]:
            if isinstance(statement, Language):
                message = "`language` is the first statement, or none"
                self._report(error("P131", message, statement.span.start, statement.span.end))

    def _finish(self) -> None:
        """Each finding once, in the order of the text, and no more than `MAX_ERRORS`."""
        unique = {(d.code, d.span, d.message): d for d in self.diagnostics if not self._has_lost_constraints(d)}
        ordered = sorted(unique.values(), key=lambda d: (d.span.start, d.span.end))
        if len(ordered) >= MAX_ERRORS:
            del ordered[MAX_ERRORS:]
            end = ordered[-1].span.end
            message = f"there are {MAX_ERRORS} errors or more; only the first are shown"
            ordered.append(error("P129", message, end, end))
        self.diagnostics[:] = ordered

    def _has_lost_constraints(self, diagnostic: Diagnostic) -> bool:
        """Whether a ``subject to`` is empty only because its constraints have errors."""
        return diagnostic.code == "P112" and any(at >= diagnostic.span.start for at in self._lost)
