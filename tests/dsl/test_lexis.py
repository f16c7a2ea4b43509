"""Names, numbers and words, and how fast a spec is read by a fresh process."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunelang.dsl.names import GREEK, KEYWORDS, RESERVED, canonical, is_identifier, to_unicode
from prunelang.dsl.numbers import NumberTooBig, read_number, write_number
from prunelang.dsl.tree import Number
from tests.dsl.strategies import numbers
from tests.golden_support import GOLDEN


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("κ", "kappa"),
        ("κ_fc", "kappa_fc"),
        ("µ", "mu"),
        ("μ1", "mu1"),
        ("𝜇", "mu"),
        ("w₁", "w1"),
        ("Σx", "Sigmax"),
        ("ς", "sigma"),
        ("ϵ", "epsilon"),
        ("naïve", "naïve"),
        ("ﬁlter", "filter"),
        ("π", "pi"),
        ("plain_2", "plain_2"),
    ],
)
def test_canonical_names(name: str, spelled: str) -> None:
    assert canonical(name) == spelled


@pytest.mark.parametrize(
    ("name", "shown"),
    [("kappa", "κ"), ("kappa_fc", "κ_fc"), ("w_mu2", "w_μ2"), ("alphabet", "alphabet"), ("Sigma", "Σ"), ("mux", "mux")],
)
def test_greek_letters_are_shown(name: str, shown: str) -> None:
    assert to_unicode(name) == shown


@given(st.text(max_size=10) | st.lists(st.sampled_from([*GREEK, *GREEK.values(), "_", "1", "x"])).map("".join))
def test_canonical_names_are_stable(name: str) -> None:
    once = canonical(name)
    if not is_identifier(once):
        return
    assert canonical(once) == once
    assert canonical(normalize("NFD", once)) == once
    assert canonical(to_unicode(once)) == once


def test_reserved_words() -> None:
    assert {"with", "for", "until", "from", "in", "except", "forall", "language", "solve"} <= KEYWORDS
    assert {"epoch", "step", "k", "p", "lr", "base", "train", "validation", "test", "pi"} <= RESERVED - KEYWORDS


@given(numbers())
def test_numbers_are_exact_and_canonical(number: Number) -> None:
    text = write_number(number)
    value, unit = read_number(text)
    assert (value, unit) == (number.value, number.unit)


@given(st.integers(0, 10**9), st.integers(0, 6), st.integers(-30, 30))
def test_a_literal_is_the_decimal_number_that_it_shows(digits: int, places: int, exponent: int) -> None:
    text = f"{digits}"
    whole, part = (text[:-places] or "0", text[-places:]) if places else (text, "0")
    value, unit = read_number(f"{whole}.{part}e{exponent}")
    assert value == (Fraction(f"{whole}.{part}")) * Fraction(10) ** exponent
    assert unit is None


@pytest.mark.parametrize(
    ("text", "code"), [("1" * 19, "P123"), ("1e201", "P124"), ("1e-201", "P124"), ("12e200", "P124")]
)
def test_numbers_past_the_limits(text: str, code: str) -> None:
    with pytest.raises(NumberTooBig) as caught:
        read_number(text)
    assert caught.value.code == code


def test_writing_refuses_what_no_literal_can_be() -> None:
    for value in (Fraction(1, 3), Fraction(-1)):
        with pytest.raises(ValueError, match="decimal"):
            write_number(Number(value))


STARTUP = """
import sys, time
start = time.process_time()
from prunelang.dsl.parser import parse
text = open(sys.argv[1], encoding="utf-8").read()
parse(text)
print(time.process_time() - start)
heavy = {"lark", "difflib", "torch", "sympy", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""


def test_a_fresh_process_parses_a_spec_in_less_than_100_ms() -> None:
    """Processor time, the least of five: imports, tables and a spec of twenty lines."""
    file = GOLDEN / "good" / "lc_lenet300.prune"
    times = [
        float(subprocess.run([sys.executable, "-c", STARTUP, file], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    assert min(times) < 0.1, times
