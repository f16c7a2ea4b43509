"""Number literals: exact values, and a unit as part of the literal (``5%``, ``30 MMACs``, ``1e-4``)."""

from __future__ import annotations

import re
from fractions import Fraction

from prunelang.dsl.tree import Number

MAX_DIGITS = 18
"""Digits of a literal, leading zeros and exponent not counted: an integer of so many fits in 64 bits."""
MAX_EXPONENT = 200
"""A literal other than 0 lies between 1e-200 and 1e201: it is a finite float, and so is it in any unit."""

COUNT_UNITS = ("k", "M", "G")
BYTE_UNITS = ("B", "KB", "MB", "GB", "KiB", "MiB", "GiB", "bits")
OPERATION_UNITS = tuple(p + u for u in ("MACs", "FLOPs", "SynOps") for p in ("", "k", "M", "G", "T", "P"))
TIME_UNITS = ("epochs", "epoch", "steps", "step", "s", "ms")
UNITS = ("%", "pp", *COUNT_UNITS, *BYTE_UNITS, *OPERATION_UNITS, *TIME_UNITS)

_PARTS = re.compile(r"([0-9_]+)(?:\.([0-9_]+))?(?:[eE]([+-]?[0-9]+))?[ \t]*(.*)", re.DOTALL)


class NumberTooBig(ValueError):
    """`code` says which limit a literal passes, and the message says so in words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_number(text: str) -> tuple[Fraction, str | None]:
    """The exact value of a literal, in the unit written, and the unit. Raises `NumberTooBig` past the limits."""
    match = _PARTS.fullmatch(text)
    assert match is not None, text
    whole, part, exponent, unit = match.groups()
    whole, part = whole.replace("_", ""), (part or "").replace("_", "")
    digits = (whole + part).lstrip("0")
    if len(digits) > MAX_DIGITS:
        raise NumberTooBig("P123", f"a number has at most {MAX_DIGITS} digits; this one has {len(digits)}")
    scale = (int(exponent) if exponent and len(exponent) <= MAX_DIGITS else 10**MAX_DIGITS * bool(exponent)) - len(part)
    if not digits:
        return Fraction(0), unit or None
    if abs(scale + len(digits) - 1) > MAX_EXPONENT:
        raise NumberTooBig("P124", f"a number lies between 1e-{MAX_EXPONENT} and 1e{MAX_EXPONENT}, or is 0")
    value = Fraction(int(digits) * 10**scale) if scale >= 0 else Fraction(int(digits), 10**-scale)
    return value, unit or None


def write_number(number: Number) -> str:
    """The canonical literal of a value that one can have: ``0.1``, ``9e-5``, ``266_200``, ``5%``, ``30 MMACs``."""
    text = _decimal(number.value)
    if number.unit is None:
        return text
    return text + number.unit if number.unit in ("%", *COUNT_UNITS) else f"{text} {number.unit}"


def _decimal(value: Fraction) -> str:
    digits, exponent = _scientific(value)
    if 0 <= exponent <= 6 and len(digits) + exponent <= MAX_DIGITS:
        return _underscored(digits + "0" * exponent)
    point = len(digits) + exponent  # value = 0.digits · 10^point
    if exponent < 0 and 0 < point:
        return f"{_underscored(digits[:point])}.{digits[point:]}"
    if exponent < 0 and -2 <= point:
        return "0." + "0" * -point + digits
    mantissa = digits[0] + ("." + digits[1:] if digits[1:] else "")
    return f"{mantissa}e{point - 1}"


def _scientific(value: Fraction) -> tuple[str, int]:
    """`(digits, e)` with ``value = int(digits) · 10^e`` and no trailing zero in digits (``("0", 0)`` for zero)."""
    denominator, twos, fives = value.denominator, 0, 0
    while denominator % 2 == 0:
        denominator, twos = denominator // 2, twos + 1
    while denominator % 5 == 0:
        denominator, fives = denominator // 5, fives + 1
    if denominator != 1 or value < 0:
        raise ValueError(f"{value} is not a non-negative decimal number")
    exponent = -max(twos, fives)
    digits = str(int(value * 10**-exponent))
    stripped = digits.rstrip("0")
    return (stripped, exponent + len(digits) - len(stripped)) if stripped else ("0", 0)


def _underscored(digits: str) -> str:
    return f"{int(digits):_}" if len(digits) > 4 else digits


def grouped(n: int) -> str:
    """Digits in groups of three, for people: ``266 200``."""
    return f"{n:,}".replace(",", " ")
