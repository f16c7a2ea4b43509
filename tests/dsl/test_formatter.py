"""Formatting loses nothing, changes nothing twice, and looks as the language reference shows it."""

from __future__ import annotations

import os
import random
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunelang.dsl.diagnostics import SpecError
from prunelang.dsl.formatter import Style, format_expr, format_spec
from prunelang.dsl.parser import parse
from prunelang.dsl.tree import Expr, Let, Number, Spec
from tests.dsl.strategies import expressions, specs
from tests.golden_support import GOLDEN

GOOD = sorted((GOLDEN / "good").glob("*.prune"))
styles = st.sampled_from(["unicode", "ascii"])
FUZZ = int(os.environ.get("PRUNELANG_FUZZ", "1500"))
many = settings(
    max_examples=max(1, FUZZ // 15), suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def expression(text: str) -> Expr:
    (let,) = parse(f"let x = {text}").statements
    assert isinstance(let, Let)
    return let.value


@many
@given(specs(), styles, st.integers(20, 140))
def test_what_is_printed_parses_to_the_same_tree(spec: Spec, style: Style, width: int) -> None:
    text = format_spec(spec, style=style, width=width)
    assert parse(text) == spec
    assert format_spec(text, style=style, width=width) == text


@many
@given(expressions, styles)
def test_an_expression_is_one_line_that_parses_back(expr: Expr, style: Style) -> None:
    text = format_expr(expr, style)
    assert "\n" not in text
    assert expression(text) == expr


@many
@given(specs(), st.randoms(use_true_random=False), styles)
def test_comments_are_kept_wherever_they_stand(spec: Spec, rng: random.Random, style: Style) -> None:
    lines = format_spec(spec, width=30).splitlines()
    written = []
    commented = []
    for i, line in enumerate(lines):
        if rng.random() < 0.3:
            written.append(f"# own {i}")
            commented.append(" " * rng.randrange(9) + written[-1])
        if rng.random() < 0.3:
            written.append(f"# end {i}")
            line += " " * rng.randrange(3) + written[-1]
        commented.extend([line] + [""] * rng.choice([0, 0, 0, 1, 3]))
    text = "\n".join(commented)
    formatted = format_spec(text, style=style)
    assert parse(formatted) == spec
    assert sorted(c.text for c in parse(formatted).comments) == sorted(written)
    assert format_spec(formatted, style=style) == formatted
    assert "\n\n\n" not in formatted


@pytest.mark.parametrize("file", GOOD, ids=lambda f: f.stem)
@pytest.mark.parametrize("style", ["unicode", "ascii"])
def test_the_corpus_round_trips(file: Path, style: Style) -> None:
    text = file.read_bytes().decode("utf-8")
    tree = parse(text, file.name)
    formatted = format_spec(text, style=style)
    assert parse(formatted) == tree
    assert format_spec(formatted, style=style) == formatted
    assert [c.text for c in parse(formatted).comments] == [c.text for c in tree.comments]
    other: Style = "ascii" if style == "unicode" else "unicode"
    assert format_spec(format_spec(formatted, style=other), style=style) == formatted
    if style == "ascii":
        code = "".join(line.split("#")[0] for line in formatted.splitlines())
        assert not set(code) & set("‖∀∈Σ≤≥·×²₀₁₂∞αβγδεζηθικλμνξοπρστυφχψω")


def test_the_layout_of_the_language_reference_is_canonical() -> None:
    text = (GOLDEN / "good" / "lc_lenet300.prune").read_text(encoding="utf-8")
    assert format_spec(text) == text
    assert format_spec(parse(text)) == text


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("(a + b) + c", "a + b + c"),
        ("a + (b + c)", "a + (b + c)"),
        ("a - (b - c)", "a - (b - c)"),
        ("(a * b) + c", "a * b + c"),
        ("a * (b + c)", "a * (b + c)"),
        ("(2 ^ 3) ^ 4", "(2^3)^4"),
        ("2 ^ (3 ^ 4)", "2^3^4"),
        ("-(2^3)", "-2^3"),
        ("(-2)^3", "(-2)^3"),
        ("2^-k", "2^-k"),
        ("-(-x)", "--x"),
        ("a · b × c", "a * b * c"),
        ("(a | b) except (c | d)", "a | b except c | d"),
        ("a | (b except c)", "a | (b except c)"),
        ("norm2(w)^2", "‖w‖₂²"),
        ("‖w‖₂²^2", "‖w‖₂²^2"),
        ("sum(norm1(l.weights)^2 for l in net.layers)", "Σ_{l ∈ net.layers} ‖l.weights‖₁²"),
        ("sum(a + b for l in S) + 1", "Σ_{l ∈ S} (a + b) + 1"),
        ("Σ_{l ∈ S} a * b", "Σ_{l ∈ S} a * b"),
        ("sum(a * b for l in S)", "Σ_{l ∈ S} (a * b)"),
        ("266200", "266_200"),
        ("1e3", "1000"),
        ("0.10", "0.1"),
        ("1E-4", "1e-4"),
        ("3.0517578125e-5", "3.0517578125e-5"),
        ("30MMACs", "30 MMACs"),
        ("0.5pp", "0.5 pp"),
        ("5%", "5%"),
        ("40 k", "40k"),
        ("kappa_fc + mu1 + alphabet + pi", "κ_fc + μ1 + alphabet + π"),
        ('net["a\\"b", "c\\\\d",]', 'net["a\\"b", "c\\\\d"]'),
    ],
)
def test_parentheses_numbers_and_names_in_canonical_form(written: str, canonical: str) -> None:
    assert format_expr(expression(written)) == canonical


def test_ascii_style_has_the_same_meaning() -> None:
    text = "‖net.weights‖∞ + Σ_{l ∈ net.layers} (‖l.weights‖₂² * κ)"
    ascii_text = "norminf(net.weights) + sum(norm2(l.weights)^2 * kappa for l in net.layers)"
    assert format_expr(expression(text), "ascii") == ascii_text
    assert expression(ascii_text) == expression(text)


@pytest.mark.parametrize(
    ("number", "text"),
    [(Number(Fraction(-3)), "-3"), (Number(Fraction(1, 3)), "1 / 3"), (Number(Fraction(-1, 6), "B"), "-1 / 6 B")],
)
def test_computed_numbers_are_shown_too(number: Number, text: str) -> None:
    assert format_expr(number) == text


def test_a_text_with_syntax_errors_is_not_formatted() -> None:
    with pytest.raises(SpecError):
        format_spec("let x = ")


def test_long_lines_break_where_the_language_lets_them() -> None:
    text = "let x = f(" + ", ".join(f"argument_{i}" for i in range(9)) + ") + second_term\n"
    assert format_spec(text, width=60) == (
        "let x = f(argument_0, argument_1, argument_2, argument_3,\n"
        "    argument_4, argument_5, argument_6, argument_7,\n"
        "    argument_8) + second_term\n"
    )


def test_nothing_to_format_is_nothing() -> None:
    assert format_spec("") == ""
    assert format_spec("\n\n  \n") == ""
    assert format_spec("  # only a comment  ") == "# only a comment\n"
