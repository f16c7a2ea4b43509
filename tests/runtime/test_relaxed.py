"""`drr` and `rl1`: gradients against autograd, stationary points against brute force, and α that finds the count."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from prunelang.compiler.graph import Penalty
from prunelang.runtime import kernels
from prunelang.runtime.descent import Relaxed
from tests.runtime.solving import Ran, quadratic, solve

A = torch.tensor([[1.5, -0.75, 0.5, 0.05], [-0.25, 0.125, -0.0625, 2.0]])
FUNCTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "drr": lambda w, beta: (1 - torch.exp(-beta * w.abs())).sum(),
    "norm1": lambda w, beta: w.abs().sum(),
}


def weights() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 7), (3,), (2, 3, 3, 3))
    found = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_(True) for s in shapes]
    with torch.no_grad():
        found[0][0, :3] = 0.0
    return found


# ── gradients ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 5.0), (2.0, 0.25), (0.0, 1.0)])
def test_gradients_are_those_of_autograd_and_add_up(name: str, alpha: float, beta: float) -> None:
    w = weights()
    loss = sum(((x - 1) ** 2).sum() for x in w) + alpha * sum(FUNCTIONS[name](x, beta) for x in w)
    expected = torch.autograd.grad(loss, w)
    for x in w:
        x.grad = 2 * (x.detach() - 1)
    rooms = [[torch.full_like(x.detach(), math.nan) for x in w] for _ in range(2)]
    with torch.no_grad():
        if name == "drr":
            kernels.add_drr_(kernels.gradients(w), w, *rooms, alpha, beta)
        else:
            kernels.add_norm1_(kernels.gradients(w), w, rooms[0], alpha)
    for x, g in zip(w, expected, strict=True):
        assert x.grad is not None
        assert torch.allclose(x.grad, g, rtol=0, atol=1e-14)


@pytest.mark.parametrize("word", ["drr", "rl1"])
@pytest.mark.parametrize("form", ["of the clocks", "of a level"])
def test_both_forms_of_weight_give_the_same_descent(word: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A level that holds the number does what the number does."""
    text = """
model net = mlp([64, 8, 10])
data digits(batch = 500)
minimize cross_entropy(net)
subject to
 ‖net.weights‖₀ ≤ 50%
solve {call} with sgd(lr = 0.1) for 3 epochs
"""
    fixed = solve(text.format(call=f"{word}(α = 0.01)"))
    if form == "of the clocks":
        other = solve(text.format(call=f"{word}(α = 0.01 + 0 * p)"))
    else:
        monkeypatch.setattr(Relaxed, "weigh", lambda self, m: setattr(self, "alpha", 0.01))
        other = solve(text.format(call=f"{word}()"))
    assert torch.equal(fixed.w(), other.w())


def test_a_level_is_read_at_each_epoch_and_a_schedule_at_each_step() -> None:
    text = """
model net = mlp([64, 8, 10])
data digits(batch = 500)
minimize cross_entropy(net)
subject to
 ‖net.weights‖₀ ≤ 50%
solve drr(α = {alpha}) with sgd(lr = 0.1) for 2 epochs
"""
    ends = [solve(text.format(alpha=a)).w() for a in ("1e-2 * step", "1e-2 * epoch", "1e-2 * p")]
    assert not any(torch.equal(a, b) for a, b in zip(ends, ends[1:] + ends[:1], strict=True))


# ── stationary points ────────────────────────────────────────────────────────────────────────────────────────────


def minimiser(a: float, alpha: float, function: str, beta: float) -> float:
    """argmin ½(w − a)² + α·f(w) over a fine grid that holds 0."""
    grid = np.linspace(-2.5, 2.5, 500_001)
    f = np.abs(grid) if function == "norm1" else 1 - np.exp(-beta * np.abs(grid))
    return float(grid[np.argmin((grid - a) ** 2 / 2 + alpha * f)])


@pytest.mark.parametrize("optimizer", ["sgd(lr = {lr}, momentum = 0.5)", "adam(lr = {lr})"])
@pytest.mark.parametrize(
    ("solver", "penalty", "function", "beta"),
    [
        ("drr(β = 3)", "‖net.weights‖₀", "drr", 3.0),
        ("drr()", "drr(net.weights, 2)", "drr", 2.0),
        ("rl1()", "‖net.weights‖₁", "norm1", 1.0),
        ("rl1()", "‖net.weights‖₀", "norm1", 1.0),
    ],
)
def test_the_descent_ends_at_the_minimum_of_each_coordinate(
    tmp_path: Path, optimizer: str, solver: str, penalty: str, function: str, beta: float
) -> None:
    """½‖W − A‖² + α·R is separable, and convex for αβ² < 1; which optimizer walks there does not matter."""
    alpha = 0.1
    text = f"{quadratic(tmp_path, A)} + {alpha} * {penalty}\nsolve {solver} with "
    ran = solve(text + optimizer.format(lr="ramp(0.1, 1e-5, 0.3, 1, shape = cosine)") + " for 600 steps\n", tmp_path)
    expected = torch.tensor([[minimiser(float(a), alpha, function, beta) for a in row] for row in A])
    assert torch.allclose(ran.w(), expected.double(), rtol=0, atol=1e-3)
    assert any(float(e) == 0.0 for e in expected.flatten())


def test_what_is_pinned_is_not_shrunk(tmp_path: Path) -> None:
    text = (
        quadratic(tmp_path, A) + "\nsubject to\n net.weights ∈ dense\n ‖net.weights‖₀ ≤ 8\n"
        "solve rl1(α = 0.3) with sgd(lr = 0.2) for 200 steps\n"
    )
    assert torch.allclose(solve(text, tmp_path).w(), A.double(), rtol=0, atol=1e-6)


# ── α that finds the count ───────────────────────────────────────────────────────────────────────────────────────

DIGITS = """
model net = mlp([64, 32, 10])
data digits(batch = 64)
minimize cross_entropy(net)
subject to
 {lines}
pretrain with sgd(lr = 0.1, momentum = 0.9) for 5 epochs
solve {solver} with {optimizer} for 25 epochs
"""


def cut_of(ran: Ran) -> tuple[float, float]:
    """The largest relative cut at the start and at the end of the solve."""
    course = [e["levels"] for e in ran.stages("epoch") if e["stage"] == "solve"]
    (end,) = [e["cuts"] for e in ran.stages("stage")]
    return max(v for k, v in course[0].items() if k.startswith("cut")), max(end.values())


@pytest.mark.parametrize("solver", ["drr()", "rl1()"])
@pytest.mark.parametrize(
    ("optimizer", "residue"),
    [("sgd(lr = 0.1 * 0.95^epoch, momentum = 0.9, nesterov = true)", 0.1), ("adam(lr = 2e-3 * 0.93^epoch)", 0.15)],
)
def test_the_last_cut_removes_next_to_nothing(solver: str, optimizer: str, residue: float) -> None:
    ran = solve(DIGITS.format(lines="‖net.weights‖₀ ≤ 8%", solver=solver, optimizer=optimizer), dtype="float32")
    first, last = cut_of(ran)
    assert first > 0.4
    assert last < residue
    assert sum(int(t.count_nonzero()) for n, t in ran.machine.tensors.items() if "weight" in n) == 189


def test_each_constraint_has_an_alpha_of_its_own() -> None:
    lines = '‖net["fc1"].weights‖₀ ≤ 5%\n ‖net["fc2"].weights‖₀ ≤ 40%'
    optimizer = "sgd(lr = 0.1 * 0.95^epoch, momentum = 0.9)"
    ran = solve(DIGITS.format(lines=lines, solver="drr()", optimizer=optimizer), dtype="float32")
    levels = ran.stages("stage")[0]["levels"]
    assert levels["α_1"] > 0 < levels["α_2"] != levels["α_1"]
    assert cut_of(ran)[1] < 0.12


def test_a_given_alpha_stays_and_the_cut_is_told() -> None:
    ran = solve(DIGITS.format(lines="‖net.weights‖₀ ≤ 8%", solver="drr(α = 1e-6)", optimizer="sgd(lr = 0.1)"))
    assert "α" not in ran.stages("epoch")[-1]["levels"]
    (cuts,) = [e["cuts"] for e in ran.stages("stage")]
    assert cuts["‖net.weights‖₀"] > 0.3, "next to no penalty: the end is a plain cut"


@pytest.mark.parametrize(
    ("cut", "last", "left", "factor"),
    [
        (0.5, 0.5, 10, math.exp(math.log(0.5 / 0.03) / 10)),  # stands still: as much as is missing
        (0.5, 0.5 / (0.03 / 0.5) ** 0.1, 10, 1.0),  # on course
        (0.5, 0.1, 1, 3.0),  # no more than threefold
        (0.001, 0.5, 1, 0.5),  # no less than half
        (0.0, 0.0, 1, 0.5),
    ],
)
def test_alpha_follows_what_is_missing(cut: float, last: float, left: float, factor: float) -> None:
    assert kernels.raised(2.0, 2.0, cut, last, 0.03, left) == pytest.approx(2.0 * factor)


def test_a_rise_that_makes_weights_tremble_is_taken_back() -> None:
    assert kernels.raised(2.0, 1.5, 0.07, 0.06, 0.03, 4) == 1.5
    assert kernels.raised(2.0, 1.5, 0.05, 0.06, 0.03, 4) > 1.5, "it fell: the rise did help"
    assert kernels.raised(2.0, 1.5, 0.71, 0.7, 0.03, 4) > 2.0, "far away a cut may grow for other reasons"
    assert kernels.raised(2.0, 2.5, 0.07, 0.06, 0.03, 4) > 2.0, "α sank, and so the cut grew"


def test_the_first_alpha_takes_the_largest_outsider_to_zero_at_the_optimizer_s_pace() -> None:
    w = torch.nn.Parameter(torch.tensor([0.5]))
    sgd = torch.optim.SGD([{"params": [w]}], lr=0.1, momentum=0.9)
    assert kernels.pace(sgd, [w]) == pytest.approx(1.0)
    adam = torch.optim.Adam([{"params": [w]}], lr=0.1, betas=(0.9, 0.99), eps=0.0)
    for _ in range(3):
        w.grad = torch.tensor([4.0])
        adam.step()
    assert kernels.pace(adam, [w]) == pytest.approx(0.1 / 4.0)
    assert kernels.first_weight(0.5, 5.0, 1.0, 20) * 5.0 * 1.0 * 20 == pytest.approx(0.5)
    assert kernels.first_weight(0.5, 5.0, 0.0, 20) == 0.0


def test_a_penalty_says_what_it_is() -> None:
    assert str(Penalty("W", "drr", "α", 5.0)) == "α Σ(1 − e^(−5|W|))"
    assert str(Penalty("W", "norm1", "α")) == "α ‖W‖₁"
