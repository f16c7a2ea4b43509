"""What solvers refuse: a warning while checking, an error when the program is to run, always with who would take it."""

from __future__ import annotations

import pytest

from prunelang.compiler.runnability import runnability, takers_of
from prunelang.dsl.diagnostics import Diagnostic
from tests.compiler.checking import HEAD, findings, plan_of


def refused(lines: str, solver: str = "lc()", head: str = HEAD) -> tuple[Diagnostic, ...]:
    return runnability(plan_of(f"{head}subject to\n{lines}\nsolve {solver}\n"))


@pytest.mark.parametrize(
    ("lines", "solver", "named", "hint"),
    [
        ("  ‖net.weights‖₁ ≤ 3", "ista()", "norm1", "`lc` and `admm` would take it"),
        ("  net.weights ∈ n_of_m(2, 4)", "ista()", "n_of_m", "`lc` and `admm` would take it"),
        ("  bytes(net) ≤ 50 KB", "ista()", "weighted count", "`lc` and `admm` would take it"),
        ("  ‖net.weights‖₀ ≥ 9", "ista()", "lower", "`lc` and `admm` would take it"),
        ('  net["fc1"].weights ∈ low_rank(5)', "lc()", "low_rank", "no solver takes it yet"),
        ("  accuracy(net) ≥ 97%", "admm()", "accuracy", "no solver takes it yet"),
        ("  macs(net) ≤ 50%", "lc()", "macs", "no solver takes it yet"),
        ("  cross_entropy(net) ≤ 0.1", "ista()", "cross_entropy", "no solver takes it yet"),
    ],
)
def test_p414_names_the_function_and_the_solvers_that_would(lines: str, solver: str, named: str, hint: str) -> None:
    found = refused(lines, solver)
    assert {d.code for d in found} == {"P414"}
    assert named in found[0].message
    assert f"`{solver.removesuffix('()')}` cannot run this" in found[0].message
    assert found[0].hint == hint
    text = f"{HEAD}subject to\n{lines}\nsolve {solver}\n"
    assert text[found[0].span.start : found[0].span.end] == lines.strip()


@pytest.mark.parametrize(
    ("objective", "reason", "hint"),
    [
        ("entropy(net.weights)", "`entropy` in the objective", "no solver takes it yet"),
        ("bytes(net)", "cheapest format", "no solver takes it yet"),
        ("‖net.weights‖₁ + 0.1 * ‖net.weights‖₂²", "one penalty a tensor", "no solver takes it yet"),
    ],
)
def test_p414_of_penalties(objective: str, reason: str, hint: str) -> None:
    found = runnability(plan_of(f"{HEAD.rstrip()} + 0.1 * {objective}\nsolve lc()\n"))
    assert [d.code for d in found] == ["P414"]
    assert reason in found[0].message
    assert found[0].hint == hint


def test_ista_names_who_takes_a_penalty() -> None:
    (found,) = runnability(plan_of(f"{HEAD.rstrip()} + 0.1 * ‖net.weights‖₁\nsolve ista()\n"))
    assert found.hint == "`lc` and `admm` would take it"


def test_a_tensor_under_a_constraint_and_a_penalty_has_one_owner() -> None:
    text = f"{HEAD.rstrip()} + 0.1 * ‖net.weights‖₁\nsubject to\n  ‖net.weights‖₀ ≤ 5%\nsolve lc()\n"
    (found,) = runnability(plan_of(text))
    assert "either under constraints or under a penalty" in found.message


def test_ista_takes_one_constraint_a_tensor() -> None:
    found = refused('  all: ‖net.weights‖₀ ≤ 5%\n  one: ‖net["fc1"].weights‖₀ ≤ 9', "ista()")
    assert [d.code for d in found] == ["P414"]
    assert "`fc1.weight` is also under `all`" in found[0].message


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("  ball: ‖net.weights‖₁ ≤ 3\n  size: bytes(net) ≤ 50 KB", "one plain"),
        ("  a: ‖net.weights‖₁ ≤ 3\n  b: ‖net.weights‖₂ ≤ 3", "several norm balls"),
        ('  a: ‖net["fc1"].params‖₀ ≤ 9000\n  b: ‖net.weights‖₀ ≤ 9000', "cross"),
    ],
)
def test_p415_points_at_all_that_clash(lines: str, reason: str) -> None:
    (found,) = refused(lines)
    assert found.code == "P415"
    assert reason in found.message
    assert len(found.conflict) == 2
    assert [label.message for label in found.secondary] == ["together with this"]


def test_p416_until() -> None:
    text = f"{HEAD}subject to\n  ‖net.weights‖₀ ≤ 5%\nsolve lc() until saturated(window = 5 epochs)\n"
    assert [d.code for d in runnability(plan_of(text))] == ["P416"]


def test_p417_moving_bounds_are_refused_with_a_way_out() -> None:
    (found,) = refused("  ‖net.weights‖₀ ≤ ramp(100%, 5%, 0, 0.7)")
    assert found.code == "P417"
    assert found.hint == "give the final bound"


def test_nothing_to_train_is_said_before_a_run() -> None:
    found = runnability(plan_of(HEAD + "freeze net.params\nsolve lc()\n"))
    assert [d.code for d in found] == ["P409"]
    assert "frozen" in found[0].message


def test_while_checking_they_are_warnings() -> None:
    text = f"{HEAD}subject to\n  ‖net.weights‖₁ ≤ 3\nsolve ista()\n"
    assert [(d.code, d.severity) for d in findings(text) if d.code == "P414"] == [("P414", "warning")]
    assert all(d.severity == "error" for d in runnability(plan_of(text)))


def test_what_is_taken_is_not_mentioned() -> None:
    plan = plan_of(f"{HEAD}subject to\n  ‖net.weights‖₀ ≤ 5%\nsolve auto\n")
    assert runnability(plan) == ()
    assert takers_of(plan.problem.constraints[0], plan.problem) == ["ista", "lc", "admm"]
