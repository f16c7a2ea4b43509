"""Soft thresholds in the executor: dual averaging, the ℓ1 problem solved in effect, exact gradients, counts met."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from prunelang import compile
from prunelang.compiler.thresholds import prefix_sums
from prunelang.runtime import kernels
from prunelang.runtime.machine import Event, Machine
from tests.runtime.solving import Ran, linear, quadratic, solve
from tests.runtime.test_solvers import design, lasso, soft, soft_steps

N = 32
VARIANTS = ["s_lats", "lats", "stds_sine", "stds_linear", "pgh, β = 0.01", "fixed", "str"]
SMALL = "model net = mlp([64, 16, 10])\ndata digits(batch = 128)\nminimize cross_entropy(net)"
FITS = "with sgd(lr = 0.1 * 0.9^epoch, momentum = 0.9) for 6 epochs"


@pytest.fixture
def a() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    magnitudes = (torch.randperm(N, generator=generator) + 1) / 16.0
    signs = torch.randint(0, 2, (N,), generator=generator) * 2.0 - 1.0
    return (magnitudes * signs).reshape(1, N).double()


# ── dual averaging and the ℓ1 problem ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("threshold", ["s_lats", "lats", "stds_sine", "stds_linear", "pgh"])
def test_every_identity_gradient_threshold_is_dual_averaging_for_every_weight(
    tmp_path: Path, a: Tensor, monkeypatch: pytest.MonkeyPatch, threshold: str
) -> None:
    """``w_t = S_{d_t}(θ₀ − Σ ηg)``, and the ISTA step with μ = Δd/η for weights that stay non-zero."""
    seen = soft_steps(monkeypatch)
    start = (a * 0.5 + 0.25).double()
    rate = "0.05 / (1 + 0.1 * step)"
    text = f"{quadratic(tmp_path, a, start=start)}\nsubject to\n ‖net.weights‖₀ ≤ 7\n"
    solve(f"{text}solve ista(threshold = {threshold}, reach = 0.7) with sgd(lr = {rate}) for 30 epochs\n", tmp_path)
    target, total, w, d = a.flatten(), torch.zeros(N, dtype=torch.float64), start.flatten().clone(), 0.0
    lasting = 0
    for step, (d_next, got) in enumerate(seen[:-1]):  # the last one is the hit
        eta = 0.05 / (1 + 0.1 * step)
        gradient = w - target
        total += eta * gradient
        assert torch.allclose(got, soft(start.flatten() - total, d_next), atol=1e-12)
        proximal = soft(w - eta * gradient, eta * ((d_next - d) / eta))
        same = (w != 0) & (got != 0) & (w.sign() == got.sign())
        assert torch.allclose(got[same], proximal[same], atol=1e-12)
        lasting += int(same.sum())
        w, d = got, d_next
    assert lasting > 7 * 30


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_coefficient_under_momentum_and_decay_is_its_formula(
    tmp_path: Path, a: Tensor, monkeypatch: pytest.MonkeyPatch, nesterov: bool
) -> None:
    """Weights that keep their sign take momentum steps on ``L + wd/2‖w‖² + c_t‖w‖₁``, c = (1 − β)Δd/η + wd·d, under any
    learning rate when Δd/η is constant. The velocity of the ℓ1 part starts at its limit Δd/η."""
    seen = soft_steps(monkeypatch)
    beta, decay, mu, steps = 0.5, 0.01, 0.002, 25
    start = (a + a.sign()).double()  # far from zero: every weight lasts
    rate = "ramp(0.01, 0.05, 0 steps, 10 steps)"
    call = f"sgd(lr = {rate}, momentum = {beta}, nesterov = {str(nesterov).lower()}"
    head = quadratic(tmp_path, a, start=start)
    solve(f"{head}\nsolve ista(μ = {mu}) with {call}, weight_decay = {decay}) for {steps} epochs\n", tmp_path)
    target, sign, w = a.flatten(), start.flatten().sign(), start.flatten().clone()
    assert len(seen) == steps
    velocity, d = mu / (1 - beta) * sign, 0.0
    for step, (d_next, got) in enumerate(seen):
        eta = 0.01 + 0.04 * min(step / 10, 1.0)
        assert (1 - beta) * (d_next - d) / eta == pytest.approx(mu, rel=1e-11), "the first part is constant"
        gradient = (w - target) + decay * w + (mu + decay * d) * sign
        velocity = beta * velocity + gradient
        w = w - eta * (gradient + beta * velocity if nesterov else velocity)
        assert torch.equal(w.sign(), sign)
        assert torch.allclose(got, w, atol=1e-12)
        d = d_next


def test_the_penalty_form_reaches_the_lasso(tmp_path: Path) -> None:
    """``min L + α‖w‖₁`` on a design that is not orthonormal, with momentum, against coordinate descent."""
    x, y = design(tmp_path)
    head = linear(tmp_path, 1, 8, 40, "mse(net)", "design.npz")
    ran = solve(
        f"{head} + 0.2 * ‖net.weights‖₁\nsolve ista() with sgd(lr = 0.1, momentum = 0.5) for 2000 steps\n", tmp_path
    )
    expected = torch.tensor(lasso(x, y, 0.2))
    assert torch.equal(ran.w()[0] != 0, expected != 0)
    assert torch.allclose(ran.w()[0], expected, atol=1e-6)
    assert torch.equal(ran.kept["fc1.weight"][0], expected != 0), "the support is what is not zero"
    assert ran.machine.levels["d"] == pytest.approx(0.2 * 0.1 * 2000 / (1 - 0.5), rel=1e-12)


@pytest.mark.parametrize("reach", [1.0, 0.4])
def test_an_end_given_is_reached_and_held(tmp_path: Path, a: Tensor, reach: float) -> None:
    head = quadratic(tmp_path, a, start=a)
    ran = solve(f"{head}\nsolve ista(D = 0.25, reach = {reach}) with sgd(lr = 0.01) for 50 steps\n", tmp_path)
    assert ran.machine.levels["d"] == 0.25
    held = [e["levels"]["d"] for e in ran.stages("epoch") if e["p"] >= reach]
    assert held
    assert set(held) == {0.25}
    assert torch.equal(ran.w() != 0, ran.kept["fc1.weight"])


def test_a_coefficient_of_its_own_for_each_tensor_that_follows_a_clock() -> None:
    objective = 'minimize cross_entropy(net) + (1e-3 + p / 100) * ‖net["fc1"].weights‖₁ + 2e-2 * ‖net["fc2"].weights‖₁'
    text = SMALL.replace("minimize cross_entropy(net)", objective)
    ran = solve(f"{text}\nsolve ista() with sgd(lr = 0.1) for 22 steps\n")
    rises = prefix_sums(lambda epoch, step, p: 0.1 * (1e-3 + p / 100), 22, 12)[-1]
    assert ran.machine.levels["d_1"] == pytest.approx(rises, rel=1e-12)
    assert ran.machine.levels["d_2"] == pytest.approx(0.1 * 2e-2 * 22, rel=1e-12)


# ── the exact gradient of trained thresholds ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("budget", [False, True])
def test_trained_thresholds_have_the_gradient_of_autograd(budget: bool) -> None:
    torch.manual_seed(0)
    theta = [torch.randn(5, 7, dtype=torch.float64), torch.randn(3, dtype=torch.float64)]
    g = [torch.randn_like(t) for t in theta]
    s, level = torch.tensor([-0.3, 0.4], dtype=torch.float64), 0.7 if budget else 1.0
    d = kernels.own_thresholds(s, level, budget)
    weights = [torch.empty_like(t) for t in theta]
    kernels.soft_by_(weights, theta, d)

    leaves, root = [t.clone().requires_grad_(True) for t in theta], s.clone().requires_grad_(True)
    own = level * (torch.exp(root) if budget else torch.sigmoid(root))
    outputs = [t.sign() * torch.relu(t.abs() - own[i]) for i, t in enumerate(leaves)]
    sum((o * x).sum() for o, x in zip(outputs, g, strict=True)).backward()  # type: ignore[union-attr]

    assert all(torch.allclose(w, o, atol=1e-15) for w, o in zip(weights, outputs, strict=True))
    assert 0 < int(weights[0].count_nonzero()) < 35
    for w, x in zip(weights, g, strict=True):
        w.grad = x.clone()
    kernels.differentiate_(theta, s, weights, d, budget)
    assert all(torch.allclose(t.grad, x.grad, atol=1e-14) for t, x in zip(theta, leaves, strict=True))  # type: ignore[arg-type]
    expected = root.grad
    assert expected is not None
    assert s.grad is not None
    if budget:
        kept = torch.tensor([float(w.count_nonzero()) for w in weights], dtype=torch.float64)
        expected = expected - expected.sum() * kept / kept.sum()
        assert float(s.grad.sum()) == pytest.approx(0.0, abs=1e-14), "what one tensor gains others pay"
    assert torch.allclose(s.grad, expected, atol=1e-14)


def test_trained_thresholds_follow_their_gradient_and_decay_in_the_executor(tmp_path: Path, a: Tensor) -> None:
    """A step by hand: θ, s ← θ, s − η(gradient + wd·value), with W = S_σ(s)(θ) before and after."""
    head = quadratic(tmp_path, a, start=a)
    text = f"{head}\nsolve ista(threshold = str, s = -1) with sgd(lr = 0.1, weight_decay = 0.01) for 3 steps\n"
    ran = solve(text, tmp_path)
    theta, s = a.flatten().clone().requires_grad_(True), torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    for _ in range(3):
        w = theta.sign() * torch.relu(theta.abs() - torch.sigmoid(s))
        grads = torch.autograd.grad(0.5 * (w - a.flatten()).square().sum(), (theta, s))
        with torch.no_grad():
            for x, g in zip((theta, s), grads, strict=True):
                x -= 0.1 * (g + 0.01 * x)
    with torch.no_grad():
        assert torch.allclose(ran.w().flatten(), soft(theta, float(torch.sigmoid(s))), atol=1e-12)
    assert ran.stages("stage")[-1]["levels"]["s[fc1.weight]"] == pytest.approx(float(s.detach()), abs=1e-12)
    assert torch.equal(ran.kept["fc1.weight"], ran.w() != 0)


# ── counts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def finished(threshold: str, constraint: str = "‖net.weights‖₀ ≤ 10%", dtype: str = "float32") -> Ran:
    text = f"{SMALL}\nsubject to\n {constraint}\npretrain {FITS}\nsolve ista(threshold = {threshold}) {FITS}\n"
    return solve(text, dtype=dtype)


@pytest.mark.parametrize("threshold", VARIANTS)
def test_every_variant_ends_at_the_count_without_a_damaging_cut(threshold: str) -> None:
    ran = finished(threshold)
    assert sum(int(k.sum()) for k in ran.kept.values()) == 118
    assert sum(int(ran.w(n).count_nonzero()) for n in ran.kept) <= 118
    (event,) = ran.stages("stage")
    (cut,) = event["cuts"].values()
    assert 0 <= cut < 0.15, "the last threshold was nearly there"


@pytest.mark.parametrize("threshold", VARIANTS)
def test_ties_are_kept_by_index_over_layers_of_different_thresholds(threshold: str) -> None:
    def tie(machine: Machine) -> None:
        with torch.no_grad():
            for name in ("fc1.weight", "fc2.weight"):
                machine.tensors[name].fill_(0.5)

    call = f"solve ista(threshold = {threshold}) with sgd(lr = 1e-12) for 3 steps"
    ran = solve(f"{SMALL}\nsubject to\n ‖net.weights‖₀ ≤ 90\n{call}\n", before=tie)
    assert sum(int(k.sum()) for k in ran.kept.values()) == 90
    assert not any(bool(ran.w(n)[~k].any()) for n, k in ran.kept.items())


def test_layers_train_thresholds_of_their_own() -> None:
    ran = finished("str")
    levels = ran.stages("stage")[-1]["levels"]
    first, second = (levels[f"s[fc{i}.weight]"] for i in (1, 2))
    assert first != second
    assert first + second == pytest.approx(0.0, abs=1e-4), "along the budget the sum stays"
    thresholds = [levels["ω"] * math.exp(s) for s in (first, second)]
    assert all(0.01 < d < 10 for d in thresholds)


def test_pruning_at_initialisation_keeps_the_largest_at_their_values() -> None:
    start: list[Tensor] = []

    def note(machine: Machine, event: Event) -> None:
        if event["event"] == "begin" and not start:
            start.append(torch.cat([machine.tensors[f"fc{i}.weight"].detach().flatten().clone() for i in (1, 2)]))

    text = (
        f"{SMALL}\nsubject to\n ‖net.weights‖₀ ≤ 118\nsolve ista(threshold = fixed) with sgd(lr = 1e-30) for 3 steps\n"
    )
    ran = solve(text, observe=note)
    w, before = torch.cat([ran.w(f"fc{i}.weight").flatten() for i in (1, 2)]), start[0]
    kept = torch.zeros_like(before, dtype=torch.bool)
    kept[before.abs().argsort(descending=True)[:118]] = True
    assert torch.equal(w != 0, kept)
    assert torch.allclose(w, torch.where(kept, before, 0.0), atol=1e-12)


def test_a_fixed_threshold_starts_from_the_weights_as_they_are(tmp_path: Path, a: Tensor) -> None:
    """θ₀ = sign(W)(|W| + D): nothing is zero at first, and a weight whose sign would change stays in the dead band."""
    head = quadratic(tmp_path, -a, start=a)
    one = solve(f"{head}\nsolve ista(threshold = fixed, D = 0.5) with sgd(lr = 1e-30) for 1 steps\n", tmp_path)
    assert torch.allclose(one.w(), a, atol=1e-12)
    ran = solve(f"{head}\nsolve ista(threshold = fixed, D = 4) with sgd(lr = 0.1) for 12 steps\n", tmp_path)
    assert ran.machine.levels["d"] == 4.0
    assert not ran.w().any()


def test_an_end_given_with_a_count_ends_by_a_cut_whose_size_is_reported() -> None:
    text = f"{SMALL}\nsubject to\n ‖net.weights‖₀ ≤ 10%\nsolve ista(D = 0.01) {FITS}\n"
    ran = solve(text, dtype="float32")
    assert sum(int(k.sum()) for k in ran.kept.values()) == 118
    (cut,) = ran.stages("stage")[-1]["cuts"].values()
    assert cut > 0.5
    beyond = solve(text.replace("D = 0.01", "D = 3"), dtype="float32")
    assert beyond.machine.levels["d"] == 3.0, "a threshold beyond the count is not lowered to meet it"
    assert sum(int(beyond.w(n).count_nonzero()) for n in beyond.kept) < 118


# ── the threshold is part of what is saved ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("threshold", ["lats", "str", "fixed"])
def test_a_saved_and_loaded_network_is_the_pruned_one(tmp_path: Path, threshold: str) -> None:
    text = f"{SMALL}\nsubject to\n ‖net.weights‖₀ ≤ 10%\nsolve ista(threshold = {threshold}) {FITS}\n"
    compile(text).run(out=tmp_path / "run")
    (file,) = (tmp_path / "run").glob("*.safetensors")
    saved = load_file(file)
    assert sum(int(saved[f"fc{i}.weight"].count_nonzero()) for i in (1, 2)) == 118
    again = SMALL.replace("mlp([64, 16, 10])", f'mlp([64, 16, 10]) from "{file}"')
    loaded = solve(
        f"{again}\nsubject to\n ‖net.weights‖₀ ≤ 118\nsolve lc(steps = 1) with sgd(lr = 1e-30) for 1 steps\n",
        dtype="float32",
    )
    assert torch.equal(loaded.w("fc1.weight"), saved["fc1.weight"])


def test_an_interrupted_run_holds_pruned_weights_too() -> None:
    """What a boundary keeps is W = S_d(θ), never the latent."""
    from prunelang.runtime.machine import Interrupted

    machines: list[Machine] = []
    epochs: list[Event] = []

    def note(machine: Machine, event: Event) -> None:
        machines[:] = [machine]
        epochs.extend([event] if event["event"] == "epoch" else [])

    text = f"{SMALL}\nsubject to\n ‖net.weights‖₀ ≤ 10%\nsolve ista(reach = 0.3) {FITS}\n"
    with pytest.raises(Interrupted):
        solve(text, dtype="float32", observe=note, stop=lambda: len(epochs) == 4)
    zeros = sum(int((machines[0].tensors[f"fc{i}.weight"] == 0).sum()) for i in (1, 2))
    assert zeros > 0.8 * 1184
    assert all(e["levels"]["d"] > 0 for e in epochs), "levels are in the history"
