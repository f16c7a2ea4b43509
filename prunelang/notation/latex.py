"""`prune explain --format latex`: the problem as an `align*` of amsmath, what its symbols are, and how it is solved."""

from __future__ import annotations

import re

from prunelang.compiler.plan import Plan
from prunelang.dsl.names import GREEK
from prunelang.notation import formula as f
from prunelang.notation.statement import Condition, stated

GREEK_COMMANDS = {letter: rf"\{word}" for letter, word in GREEK.items()} | {
    # letters that look as Latin ones do have no command
    **{letter: rf"\mathrm{{{latin}}}" for letter, latin in zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧ", "ABEZHIKMNOPTX", strict=True)},
    "ο": "o",
    "Υ": r"\Upsilon",
    "ς": r"\varsigma",
}
SIGNS = {
    "≤": r"\le",
    "≥": r"\ge",
    "∈": r"\in",
    "∀": r"\forall",
    "∑": r"\sum",
    "·": r"\cdot",
    "×": r"\times",
    "−": "-",
    "±": r"\pm",
    "∖": r"\setminus",
    "‖": r"\|",
    "∞": r"\infty",
    "|": r"\mid",
    "…": r"\dots",
    "→": r"\to",
}
SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789", strict=True))
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "`": r"\textasciigrave{}",
    '"': "''",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\N{NARROW NO-BREAK SPACE}": r"\,",
    "\N{NO-BREAK SPACE}": "~",
}
GROUPS = re.compile(r"(?<=\d) (?=\d{3})")
"""The blanks of ``17 024``, where no line may break."""
FENCES = {"‖": (r"\left\|", r"\right\|"), "{": (r"\left\{", r"\right\}")}


def latex(plan: Plan) -> str:
    """A fragment to be set in any document that uses amsmath."""
    s = stated(plan)
    on = f" && \\text{{on {escaped(', '.join(s.splits))}}}" if s.splits else ""
    rows = [rf"  \{s.sense}_{{W}}\quad & {math(s.objective)}{on}"]
    for i, c in enumerate(s.conditions):
        head = r"  \text{subject to}\quad" if i == 0 else "  "
        rows.append(f"{head} & {math(c.formula)} && {_numbers(c)}")
    parts = [f"% {plan.source.name}: needs amsmath".replace("\n", " "), r"\begin{align*}"]
    parts += [row + (r" \\" if i < len(rows) - 1 else "") for i, row in enumerate(rows)]
    parts += [r"\end{align*}", "where"]
    items = [
        f"${math(symbol)}$" + ("" if what in ("param", "let") else f" is {escaped(what)}") for symbol, what in s.where
    ]
    parts += [f"  {item}{',' if i < len(items) - 1 else '.'}" for i, item in enumerate(items)]
    if s.stages:
        parts.append(r"\begin{description}")
        parts += [rf"  \item[{escaped(kind)}] {escaped(what)}" for kind, what in s.stages]
        parts.append(r"\end{description}")
    return "\n".join(parts) + "\n"


def _numbers(c: Condition) -> str:
    """The numbers of a constraint, a line each where a quantifier stands for several."""
    said = [(label or c.label, text) for label, text in c.numbers]
    lines = [rf"\text{{{escaped(f'{label}: {text}' if label else text)}}}" for label, text in said]
    lines += [rf"\text{{and {c.left_out} more}}"] if c.left_out else []
    if len(lines) == 1:
        return lines[0]
    return r"\begin{aligned}[t] & " + r" \\ & ".join(lines) + r" \end{aligned}"


def math(node: f.Formula) -> str:
    """A formula inside math mode."""
    match node:
        case f.Symbol(text):
            return GREEK_COMMANDS.get(text, text) if text in GREEK_COMMANDS or text.isascii() else rf"\text{{{text}}}"
        case f.Word(text, function):
            return rf"\operatorname{{{_word(text)}}}" if function else rf"\mathrm{{{_word(text)}}}"
        case f.Number(text):
            return _number(text)
        case f.Sign(text):
            return SIGNS.get(text, text)
        case f.Row(parts):
            return " ".join(math(p) for p in parts)
        case f.Sub(base, below):
            return f"{{{math(base)}}}_{{{math(below)}}}"
        case f.Sup(base, above):
            return f"{{{math(base)}}}^{{{math(above)}}}"
        case f.Under(base, below):
            return f"{math(base)}_{{{math(below)}}}"
        case f.Fraction(above, below):
            return rf"\frac{{{math(above)}}}{{{math(below)}}}"
        case f.Fence(opening, body, closing):
            left, right = FENCES.get(opening, (rf"\left{opening}", rf"\right{closing}"))
            return f"{left} {math(body)} {right}"


def _word(text: str) -> str:
    r"""A name inside ``\mathrm``, where text is math: letters as they are, all else through ``\text``."""
    plain = text.isascii() and text.isalnum()
    return text if plain else rf"\text{{{escaped(text)}}}"


def _number(text: str) -> str:
    digits, _, unit = text.replace("%", " %").partition(" ")
    if text == "∞":
        return r"\infty"
    try:
        float(digits)
    except ValueError:
        return rf"\text{{{escaped(text)}}}"
    mantissa, e, exponent = digits.partition("e")
    made = rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if e else mantissa
    return made + (rf"\,\text{{{escaped(unit.strip())}}}" if unit.strip() else "")


def escaped(text: str) -> str:
    """Text outside math mode: nothing of it is a command; signs of mathematics become it."""
    made = []
    for c in GROUPS.sub("\N{NARROW NO-BREAK SPACE}", text):
        if c in SPECIAL:
            made.append(SPECIAL[c])
        elif c in SUBSCRIPTS:
            made.append(f"$_{SUBSCRIPTS[c]}$")
        elif c in SUPERSCRIPTS:
            made.append(f"$^{SUPERSCRIPTS[c]}$")
        elif c in GREEK_COMMANDS or (c in SIGNS and c != "|"):
            made.append(f"${GREEK_COMMANDS.get(c) or SIGNS[c]}$")
        else:
            made.append(" " if c.isspace() else c if c.isprintable() else "")
    return "".join(made)
