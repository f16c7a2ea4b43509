"""Block coordinate descent from a spec's text: known answers, the certificate of every iteration, starts, failures."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import prunelang
from prunelang.compiler.graph import Join, Sweep, walk
from prunelang.compiler.graph.codec import from_json, to_json
from prunelang.compiler.solvers.bcd import Bcd
from prunelang.dsl.diagnostics import SpecError
from prunelang.runtime.blocks import descent, starts
from prunelang.runtime.blocks.iteration import ALLOWANCE, Splitting, Step
from prunelang.runtime.blocks.layers import Convolution, Linear
from prunelang.runtime.machine import Event, Interrupted, Machine, NumericalFailure
from tests.runtime.solving import Ran, solve

CHAINS = {
    "mlp": "mlp([16, 24, 12, 3])",
    "cnn": "strided_cnn(channels = [3, 4], hidden = [12], inputs = [1, 7, 7], classes = 3)",
}
FIRST = {"mlp": "fc1", "cnn": "fc1"}
OTHER = {"mlp": "fc2", "cnn": "conv2"}
BLOCKS = {
    "dense": "",
    "tt": 'tt_rank(net["{first}"].weights) ≤ 3',
    "low rank": 'net["{first}"].weights ∈ low_rank(2)',
    "ℓ0": 'net["{first}"].weights ∈ dense\n    ‖net.weights except net["{first}"]‖₀ ≤ 40%',
    "both": 'tt_rank(net["{first}"].weights) ≤ 3\n    ‖net["{other}"].weights‖₀ ≤ 30%',
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three classes of 7×7 images: which of three patterns is in the noise. Flat ones are their first 16 pixels."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(3, 49))
    y = np.arange(90) % 3
    x = (patterns[y] + 0.7 * rng.normal(size=(90, 49))).astype(np.float32)
    np.savez(tmp_path / "flat.npz", x_train=x[:, :16], y_train=y, x_test=x[:30, :16], y_test=y[:30])
    x = x.reshape(-1, 1, 7, 7)
    np.savez(tmp_path / "images.npz", x_train=x, y_train=y, x_test=x[:30], y_test=y[:30])
    return tmp_path


def spec(folder: Path, network: str = "mlp", blocks: str = "", options: str = "steps = 12", before: str = "") -> str:
    file = "images.npz" if network == "cnn" else "flat.npz"
    subject = f"subject to\n    {blocks}\n" if blocks else ""
    head = f'model net = {CHAINS.get(network, network)}\ndata tensors("{folder / file}", batch = 30)\n'
    return f"{head}minimize mse(net)\n{subject}{before}solve bcd({options})\n"


def iterations(ran: Ran) -> list[Event]:
    return [e for e in ran.events if e["event"] == "iteration"]


def state(ran: Ran) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in ran.machine.tensors.items()}


def sufficient(e: Event) -> bool:
    """From the line alone: L falls by λ‖ΔP‖², and by the blocks' own constants, up to 64 ε L."""
    promised = max(e["promised"], e["decrease"] * e["moved"])
    return bool(e["objective"] <= e["before"] - promised + ALLOWANCE * e["before"])


# ── the certificate ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("network", CHAINS)
@pytest.mark.parametrize("blocks", BLOCKS)
def test_every_iteration_falls_by_what_is_promised(data: Path, network: str, blocks: str, dtype: str) -> None:
    lines = BLOCKS[blocks].format(first=FIRST[network], other=OTHER[network])
    ran = solve(spec(data, network, lines), data, dtype=dtype)
    found = iterations(ran)
    assert len(found) == 12
    assert all(e["accepted"] and sufficient(e) and e["decrease"] > 0 for e in found)
    for a, b in itertools.pairwise(found):
        assert b["before"] >= a["objective"]  # τ grows, and with it the share of ‖W − Δ(Θ)‖²
        assert blocks != "dense" or b["before"] == a["objective"]
    (joined,) = ran.stages("joined")
    assert joined["squares_composed"] < (1 - 1 / 3) / 2  # of the mean of the targets, ½(1 − ⅓)
    assert (joined["refused"], joined["stalled"]) == (0, False)


@pytest.mark.parametrize(
    ("pair", "line"),
    {
        ("count", "upper"): '‖net["fc2"].weights‖₀ ≤ 50',
        ("rank", "upper"): 'rank(net["fc1"].weights) ≤ 2',
        ("tt_rank", "upper"): 'tt_rank(net["fc1"].weights) ≤ 2',
        ("entries", "low_rank"): 'net["fc1"].weights ∈ low_rank(2)',
        ("entries", "tt"): 'net["fc1"].weights ∈ tt(2, modes = [[4, 4], [6, 4]])',
        ("entries", "dense"): 'net["fc3"].weights ∈ dense',
    }.items(),
)
def test_whatever_it_takes_ends_feasible(data: Path, pair: tuple[str, str], line: str) -> None:
    assert pair in Bcd.constraints
    assert prunelang.compile(spec(data, "mlp", line, "steps = 3")).run(data / "run").feasible


def test_a_constant_tau_leaves_one_objective_for_all_iterations(data: Path) -> None:
    found = iterations(solve(spec(data, "mlp", BLOCKS["tt"].format(first="fc1"), "τ = 0.5, steps = 20"), data))
    assert all(b["before"] == a["objective"] for a, b in itertools.pairwise(found))
    assert {e["tau"] for e in found} == {0.5}


def test_lines_of_the_history_can_be_read_back(data: Path) -> None:
    """A run on disk: the certificate needs nothing but the lines."""
    text = spec(data, "mlp", BLOCKS["both"].format(first="fc1", other="fc2"))
    solution = prunelang.compile(text).run(data / "run")
    assert solution.feasible
    lines = [json.loads(line) for line in (data / "run" / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [e for e in lines if e["event"] == "iteration"]
    assert [e["k"] for e in found] == list(range(12))
    assert all(sufficient(e) for e in found)
    assert not sufficient({**found[3], "objective": found[3]["before"]})


# ── known answers ────────────────────────────────────────────────────────────────────────────────────────────────────


def regression(folder: Path, outputs: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 5)).astype(np.float32)
    y = (x @ rng.normal(size=(5, outputs)) + 0.3 * rng.normal(size=(60, outputs)) + 1).astype(np.float32)
    np.savez(folder / "flat.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return x.astype(np.float64), y.astype(np.float64)


@pytest.mark.parametrize("start", ["samples", "weights"])
def test_one_layer_ends_at_least_squares(tmp_path: Path, start: str) -> None:
    x, y = regression(tmp_path)
    ran = solve(spec(tmp_path, "mlp([5, 2])", options=f"steps = 60, ω = 0, start = {start}"), tmp_path)
    expected, *_ = np.linalg.lstsq(np.c_[x, np.ones(60)], y, rcond=None)
    np.testing.assert_allclose(ran.w("fc1.weight").numpy(), expected[:-1].T, atol=1e-6)
    np.testing.assert_allclose(ran.w("fc1.bias").numpy(), expected[-1], atol=1e-6)


def test_one_compressed_layer_ends_at_the_best_rank_of_white_data(tmp_path: Path) -> None:
    """With XᵀX = nI the best low-rank map is the truncated one of least squares."""
    rng = np.random.default_rng(2)
    q, _ = np.linalg.qr(np.c_[np.ones(60), rng.normal(size=(60, 5))])
    x = (q[:, 1:] * np.sqrt(60)).astype(np.float32)
    y = (x @ rng.normal(size=(5, 4)) + 0.1 * rng.normal(size=(60, 4))).astype(np.float32)
    np.savez(tmp_path / "flat.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    lines = 'net["fc1"].weights ∈ low_rank(2)'
    ran = solve(spec(tmp_path, "mlp([5, 4])", lines, "steps = 200, ω = 0, start = weights"), tmp_path)
    full = np.linalg.lstsq(np.c_[x, np.ones(60)], y, rcond=None)[0][:-1].T
    u, s, v = np.linalg.svd(full)
    np.testing.assert_allclose(ran.w().numpy(), (u[:, :2] * s[:2]) @ v[:2], atol=1e-3)


def test_a_relu_network_is_learned_from_its_own_outputs(tmp_path: Path) -> None:
    """Targets ``max(0, x₁) − max(0, x₂)``: the loss of the network itself falls far below that of a linear fit."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 2)).astype(np.float32)
    y = (np.maximum(x[:, :1], 0) - np.maximum(x[:, 1:], 0)).astype(np.float32)
    np.savez(tmp_path / "flat.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    ran = solve(spec(tmp_path, "mlp([2, 8, 1])", options="steps = 150, ω = 1e-6"), tmp_path)
    (joined,) = ran.stages("joined")
    design = np.c_[x, np.ones(200)]
    linear = 0.5 * np.mean((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2)
    assert joined["squares"] < linear / 3


# ── what does not change the result ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("network", CHAINS)
def test_where_activations_lie_changes_no_bit(data: Path, network: str) -> None:
    lines = BLOCKS["both"].format(first=FIRST[network], other=OTHER[network])
    found = [
        state(solve(spec(data, network, lines, f"steps = 4, store = {store}, chunk = 32"), data, dtype="float32"))
        for store in ("device", "host", "disk")
    ]
    for other in found[1:]:
        assert all(torch.equal(found[0][name], value) for name, value in other.items())


@pytest.mark.parametrize("network", CHAINS)
def test_chunks_change_rounding_alone(data: Path, network: str) -> None:
    found = [state(solve(spec(data, network, options=f"steps = 4, chunk = {c}"), data)) for c in (7, 90)]
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-8, atol=1e-9)


def test_runs_of_one_seed_are_equal_and_of_two_are_not(data: Path) -> None:
    first, again, other = (state(solve(spec(data), data, seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fc1.weight"], other["fc1.weight"])


def test_the_scale_of_the_inputs_does_not_matter(data: Path) -> None:
    """γ, ρ, τ, ω and α are in units of what is measured: inputs times 16 give the same losses."""
    with np.load(data / "flat.npz") as arrays:
        scaled = {name: x * np.float32(16) if name.startswith("x") else x for name, x in arrays.items()}
    lines = BLOCKS["both"].format(first="fc1", other="fc2")
    plain = iterations(solve(spec(data, "mlp", lines), data))
    np.savez(data / "flat.npz", **scaled)
    large = iterations(solve(spec(data, "mlp", lines), data))
    ratios = [b["objective"] / a["objective"] for a, b in zip(plain, large, strict=True)]
    assert ratios == pytest.approx([1] * 12, rel=0.3)


# ── starts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_network_that_was_trained_is_not_drawn_anew(data: Path) -> None:
    trained = "pretrain with sgd(lr = 0.05) for 3 epochs\n"
    kept: dict[str, Tensor] = {}

    def note(machine: Machine, event: Event) -> None:
        if event["event"] == "begin" and event["stage"] == "solve":
            kept["W"] = machine.tensors["fc1.weight"].detach().clone()

    ran = solve(spec(data, options="steps = 1, α = 1e9", before=trained), data, observe=note)
    torch.testing.assert_close(ran.w(), kept["W"], rtol=1e-4, atol=1e-4)
    drawn = solve(spec(data, options="steps = 1, α = 1e9, start = samples", before=trained), data)
    assert not torch.allclose(drawn.w(), kept["W"], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("layer", [Linear(16, 6), Convolution((1, 4, 4), 6, (2, 2), (2, 2))])
def test_each_drawn_output_tells_two_samples_apart(layer: Linear | Convolution) -> None:
    """Rows of W are differences of two rows that come in, and 0 is half-way between them."""
    torch.manual_seed(0)
    X = torch.randn(40, *layer.input_shape, dtype=torch.float64)
    Y = torch.eye(2, dtype=torch.float64)[torch.arange(40) % 2]
    ((W, b),) = starts.drawn([layer], X, Y, seed=3)
    rows = layer.rows(X)
    of = torch.arange(len(rows)) // (len(rows) // 40)
    differences = rows[:, None] - rows[None, :]
    outputs = rows @ W.flatten(1).T + b
    for i, w in enumerate(W.flatten(1)):
        cosines = differences @ w / (differences.norm(dim=2) * w.norm()).clamp(min=1e-12)
        x, y = divmod(int(cosines.argmax()), len(rows))
        assert float(cosines[x, y]) == pytest.approx(1)
        assert of[x] % 2 != of[y] % 2  # of different classes
        assert float(outputs[x, i]) == pytest.approx(-float(outputs[y, i]))
    assert float(outputs.square().mean()) == pytest.approx(1)


def test_samples_that_are_all_alike_are_no_start_and_no_failure() -> None:
    X, Y = torch.ones(5, 4), torch.eye(5, 2)
    ((W, b),) = starts.drawn([Linear(4, 3)], X, Y, seed=0)
    assert W.isfinite().all()
    assert b.isfinite().all()


# ── refusals and failures ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_step_that_would_not_fall_is_not_taken(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that goes wrong is caught by the evaluation of L: nothing moves, α doubles, and the next step falls."""
    original, calls = Splitting._sweep, itertools.count()

    def broken(self: Splitting, *arguments: object) -> object:
        found = original(self, *arguments)  # type: ignore[arg-type]
        if next(calls) == 2:
            W, b = self.weights[0]
            self.weights[0] = (W + 10, b)
        return found

    monkeypatch.setattr(Splitting, "_sweep", broken)
    seen: list[Tensor] = []
    ran = solve(
        spec(data, options="steps = 5"),
        data,
        observe=lambda m, e: seen.append(m.tensors["fc1.weight"].clone()) if e["event"] == "iteration" else None,
    )
    found = iterations(ran)
    assert [e["accepted"] for e in found] == [True, True, False, True, True]
    assert torch.equal(seen[1], seen[2])
    assert [e["alpha"] for e in found] == [0.1, 0.1, 0.1, 0.2, 0.2]
    assert found[3]["before"] == found[1]["objective"]
    assert [e["refused"] for e in found] == [0, 0, 1, 1, 1]


def test_steps_that_cannot_fall_any_more_end_in_a_standstill(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "MOST", 4.0)
    monkeypatch.setattr(Step, "accepted", property(lambda self: False))
    ran = solve(spec(data, options="steps = 9"), data)
    assert len(iterations(ran)) == 3
    assert ran.stages("joined")[0]["stalled"]


def test_an_interruption_keeps_the_last_good_state(data: Path) -> None:
    seen: list[Tensor] = []

    def note(machine: Machine, event: Event) -> None:
        if event["event"] == "iteration":
            seen.append(machine.tensors["fc1.weight"].clone())

    with pytest.raises(Interrupted):
        solve(spec(data), data, observe=note, stop=lambda: len(seen) == 3)
    assert len(seen) == 3
    program = prunelang.compile(spec(data, "mlp", BLOCKS["both"].format(first="fc1", other="fc2")))
    lines: list[Event] = []
    solution = program.run(
        data / "run", observe=lines.append, stop=lambda: sum(e["event"] == "iteration" for e in lines) == 3
    )
    assert solution.interrupted
    assert sum(e["event"] == "iteration" for e in lines) == 3


def test_numbers_that_are_not_finite_are_a_failure(data: Path) -> None:
    def spoil(machine: Machine) -> None:
        machine.feed.split.inputs[0] = torch.nan

    with pytest.raises(NumericalFailure):
        solve(spec(data, options="steps = 3, start = weights"), data, before=spoil)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("minimize cross_entropy(net)\nsolve bcd()", "P491"),
        ('freeze net["fc1"]\nminimize mse(net)\nsolve bcd()', "P492"),
        ("minimize mse(net)\nsolve bcd() for 3 epochs", "P490"),
        ("minimize mse(net)\nsubject to\n    ‖net.weights‖₁ ≤ 3\nsolve bcd()", "P414"),
        (
            'minimize mse(net)\nsubject to\n    net["fc1"].weights ∈ low_rank()\n    params(net) ≤ 50%\nsolve bcd()',
            "P414",
        ),
    ],
)
def test_what_it_does_not_take(text: str, code: str) -> None:
    with pytest.raises(SpecError, match=code):
        prunelang.compile(f"model net = mlp([64, 16, 10])\ndata digits()\n{text}\n").require_runnable()


def test_a_network_with_pooling_is_refused_before_training(tmp_path: Path) -> None:
    x, y = np.zeros((8, 1, 28, 28), np.float32), np.arange(8) % 2
    np.savez(tmp_path / "x.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    text = f'model net = lenet_5()\ndata tensors("{tmp_path / "x.npz"}")\nminimize mse(net)\nsolve bcd()\n'
    with pytest.raises(SpecError, match="P493"):
        solve(text, tmp_path)


# ── graph ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_graph_reads_like_the_method() -> None:
    text = (
        'model net = mlp([64, 16, 10])\ndata digits()\nminimize mse(net)\nsubject to\n    ‖net["fc1"].weights‖₀ ≤ 10%\n'
    )
    graph = prunelang.compile(f"{text}solve bcd(steps = 7, inner = 2)\n").graph
    (sweep,) = (s for s in walk(graph.program) if isinstance(s, Sweep))
    shown = [s.line() for s in walk((sweep,))]
    assert shown[0].startswith("accept if L falls by λ‖ΔP‖²")
    assert [line[:3] for line in shown[2:]] == ["V_N", "U_i", "W_i", "Θ ←"]
    assert sum(isinstance(s, Join) for s in walk(graph.program)) == 1
    assert from_json(json.loads(json.dumps(to_json(graph)))) == graph
