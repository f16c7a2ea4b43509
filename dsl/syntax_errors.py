"""Syntax errors in words: what was expected, what was found, and what would help.

`unexpected` says what could come next; mistakes.py knows better where people make the mistake often. No message names
a terminal of the grammar: `WORDING` has words for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prunelang.dsl.diagnostics import Diagnostic
from prunelang.dsl.lalr import END
from prunelang.dsl.tokens import LINE_END, Token, error

WORDING: dict[str, str] = {
    "_LANGUAGE": "`language`",
    "_MODEL": "`model`",
    "_DATA": "`data`",
    "_FREEZE": "`freeze`",
    "_LET": "`let`",
    "_PARAM": "`param`",
    "MINIMIZE": "`minimize`",
    "MAXIMIZE": "`maximize`",
    "_SUBJECT_TO": "`subject to`",
    "PRETRAIN": "`pretrain`",
    "FINETUNE": "`finetune`",
    "_SOLVE": "`solve`",
    "_PRUNE": "`prune`",
    "_REPORT": "`report`",
    "_WITH": "`with`",
    "_FOR": "`for`",
    "_UNTIL": "`until`",
    "_FROM": "`from`",
    "_IN": "`∈` (or `in`)",
    "EXCEPT": "`except`",
    "_FORALL": "`∀`",
    "TRUE": "`true`",
    "FALSE": "`false`",
    "FROZEN": "`frozen`",
    "_MINIMIZING": "`minimizing`",
    "DURATION_UNIT": "`epochs` or `steps`",
    "LABEL": "a label",
    "OPTION": "an option",
    "REFERENCE": "a label",
    "WORD": "a name",
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a string in quotes",
    "_SUM_OPEN": "`Σ_{`",
    "NORM_CLOSE": "the end of the norm (`‖₀`, `‖₁`, `‖₂` or `‖∞`)",
    "_NORM_OPEN": "`‖`",
    "REL": "`≤` or `≥`",
    "PLUS": "`+`",
    "MINUS": "`-`",
    "TIMES": "`*`",
    "DIVIDE": "`/`",
    "POWER": "`^`",
    "BAR": "`|`",
    "_EQUALS": "`=`",
    "_COLON": "`:`",
    "_COMMA": "`,`",
    "_DOT": "`.`",
    "_LPAR": "`(`",
    "_RPAR": "`)`",
    "_LSQB": "`[`",
    "_RSQB": "`]`",
    "_LBRACE": "`{`",
    "_RBRACE": "`}`",
    LINE_END: "the end of the line",
    END: "the end of the file",
}
"""Terminal → what it is called in a message."""

STATEMENTS = frozenset(
    {"_LANGUAGE", "_MODEL", "_DATA", "_FREEZE", "_LET", "_PARAM", "MINIMIZE", "MAXIMIZE", "_SUBJECT_TO"}
    | {"PRETRAIN", "FINETUNE", "_SOLVE", "_PRUNE", "_REPORT"}
)
LITERALS = frozenset({"NUMBER", "MINUS", "STRING", "TRUE", "FALSE", "_LSQB"})
VALUES = LITERALS | {"NAME", "_LPAR", "_LBRACE", "_NORM_OPEN", "_SUM_OPEN"}
OPERATORS = frozenset({"PLUS", "MINUS", "TIMES", "DIVIDE", "POWER", "BAR", "EXCEPT"})
_POSTFIX = frozenset({"_DOT", "_LSQB", "_LPAR"})

FORMS: dict[str, str] = {
    "_LANGUAGE": "language 1",
    "_MODEL": 'model name = constructor(…) [from "weights.safetensors"] [frozen]',
    "_DATA": "data [name =] constructor(…)",
    "_FREEZE": "freeze set",
    "_LET": "let name = expression",
    "_PARAM": "param name = literal [in [lowest, highest]]",
    "MINIMIZE": "minimize expression",
    "MAXIMIZE": "maximize expression",
    "PRETRAIN": "pretrain [minimizing expression] with optimizer(…) for duration [until …]",
    "FINETUNE": "finetune [minimizing expression] with optimizer(…) for duration [until …]",
    "_SOLVE": "solve solver(…) [with optimizer(…)] [for duration] [until …]",
    "_PRUNE": "prune method(…)",
    "_REPORT": 'report item, "title": item, …',
}
CONSTRAINT_FORM = "[label:] [∀ l ∈ set:] left ≤ right"


@dataclass(frozen=True)
class Situation:
    """Token `at` of a line cannot follow the ones before it.

    `expected` are the terminals that can, `expected_first` those that can start the line; `follows` and `starts` tell
    whether several in turn can.
    """

    line: Sequence[Token]
    at: int
    expected: frozenset[str]
    expected_first: frozenset[str]
    follows: Callable[..., bool]
    starts: Callable[..., bool]

    @property
    def token(self) -> Token:
        return self.line[self.at]

    @property
    def before(self) -> Token | None:
        return self.line[self.at - 1] if self.at else None

    @property
    def after(self) -> Token | None:
        return self.line[self.at + 1] if self.at + 1 < len(self.line) else None

    @property
    def among_constraints(self) -> bool:
        return "LABEL" in self.expected_first


@dataclass(frozen=True)
class Problem:
    """What to say; and, where it is plain what was meant, tokens to put in place of `length` tokens from `at` on."""

    diagnostic: Diagnostic
    repair: list[Token] | None = None
    at: int = 0
    length: int = 0


def unexpected(situation: Situation, hint: str | None = None) -> Diagnostic:
    """``expected …, found …``"""
    token = situation.token
    words = expected_words(situation.expected)
    found = found_words(token, situation.after)
    message = f"expected {one_of(words)}, found {found}"
    end = token.end if token.text else token.start
    hint = hint or _form_of(situation)
    return error("P100", message, token.start, end, hint=hint, expected=tuple(words), found=found)


def _form_of(situation: Situation) -> str | None:
    """How the statement of this line is written."""
    if situation.at == 0:
        return None
    form = FORMS.get(situation.line[0].kind)
    if form is not None:
        return f"written `{form}`"
    return f"a constraint is written `{CONSTRAINT_FORM}`" if situation.among_constraints else None


def found_words(token: Token, after: Token | None = None) -> str:
    """What a token is called where it was not expected."""
    if token.kind == END or (token.kind == LINE_END and after is not None and after.kind == END):
        return WORDING[END]
    if not token.text or token.kind == LINE_END:
        return WORDING[LINE_END]
    shown = token.text if len(token.text) <= 40 else token.text[:40] + "…"
    return f"`{shown}`"


def expected_words(expected: Iterable[str]) -> list[str]:
    """Terminals in words, those that belong together as one: all operators are "an operator"."""
    left = set(expected)
    words = []
    if len(left & STATEMENTS) > 1:
        words.append("a statement")
        left -= STATEMENTS | {END}
    if left >= {"LABEL", "NAME"}:
        words.append("a constraint")
        left -= VALUES | {"LABEL", "_FORALL"}
    elif left >= {"OPTION", "NAME"}:
        words.append("an argument")
        left -= VALUES | {"OPTION"}
    elif left >= {"NAME", "NUMBER"}:
        words.append("a value")
        left -= VALUES | {"REFERENCE", "_FORALL"}
    elif left >= {"NUMBER", "STRING"}:
        words.append("a literal (a number, a string, `true`, `false` or a list)")
        left -= LITERALS
    if left >= {"PLUS", "TIMES"}:
        words.append("an operator")
        left -= OPERATORS | _POSTFIX
    if left >= {"REL", "_IN"}:
        words.append("`≤`, `≥` or `∈`")
        left -= {"REL", "_IN"}
    if left >= {"_RPAR", "_FOR"}:
        left.discard("_FOR")
    order = list(WORDING)
    return words + list(dict.fromkeys(WORDING[t] for t in sorted(left, key=order.index)))


def one_of(words: Sequence[str]) -> str:
    """``a, b or c``"""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]
