"""Every solver against problems whose answer is known: primal and dual, in float64, through the real executor.

The data term is ½‖W − A‖², so that the constrained optimum is Π_C(A), the penalised one prox(A), and the multiplier of
a ball what its projection moves.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from prunelang.runtime import kernels
from tests.runtime.solving import Ran, linear, quadratic, solve

N = 32
SPLITTING = ["lc(μ = 1, steps = 80)", "admm(ρ = 1, steps = 80)"]
EXACT_STEP = "with sgd(lr = 0.5) for 1 steps"  # at μ = 1 the pulled quadratic has curvature 2: one step solves it


@pytest.fixture
def a() -> Tensor:
    """Distinct magnitudes, exact in float32, so that no support is a tie."""
    generator = torch.Generator().manual_seed(3)
    magnitudes = (torch.randperm(N, generator=generator) + 1) / 16.0
    signs = torch.randint(0, 2, (N,), generator=generator) * 2.0 - 1.0
    return (magnitudes * signs).reshape(1, N).double()


def soft(v: Tensor, t: float) -> Tensor:
    return v.sign() * (v.abs() - t).clamp_min(0)


def l1_threshold(a: Tensor, kappa: float) -> float:
    """Σ (|a| − t)₊ = κ by bisection."""
    low, high = 0.0, float(a.abs().max())
    for _ in range(200):
        t = (low + high) / 2
        low, high = (t, high) if float((a.abs() - t).clamp_min(0).sum()) > kappa else (low, t)
    return high


def largest(a: Tensor, kappa: int) -> Tensor:
    order = a.abs().flatten().argsort(descending=True)
    out = torch.zeros_like(a).flatten()
    out[order[:kappa]] = a.flatten()[order[:kappa]]
    return out.view_as(a)


# ── balls: primal and dual ───────────────────────────────────────────────────────────────────────────────────────


def in_l1(a: Tensor) -> tuple[Tensor, float]:
    t = l1_threshold(a, 5.0)
    return soft(a, t), t


def in_l2(a: Tensor) -> tuple[Tensor, float]:
    length = float(a.norm())
    return a * 3.0 / length, length - 3.0


def in_l2_squared(a: Tensor) -> tuple[Tensor, float]:
    length, radius = float(a.norm()), 5.0**0.5
    return a * radius / length, (length - radius) / (2 * radius)


def in_linf(a: Tensor) -> tuple[Tensor, float]:
    return a.clamp(-0.7, 0.7), float((a.abs() - 0.7).clamp_min(0).sum())


def inactive(a: Tensor) -> tuple[Tensor, float]:
    return a, 0.0


def in_count_and_l2(a: Tensor) -> tuple[Tensor, float]:
    kept = largest(a, 6)
    return kept / kept.norm(), float(kept.norm()) - 1.0


BALLS: dict[str, Callable[[Tensor], tuple[Tensor, float]]] = {
    "ball: ‖net.weights‖₁ ≤ 5": in_l1,
    "ball: ‖net.weights‖₂ ≤ 3": in_l2,
    "ball: ‖net.weights‖₂² ≤ 5": in_l2_squared,
    "ball: ‖net.weights‖∞ ≤ 0.7": in_linf,
    "ball: ‖net.weights‖₂ ≤ 1000": inactive,
    "count: ‖net.weights‖₀ ≤ 6\n ball: ‖net.weights‖₂ ≤ 1": in_count_and_l2,
}


@pytest.mark.parametrize("solver", SPLITTING)
@pytest.mark.parametrize("constraint", BALLS)
def test_balls_reach_the_projection_and_its_multiplier(tmp_path: Path, a: Tensor, constraint: str, solver: str) -> None:
    text = f"{quadratic(tmp_path, a, start=a)}\nsubject to\n {constraint}\nsolve {solver} {EXACT_STEP}\n"
    expected, price = BALLS[constraint](a)
    ran = solve(text, tmp_path)
    assert torch.allclose(ran.w(), expected, atol=1e-10)
    assert ran.machine.prices["ball"].value == pytest.approx(price, abs=1e-8)


@pytest.mark.parametrize("mu", [1, 4])
def test_the_quadratic_penalty_finds_the_point_and_a_price_that_lacks_a_share(
    tmp_path: Path, a: Tensor, mu: int
) -> None:
    """λ ≡ 0: θ = Π((a + μθ)/(1 + μ)) is Π(a), where the pull, hence the price, is ν·μ/(1 + μ)."""
    solver = f"lc(μ = {mu}, steps = 150, method = penalty) with sgd(lr = 1 / {1 + mu}) for 1 steps"
    ran = solve(f"{quadratic(tmp_path, a)}\nsubject to\n ball: ‖net.weights‖₁ ≤ 5\nsolve {solver}\n", tmp_path)
    expected, price = in_l1(a)
    assert torch.allclose(ran.w(), expected, atol=1e-10)
    assert ran.machine.prices["ball"].value == pytest.approx(price * mu / (1 + mu), abs=1e-8)


# ── penalties ────────────────────────────────────────────────────────────────────────────────────────────────────

PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "0.25 * ‖net.weights‖₁": lambda a: soft(a, 0.25),
    "0.25 * ‖net.weights‖₀": lambda a: torch.where(a.abs() > 0.5**0.5, a, 0.0),
    "0.25 * sparse_flops(net)": lambda a: torch.where(a.abs() > 1.0, a, 0.0),  # 2 FLOPs a weight
    "0.25 * ‖net.weights‖₂²": lambda a: a / 1.5,
    "0.25 * ‖net.weights‖₂": lambda a: a * (1 - 0.25 / float(a.norm())),
    "100 * ‖net.weights‖₂": torch.zeros_like,
    "0.25 * group_norm1(net.weights, by = row)": lambda a: a * (1 - 0.25 / float(a.norm())),
    "0.25 * group_norm1(net.weights, by = column)": lambda a: soft(a, 0.25),
}


@pytest.mark.parametrize("solver", SPLITTING)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalties_reach_their_proximal_point(tmp_path: Path, a: Tensor, penalty: str, solver: str) -> None:
    ran = solve(f"{quadratic(tmp_path, a, start=a)} + {penalty}\nsolve {solver} {EXACT_STEP}\n", tmp_path)
    expected = PENALTIES[penalty](a)
    assert torch.allclose(ran.w(), expected, atol=1e-10)
    assert torch.equal(ran.w() != 0, expected != 0)
    assert torch.equal(ran.kept["fc1.weight"], expected != 0)


def test_maximising_takes_penalties_with_their_sign(tmp_path: Path, a: Tensor) -> None:
    head = quadratic(tmp_path, a, start=a).replace("minimize ", "maximize -")
    ran = solve(f"{head} - 0.25 * ‖net.weights‖₁\nsolve {SPLITTING[0]} {EXACT_STEP}\n", tmp_path)
    assert torch.allclose(ran.w(), soft(a, 0.25), atol=1e-10)


def test_a_penalty_on_some_and_a_constraint_on_others(tmp_path: Path) -> None:
    text = """
model net = mlp([64, 6, 10])
data digits(batch = 256)
minimize cross_entropy(net) + 0.01 * ‖net["fc2"].weights‖₁
subject to
    ‖net["fc1"].weights‖₀ ≤ 30
solve lc(steps = 8) with sgd(lr = 0.3, momentum = 0.9) for 1 epochs
"""
    ran = solve(text)
    assert int(ran.w("fc1.weight").count_nonzero()) == 30
    assert 0 < int(ran.w("fc2.weight").count_nonzero()) < 60


# ── designs that are not orthonormal ─────────────────────────────────────────────────────────────────────────────


def design(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    x = random.integers(-8, 9, (40, 8)).astype(np.float32) / 8
    x[:, 1] = (x[:, 0] + x[:, 1]) / 2  # correlated columns
    y = (x @ np.array([2, -1, 0, 0, 0.5, 0, 0, 1], np.float32)).reshape(40, 1) + random.integers(-4, 5, (40, 1)) / 16
    y = y.astype(np.float32)
    np.savez(folder / "design.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return x.astype(np.float64), y.astype(np.float64)


def lasso(x: np.ndarray, y: np.ndarray, alpha: float) -> np.ndarray:
    """``min mean (xw − y)² + α‖w‖₁`` by cyclic coordinate descent."""
    count, w = len(x), np.zeros(x.shape[1])
    for _ in range(1000):
        for j in range(len(w)):
            rest = y[:, 0] - x @ w + x[:, j] * w[j]
            pull, curvature = 2 / count * x[:, j] @ rest, 2 / count * x[:, j] @ x[:, j]
            w[j] = np.sign(pull) * max(abs(pull) - alpha, 0) / curvature
    return w


SMOOTH = "with sgd(lr = 0.3, momentum = 0.5) for 60 steps"


@pytest.mark.parametrize("solver", ["lc(μ = 0.5, steps = 60)", "admm(ρ = 0.5, steps = 60)"])
def test_lasso_against_coordinate_descent(tmp_path: Path, solver: str) -> None:
    x, y = design(tmp_path)
    head = linear(tmp_path, 1, 8, 40, "mse(net)", "design.npz")
    ran = solve(f"{head} + 0.2 * ‖net.weights‖₁\nsolve {solver} {SMOOTH}\n", tmp_path)
    expected = lasso(x, y, 0.2)
    assert 0 < np.count_nonzero(expected) < 8
    assert np.allclose(ran.w().numpy()[0], expected, atol=1e-7)


def test_the_price_of_an_l1_ball_is_the_lasso_coefficient(tmp_path: Path) -> None:
    """min L s.t. ‖w‖₁ ≤ κ and min L + ν‖w‖₁ have the same solution at the multiplier ν."""
    x, y = design(tmp_path)
    kappa = float(np.abs(lasso(x, y, 0.2)).sum())
    head = linear(tmp_path, 1, 8, 40, "mse(net)", "design.npz")
    text = f"{head}\nsubject to\n ball: ‖net.weights‖₁ ≤ {kappa!r}\nsolve lc(μ = 0.5, steps = 60) {SMOOTH}\n"
    ran = solve(text, tmp_path)
    assert ran.machine.prices["ball"].value == pytest.approx(0.2, abs=1e-6)
    assert np.allclose(ran.w().numpy()[0], lasso(x, y, 0.2), atol=1e-6)


# ── supports: exact on sizes that brute force can check ──────────────────────────────────────────────────────────

Allowed = Callable[[np.ndarray], bool]
ROWS, COLUMNS = 3, 4
SETS: dict[str, Allowed] = {
    "‖net.weights‖₀ ≤ 5": lambda m: m.sum() <= 5,
    "3 ≤ ‖net.weights‖₀ ≤ 5": lambda m: 3 <= m.sum() <= 5,
    "net.weights ∈ sparse(25%)": lambda m: m.sum() <= 3,
    "net.weights ∈ n_of_m(1, 2)": lambda m: m.reshape(ROWS, 2, 2).sum(2).max() <= 1,
    "net.weights ∈ n_of_m(1, 2)\n ‖net.weights‖₀ ≤ 4": lambda m: m.reshape(-1, 2).sum(1).max() <= 1 and m.sum() <= 4,
    "group_norm0(net.weights, by = row) ≤ 1": lambda m: m.any(1).sum() <= 1,
    "group_norm0(net.weights, by = column) ≤ 2": lambda m: m.any(0).sum() <= 2,
    "sparse_macs(net) ≤ 5 MACs": lambda m: m.sum() <= 5,
    "net.weights ∈ blocks(1, 2)\n ‖net.weights‖₀ ≤ 6": lambda m: (
        np.array_equal(m[:, 0::2], m[:, 1::2]) and m.sum() <= 6
    ),
}


def best(a: np.ndarray, allowed: Allowed) -> float:
    """The least ‖a − w‖² over all supports."""
    supports = itertools.product([False, True], repeat=a.size)
    masks = (np.array(s).reshape(a.shape) for s in supports)
    return min(float((a[~m] ** 2).sum()) for m in masks if allowed(m))


@pytest.mark.parametrize("solver", SPLITTING)
@pytest.mark.parametrize("constraint", SETS)
def test_supports_are_the_best_there_are(tmp_path: Path, constraint: str, solver: str) -> None:
    target = torch.tensor([[5, -1, 3, 4], [-9, 8, 2, 6], [10, 7, -12, 11]]) / 8.0
    head = quadratic(tmp_path, target.double())
    text = f"{head}\nsubject to\n {constraint}\npretrain with sgd(lr = 1) for 1 epochs\nsolve {solver} {EXACT_STEP}\n"
    ran = solve(text, tmp_path)
    kept = ran.kept["fc1.weight"].numpy()
    assert SETS[constraint](kept)
    loss = float((ran.w() - target).square().sum())
    assert loss == pytest.approx(best(target.numpy().astype(float), SETS[constraint]), abs=1e-12)


def test_budgets_on_two_layers_at_once_hold_together() -> None:
    """Per-layer, global and weighted counts: feasible, by a count of the weights as they are."""
    text = """
model net = mlp([64, 8, 10])
data digits(batch = 256)
minimize cross_entropy(net)
subject to
    each: ∀ l ∈ net.layers: ‖l.weights‖₀ ≤ 20%
    all: ‖net.weights‖₀ ≤ 90
    size: bytes(net, format = csr) ≤ 1200 B
solve lc(steps = 4) with sgd(lr = 0.1, momentum = 0.9) for 1 epochs
finetune with sgd(lr = 0.01, momentum = 0.9) for 2 epochs
"""
    ran = solve(text)
    first, second = (int(ran.w(f"fc{i}.weight").count_nonzero()) for i in (1, 2))
    assert first <= 102
    assert second <= 16
    assert first + second <= 90
    outer = ran.stages("outer")[-1]
    assert all(c["value"] <= c["bound"] for c in outer["constraints"])
    assert {c["label"] for c in outer["constraints"]} == {"each[fc1]", "each[fc2]", "all", "size"}


# ── ista ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def soft_steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Tensor]]:
    """Records (d, W) after every W ← soft(θ, d)."""
    seen: list[tuple[float, Tensor]] = []
    original = kernels.soft_

    def record(out: list[Tensor], theta: list[Tensor], d: float) -> None:
        original(out, theta, d)
        seen.append((d, torch.cat([w.detach().flatten() for w in out]).clone()))

    monkeypatch.setattr(kernels, "soft_", record)
    return seen


def test_ista_is_dual_averaging_and_for_lasting_weights_the_proximal_step(
    tmp_path: Path, a: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = soft_steps(monkeypatch)
    start = (a * 0.5 + 0.25).double()
    text = f"{quadratic(tmp_path, a, start=start)}\nsubject to\n ‖net.weights‖₀ ≤ 7\n"
    ran = solve(f"{text}solve ista(reach = 0.6) with sgd(lr = 0.05) for 30 epochs\n", tmp_path)
    steps = seen[:-1]  # the last one is the hit
    assert len(steps) == 30
    target, theta, w, d = a.flatten(), start.flatten().clone(), start.flatten().clone(), 0.0
    lasting = 0
    for d_next, got in steps:
        gradient = w - target
        theta -= 0.05 * gradient
        expected = soft(theta, d_next)
        assert torch.allclose(got, expected, atol=1e-12)
        proximal = soft(w - 0.05 * gradient, d_next - d)
        same = (w != 0) & (got != 0) & (w.sign() == got.sign())
        assert torch.allclose(got[same], proximal[same], atol=1e-12)
        lasting += int(same.sum())
        assert d_next >= d, "the threshold grows"
        w, d = got, d_next
    assert lasting > 7 * 30
    assert int(ran.kept["fc1.weight"].sum()) == int(ran.w().count_nonzero()) == 7


@pytest.mark.parametrize("kappa", [0, 1, 5, 31, 32])
def test_ista_keeps_exactly_kappa_positions_under_ties(tmp_path: Path, kappa: int) -> None:
    tied = torch.full((1, N), 0.5, dtype=torch.float64)
    text = f"{quadratic(tmp_path, tied, start=tied)}\nsubject to\n ‖net.weights‖₀ ≤ {kappa}\n"
    ran = solve(f"{text}solve ista() with sgd(lr = 0.1) for 6 epochs\n", tmp_path)
    kept = ran.kept["fc1.weight"].flatten()
    assert kept.tolist() == [i < kappa for i in range(N)], "ties go to the lowest index"
    assert int(ran.w().count_nonzero()) <= kappa
    assert not ran.w().flatten()[~kept].any()


@pytest.mark.parametrize("reach", ["0.1 * 3", "0.7", "1", "1/3", "0.05"])
def test_any_reach_is_met(tmp_path: Path, a: Tensor, reach: str) -> None:
    """``0.1 · 3`` is a little more than the p = 3/10 at which an epoch ends."""
    text = f"{quadratic(tmp_path, a, start=a)}\nsubject to\n ‖net.weights‖₀ ≤ 7\n"
    ran = solve(f"{text}solve ista(reach = {reach}) with sgd(lr = 0.05) for 10 epochs\n", tmp_path)
    assert int(ran.kept["fc1.weight"].sum()) == 7


def test_the_course_of_a_threshold_survives_every_rounding_before_reach() -> None:
    for below in (0.3, 0.1 * 3, 1 - 2**-53, 0.7):
        course = kernels.steered(below * (1 - 2**-52), 1.0, 2.0, (0.0, 0.0), below)
        assert kernels.anchored(below, course, below) == pytest.approx(2.0)


def test_ista_steers_each_constraint_by_a_threshold_of_its_own() -> None:
    text = """
model net = mlp([64, 8, 10])
data digits(batch = 256)
minimize cross_entropy(net)
subject to
    one: ‖net["fc1"].weights‖₀ ≤ 40
    two: ‖net["fc2"].weights‖₀ ≤ 30
    net["fc2"].biases ∈ dense
solve ista() with sgd(lr = 0.1, momentum = 0.9) for 5 epochs
"""
    ran = solve(text)
    assert {n: int(k.sum()) for n, k in ran.kept.items()} == {"fc1.weight": 40, "fc2.weight": 30}


# ── stages, clocks, durations ────────────────────────────────────────────────────────────────────────────────────


def test_stages_of_one_kind_have_optimizers_and_levels_of_their_own(tmp_path: Path, a: Tensor) -> None:
    text = f"""{quadratic(tmp_path, a)}
subject to
 ‖net.weights‖₀ ≤ 9
pretrain with sgd(lr = 0.5) for 1 epochs
pretrain with sgd(lr = 1) for 1 epochs
solve lc(μ = 1, steps = 3) with sgd(lr = 0.5) for 1 epochs
solve ista() with sgd(lr = 0.1) for 5 epochs
solve lc(μ = 2, steps = 4) with sgd(lr = 0.1) for 2 epochs
finetune with sgd(lr = 0.5) for 1 epochs
finetune with sgd(lr = 1) for 1 epochs
"""
    ran = solve(text, tmp_path)
    assert torch.allclose(ran.w(), largest(a, 9), atol=1e-12), "the last stage lands on A in one step"
    assert [len(ran.stages(e)) for e in ("begin", "stage", "outer")] == [7, 3, 7]


def test_steps_end_inside_an_epoch_and_every_loop_starts_its_clocks_anew(tmp_path: Path) -> None:
    text = """
model net = mlp([64, 10])
data digits(batch = 200)
minimize cross_entropy(net)
subject to
    ‖net.weights‖₀ ≤ 50
solve lc(μ = 0.01 * (1 + k), steps = 3) with sgd(lr = 0.1) for 10 steps
"""
    ran = solve(text, tmp_path)
    assert ran.session.graph.node("data").batches == 8  # type: ignore[attr-defined]
    epochs = [(e["k"], e["epoch"], round(e["p"], 10)) for e in ran.stages("epoch")]
    share = 1 / 3
    assert epochs == [(k, e, round(share * (k + (0.8, 1.0)[e]), 10)) for k in range(3) for e in range(2)]
    assert ran.machine.epochs == 6, "each part of an epoch draws an order of its own"
    assert [e["levels"]["μ"] for e in ran.stages("outer")] == pytest.approx([0.01, 0.02, 0.03])


def test_the_length_of_an_inner_loop_may_follow_k() -> None:
    text = """
model net = mlp([64, 10])
data digits(batch = 2000)
minimize cross_entropy(net)
subject to
    ‖net.weights‖₀ ≤ 50
solve lc(steps = 3) with sgd(lr = 0.1) for 1 + k epochs
"""
    ran = solve(text)
    assert [e["k"] for e in ran.stages("epoch")] == [0, 1, 1, 2, 2, 2]


def test_coefficients_of_data_terms_follow_every_clock(tmp_path: Path, a: Tensor) -> None:
    """Plain descent on c(step)·½‖w − a‖² from 0: the error shrinks by 1 − lr·c at every step."""
    head = quadratic(tmp_path, a).replace("minimize ", "minimize (1 + step) * ")
    solver = "lc(μ = 1e-150, steps = 1) with sgd(lr = 0.1) for 4 steps"
    ran = solve(f"{head}\nsubject to\n ‖net.weights‖₀ ≤ 32\nsolve {solver}\n", tmp_path)
    error = np.prod([1 - 0.1 * (1 + s) for s in range(4)])
    assert torch.allclose(ran.w(), a * (1 - error), atol=1e-12)


def test_a_learning_rate_may_follow_every_clock(tmp_path: Path, a: Tensor) -> None:
    rate = "0.01 * (1 + step) + 0.02 * epoch + 0.1 * p + 0.05 * k"
    text = f"{quadratic(tmp_path, a)}\nsubject to\n ‖net.weights‖₀ ≤ 32\n"
    ran = solve(f"{text}solve lc(μ = 1e-150, steps = 2) with sgd(lr = {rate}) for 3 epochs\n", tmp_path)
    w, x = 0.0, []
    for k in range(2):
        for s in range(3):
            lr = 0.01 * (1 + s) + 0.02 * s + 0.1 * (k + s / 3) / 2 + 0.05 * k
            w += lr * (1 - w)
            x.append(w)
    assert torch.allclose(ran.w(), a * x[-1], atol=1e-12)


def result_of(ran: Ran) -> Tensor:
    return torch.cat([t.detach().flatten() for t in ran.machine.tensors.values()])


@pytest.mark.parametrize("solver", ["lc(steps = 2)", "ista()"])
def test_twice_the_same_to_the_bit_and_two_threads_to_tolerance(solver: str) -> None:
    text = f"""
model net = mlp([64, 32, 10])
data digits(batch = 128)
minimize cross_entropy(net)
subject to
    ‖net.weights‖₀ ≤ 10%
solve {solver} with sgd(lr = 0.1, momentum = 0.9) for 2 epochs
"""
    first, second = (result_of(solve(text, dtype="float32")) for _ in range(2))
    assert torch.equal(first, second)
    torch.set_num_threads(2)
    try:
        threaded = result_of(solve(text, dtype="float32"))
    finally:
        torch.set_num_threads(1)
    assert torch.allclose(first, threaded, atol=1e-3)
    other = result_of(solve(text, dtype="float32", seed=1))
    assert not torch.equal(first, other)
