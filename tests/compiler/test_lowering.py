"""Plans to graphs: what the compiler chooses by itself, and the conditions that it puts on step sizes."""

from __future__ import annotations

from fractions import Fraction

import pytest

from prunelang.compiler.graph import (
    Batches,
    Descend,
    Graph,
    Level,
    Optimizer,
    Outer,
    Phase,
    Prox,
    Recalibrate,
    Restore,
    Snapshot,
    walk,
)
from prunelang.compiler.lowering import lower
from prunelang.compiler.runnability import runnability
from prunelang.compiler.schedule import evaluate
from prunelang.compiler.solvers.lc import FIRST_PULL, LAST_PULL, STABLE_SHARE, stable_limit
from tests.compiler.checking import HEAD, codes, plan_of

SPARSE = "subject to\n  ‖net.weights‖₀ ≤ 5%\n"


def graph_of(text: str, train_size: int = 60_000) -> Graph:
    plan = plan_of(text)
    assert not runnability(plan)
    return lower(plan, train_size=train_size)


def node(graph: Graph, name: str) -> Level:
    found = graph.node(name)
    assert isinstance(found, Level)
    return found


def coefficient(graph: Graph, k: int, steps: int) -> float:
    schedule = node(graph, "μ").schedule
    assert schedule is not None
    return evaluate(schedule, {"k": float(k), "p": k / steps})


# ── the automatic coefficient ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("optimizer", "lr", "beta"),
    [
        ("sgd(lr = 0.1)", 0.1, 0.0),
        ("sgd(lr = 0.1, momentum = 0.9)", 0.1, 0.9),
        ("sgd(lr = 1e-3, momentum = 0.5)", 1e-3, 0.5),
    ],
)
def test_mu_goes_from_a_nudge_to_a_weld(optimizer: str, lr: float, beta: float) -> None:
    """The pull over one inner loop, μ·N·lr/(1 − β), from 0.05 to 5 where stability leaves room."""
    graph = graph_of(f"{HEAD}{SPARSE}solve lc(steps = 30) with {optimizer} for 2 epochs\n")
    inner = 2 * 469 * lr / (1 - beta)
    assert coefficient(graph, 0, 30) * inner == pytest.approx(FIRST_PULL, rel=0.01)
    assert coefficient(graph, 29, 30) * inner == pytest.approx(LAST_PULL, rel=0.02)


@pytest.mark.parametrize("nesterov", ["false", "true"])
def test_mu_stays_well_inside_the_stable_range(nesterov: str) -> None:
    text = f"{HEAD}{SPARSE}solve lc(steps = 30) with sgd(lr = 0.5, momentum = 0.9, nesterov = {nesterov}) for 1 steps\n"
    limit = float(stable_limit(Fraction(9, 10), nesterov == "true"))
    assert coefficient(graph_of(text), 29, 30) * 0.5 <= STABLE_SHARE * limit * 1.01


@pytest.mark.parametrize(
    "rate", ["ramp(1e-5, 0.5, 0, 0.5)", "ramp(1e-5, 0.5, 0 steps, 2 steps)", "0.5 * (1 - 0.99^(1 + k))"]
)
def test_a_rate_that_rises_is_taken_at_its_largest(rate: str) -> None:
    """The start of a warm-up says nothing about what is stable later."""
    text = f"{HEAD}{SPARSE}solve lc(steps = 200) with sgd(lr = {rate}) for 3 steps\n"
    graph = graph_of(text)
    assert all(coefficient(graph, k, 200) <= STABLE_SHARE * 2 / 0.4 for k in range(200))


def test_admm_has_a_constant_in_the_middle_and_one_iteration_is_a_weld() -> None:
    admm = graph_of(f"{HEAD}{SPARSE}solve admm(steps = 30) with sgd(lr = 0.1) for 1 epochs\n")
    assert coefficient(admm, 0, 30) == coefficient(admm, 29, 30)
    assert coefficient(admm, 0, 30) * 46.9 == pytest.approx((FIRST_PULL * LAST_PULL) ** 0.5, rel=0.01)
    once = graph_of(f"{HEAD}{SPARSE}solve lc(steps = 1) with sgd(lr = 0.1) for 1 epochs\n")
    assert coefficient(once, 0, 1) * 46.9 == pytest.approx(LAST_PULL, rel=0.01)


# ── step sizes ───────────────────────────────────────────────────────────────────────────────────────────────────


def iterate(rate: float, beta: float, nesterov: bool, steps: int = 4000) -> float:
    """|w| after descending μ/2 w² from 1 with lr·μ = rate, as torch's SGD does it."""
    w, v = 1.0, 0.0
    for _ in range(steps):
        g = rate * w
        v = beta * v + g
        w -= g + beta * v if nesterov else v
        if abs(w) > 1e12:
            return abs(w)
    return abs(w)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("beta", ["0", "1/2", "9/10", "99/100"])
def test_the_limits_are_where_the_penalty_alone_stops_being_stable(beta: str, nesterov: bool) -> None:
    exactly = Fraction(beta)
    limit = stable_limit(exactly, nesterov)
    assert limit == (2 * (1 + exactly) / (1 + 2 * exactly) if nesterov else 2 * (1 + exactly))
    assert iterate(float(limit) * 0.99, float(exactly), nesterov) < 1e-3
    assert iterate(float(limit) * 1.01, float(exactly), nesterov) > 1e6


@pytest.mark.parametrize(
    ("mu", "optimizer", "stable"),
    [
        ("37.999999999999999", "sgd(lr = 0.1, momentum = 0.9)", True),
        ("38", "sgd(lr = 0.1, momentum = 0.9)", False),
        ("13.571428571428571", "sgd(lr = 0.1, momentum = 0.9, nesterov = true)", True),
        ("13.571428571428572", "sgd(lr = 0.1, momentum = 0.9, nesterov = true)", False),
        ("19.99", "sgd(lr = 0.1)", True),
        ("20", "sgd(lr = 0.1)", False),
        ("1e6", "adam(lr = 0.1)", True),
        ("0.1 * 1.1^k", "sgd(lr = 0.1)", True),
        ("0.1 * 1.2^k", "sgd(lr = 0.1)", False),
        ("1 + 30 * p", "sgd(lr = 0.1 * 0.95^k)", True),
        ("1 + 30 * p", "sgd(lr = 0.1)", False),
    ],
)
def test_p430_to_the_last_digit(mu: str, optimizer: str, stable: bool) -> None:
    plan = plan_of(f"{HEAD}{SPARSE}solve lc(μ = {mu}, steps = 40) with {optimizer} for 1 epochs\n")
    found = runnability(plan)
    assert [d.code for d in found] == ([] if stable else ["P430"])
    if not stable:
        assert "momentum β" in " ".join(found[0].notes)
        assert found[0].hint is not None
        assert found[0].hint.startswith("at k = ")


def test_a_coefficient_without_a_value_is_reported_where_it_is() -> None:
    (found,) = runnability(
        plan_of(f"{HEAD}{SPARSE}solve lc(μ = 1 / (k - 5)^2, steps = 9) with sgd(lr = 0.01) for 1 epochs\n")
    )
    assert found.code == "P227"
    assert "k = 5" in found.message


# ── stages ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_weighted_count_as_penalty_weighs_its_tensors() -> None:
    head = HEAD.replace("lenet_300_100", "lenet_5").rstrip()
    graph = graph_of(
        f"{head} + 0.001 * sparse_macs(net)\nsolve lc(μ = 0.1, steps = 2) with sgd(lr = 0.1) for 1 epochs\n"
    )
    found = [s for s in walk(graph.program) if isinstance(s, Prox)]
    weights = {t: evaluate(s.weight, {}) for s in found for t in s.tensors}
    uses = plan_of(f"{head}\nsolve auto\n").table.uses
    assert weights == pytest.approx({t: 0.001 * n for t, n in uses.items()})
    assert len(set(weights.values())) == len(found) > 1


def test_every_loop_has_an_optimizer_of_its_own() -> None:
    tuning = "".join(f"finetune with sgd(lr = {lr}) for 1 epochs\n" for lr in (0.1, 0.2))
    stages = f"solve lc(steps = 2) for 1 epochs\n{tuning}"
    graph = graph_of(f"{HEAD}{SPARSE}pretrain for 1 epochs\npretrain with sgd(lr = 0.1) for 2 epochs\n{stages}")
    used = [s.optimizer for s in walk(graph.program) if isinstance(s, Batches)]
    assert used == ["O_pretrain", "O_pretrain_2", "O_solve", "O_finetune", "O_finetune_2"]
    assert {s.name for s in graph.state if isinstance(s, Optimizer)} == set(used)


def test_finetune_before_the_first_solve_is_on_no_support() -> None:
    graph = graph_of(f"{HEAD}{SPARSE}finetune for 1 epochs\nsolve lc(steps = 2) for 1 epochs\nfinetune for 1 epochs\n")
    assert [s.support for s in walk(graph.program) if isinstance(s, Descend)] == [None, None, "m"]


def test_buffers_are_recalibrated_after_what_changes_weights_for_good() -> None:
    text = HEAD.replace("lenet_300_100", "resnet50").replace("mnist()", 'tensors("x.npz", batch = 64)')
    graph = graph_of(
        f"{text}{SPARSE}pretrain for 1 epochs\nsolve lc(steps = 2) for 1 epochs\nfinetune for 1 epochs\n", 640
    )
    phases = [(s.name, [type(x) for x in s.body][-1]) for s in graph.program if isinstance(s, Phase)]
    assert phases == [("pretrain", Batches), ("solve", Recalibrate), ("finetune", Recalibrate)]
    assert all(s.batches == 10 for s in walk(graph.program) if isinstance(s, Recalibrate))


def test_a_stage_that_restores_its_best_state_keeps_the_statistics_that_were_evaluated_with_it() -> None:
    text = HEAD.replace("lenet_300_100", "resnet50").replace("mnist()", 'tensors("x.npz", batch = 64)')
    until = "until saturated(window = 2 epochs)"
    graph = graph_of(f"{text}{SPARSE}solve ista() for 9 epochs {until}\nfinetune for 3 epochs {until}\n", 640)
    phases = [[type(x) for x in s.body] for s in graph.program if isinstance(s, Phase)]
    assert [body[-1] for body in phases] == [Recalibrate, Restore]
    kept = [s.of for s in graph.state if isinstance(s, Snapshot)]
    assert kept == [("W", "rest", "buffers", "d", "θ"), ("W", "rest", "buffers")]


def test_batches_per_epoch_are_rounded_up() -> None:
    assert graph_of(f"{HEAD}{SPARSE}solve ista()\n", 129).node("data").batches == 2  # type: ignore[attr-defined]


def test_an_outer_loop_without_anything_to_compress_keeps_its_clock() -> None:
    graph = graph_of(f"{HEAD}solve lc(steps = 7) with sgd(lr = 0.1 * 0.9^k) for 1 epochs\n")
    (outer,) = (s for s in walk(graph.program) if isinstance(s, Outer))
    assert outer.count == 7


def test_an_objective_may_follow_k_in_stages_that_have_none() -> None:
    text = HEAD.replace("minimize ", "minimize (1 + k) * ")
    assert codes(f"{text}{SPARSE}pretrain for 1 epochs\nsolve lc(steps = 3) for 1 epochs\n") == []
    graph_of(f"{text}{SPARSE}pretrain for 1 epochs\nsolve lc(steps = 3) for 1 epochs\n")
