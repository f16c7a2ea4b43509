"""Tokens: pieces of the text, each with the terminals of the grammar that it may stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prunelang.dsl.diagnostics import Diagnostic, FixIt
from prunelang.dsl.spans import Span
from prunelang.dsl.tree import Comment

NEWLINE = "NEWLINE"
"""A line break in the text; the layout pass turns it into `LINE_END` or drops it."""
LINE_END = "_NL"

OPERAND_ENDS = frozenset({"NAME", "NUMBER", "STRING", "TRUE", "FALSE", "_RPAR", "_RSQB", "_RBRACE", "NORM_CLOSE"})
"""A value ends in one of these: a sign after it joins or closes, a sign elsewhere opens."""


@dataclass(slots=True)
class Token:
    """`kinds`: terminals in order of preference, the last but one or two being what it looks like on its own."""

    kind: str
    text: str
    start: int
    end: int
    kinds: tuple[str, ...]
    value: Any = None

    @property
    def span(self) -> Span:
        return Span(self.start, self.end)


def token(kind: str, text: str, start: int, value: Any = None) -> Token:
    return Token(kind, text, start, start + len(text), (kind,), value)


@dataclass(frozen=True)
class Scan:
    """All tokens of a text, ended by `LINE_END` and `END`; its comments; what was wrong with its characters.

    `fatal`: a limit was passed, and there is nothing to parse.
    """

    tokens: list[Token]
    comments: tuple[Comment, ...]
    diagnostics: list[Diagnostic]
    fatal: bool = False


def error(
    code: str, message: str, start: int, end: int, *, hint: str | None = None, fix: str | None = None, **more: Any
) -> Diagnostic:
    """A syntax error over ``[start, end)``; `fix` is the text to put there instead."""
    span = Span(start, end)
    fixit = None if fix is None else FixIt(span, fix)
    return Diagnostic(code, "error", message, span, hint=hint, fixit=fixit, **more)
