"""Signs that look right and are not: each is an error with a fix-it, and is read as what was meant.

Only `near_miss` is called from outside: the scanner does so wherever no token of the language starts.
"""

from __future__ import annotations

import re
from unicodedata import name as character_name
from unicodedata import normalize

from prunelang.dsl.diagnostics import Diagnostic
from prunelang.dsl.tokens import NEWLINE, Token, error, token

_SIGNS: dict[str, tuple[str, str]] = {
    **dict.fromkeys("⋅∙•⸱", ("TIMES", "·")),
    **dict.fromkeys("∗⁎＊", ("TIMES", "*")),
    **dict.fromkeys("⨯✕✖", ("TIMES", "×")),
    **dict.fromkeys("÷∕⁄", ("DIVIDE", "/")),
    **dict.fromkeys("−–—‒﹣", ("MINUS", "-")),
    "**": ("POWER", "^"),
    "∪": ("BAR", "|"),
    "∖": ("EXCEPT", "except"),
    "\\": ("EXCEPT", "except"),
    **dict.fromkeys("∊⋿", ("_IN", "∈")),
    ":=": ("_EQUALS", "="),
    ";": (NEWLINE, "\n"),
}
_RELATIONS: dict[str, str | None] = {
    **dict.fromkeys(("<", "=<", "≦", "⩽", "≲", "≼", "=="), "≤"),
    **dict.fromkeys((">", "=>", "≧", "⩾", "≳", "≽"), "≥"),
    **dict.fromkeys(("!=", "<>", "≠"), None),
}
_WHY = {
    "==": "a constraint is an inequality; write `≤` and `≥` in two constraints for both",
    "<": "budgets are closed: the bound itself is allowed",
    ">": "budgets are closed: the bound itself is allowed",
}
_ORDER_SIGNS = {"0": "₀", "1": "₁", "2": "₂", "inf": "∞", "₀": "₀", "₁": "₁", "₂": "₂", "∞": "∞"}
_ORDER = r"_?\{?(?P<order>inf|[012∞₀₁₂])\}?(?P<squared>\^2|²)?"
_BARS = re.compile(r"\|\||[∥‖]")
_CLOSING_BAR = re.compile(rf"(?:\|\||[∥‖])(?:{_ORDER}(?!\w))?")
_SUM = re.compile(r"[∑Ʃ]_?\{|[∑Ʃ]|Σ[ \t]*\{|Σ_[ \t]+\{")
_SUPERSCRIPT = re.compile(r"[⁰¹²³⁴-⁹]+")
_QUOTED = re.compile(r"[“”„«'‘’`]([^“”„»'‘’`\"\r\n]*)[“”»'‘’`\"]")
_UNCLOSED = re.compile(r'"[^\r\n]*')
_FRACTION = re.compile(r"\.[0-9]+")
_LONG_SIGNS = re.compile(r"\*\*|:=|=<|=>|==|!=|<>|//")
_LINE_REST = re.compile(r"[^\r\n]*")


def near_miss(text: str, at: int, after_operand: bool, closes_norm: bool) -> tuple[list[Token], int, Diagnostic]:
    """Read the text at `at` as what was meant: its tokens, where to go on, and what to say.

    `after_operand`: a value ends just before it; `closes_norm`: and a norm is open, which a bar would close.
    """
    if match := _BARS.match(text, at):
        return _norm_bar(text, at, match[0], closes_norm)
    if match := _SUM.match(text, at):
        return _sum(text, at, match[0])
    if (match := _SUPERSCRIPT.match(text, at)) and after_operand:
        digits = normalize("NFKC", match[0])
        found = [token("POWER", "^", at), Token("NUMBER", digits, at, match.end(), ("NUMBER",))]
        message = f"a power is written `^{digits}`, not `{match[0]}`"
        return found, match.end(), error("P104", message, at, match.end(), fix=f"^{digits}")
    if match := _QUOTED.match(text, at):
        fix = f'"{match[1]}"'
        found = [Token("STRING", fix, at, match.end(), ("STRING",))]
        return found, match.end(), error("P104", 'a string stands in straight quotes `"…"`', at, match.end(), fix=fix)
    if match := _UNCLOSED.match(text, at):
        return _unclosed_string(match[0], at)
    if (match := _FRACTION.match(text, at)) and not after_operand:
        fix = "0" + match[0]
        found = [Token("NUMBER", fix, at, match.end(), ("NUMBER",))]
        return found, match.end(), error("P104", "a number starts with a digit", at, match.end(), fix=fix)
    return _sign(text, at)


def _norm_bar(text: str, at: int, bar: str, closes: bool) -> tuple[list[Token], int, Diagnostic]:
    if not closes:
        end = at + len(bar)
        found = [Token("_NORM_OPEN", "‖", at, end, ("_NORM_OPEN",))]
        return found, end, error("P104", f"a norm is written with `‖`, not `{bar}`", at, end, fix="‖")
    match = _CLOSING_BAR.match(text, at)
    assert match is not None
    order = match["order"]
    sign = "‖" + _ORDER_SIGNS[order or "2"] + ("²" if match["squared"] else "")
    found = [Token("NORM_CLOSE", sign, at, match.end(), ("NORM_CLOSE",))]
    if order is None:
        message = "a norm says which one it is: `‖w‖₀`, `‖w‖₁`, `‖w‖₂` or `‖w‖∞`"
        hint = "without a sign it is commonly ‖w‖₂; in ASCII: `norm0(w)`, `norm1(w)`, `norm2(w)`, `norminf(w)`"
        return found, match.end(), error("P104", message, at, match.end(), hint=hint, fix=sign)
    message = f"the norm is closed by `{sign}`, not `{match[0]}`"
    hint = "write `‖w‖₀` or `norm0(w)`"
    return found, match.end(), error("P104", message, at, match.end(), hint=hint, fix=sign)


def _sum(text: str, at: int, sign: str) -> tuple[list[Token], int, Diagnostic]:
    end = at + len(sign)
    if not sign.endswith("{"):
        message = f"a sum is written `Σ_{{l ∈ S}} e`, with the letter `Σ`, not `{sign}`"
        hint = "in ASCII: `sum(e for l in S)`"
        return [], end, error("P104", message, at, end, hint=hint, fix="Σ")
    message = f"a sum starts with `Σ_{{`, not `{sign}`"
    return [Token("_SUM_OPEN", "Σ_{", at, end, ("_SUM_OPEN",))], end, error("P104", message, at, end, fix="Σ_{")


def _unclosed_string(text: str, at: int) -> tuple[list[Token], int, Diagnostic]:
    end = at + len(text.rstrip())
    fix = f'{text.rstrip()}"' if "\\" not in text else None
    diagnostic = error("P108", 'this string is never closed by `"`', at, at + 1)
    found = [Token("STRING", f'{text.rstrip()}"', at, end, ("STRING",))] if fix else []
    return found, end, diagnostic


def _sign(text: str, at: int) -> tuple[list[Token], int, Diagnostic]:
    long = _LONG_SIGNS.match(text, at)
    sign = long[0] if long else text[at]
    end = at + len(sign)
    if sign in _RELATIONS:
        meant = _RELATIONS[sign]
        found = [Token("REL", meant or "≤", at, end, ("REL",))]
        if meant is None:
            message = f"`{sign}` is not a constraint: the sides of one are joined by `≤`, `≥` or `∈`"
            return found, end, error("P105", message, at, end)
        message = f"the sides of a constraint are joined by `≤` or `≥`, not `{sign}`"
        return found, end, error("P105", message, at, end, hint=_WHY.get(sign), fix=meant)
    if sign in _SIGNS:
        kind, meant = _SIGNS[sign]
        found = [Token(kind, meant, at, end, (kind,))]
        if kind == NEWLINE:
            return found, end, error("P104", "a statement ends with its line, not with `;`", at, end, fix="\n")
        return found, end, error("P104", f"write `{meant}`, not `{sign}`", at, end, fix=meant)
    if sign == "//":
        match = _LINE_REST.match(text, at)
        rest = match.end() if match else end
        return [], rest, error("P104", "a comment starts with `#`, not `//`", at, end, fix="#")
    if sign == ".":
        hint = 'select layers by a string: `net["fc1"]`'
        return [], end, error("P106", "after `.` comes the name of an attribute", at, end, hint=hint)
    return [], end, _unknown(sign, at)


def _unknown(sign: str, at: int) -> Diagnostic:
    plain = normalize("NFKC", sign)
    if plain != sign and plain.isascii() and plain.isprintable() and plain.strip():
        return error("P106", f"write `{plain}`, not the look-alike `{sign}`", at, at + 1, fix=plain)
    code = f"U+{ord(sign):04X}"
    if not sign.isprintable():
        called = character_name(sign, "").lower()
        message = f"the invisible character {code}{' (' + called + ')' if called else ''} has no place here"
        return error("P106", message, at, at + 1, fix="")
    return error("P106", f"the character `{sign}` has no meaning in the language", at, at + 1)
