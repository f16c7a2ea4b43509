"""Units: what a number with its unit is worth, and how an amount is written back."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from prunelang.compiler.schedule import number

_SI: Final = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_PLAIN: Final = {"k": 10**3, "M": 10**6, "G": 10**9}
_FIXED: Final[dict[str, tuple[str, Fraction]]] = {
    "%": ("%", Fraction(1, 100)),
    "pp": ("pp", Fraction(1, 100)),
    "B": ("B", Fraction(1)),
    "bits": ("B", Fraction(1, 8)),
    "s": ("s", Fraction(1)),
    "ms": ("s", Fraction(1, 1000)),
    "epoch": ("epochs", Fraction(1)),
    "epochs": ("epochs", Fraction(1)),
    "step": ("steps", Fraction(1)),
    "steps": ("steps", Fraction(1)),
    **{unit: ("", Fraction(scale)) for unit, scale in _PLAIN.items()},
    **{f"{p}B": ("B", Fraction(_SI[p])) for p in ("K", "M", "G")},
    **{f"{p}iB": ("B", Fraction(1024 ** (i + 1))) for i, p in enumerate(("K", "M", "G"))},
    **{
        f"{p}{unit}": (unit, Fraction(scale))
        for p, scale in _SI.items()
        if p != "K"
        for unit in ("MACs", "FLOPs", "SynOps")
    },
}
OPERATIONS: Final = ("MACs", "FLOPs", "SynOps")
UNIT_WORDS: Final = {
    "": "a plain number",
    "%": "a percentage",
    "pp": "percentage points",
    "B": "bytes",
    "s": "seconds",
    "nats": "nats",
    "bits": "bits",
}


def unit_of(text: str | None) -> tuple[str, Fraction] | None:
    """The dimension and the scale of a unit as written; None for one that the language does not have."""
    return ("", Fraction(1)) if text is None else _FIXED.get(text)


def unit_words(unit: str) -> str:
    return UNIT_WORDS.get(unit, unit)


def show(value: Fraction, unit: str) -> str:
    """An amount as a spec would write it: ``5%``, ``30 MMACs``, ``100 KB``, ``13310``."""
    if unit == "%":
        return f"{number(value * 100)}%"
    if unit == "pp":
        return f"{number(value * 100)} pp"
    if unit in OPERATIONS:
        return _scaled(value, unit, ("G", "M", "k"))
    if unit == "B":
        return _scaled(value, unit, ("G", "M", "K"))
    return f"{number(value)} {unit}" if unit else number(value)


def _scaled(value: Fraction, unit: str, prefixes: tuple[str, ...]) -> str:
    """With the largest prefix that leaves a short decimal number."""
    for prefix in prefixes:
        scaled = value / _SI[prefix]
        if abs(scaled) >= 1 and (scaled * 1000).denominator == 1:
            return f"{number(scaled)} {prefix}{unit}"
    return f"{number(value)} {unit}"
