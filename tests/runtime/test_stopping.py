"""Stages that end early: the test of saturation, the state that they go back to, and `until` on every solver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prunelang import compile
from prunelang.compiler.graph import Batches, Restore, Saturated, walk
from prunelang.compiler.problem import Measured
from prunelang.compiler.solvers.base import solvers
from prunelang.dsl.diagnostics import SpecError
from prunelang.runtime.kernels import saturated, smoothed
from prunelang.runtime.machine import Event, Machine
from prunelang.runtime.standalone import Best, miss, relaxed
from tests.runtime.solving import Ran, quadratic, solve

# ── the test of saturation ───────────────────────────────────────────────────────────────────────────────────────


def slow(history: Sequence[float], window: int) -> tuple[float, float]:
    """(mean₁ − mean₂, min(std₁, std₂)) from matrices of weights."""
    halves = np.array(history[-window:])[: window // 2], np.array(history[-window:])[window // 2 :]
    means, stds = [], []
    for half in halves:
        at = np.arange(len(half))
        u = (at[:, None] - at[None, :]) / (1 + len(half) / 2)
        kernel = np.where(np.abs(u) < 1, 0.75 * (1 - u**2), 0.0)
        smooth = kernel @ half / kernel.sum(1)
        means.append(smooth.mean())
        stds.append(np.std(half - smooth))
    return means[0] - means[1], min(stds)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40), st.integers(2, 40))
def test_saturation_is_that_of_a_slow_oracle(history: list[float], window: int) -> None:
    if window > len(history):
        assert not saturated(history, window)
        return
    fallen, rough = slow(history, window)
    if abs(fallen - rough - 1e-10) > 1e-9:  # nearer than that roundings decide
        assert saturated(history, window) == (fallen <= rough + 1e-10)


@pytest.mark.parametrize("n", range(1, 12))
def test_smoothing_keeps_a_constant_and_finds_no_roughness_in_it(n: int) -> None:
    assert smoothed([2.5] * n) == pytest.approx((2.5, 0.0), abs=1e-14)


@pytest.mark.parametrize("window", [2, 3, 10, 21])
def test_what_still_falls_is_not_saturated(window: int) -> None:
    assert not saturated([-float(i) for i in range(window)], window)
    assert not saturated([0.9**i for i in range(window)], window)


@pytest.mark.parametrize("window", [2, 3, 10, 21])
def test_what_stays_or_rises_is_saturated(window: int) -> None:
    assert saturated([1.0] * window, window)
    assert saturated([float(i) for i in range(window)], window)


def test_noise_about_a_level_is_saturated_and_a_trend_below_the_noise_too() -> None:
    noise = np.random.default_rng(0).normal(size=40)
    assert saturated(list(5 + noise), 40)
    assert saturated(list(5 + noise - 1e-3 * np.arange(40)), 40)
    assert not saturated(list(5 + 1e-3 * noise - np.arange(40)), 40)


def test_only_the_window_counts() -> None:
    assert saturated([100.0, 50.0, 1.0, 1.0, 1.0, 1.0], 4)


# ── the best state ───────────────────────────────────────────────────────────────────────────────────────────────


def test_best_keeps_the_lowest_score_and_gives_it_back() -> None:
    w = torch.zeros(3)
    best = Best([w])
    assert best.restore((7.0,)) == (7.0,)
    for value, score in enumerate([(0.1, 1.0), (0.0, 3.0), (0.0, 2.0), (0.0, float("nan")), (0.0, 2.0)]):
        w.fill_(value)
        assert best.offer(score, (float(value),)) == (value < 3), "lower only, and a number"
    assert best.restore() == (2.0,)
    assert w.tolist() == [2.0] * 3


@pytest.mark.parametrize(
    ("value", "relation", "bound", "expected"),
    [(0.9, "≥", 0.8, 0.0), (0.6, "≥", 0.8, 0.25), (2.0, "≤", 1.0, 1.0), (1.0, "≤", 1.0, 0.0), (1.0, "≤", 0.0, 1e12)],
)
def test_a_miss_is_in_units_of_the_bound(value: float, relation: str, bound: float, expected: float) -> None:
    assert miss(value, relation, bound) == pytest.approx(expected)
    assert miss(float("nan"), relation, bound) == float("inf")


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8), st.floats(0.1, 20))
def test_relaxations_are_sums_over_entries(values: list[float], beta: float) -> None:
    w = np.array(values)
    tensors = [torch.tensor(values[:1], dtype=torch.float64), torch.tensor(values[1:], dtype=torch.float64)]
    assert relaxed(tensors, "norm1", 0.0) == pytest.approx(np.abs(w).sum())
    assert relaxed(tensors, "drr", beta) == pytest.approx((1 - np.exp(-beta * np.abs(w))).sum(), abs=1e-12)


# ── stages of training ───────────────────────────────────────────────────────────────────────────────────────────

TARGET = torch.tensor([[1.0, -2.0], [0.5, 3.0]])


def epochs(ran: Ran, stage: str) -> list[Event]:
    return [e for e in ran.stages("epoch") if e["stage"] == stage]


def test_a_loss_that_stays_ends_the_stage_after_one_window(tmp_path: Path) -> None:
    text = quadratic(tmp_path, TARGET, start=TARGET)
    text += "\npretrain with sgd(lr = 0.1) for 50 epochs until saturated(window = 3 epochs, on = train)\n"
    ran = solve(text, tmp_path)
    assert len(epochs(ran, "pretrain")) == 3
    (best,) = ran.stages("best")
    assert (best["epochs"], best["after"], best["loss"]) == (3.0, 0.0, 0.0)


def test_a_descent_that_climbs_goes_back_to_where_it_started(tmp_path: Path) -> None:
    """½‖W − A‖² under steps of 2.1: the distance grows by 1.1 each time."""
    start = TARGET + 1
    text = quadratic(tmp_path, TARGET, start)
    text += "\npretrain with sgd(lr = 2.1) for 50 epochs until saturated(window = 4 epochs, on = train)\n"
    ran = solve(text, tmp_path)
    assert len(epochs(ran, "pretrain")) == 4
    assert torch.equal(ran.w(), start.double())


def test_a_loss_that_falls_to_the_end_runs_to_the_limit(tmp_path: Path) -> None:
    text = quadratic(tmp_path, TARGET)
    text += "\npretrain with sgd(lr = 0.1) for 12 epochs until saturated(window = 4 epochs, on = train)\n"
    ran = solve(text, tmp_path)
    assert len(epochs(ran, "pretrain")) == 12
    assert torch.allclose(ran.w(), TARGET.double() * (1 - 0.9**12)), "the last state is the best"


NETWORK = "model net = mlp([64, 16, 10])\ndata digits(batch = 128)\nminimize cross_entropy(net)\n"
HEAD = f"{NETWORK}subject to\n  s: ‖net.weights‖₀ ≤ 10%\n"


def test_the_stage_ends_where_the_oracle_says_and_at_its_best_epoch() -> None:
    states: list[tuple[float, dict[str, Tensor]]] = []

    def watch(machine: Machine, event: Event) -> None:
        if event["event"] == "epoch":
            states.append((event["levels"]["L_validation"], cloned(machine)))

    ran = solve(
        f"{NETWORK}pretrain with sgd(lr = 0.4, momentum = 0.9) for 60 epochs until saturated(window = 6 epochs)\n",
        dtype="float32",
        observe=watch,
    )
    losses = [loss for loss, _ in states]
    ends = [i for i in range(6, 60) if len(losses) >= i and np.less_equal(*slow(losses[:i], 6))]
    assert 6 < len(losses) < 60, "neither at once nor never"
    assert ends[0] == len(losses)
    best = int(np.argmin(losses))
    assert best < len(losses) - 1, "the last epoch is not the best, or the test shows nothing"
    assert same(ran.machine, states[best][1])
    assert ran.machine.measure(Measured("cross_entropy", "validation")).value == losses[best]


def cloned(machine: Machine) -> dict[str, Tensor]:
    return {n: t.detach().clone() for n, t in machine.tensors.items()}


def same(machine: Machine, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(t.detach(), state[n]) for n, t in machine.tensors.items())


@pytest.mark.parametrize(("floor", "kappa", "met"), [("93%", "40%", True), ("95.5%", "2%", False)])
def test_finetune_keeps_the_best_state_that_meets_its_constraints_else_the_nearest(
    floor: str, kappa: str, met: bool
) -> None:
    states: list[tuple[float, float, dict[str, Tensor]]] = []

    def watch(machine: Machine, event: Event) -> None:
        is_start = event["event"] == "begin" and event["stage"] == "finetune"
        if is_start or (event["event"] == "epoch" and event["stage"] == "finetune"):
            accuracy = machine.measure(Measured("accuracy", "select")).value
            states.append((accuracy, machine.measure(Measured("cross_entropy", "select")).value, cloned(machine)))

    text = HEAD.replace("10%", kappa) + f"  a: accuracy(net, on = validation) ≥ {floor}\n"
    text += "pretrain with sgd(lr = 0.2, momentum = 0.9) for 8 epochs\nsolve ista() with sgd(lr = 0.1) for 4 epochs\n"
    text += "finetune with sgd(lr = 0.9, momentum = 0.9) for 12 epochs\n"
    ran = solve(text, dtype="float32", observe=watch)
    limit = float(floor.rstrip("%")) / 100
    assert any(a >= limit for a, _, _ in states) == met
    ranked = sorted(range(len(states)), key=lambda i: (max(0.0, limit - states[i][0]), states[i][1]))
    assert ranked[0] != len(states) - 1, "the last epoch is not the best, or the test shows nothing"
    assert same(ran.machine, states[ranked[0]][2])
    (best,) = ran.stages("best")
    assert (best["after"], best["epochs"]) == (float(ranked[0]), 12.0)
    assert (best["miss"] == 0.0) == met


def test_constraints_on_the_test_split_choose_nothing() -> None:
    text = HEAD + "  a: accuracy(net, on = test) ≥ 90%\nsolve ista() for 2 epochs\nfinetune for 2 epochs\n"
    graph = compile(text).graph
    assert not any(isinstance(s, Restore) for s in walk(graph.program))


# ── every solver ─────────────────────────────────────────────────────────────────────────────────────────────────

# What `until` does on a solve under a count: nothing (refused), ends it, or ends it and goes back to its best epoch.
REFUSED, ENDS, KEEPS = "refused", "ends", "ends and keeps"
ROWS = {
    "lc": ("lc()", REFUSED),
    "admm": ("admm()", REFUSED),
    "ista": ("ista()", KEEPS),
    "drr": ("drr(reach = 0.3)", ENDS),
    "rl1": ("rl1(α = 1e-4)", KEEPS),
    "pmmp": ("pmmp()", ENDS),
    "gda": ("gda(reach = 0.3)", ENDS),
    "factors": ("factors()", KEEPS),
}
LAWS = [*ROWS.items(), ("ista", ("ista(threshold = str)", KEEPS)), ("ista", ("ista(threshold = fixed)", KEEPS))]
LAWS += [("ista", ("ista(D = 0.05, reach = 0.3)", ENDS)), ("drr", ("drr(α = 1e-4)", KEEPS))]
LAWS += [("drr", ("drr(α = 1e-4 * p)", ENDS)), ("pmmp", ("pmmp(α = 1e-4 * p)", REFUSED))]


def test_every_solver_has_a_row() -> None:
    assert {*ROWS, "bcd"} == set(solvers()), "`bcd` has no epochs"


def test_a_solver_without_epochs_has_no_until() -> None:
    text = f"{NETWORK}solve bcd(steps = 3) until saturated(window = 3 epochs)\n".replace("cross_entropy", "mse")
    with pytest.raises(SpecError) as refused:
        compile(text).require_runnable()
    assert [d.code for d in refused.value.diagnostics] == ["P490"]


@pytest.mark.parametrize(("call", "law"), [row for _, row in LAWS], ids=[row[0] for _, row in LAWS])
def test_until_on_every_solver(call: str, law: str) -> None:
    head = HEAD.replace("‖net.weights‖₀ ≤ 10%", "net.weights ∈ codebook(6)") if call.startswith("factors") else HEAD
    text = f"{head}solve {call} with sgd(lr = 0.1, momentum = 0.9) for 30 epochs until saturated(window = 3 epochs)\n"
    if law is REFUSED:
        with pytest.raises(SpecError) as refused:
            compile(text).require_runnable()
        assert [d.code for d in refused.value.diagnostics] == ["P416"]
        return
    (loop,) = (s for s in walk(compile(text).graph.program) if isinstance(s, Batches))
    assert isinstance(loop.until, Saturated)
    since, level = loop.until.since, loop.until.level
    ran = solve(text, dtype="float32")
    history = [(e["p"], e["levels"][level]) for e in epochs(ran, "solve")]
    counted = [loss for p, loss in history if p >= since]
    ends = [i for i in range(3, len(counted) + 1) if np.less_equal(*slow(counted[:i], 3))]
    assert len(history) == 30 or ends[0] == len(counted)
    assert len(history) < 30 or not ends or ends[0] == len(counted)
    both = torch.cat([ran.w("fc1.weight").flatten(), ran.w("fc2.weight").flatten()])
    assert int(both.count_nonzero()) <= 118 or (head is not HEAD and len(both.unique()) <= 6)
    if law is KEEPS:
        (best,) = ran.stages("best")
        assert best["loss"] == min(counted)
        assert best["after"] > since * 30 - 1e-9, "never a state on the way"
    else:
        assert not ran.stages("best")
