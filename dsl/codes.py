"""The codes of syntax errors, which never change their meaning."""

from __future__ import annotations

CODES: dict[str, str] = {
    "P100": "something else was expected here",
    "P101": "a word that means nothing here, most often a misspelt one",
    "P102": "a bracket or norm that is never closed",
    "P103": "a bracket that closes another kind of bracket",
    "P104": "a sign that looks right and is another one",
    "P105": "sides of a constraint that are joined by something else than `≤`, `≥` or `∈`",
    "P106": "a character without a meaning in the language",
    "P107": "a malformed number or an unknown unit",
    "P108": "a string that is never closed, or an unknown escape in one",
    "P109": "a reserved word that is declared, or used as a value",
    "P110": "a constructor without parentheses",
    "P111": "a missing operator, comma or colon",
    "P112": "`subject to` without a constraint",
    "P113": "something that cannot be a name",
    "P114": "`for` in a call of something else than `sum`",
    "P115": "a norm with other arguments than one set of weights",
    "P116": "clauses of a stage in the wrong order, or twice",
    "P117": "a constraint outside `subject to`",
    "P120": "a text that is too large",
    "P121": "too many tokens",
    "P122": "brackets that are nested too deeply",
    "P123": "a number with too many digits",
    "P124": "a number that is too large or too small",
    "P125": "an expression that is too long or nested too deeply",
    "P126": "bytes that are not UTF-8",
    "P127": "a control character",
    "P128": "a line that ends with a carriage return alone",
    "P129": "too many errors: only the first are shown",
    "P130": "a version of the language that is not known",
    "P131": "`language` in another place than the first",
}
"""Code → what it is about."""
