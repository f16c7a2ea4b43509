"""Exact sums and numbers against plain Fraction arithmetic, one entry at a time."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunelang.runtime import exact
from prunelang.runtime.exact import Value, entropy, largest, number, shown, sums, taken, written


def naive_sums(groups: Any, power: int) -> list[Fraction]:
    return [sum((abs(Fraction(float(x))) ** power for x in row), Fraction(0)) for row in groups]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("power", [1, 2])
def test_sums_lose_nothing(dtype: Any, power: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    spread = rng.integers(-6, 4, (9, 37))
    groups = (rng.standard_normal((9, 37)) * 10.0**spread).astype(dtype)
    groups[0] = 0
    groups[1, :6] = [info.smallest_subnormal, -info.smallest_subnormal, info.max, info.min, info.tiny, -0.0]
    assert sums(groups, power) == naive_sums(groups, power)
    assert largest(groups) == Fraction(float(info.max))
    assert sums(groups.T, power) == naive_sums(groups.T, power)  # not contiguous
    for block in (1, 10, 37, 80):  # rows and columns cut into pieces
        monkeypatch.setattr(exact, "BLOCK", block)
        assert sums(groups, power) == naive_sums(groups, power)


def test_sums_of_nothing_and_of_integers() -> None:
    assert sums(np.zeros((0, 3), np.float32), 1) == []
    assert sums(np.zeros((3, 0), np.float32), 2) == [0, 0, 0]
    assert sums(np.array([[-3, 4], [0, 2**62]]), 2) == [25, 2**124]
    assert largest(np.array([-7, 3])) == 7
    assert largest(np.zeros(0)) == 0


def test_many_equal_entries_add_up() -> None:
    ones = np.full((1, 3_000_000), 1 + 2**-23, np.float32)
    assert sums(ones, 2) == [3_000_000 * Fraction(2**23 + 1, 2**23) ** 2]


fractions = st.fractions(min_value=0, max_value=10**9, max_denominator=10**9)


@given(fractions, fractions)
def test_roots_are_decided_by_their_squares(square: Fraction, bound: Fraction) -> None:
    root = Value.root(square)
    assert root.low**2 <= square <= root.high**2
    assert root.high - root.low <= Fraction(1, 2**200)
    assert root.at_most(bound) == (square <= bound**2)
    assert root.at_least(bound) == (square >= bound**2)
    assert Value.root(bound**2) == Value.exact(bound)
    assert root.to_power(2) == Value.exact(square)
    assert root.to_power(3).at_most(bound) == (square**3 <= bound**2)


def test_a_root_of_something_tiny_keeps_its_digits() -> None:
    assert shown(Value.root(Fraction(2, 10**80)).middle) == "1.4142135623730950488E-40"
    assert Value.root(Fraction(2)).at_most(Fraction(-1)) is False
    assert Value.root(Fraction(2)).at_least(Fraction(-1)) is True


def test_enclosures_decide_what_they_can() -> None:
    value = Value(Fraction(1), Fraction(2))
    assert [value.at_most(Fraction(b)) for b in ("1/2", "3/2", "2")] == [False, None, True]
    assert [value.at_least(Fraction(b)) for b in ("1", "3/2", "5/2")] == [True, None, False]
    assert (value + value.times(Fraction(-2))) == Value(Fraction(-3), Fraction(0))


@given(st.lists(st.integers(min_value=0, max_value=40), min_size=1, max_size=30))
def test_entropy(counts: list[int]) -> None:
    total = sum(counts)
    plain = -sum(c / total * math.log2(c / total) for c in counts if c)
    found = entropy(counts)
    assert float(found.middle) == pytest.approx(plain, abs=1e-12)
    assert found.high - found.low < Fraction(1, 10**40)


def test_entropy_of_powers_of_two_is_exact() -> None:
    assert entropy([4, 4, 4, 4]) == Value.exact(2)
    assert entropy([8, 4, 2, 1, 1]) == Value.exact(Fraction(15, 8))
    assert entropy([]) == entropy([5]).times(Fraction(0)) == Value.exact(0)
    assert entropy(Counter("aaab").values()).at_most(Fraction(1)) is True


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.fractions() | st.decimals(allow_nan=False, allow_infinity=False, places=12).map(Fraction))
def test_what_is_written_is_read_exactly(value: Fraction) -> None:
    text = written(value)
    assert number(text) == value
    assert isinstance(text, int) == (value.denominator == 1)
    assert abs(Fraction(shown(value)) - value) <= abs(value) / 10**19


def test_written_forms() -> None:
    assert [written(Fraction(x)) for x in ("5", "-1/8", "1/3", "1747/1797", "0.05", "-3")] == [
        5, "-0.125", "1/3", "1747/1797", "0.05", -3,
    ]  # fmt: skip
    assert shown(Fraction(1, 3)) == "0.33333333333333333333"
    assert written(Fraction(1, 2**30)) == "1/1073741824"
    assert taken(0.1) == Fraction(1, 10)
    assert taken(7) == taken(Fraction(7)) == taken(7.0)


@pytest.mark.parametrize("bad", [True, None, 0.5, "nan", "1/0", "2/4", "0.50", "1e3", " 5", "5", [1], "abc"])
def test_what_is_not_written_so_is_no_number(bad: object) -> None:
    with pytest.raises(ValueError, match="is not"):
        number(bad)


def test_no_number_is_not_finite() -> None:
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="Invalid literal"):
            taken(bad)
