"""Canonical names: ``κ_fc``, ``𝜅_fc`` and ``kappa_fc`` are one identifier, kept as ``kappa_fc``.

A name is NFKC-normalised (the micro sign µ becomes μ), then every Greek letter is spelled out. The Unicode style goes
the other way: a part of a name that spells a Greek letter (``kappa_fc``, ``mu1``) is shown as that letter.
"""

from __future__ import annotations

import re
from functools import cache
from unicodedata import normalize

_LETTERS = "αβγδεζηθικλμνξοπρστυφχψω"
_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu "
    "nu xi omicron pi rho sigma tau upsilon phi chi psi omega"
)

GREEK: dict[str, str] = dict(zip(_LETTERS, _NAMES.split(), strict=True))
"""Greek letter → its English name; capitals are capitalised (``Σ`` → ``Sigma``)."""
GREEK |= {letter.upper(): name.capitalize() for letter, name in GREEK.items()}
_SPELL = str.maketrans(GREEK | {"ς": "sigma"})
_LETTER = {name: letter for letter, name in GREEK.items() if name.lower() != "omicron"}


@cache
def _spelled() -> re.Pattern[str]:
    return re.compile(r"(?<![A-Za-z0-9])(?:" + "|".join(sorted(_LETTER, key=len, reverse=True)) + r")(?![A-Za-z])")


CLOCKS = frozenset({"epoch", "step", "k", "p", "lr"})
SPLITS = frozenset({"train", "validation", "test"})
STATEMENT_WORDS = (
    *("language", "model", "data", "freeze", "let", "param", "minimize", "maximize", "subject"),
    *("pretrain", "finetune", "solve", "prune", "report"),
)
CLAUSE_WORDS = ("with", "for", "until", "from", "in", "except", "forall")
KEYWORDS = frozenset({*STATEMENT_WORDS, *CLAUSE_WORDS, "true", "false"})
"""Words that are never a name; only a label, an option or an attribute may be spelled like one."""
RESERVED = KEYWORDS | CLOCKS | SPLITS | {"base", "pi"}
"""Words that no `model`, `data`, `let`, `param`, `∀` or `Σ` may declare."""


def canonical(name: str) -> str:
    """The canonical spelling of an identifier; idempotent."""
    if name.isascii():
        return name
    return normalize("NFKC", name).translate(_SPELL)


def is_identifier(name: str) -> bool:
    """Whether a canonical name is letters, digits and ``_`` alone (NFKC may bring other signs: ``½`` → ``1⁄2``)."""
    return name.isidentifier()


def to_unicode(name: str) -> str:
    """`name` with Greek letters where it spells them out; ``canonical(to_unicode(n)) == n`` for canonical n."""
    return _spelled().sub(lambda m: _LETTER[m[0]], name)
