"""Schedules: the value against an oracle in exact fractions, and three other forms that must agree with it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prunelang.compiler import schedule as module
from prunelang.compiler.schedule import (
    CLOCKS,
    Apply,
    Clock,
    Constant,
    Ramp,
    Schedule,
    Steps,
    clocks_of,
    constant,
    evaluate,
    exact,
    from_json,
    is_constant,
    number,
    python,
    ramp,
    to_json,
    to_sympy,
)

NOW = {"epoch": 3.0, "step": 120.0, "k": 7.0, "p": 0.625, "lr": 0.05}
K, P, EPOCH, STEP = Clock("k"), Clock("p"), Clock("epoch"), Clock("step")

constants = st.fractions(-50, 50, max_denominator=1000).map(Constant)
clocks = st.sampled_from(CLOCKS).map(Clock)
shapes, units = st.sampled_from(["linear", "cubic", "cosine"]), st.sampled_from(["p", "epochs", "steps"])


def composed(inner: st.SearchStrategy[Schedule]) -> st.SearchStrategy[Schedule]:
    binary = st.sampled_from(["+", "-", "*", "/", "^", "min", "max"])
    unary = st.sampled_from(["neg", "sqrt", "exp", "log", "sin", "cos", "floor"])
    return st.one_of(
        st.builds(lambda o, a, b: Apply(o, (a, b)), binary, inner, inner),
        st.builds(lambda o, a: Apply(o, (a,)), unary, inner),
        st.just(Apply("pi", ())),
        st.builds(Ramp, inner, inner, inner, inner, units, shapes),
        st.builds(Steps, inner, st.lists(st.tuples(inner, inner), min_size=1, max_size=3).map(tuple), units),
    )


schedules: st.SearchStrategy[Schedule] = st.recursive(constants | clocks, composed, max_leaves=8)
moments = st.fixed_dictionaries(
    {
        "epoch": st.integers(0, 40).map(float),
        "step": st.integers(0, 10_000).map(float),
        "k": st.integers(0, 40).map(float),
        "p": st.floats(0, 1),
        "lr": st.floats(1e-6, 1),
    }
)


def value(s: Schedule, now: Mapping[str, float] = NOW) -> float:
    return evaluate(s, now)


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (constant("5/2"), 2.5),
        (K, 7.0),
        (Apply("*", (constant("0.1"), Apply("^", (constant("0.98"), K)))), 0.1 * 0.98**7),
        (Apply("-", (constant(2), Apply("neg", (P,)))), 2.625),
        (Apply("/", (constant(1), constant(3))), 1 / 3),
        (Apply("min", (K, constant(3))), 3.0),
        (Apply("max", (K, constant(3))), 7.0),
        (Apply("floor", (constant("-2.5"),)), -3.0),
        (Apply("sqrt", (constant(2),)), math.sqrt(2)),
        (Apply("cos", (Apply("pi", ()),)), -1.0),
        (Apply("log", (Apply("exp", (constant(1),)),)), 1.0),
        (Apply("^", (constant(-2), constant(2))), 4.0),
        (Steps(constant(1), ((constant(2), constant(5)), (constant(10), constant(9))), "epochs"), 5.0),
        (Steps(constant(1), ((constant(4), constant(5)),), "epochs"), 1.0),
        (Steps(constant(1), ((constant(3), constant(5)),), "epochs"), 5.0),
    ],
    ids=str,
)
def test_values(schedule: Schedule, expected: float) -> None:
    assert value(schedule) == expected


def oracle(t: Fraction, a: Fraction, b: Fraction, start: Fraction, end: Fraction, shape: str) -> Fraction:
    """The formula of `Ramp`, exactly where there is no cosine."""
    u = Fraction(0) if t <= start else Fraction(1) if t >= end else (t - start) / (end - start)
    if shape == "cubic":
        return b + (a - b) * (1 - u) ** 3
    if shape == "cosine":
        return b + (a - b) * (1 + Fraction(math.cos(math.pi * float(u)))) / 2
    return a + (b - a) * u


@pytest.mark.parametrize("shape", ["linear", "cubic", "cosine"])
def test_ramps_follow_their_formula_and_are_constant_outside(shape: Any) -> None:
    a, b, start, end = (Fraction(x) for x in ("0.1", "0.3", "0.2", "0.9"))
    s = Ramp(Constant(a), Constant(b), Constant(start), Constant(end), "p", shape)
    for p in (0.0, 0.1, 0.2, 0.25, 0.5, 0.77, 0.9, 0.95, 1.0):
        expected = float(oracle(Fraction(p), a, b, start, end, shape))
        assert value(s, {"p": p}) == pytest.approx(expected, rel=1e-15)
    assert value(s, {"p": 0.0}) == 0.1
    assert value(s, {"p": 1.0}) == 0.3, "exactly the last value, not a rounding beside it"


@pytest.mark.parametrize("shape", ["linear", "cubic", "cosine"])
def test_a_ramp_without_length_is_a_step(shape: str) -> None:
    assert [ramp(t, 1.0, 2.0, 0.5, 0.5, shape) for t in (0.4, 0.5, 0.6)] == [1.0, 2.0, 2.0]


@pytest.mark.parametrize(
    "schedule",
    [
        Apply("/", (constant(1), constant(0))),
        Apply("log", (constant(0),)),
        Apply("sqrt", (constant(-1),)),
        Apply("^", (constant(-8), constant("1/3"))),
        Apply("^", (constant(10), constant(400))),
        Apply("exp", (constant(1000),)),
        Apply("/", (constant(1), Apply("-", (K, constant(7))))),
        constant(10**400),
    ],
    ids=str,
)
def test_what_has_no_value_says_so_with_its_clocks(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match=r"no value|not finite") as error:
        value(schedule)
    assert ("k = 7" in str(error.value)) == ("k" in clocks_of(schedule))


def test_clocks_of() -> None:
    s = Apply("+", (Ramp(K, constant(1), constant(0), P, "epochs"), Steps(STEP, ((constant(1), constant(2)),), "p")))
    assert clocks_of(s) == {"k", "epoch", "p", "step"}
    assert is_constant(Apply("pi", ()))
    assert not is_constant(Apply("neg", (EPOCH,)))


def test_exact_is_exact_or_nothing() -> None:
    assert exact(Apply("/", (constant(1), constant(3)))) == Fraction(1, 3)
    assert exact(
        Apply("-", (Apply("neg", (constant("0.1"),)), Apply("*", (constant(2), constant("0.3")))))
    ) == -Fraction(7, 10)
    for s in (K, Apply("/", (constant(1), constant(0))), Apply("sqrt", (constant(4),)), Apply("+", (constant(1), P))):
        assert exact(s) is None


# ── other forms ──────────────────────────────────────────────────────────────────────────────────────────────────


def run_text(text: str, now: Mapping[str, float]) -> Any:
    return eval(text, {"math": math, "ramp": ramp, **now})  # noqa: S307 (our own text, made from a schedule)


@given(schedules, moments)
@example(Apply("^", (constant(-2), constant(2))), NOW)
@example(Apply("-", (constant(1), Apply("-", (constant(1), constant("1e-17"))))), NOW)
def test_python_text_gives_the_same_bits(s: Schedule, now: dict[str, float]) -> None:
    try:
        expected = evaluate(s, now)
    except ValueError:
        return
    got = run_text(python(s), now)
    assert math.copysign(1, got) == math.copysign(1, expected)
    assert got == expected


@given(schedules, moments)
def test_integer_clocks_give_the_same_bits_too(s: Schedule, now: dict[str, float]) -> None:
    """In a script epoch, step and k are integers of loops."""
    try:
        expected = evaluate(s, now)
    except ValueError:
        return
    assert run_text(python(s), {**now, **{c: int(now[c]) for c in ("epoch", "step", "k")}}) == expected


@given(schedules)
def test_json_round_trip(s: Schedule) -> None:
    assert from_json(json.loads(json.dumps(to_json(s)))) == s


def test_what_is_no_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="not a schedule"):
        from_json({"text": "__import__('os')"})


@pytest.mark.parametrize(
    "s",
    [
        Apply("*", (constant("0.1"), Apply("^", (constant("0.98"), K)))),
        Apply("+", (Apply("sin", (Apply("pi", ()),)), Apply("/", (P, constant(3))))),
        Apply("-", (Apply("min", (K, constant(3))), Apply("max", (EPOCH, Apply("neg", (constant(4),)))))),
        Apply("floor", (Apply("sqrt", (STEP,)),)),
        Apply("log", (Apply("exp", (Apply("cos", (P,)),)),)),
        *(
            Ramp(constant(1), constant(5), constant("0.2"), constant("0.9"), "p", s)
            for s in ("linear", "cubic", "cosine")
        ),
        Ramp(constant(1), K, constant(0), constant(300), "steps"),
        Ramp(constant(1), constant(2), constant(5), constant(5), "epochs"),
        Steps(constant(1), ((constant(2), constant(5)), (constant(10), K)), "epochs"),
    ],
    ids=str,
)
def test_sympy_agrees(s: Schedule) -> None:
    import sympy

    symbols = {c: sympy.Symbol(f"s{i}") for i, c in enumerate(CLOCKS)}
    expression = to_sympy(s, symbols)
    for p in (0.0, 0.2, 0.5, 0.9, 1.0):
        for epoch in (0.0, 2.0, 5.0, 11.0):
            now = {**NOW, "p": p, "epoch": epoch}
            exactly = {symbols[c]: sympy.Rational(*float(v).as_integer_ratio()) for c, v in now.items()}
            assert float(sympy.N(expression.subs(exactly), 30)) == pytest.approx(evaluate(s, now), rel=1e-13)


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Apply("*", (constant("0.1"), Apply("^", (constant("0.98"), K)))), "0.1 · 0.98^k"),
        (Apply("-", (constant(1), Apply("-", (K, P)))), "1 − (k − p)"),
        (Apply("^", (Apply("+", (K, P)), constant(2))), "(k + p)^2"),
        (Apply("^", (constant(-2), K)), "(-2)^k"),
        (Apply("neg", (Apply("*", (K, P)),)), "−(k · p)"),
        (Apply("*", (constant(2), Apply("neg", (K,)))), "2 · −k"),
        (Apply("cos", (Apply("*", (Apply("pi", ()), P)),)), "cos(π · p)"),
        (
            Ramp(constant(1), constant(0), constant(0), constant(20), "epochs", "cosine"),
            "ramp(1, 0, 0, 20 epochs, cosine)",
        ),
        (Steps(constant(1), ((constant("0.5"), constant(2)),)), "steps(1, [0.5, 2])"),
    ],
    ids=str,
)
def test_texts(schedule: Schedule, text: str) -> None:
    assert str(schedule) == text


@pytest.mark.parametrize(
    ("number_", "text"),
    [
        ("266200", "266200"),
        ("0.1", "0.1"),
        ("1/3", "0.333333333333"),
        ("9e-5", "9e-5"),
        (10**18, "1e18"),
        ("-1/2", "-0.5"),
    ],
)
def test_numbers_read_as_people_write_them(number_: str | int, text: str) -> None:
    assert number(Fraction(number_)) == text


def test_every_function_of_the_language_has_all_forms() -> None:
    for name, (arity, _) in module.FUNCTIONS.items():
        s = Apply(name, (constant("1/2"),) * arity)
        assert run_text(python(s), {}) == evaluate(s, {})
        assert float(to_sympy(s, {}).evalf()) == pytest.approx(evaluate(s, {}))
