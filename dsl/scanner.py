"""Text → raw tokens: what each piece of text is, on its own. What ends a line is the business of layout.py."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache

from prunelang.dsl.diagnostics import Diagnostic, suggest
from prunelang.dsl.lalr import tables
from prunelang.dsl.names import KEYWORDS, canonical, is_identifier
from prunelang.dsl.numbers import UNITS, NumberTooBig, read_number
from prunelang.dsl.spans import Span
from prunelang.dsl.tokens import NEWLINE, OPERAND_ENDS, Token, error
from prunelang.dsl.tree import Comment

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that no text may hold: controls, overrides of the reading direction, halves of surrogate pairs."""
MAX_ERRORS = 50
"""After so many a text is something else than a spec, and the rest of it is not read."""
MAX_TOKENS = 50_000
MAX_NAME = 100
MAX_SUGGESTED = 40
"""Longer words are no misspelling of anything: finding the nearest is quadratic."""

_NORMAL = (
    *("_BLANK", "_COMMENT", "NUMBER", "STRING", "_SUBJECT_TO", "_SUM_OPEN", "NORM_CLOSE", "NEAR", "WORD", "REL"),
    *("PLUS", "TIMES", "MINUS", "DIVIDE", "POWER", "BAR", "_EQUALS", "_COLON", "_COMMA", "_DOT"),
    *("_LPAR", "_RPAR", "_LSQB", "_RSQB", "_LBRACE", "_RBRACE"),
)
_NEAR = r"\*\*|\|\||:=|=<|=>|==|//|\.[0-9]|Σ[ \t]*\{|Σ_[ \t]+\{|‖"
_SIGN_WORDS = {"∈": "_IN", "∀": "_FORALL"}
_SOFT = {"frozen": "FROZEN", "minimizing": "_MINIMIZING"}
_SOFT |= dict.fromkeys(("epoch", "epochs", "step", "steps"), "DURATION_UNIT")
_OPENERS = frozenset({"_LPAR", "_LSQB", "_LBRACE", "_SUM_OPEN", "_NORM_OPEN"})
_CLOSERS = frozenset({"_RPAR", "_RSQB", "_RBRACE", "NORM_CLOSE"})
_GLUED = re.compile(r"[^\W²³¹⁰⁴-⁹][\w.]*|\.[\w.]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@cache
def _pattern() -> re.Pattern[str]:
    patterns = tables().patterns | {"NEAR": _NEAR}
    groups = (f"(?P<{name}>{patterns[name]})" for name in _NORMAL)
    return re.compile(rf"(?P<{NEWLINE}>\r\n|\n|\r)|" + "|".join(groups))


@cache
def word_kinds() -> dict[str, str]:
    """Reserved word → its terminal."""
    kinds = {word: kind for word, kind in tables().words.items() if word in KEYWORDS}
    return kinds | {"in": "_IN", "forall": "_FORALL", "subject": "_SUBJECT"}


def unit_near(word: str) -> str | None:
    """The unit that a misspelt one stands for."""
    if len(word) > MAX_SUGGESTED:
        return None
    if word.lower() in ("percent", "percents", "pct"):
        return "%"
    folded = {u.lower(): u for u in reversed(UNITS)}
    near = suggest(word.lower(), folded, 1)
    return folded[near[0]] if near else None


def join_unit(number: str, unit: str) -> str:
    return number + unit if unit == "%" else f"{number} {unit}"


class TooManyErrors(Exception):
    """The scan stops."""


class Scanner:
    """One pass over one text; `tokens`, `comments` and `diagnostics` are what it finds."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.tokens: list[Token] = []
        self.comments: list[Comment] = []
        self.diagnostics: list[Diagnostic] = []
        self._open: list[str] = []  # brackets of this line
        self._open_norms = 0
        self._after_operand = False  # what is joined to what comes next by an operator, or closed by it

    def run(self) -> None:
        """Raises `TooManyErrors`."""
        text, match, at, length = self._text, _pattern().match, 0, len(self._text)
        while at < length:
            found = match(text, at)
            kind = found.lastgroup if found else None
            if found is None or kind is None or kind == "NEAR":
                at = self._near_miss(at)
                continue
            end = found.end()
            if kind == "_COMMENT":
                own_line = not self.tokens or self.tokens[-1].kind == NEWLINE
                self.comments.append(Comment(found[0].rstrip(), own_line, span=Span(at, end)))
            elif kind != "_BLANK":
                end = self._add(Token(kind, found[0], at, end, (kind,)))
            at = end

    def _add(self, token: Token) -> int:
        """Finish a token and append it; where to go on."""
        if token.kind == "NUMBER":
            token.end = self._number(token)
        elif token.kind == "STRING":
            token.value = self._unescaped(token)
        elif token.kind == "WORD":
            self._word(token)
        elif token.kind == NEWLINE and token.text == "\r":
            self._lone_return(token.start)
        self._track(token.kind)
        if len(self.tokens) >= MAX_TOKENS:
            message = f"a spec has at most {MAX_TOKENS} tokens"
            self.diagnostics.append(error("P121", message, token.start, token.end))
            raise TooManyErrors
        self.tokens.append(token)
        return token.end

    def _track(self, kind: str) -> None:
        """Enough of brackets and operands to tell a `‖` that opens from one that was meant to close."""
        self._after_operand = kind in OPERAND_ENDS
        if kind == NEWLINE:
            self._open.clear()
            self._open_norms = 0
        elif kind in _OPENERS:
            self._open.append(kind)
            self._open_norms += kind == "_NORM_OPEN"
        elif kind in _CLOSERS and self._open:
            opener = self._open.pop()
            self._open_norms -= opener == "_NORM_OPEN"
            self._after_operand = opener != "_SUM_OPEN"

    def report(self, diagnostic: Diagnostic) -> None:
        self.diagnostics.append(diagnostic)
        if len(self.diagnostics) >= MAX_ERRORS:
            raise TooManyErrors

    def _near_miss(self, at: int) -> int:
        before = self.tokens[-1] if self.tokens else None
        if self._text[at] in _SIGN_WORDS:
            kind = _SIGN_WORDS[self._text[at]]
            return self._add(Token(kind, self._text[at], at, at + 1, (kind,)))
        if self._text[at] == "%" and before and before.kind == "NUMBER" and before.value[1] is None:
            before.text, before.end, before.value = before.text + "%", at + 1, (before.value[0], "%")
            message = "a percentage is one token, without a blank before `%`"
            self.report(error("P104", message, before.start, at + 1, fix=before.text))
            return at + 1
        closes_norm = self._after_operand and self._open_norms > 0
        if self._text[at] == "‖" and not closes_norm:
            return self._add(Token("_NORM_OPEN", "‖", at, at + 1, ("_NORM_OPEN",)))
        from prunelang.dsl.near_misses import near_miss

        found, end, diagnostic = near_miss(self._text, at, self._after_operand, closes_norm)
        self.report(diagnostic)
        for token in found:
            self._add(token)
        return end

    def _number(self, token: Token) -> int:
        """Read the value; the end of the token, with whatever is glued to it."""
        try:
            token.value = read_number(token.text)
        except NumberTooBig as limit:
            token.value = (Fraction(1), None)
            self.report(error(limit.code, str(limit), token.start, token.end))
        glued = _GLUED.match(self._text, token.end)
        if glued is None:
            return token.end
        text = self._text[token.start : glued.end()]
        unit = unit_near(glued[0])
        shown = text if len(text) <= MAX_SUGGESTED else text[:MAX_SUGGESTED] + "…"
        fix = join_unit(token.text, unit) if unit and token.value[1] is None else None
        hint = f"did you mean `{fix}`?" if fix else None
        self.report(error("P107", f"`{shown}` is not a number", token.start, glued.end(), hint=hint, fix=fix))
        return glued.end()

    def _unescaped(self, token: Token) -> str:
        body = token.text[1:-1]
        for escape in _ESCAPE.finditer(body):
            if escape[1] not in '"\\':
                start = token.start + 1 + escape.start()
                message = f"`{escape[0]}` means nothing in a string"
                hint = 'only `\\"` and `\\\\` do; a path may use `/`'
                self.report(error("P108", message, start, start + 2, hint=hint, fix="\\" + escape[0]))
        return _ESCAPE.sub(r"\1", body)

    def _word(self, token: Token) -> None:
        token.value = canonical(token.text)
        kinds = word_kinds()
        if len(token.text) > MAX_NAME:
            self.report(error("P113", f"a name has at most {MAX_NAME} characters", token.start, token.end))
        elif not is_identifier(token.value):
            self.report(error("P113", f"`{token.text}` is not a name", token.start, token.end))
        elif token.value in kinds and token.text not in kinds:
            message = f"`{token.text}` is a look-alike of the word `{token.value}`"
            self.report(error("P113", message, token.start, token.end, fix=token.value))
        token.kind = kinds.get(token.value, "NAME")
        soft = _SOFT.get(token.text)
        token.kinds = (soft, token.kind, "WORD") if soft else (token.kind, "WORD")

    def _lone_return(self, at: int) -> None:
        if not any(d.code == "P128" for d in self.diagnostics):
            message = "a line ends with a carriage return alone (old Mac style); save the file with `\\n` line ends"
            self.report(error("P128", message, at, at + 1, fix="\n"))
