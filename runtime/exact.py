"""Exact numbers: sums of floating-point entries without rounding, roots that are compared by their squares, and text.

A float is ``m · 2^e`` with a small integer m. Entries are added up by exponent, their mantissas cut into limbs of 12
bits, so that every partial sum is an integer far below 2⁵³: NumPy adds millions a second and no bit is lost.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Number: TypeAlias = int | str
"""A number in JSON: an integer as such, any other as a decimal or as ``"p/q"``, never as a float."""

LIMB = 12  # bits
BLOCK = 1 << 20  # entries at a time: below 2²⁹, where sums of squared limbs would pass 2⁵³
FORM = re.compile(r"-?[0-9]+(\.[0-9]+|/0*[1-9][0-9]*)?")  # no exponent: 1e999999999 is a short text and a long number
LONGEST = 2000  # characters of a number
DIGITS = 20  # significant digits of numbers that have no short decimal
ROOT_BITS = 256  # of an enclosed root; decisions are taken on its square
LOG_DIGITS = 60
LOG_ERROR = Fraction(1, 10**45)  # of an entropy, with LOG_DIGITS digits in every step


@dataclass(frozen=True, slots=True)
class Value:
    """A number between `low` and `high`: exact where they are equal, or where it is the root of `square`."""

    low: Fraction
    high: Fraction
    square: Fraction | None = None

    @classmethod
    def exact(cls, value: Fraction | int) -> Value:
        return cls(Fraction(value), Fraction(value))

    @classmethod
    def root(cls, square: Fraction) -> Value:
        """√square for square ≥ 0; exact where it is rational."""
        p, q = square.numerator, square.denominator
        root = Fraction(math.isqrt(p), math.isqrt(q))
        if root * root == square:
            return cls(root, root)
        scale = 1 << (ROOT_BITS + max(0, q.bit_length() - p.bit_length()) // 2)
        low = Fraction(math.isqrt(p * scale * scale // q), scale)
        return cls(low, low + Fraction(1, scale), square)

    def __add__(self, other: Value) -> Value:
        return Value(self.low + other.low, self.high + other.high)

    def times(self, factor: Fraction) -> Value:
        low, high = sorted((self.low * factor, self.high * factor))
        return Value(low, high)

    def to_power(self, power: int) -> Value:
        """For values ≥ 0 and power ≥ 1."""
        if self.square is None:
            return Value(self.low**power, self.high**power)
        return Value.root(self.square**power) if power % 2 else Value.exact(self.square ** (power // 2))

    def at_most(self, bound: Fraction) -> bool | None:
        """Whether it is ≤ bound; None where the enclosure is too wide to tell."""
        if self.square is not None:
            return bound >= 0 and self.square <= bound * bound
        return True if self.high <= bound else False if self.low > bound else None

    def at_least(self, bound: Fraction) -> bool | None:
        """Whether it is ≥ bound; None where the enclosure is too wide to tell."""
        if self.square is not None:
            return bound <= 0 or self.square >= bound * bound
        return True if self.low >= bound else False if self.high < bound else None

    @property
    def middle(self) -> Fraction:
        return (self.low + self.high) / 2


# ── sums ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def sums(groups: Array, power: int) -> list[Fraction]:
    """``Σ_j |a_ij|^power`` of every row i of a matrix, power 1 or 2, without rounding."""
    if groups.dtype.kind != "f":
        return [sum((Fraction(abs(int(x))) ** power for x in row), Fraction(0)) for row in groups]
    mantissa_bits = np.finfo(groups.dtype).nmant
    least = 1 - (1 << (8 * groups.dtype.itemsize - mantissa_bits - 2)) + 1 - mantissa_bits  # exponent of a subnormal
    totals = [0] * len(groups)
    for first, block in _blocks(groups):
        for row, amount in _block_sums(block, power, mantissa_bits):
            totals[first + row] += amount
    return [Fraction(t, 1 << (-power * least)) for t in totals]


def largest(array: Array) -> Fraction:
    """max |a|, 0 of nothing."""
    if not array.size:
        return Fraction(0)
    if array.dtype.kind != "f":
        return Fraction(max(abs(int(array.max())), abs(int(array.min()))))
    magnitude = _bits(array) & np.array((1 << (8 * array.dtype.itemsize - 1)) - 1, f"u{array.dtype.itemsize}")
    return Fraction(float(magnitude.max().reshape(1).view(array.dtype)[0]))  # bits are ordered as magnitudes are


def entropy(counts: Iterable[int]) -> Value:
    """``log₂ N − (1/N) Σ_v n_v log₂ n_v`` of values that occur n_v times, ``Σ n_v = N``: bits per entry."""
    times = Counter(c for c in counts if c)
    total = sum(c * m for c, m in times.items())
    if total == 0:
        return Value.exact(0)
    if all(n & (n - 1) == 0 for n in (total, *times)):
        weighted = sum(m * c * (c.bit_length() - 1) for c, m in times.items())
        return Value.exact(total.bit_length() - 1 - Fraction(weighted, total))
    with localcontext() as context:
        context.prec = LOG_DIGITS
        nats = sum((m * c * Decimal(c).ln() for c, m in times.items()), Decimal(0))
        bits = Fraction((Decimal(total).ln() - nats / total) / Decimal(2).ln())
    return Value(bits - LOG_ERROR, bits + LOG_ERROR)


def _bits(array: Array) -> Array:
    return np.asarray(array, order="C").view(f"u{array.dtype.itemsize}")


def _blocks(groups: Array) -> Iterator[tuple[int, Array]]:
    """Pieces of at most BLOCK entries, each with the number of its first row."""
    rows, columns = groups.shape
    width = min(columns, BLOCK)
    height = max(1, BLOCK // max(width, 1))
    for first in range(0, rows, height):
        for left in range(0, columns, max(width, 1)):
            yield first, groups[first : first + height, left : left + width]


def _block_sums(block: Array, power: int, mantissa_bits: int) -> Iterator[tuple[int, int]]:
    """(row, amount) pairs to add up, in units of the least subnormal to the power."""
    bits = _bits(block).astype(np.uint64)
    mantissa = bits & np.uint64((1 << mantissa_bits) - 1)
    field = (bits >> np.uint64(mantissa_bits)).astype(np.int64) & (
        (1 << (8 * block.dtype.itemsize - mantissa_bits - 1)) - 1
    )
    mantissa |= np.where(field > 0, np.uint64(1 << mantissa_bits), np.uint64(0))
    shift = np.maximum(field, 1) - 1  # value = mantissa · 2^shift, in units of the least subnormal
    base, span = int(shift.min()), int(shift.max() - shift.min()) + 1
    key = (np.arange(len(block))[:, None] * span + (shift - base)).reshape(-1)
    limbs = [
        ((mantissa >> np.uint64(at)) & np.uint64((1 << LIMB) - 1)).astype(np.float64).reshape(-1)
        for at in range(0, mantissa_bits + 1, LIMB)
    ]
    products = (
        [(limb, LIMB * i, 1) for i, limb in enumerate(limbs)]
        if power == 1
        else [(a * b, LIMB * (i + j), 1 + (i != j)) for i, a in enumerate(limbs) for j, b in enumerate(limbs) if i <= j]
    )
    for product, offset, twice in products:
        summed = np.bincount(key, product, minlength=len(block) * span)
        for at in np.flatnonzero(summed):
            row, step = divmod(int(at), span)
            yield row, twice * int(summed[at]) << (power * (base + step) + offset)


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def written(value: Fraction | int) -> Number:
    """`value` without loss: an integer, a decimal where there is a short one, else ``"p/q"``."""
    value = Fraction(value)
    if value.denominator == 1:
        return value.numerator
    return _decimal(value) or f"{value.numerator}/{value.denominator}"


def shown(value: Fraction | int) -> Number:
    """`value` as `written` where that is short, else rounded to DIGITS significant digits."""
    value = Fraction(value)
    if value.denominator == 1:
        return value.numerator
    short = _decimal(value)
    if short:
        return short
    with localcontext() as context:
        context.prec = DIGITS
        return str(Decimal(value.numerator) / Decimal(value.denominator))


def taken(value: Fraction | int | float) -> Fraction:
    """A number handed in; a float stands for its shortest decimal. Raises ValueError where it is not finite."""
    return Fraction(repr(float(value))) if isinstance(value, float) else Fraction(value)


def number(text: object) -> Fraction:
    """What `written` wrote. Raises ValueError for anything else."""
    plain = type(text) is int or (isinstance(text, str) and len(text) <= LONGEST and FORM.fullmatch(text))
    if not plain:
        raise ValueError(f"{text!r:.80} is not an exact number")
    value = Fraction(cast(Number, text))
    if written(value) != text:
        raise ValueError(f"{text!r:.80} is not written as {written(value)!r:.80}")
    return value


def _decimal(value: Fraction) -> str:
    """The exact decimal of at most DIGITS digits, or nothing."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
        if twos > 4 * DIGITS:
            return ""
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    digits = abs(value.numerator) * 10**places // value.denominator
    if rest != 1 or len(str(digits)) > DIGITS or places > DIGITS:
        return ""
    sign = "-" if value < 0 else ""
    text = str(digits).rjust(places + 1, "0")
    return f"{sign}{text[:-places]}.{text[-places:]}"
