"""Bridges: each as two problems, with the same weights inside both; and what they open to solvers."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction
from math import inf

import pytest

from prunelang.compiler.bridges import bridge, bridges
from prunelang.compiler.pairs import pair_of
from prunelang.compiler.problem import Constraint, Count, Entries, Interval, Named, Objective, Problem, VectorNorm
from prunelang.compiler.solvers.base import solvers


def problem(*constraints: Constraint) -> Problem:
    return Problem(Objective("minimize", ()), constraints)


def names() -> dict[str, object]:
    return {b.name: b for b in bridges()}


def test_every_bridge_states_its_specification() -> None:
    assert set(names()) == {"uniform-count", "symmetric-box"}
    for b in bridges():
        doc = type(b).__doc__ or ""
        assert doc.startswith("Rewrites ")
        assert all(f"**{word}**" in doc for word in ("From", "To", "Inverse"))


@pytest.mark.parametrize("seed", range(50))
def test_a_uniform_count_and_its_plain_count_hold_together(seed: int) -> None:
    rng = random.Random(seed)
    a, c = rng.randint(2, 5), rng.randint(0, 7)
    lower = rng.choice([None, rng.randint(0, 30)])
    upper = rng.choice([None, rng.randint(0, 40), Fraction(rng.randint(0, 90), 2)])
    original = Constraint("x", Count("bytes", {"u": a, "v": a}, c, "B"), Interval(lower, upper))
    b = bridge(problem(original), frozenset({("count", k) for k in ("upper", "lower", "both")}))
    (rewritten,) = b.problem.constraints
    assert rewritten.function == Count("norm0", {"u": 1, "v": 1}, 0, "")
    assert isinstance(rewritten.set, Interval)
    for u, v in itertools.product(range(6), range(6)):

        def holds(value: int, interval: Interval) -> bool:
            low = -inf if interval.lower is None else interval.lower
            high = inf if interval.upper is None else interval.upper
            return low <= value <= high

        assert holds(a * (u + v) + c, Interval(lower, upper)) == holds(u + v, rewritten.set)
    assert b.price("x", 3.0) == 3.0 / a


def test_a_symmetric_box_is_a_bound_on_the_largest_magnitude() -> None:
    box = Constraint("b", Entries(("w",)), Named("box", (("lo", Fraction(-1, 5)), ("hi", Fraction(1, 5)))))
    (rewritten,) = bridge(problem(box), frozenset({("norminf", "upper")})).problem.constraints
    assert rewritten.function == VectorNorm("norminf", ("w",))
    assert rewritten.set == Interval(upper=Fraction(1, 5))
    lopsided = Constraint("b", Entries(("w",)), Named("box", (("lo", Fraction(-1)), ("hi", Fraction(1, 5)))))
    assert bridge(problem(lopsided), frozenset({("norminf", "upper")})).problem.constraints == (lopsided,)


def test_a_pair_that_a_solver_takes_is_left_alone() -> None:
    c = Constraint("x", Count("bytes", {"u": 4}, 10, "B"), Interval(upper=50))
    b = bridge(problem(c), frozenset({pair_of(c)}))
    assert b.problem.constraints == (c,)
    assert not b.crossed
    assert b.price("x", 2.0) == 2.0


def test_bridges_open_uniform_costs_to_thresholds() -> None:
    ista = solvers()["ista"]()
    uniform = Constraint("x", Count("sparse_flops", {"u": 2, "v": 2}, 0, "FLOPs"), Interval(upper=50))
    mixed = Constraint("x", Count("sparse_flops", {"u": 2, "v": 6}, 0, "FLOPs"), Interval(upper=50))
    assert not list(ista.refusals(problem(uniform)))
    (refusal,) = ista.refusals(problem(mixed))
    assert "weighted count" in refusal.reason
