"""Which line breaks end a line, which words stand for what, and brackets that do not match.

A line goes on while a bracket or norm is open; after a trailing comma, ``=``, ``:`` or binary operator; and when the
next line starts with one of ``with for until from in except`` or with an operator.
"""

from __future__ import annotations

from collections.abc import Callable

from prunelang.dsl.diagnostics import Diagnostic, Label
from prunelang.dsl.lalr import END
from prunelang.dsl.names import KEYWORDS, STATEMENT_WORDS
from prunelang.dsl.tokens import LINE_END, NEWLINE, Token, error

MAX_NESTING = 100

_CLOSED_BY = {
    "_LPAR": ("_RPAR", "`)`"),
    "_LSQB": ("_RSQB", "`]`"),
    "_LBRACE": ("_RBRACE", "`}`"),
    "_SUM_OPEN": ("_RBRACE", "`}`"),
    "_NORM_OPEN": ("NORM_CLOSE", "`‖₀`, `‖₁`, `‖₂` or `‖∞`"),
}
_CLOSERS = frozenset(kind for kind, _ in _CLOSED_BY.values())
_GOES_ON_AFTER = frozenset(
    {"_COMMA", "_EQUALS", "_COLON", "PLUS", "MINUS", "TIMES", "DIVIDE", "POWER", "BAR", "REL", "_IN", "EXCEPT"}
)
_GOES_ON_BEFORE = frozenset(
    {"_WITH", "_FOR", "_UNTIL", "_FROM", "_IN", "EXCEPT", "PLUS", "MINUS", "TIMES", "DIVIDE", "POWER", "REL"}
)


class NestedTooDeeply(Exception):
    """More than `MAX_NESTING` brackets are open."""


class Layout:
    """One pass over raw tokens; `tokens` is what the parser reads."""

    def __init__(self, raw: list[Token], report: Callable[[Diagnostic], None]) -> None:
        self._raw = raw
        self._report = report
        self._open: list[Token] = []
        self.tokens: list[Token] = []

    def run(self) -> None:
        """Raises `NestedTooDeeply` after reporting it."""
        broken = False
        for i, token in enumerate(self._raw):
            if token.kind == NEWLINE:
                broken = True
                continue
            after = self._kind_after(i)
            if broken and self.tokens:
                self._line_break(token, after)
            broken = False
            self._bracket(token)
            _classify(token, after)
            self.tokens.append(token)
        self._never_closed()
        if self.tokens:
            self._end_line()
        end = self._raw[-1].end if self._raw else 0
        self.tokens.append(Token(END, "", end, end, (END,)))

    def _kind_after(self, i: int) -> str:
        """What comes next; inside brackets line breaks are blanks."""
        j = i + 1
        while self._open and j < len(self._raw) and self._raw[j].kind == NEWLINE:
            j += 1
        return self._raw[j].kind if j < len(self._raw) else NEWLINE

    def _line_break(self, token: Token, after: str) -> None:
        if self._open:
            if not _starts_line(token, after):
                return
            self._never_closed()
        elif self._goes_on(token, after):
            return
        self._end_line()

    def _goes_on(self, token: Token, after: str) -> bool:
        """Whether a line that `token` starts, outside brackets, belongs to the one before."""
        if token.kind in _GOES_ON_BEFORE and after != "_COLON":  # `with:` is a label
            return True
        is_attribute = len(self.tokens) > 1 and self.tokens[-2].kind == "_DOT"
        return self.tokens[-1].kind in _GOES_ON_AFTER and not is_attribute and not _starts_line(token, after)

    def _end_line(self) -> None:
        end = self.tokens[-1].end
        self.tokens.append(Token(LINE_END, "", end, end, (LINE_END,)))

    def _bracket(self, token: Token) -> None:
        if token.kind in _CLOSED_BY:
            self._open.append(token)
            if len(self._open) > MAX_NESTING:
                message = f"more than {MAX_NESTING} brackets are open here"
                hint = "split the expression with `let`"
                self._report(error("P122", message, token.start, token.end, hint=hint))
                raise NestedTooDeeply
        elif token.kind in _CLOSERS and self._open:
            self._close(token)

    def _close(self, token: Token) -> None:
        opener = self._open[-1]
        if _CLOSED_BY[opener.kind][0] == token.kind:
            self._open.pop()
            return
        sign = _CLOSED_BY[opener.kind][1]
        message = f"`{token.text}` does not close `{opener.text}`"
        opened = (Label(opener.span, "opened here"),)
        hint = f"`{opener.text}` is closed by {sign}"
        self._report(error("P103", message, token.start, token.end, secondary=opened, hint=hint))
        matching = [i for i, o in enumerate(self._open) if _CLOSED_BY[o.kind][0] == token.kind]
        del self._open[matching[-1] if matching else -1 :]

    def _never_closed(self) -> None:
        for opener in self._open:
            sign = _CLOSED_BY[opener.kind][1]
            message = f"this `{opener.text}` is never closed"
            self._report(error("P102", message, opener.start, opener.end, hint=f"close it with {sign}"))
        self._open.clear()


def _starts_line(token: Token, after: str) -> bool:
    """Whether a token where a line might go on can only be the start of a new statement or constraint."""
    is_word = "WORD" in token.kinds
    if is_word and after == "_COLON":
        return True
    return token.kind == "_SUBJECT_TO" or (token.text in STATEMENT_WORDS and after not in ("_EQUALS", "_DOT", "_LSQB"))


def _classify(token: Token, after: str) -> None:
    """Put first what a word is by virtue of the sign after it: a label, an option, the name of a reserved label."""
    if "WORD" not in token.kinds:
        return
    if after == "_COLON":
        token.kinds = ("LABEL", *token.kinds)
    elif after == "_EQUALS":
        token.kinds = ("OPTION", *token.kinds)
    elif after in ("_DOT", "_LSQB") and token.text in KEYWORDS:
        token.kinds = ("REFERENCE", *token.kinds)
