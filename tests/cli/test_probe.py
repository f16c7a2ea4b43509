"""`explain --probe`: finite differences against prices in closed form, which bounds are moved, and what is refused."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import prunelang
from prunelang.compiler.codes import CODES
from prunelang.compiler.problem import Interval, Measured
from prunelang.compiler.schedule import evaluate
from prunelang.execution import RunOptions, Session, run
from prunelang.moving import Bound, movable, moved, shortened
from prunelang.probe import ProbeFailed, fraction, objective
from prunelang.progress import short_run
from prunelang.runtime.machine import Event, Machine
from tests.cli import documents
from tests.cli.conftest import Prune
from tests.runtime.solving import linear, quadratic

TINY = """\
model net = mlp([64, 8, 10])
data  digits(batch = 256)
minimize   cross_entropy(net)
subject to
    sparsity: ‖net.weights‖₀ ≤ 20%
solve lc(steps = 2) with sgd(lr = 0.1, momentum = 0.9) for 1 epochs
"""


def program(text: str, folder: Path | None = None) -> prunelang.Program:
    """Of a text; in a folder where it names files."""
    if folder is None:
        return prunelang.compile(text, dtype="float64")
    (folder / "spec.prune").write_text(text, encoding="utf-8")
    return prunelang.compile(folder / "spec.prune", dtype="float64")


# ── prices that are known ────────────────────────────────────────────────────────────────────────────────────────


def test_the_price_of_an_l2_ball_in_closed_form(tmp_path: Path) -> None:
    """½‖W − A‖² under ‖W‖₂ ≤ B: L(B) = ½(‖A‖ − B)², so that both prices are ‖A‖ − B, exactly."""
    a = torch.linspace(-2, 3, 12, dtype=torch.float64).reshape(3, 4)
    solve = "solve lc(μ = 1, steps = 60) with sgd(lr = 0.5) for 10 steps"
    text = f"{quadratic(tmp_path, a)}\nsubject to\n ball: ‖net.weights‖₂ ≤ 3\n{solve}\n"
    found = program(text, tmp_path).probe(share=1, seeds=2)["ball"]
    price = float(a.norm()) - 3
    assert found.bound == Bound("ball", "", Fraction("2.7"), Fraction(3), Fraction("3.3"))
    for losses, bound in ((found.below, 2.7), (found.at, 3.0), (found.above, 3.3)):
        assert losses == pytest.approx((0.5 * (price + 3 - bound) ** 2,) * 2, rel=1e-6)
    assert found.predicted is not None
    assert (found.predicted.kind, found.observed.kind) == ("multiplier", "probe")
    assert found.predicted.value == pytest.approx(price, rel=1e-6)
    assert found.observed.value == pytest.approx(price, rel=1e-6)
    assert found.observed.spread == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("norm", ["‖net.weights‖₁ ≤ 4", "‖net.weights‖₂ ≤ 1.5", "‖net.weights‖∞ ≤ 0.8"])
def test_predicted_meets_observed_on_a_regression(tmp_path: Path, norm: str) -> None:
    """A linear model with mse: the multiplier of a ball is the slope of the least loss in its radius."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(40, 6)) @ np.diag([1.5, 1, 1, 0.8, 0.7, 0.5])
    y = x @ rng.normal(size=(6, 1)) * 1.5 + 0.1 * rng.normal(size=(40, 1))
    x, y = x.astype(np.float32), y.astype(np.float32)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    head = linear(tmp_path, 1, 6, 40, "mse(net)", "d.npz")
    solve = "solve lc(μ = 0.5, steps = 40) with sgd(lr = 0.2, momentum = 0.5) for 15 steps"
    bounded = program(f"{head}\nsubject to\n ball: {norm}\n{solve}\n", tmp_path)
    found = bounded.probe(delta=0.03, share="100%", seeds=1)["ball"]
    assert found.predicted is not None
    assert found.predicted.value > 0.05
    assert found.observed.value == pytest.approx(found.predicted.value, rel=0.03)
    assert found.observed.spread is None


def test_penalties_are_in_the_objective_with_the_weights_that_they_end_at(tmp_path: Path) -> None:
    """2·cross_entropy + 0.002·‖fc2‖₁ of the saved file."""
    terms = '2·cross_entropy(net) + ramp(0, 2e-3, 0, 0.5)·‖net["fc2"].weights‖₁'
    plan = program(TINY.replace("cross_entropy(net)", terms).replace("net.weights", 'net["fc1"].weights')).plan
    found: list[tuple[float, float]] = []

    def finished(session: Session, machine: Machine) -> None:
        loss = session.measure(Measured("cross_entropy", "train")).value
        found.append((objective(session, machine, tmp_path), loss))

    run(plan, Path(), RunOptions(tmp_path, dtype="float64"), finished=finished)
    ((value, loss),) = found
    w = load_file(tmp_path / "weights.safetensors")["fc2.weight"].double()
    assert value == pytest.approx(2 * loss + 2e-3 * float(w.abs().sum()), rel=1e-9)
    assert float(w.abs().sum()) > 0


def test_budgets_of_a_game_are_predicted_by_their_multipliers() -> None:
    found = program(TINY.replace("lc(steps = 2)", "gda()").replace("1 epochs", "8 epochs")).probe(seeds=2)["sparsity"]
    assert found.predicted is not None
    assert (found.predicted.kind, found.observed.kind) == ("surrogate", "probe")
    assert found.predicted.value > 0


# ── which bounds are moved, and where to ─────────────────────────────────────────────────────────────────────────


def test_counts_are_moved_to_whole_numbers() -> None:
    plan = program(TINY).plan
    bounds, skipped = movable(plan, Fraction(1, 10))
    assert bounds == (Bound("sparsity", "", Fraction(106), Fraction(118), Fraction(130)),)
    assert skipped == ()
    assert moved(plan, "sparsity", Fraction(106)).problem.constraint("sparsity").set == Interval(upper=106)


@pytest.mark.parametrize(
    ("constraints", "code"),
    [
        ("near: cross_entropy(net) ≤ 1", "P480"),
        ("cells: net.weights ∈ n_of_m(2, 4)", "P480"),
        ("few: ‖net.weights‖₀ ≤ 4", "P481"),
        ("none: ‖net.weights‖₀ ≤ 0", "P481"),
        ("low: ‖net.weights‖₀ ≤ 200\n    high: ‖net.weights‖₀ ≥ 190", "P482"),
    ],
)
def test_what_is_refused(constraints: str, code: str) -> None:
    refused = program(TINY.replace("sparsity: ‖net.weights‖₀ ≤ 20%", constraints))
    with pytest.raises(prunelang.SpecError) as error:
        refused.probe()
    assert [(d.code, d.severity) for d in error.value.diagnostics] == [(code, "error")]
    assert code in CODES


def test_a_spec_without_a_solve_and_a_reversed_one_are_refused() -> None:
    without = TINY.replace("solve lc(steps = 2)", "pretrain")
    reversed_ = TINY.replace("cross_entropy(net)", "‖net.weights‖₀").replace(
        "sparsity: ‖net.weights‖₀ ≤ 20%", "good: accuracy(net, on = train) ≥ 50%"
    )
    for text, why in ((without, "no stage solves under the bounds"), (reversed_, "no loss for a price to be in")):
        with pytest.raises(prunelang.SpecError, match=rf"(?s)P480.*{why}"):
            program(text).probe()


def test_a_bound_that_cannot_be_moved_is_left_out_with_a_warning() -> None:
    more = TINY.replace("20%", '20%\n    one: ‖net["fc2"].weights‖₀ ≤ 3')
    bounds, skipped = movable(program(more).plan, Fraction(1, 10))
    assert [b.label for b in bounds] == ["sparsity"]
    assert [(d.code, d.severity) for d in skipped] == [("P481", "warning")]
    assert "`one` is too small to be moved: ±0.1 of 3 is less than one" in skipped[0].message
    bounds, skipped = movable(program(more).plan, Fraction(1, 2))
    assert ([b.label for b in bounds], skipped) == (["sparsity", "one"], ())


LENGTHS: Mapping[str, tuple[str, float, float]] = {
    "of epochs": ("40 epochs", 0.0, 10),
    "at least an epoch": ("2 epochs", 0.0, 1),
    "of steps": ("1000 steps", 0.0, 250),
    "of fewer steps than an epoch has": ("3 steps", 0.0, 3),
    "at least the steps of an epoch": ("12 steps", 0.0, 6),
    "that grow": ("(8 + 8 * k) epochs", 3.0, 8),
    "that grow from little": ("(1 + k) epochs", 0.0, 1),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_stages_become_shorter(name: str) -> None:
    """A quarter; an epoch of 1 500 digits in batches of 256 has 6 steps."""
    length, k, expected = LENGTHS[name]
    plan = program(TINY.replace("1 epochs", length)).plan
    (stage,) = shortened(plan, Fraction(1, 4), 1500).stages
    assert evaluate(stage.duration.value, {"k": k, "p": 0.0}) == expected
    assert shortened(plan, Fraction(1), 1500) == plan


@pytest.mark.parametrize(
    ("value", "expected"),
    [("10%", Fraction(1, 10)), ("0.25", Fraction(1, 4)), (0.1, Fraction(1, 10)), (" 2.5 % ", Fraction(1, 40))],
)
def test_shares_in_python_and_as_text(value: str | float, expected: Fraction) -> None:
    assert fraction(value) == expected


@pytest.mark.parametrize("value", ["", "ten", "1e9999999", "-1", "1/0", "nan"])
def test_what_is_no_share(value: str) -> None:
    with pytest.raises(ValueError, match="is no share such as"):
        fraction(value)


@pytest.mark.parametrize(("delta", "share", "seeds"), [(1, 1, 1), (0, 1, 1), (0.1, 1.5, 1), (0.1, 0, 1), (0.1, 1, 0)])
def test_arguments_out_of_their_ranges(delta: float, share: float, seeds: int) -> None:
    with pytest.raises(ValueError, match="δ is in"):
        program(TINY).probe(delta=delta, share=share, seeds=seeds)


# ── the runs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_seeds_are_shared_and_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    events: list[Event] = []
    found = program(TINY).probe(seeds=2, observe=events.append)["sparsity"]
    assert list(tmp_path.iterdir()) == []
    runs = [(e["run"], e["runs"], e.get("bound"), e["seed"]) for e in events if e["event"] == "short run"]
    expected = [(None, 0), (None, 1), ("106", 0), ("106", 1), ("130", 0), ("130", 1)]
    assert runs == [(i + 1, 6, *e) for i, e in enumerate(expected)]
    slopes = [(low - high) / 24 for low, high in zip(found.below, found.above, strict=True)]
    assert found.observed.value == pytest.approx(sum(slopes) / 2)
    assert found.observed.spread == pytest.approx(abs(slopes[0] - slopes[1]) / 2**0.5)
    assert found.predicted is None


def test_a_line_for_each_run_on_a_terminal() -> None:
    first = {"event": "short run", "run": 1, "runs": 3, "seed": 0}
    assert short_run(first) == "short run 1 of 3: as it is, seed 0"
    second = {**first, "run": 2, "label": "file", "bound": "106"}
    assert short_run(second) == "short run 2 of 3: file ≤ 106, seed 0"


def test_a_run_that_fails_and_one_that_is_stopped() -> None:
    with pytest.raises(ProbeFailed, match="short run 1 of 3 failed: ") as failed:
        program(TINY.replace("lr = 0.1", "lr = 1e100")).probe(seeds=1)
    with pytest.raises(ProbeFailed, match="interrupted in short run 1 of 3") as stopped:
        program(TINY).probe(seeds=1, stop=lambda: True)
    assert (failed.value.interrupted, stopped.value.interrupted) == (False, True)


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_table_on_stdout_and_the_runs_on_stderr(prune: Prune) -> None:
    prune.write("p.prune", TINY.replace("20%", '20%\n    one: ‖net["fc2"].weights‖₀ ≤ 2'))
    process = prune("explain", "p.prune", "--probe", "--seeds", "1", "--delta", "0.2", "--share", "50%")
    assert process.returncode == 0, process.stderr
    head, columns, row, foot = process.stdout.splitlines()
    assert head == "short runs: 50 % of each loop, at least an epoch; 1 seed; L = cross_entropy(net) on train"
    assert " ".join(columns.split()) == "constraint bound moved to L(B−) L(B) L(B+) predicted observed per +1 %"
    assert row.split()[:5] == ["sparsity", "118", "94", "…", "142"]
    assert "  —  " in row
    assert "(probe)" in row
    assert foot == "prices: by how much L falls per unit of budget"
    assert '{"event": "short run", "run": 3, "runs": 3, "seed": 0, "label": "sparsity", "bound": "14' in process.stderr
    assert '"code": "P481", "severity": "warning"' in process.stderr


def test_the_same_as_json(prune: Prune) -> None:
    prune.write("p.prune", TINY)
    process = prune("explain", "p.prune", "--probe", "--seeds", "2", "--format", "json")
    found = documents.Probe.model_validate_json(process.stdout)
    assert (process.returncode, found.delta, found.share, found.seeds, found.skipped) == (0, 0.1, 0.25, [0, 1], [])
    (bound,) = found.bounds
    assert [(r.bound, len(r.objective)) for r in bound.runs] == [(106, 2), (118, 2), (130, 2)]
    assert (bound.predicted, bound.observed.kind) == (None, "probe")


def test_exit_codes(prune: Prune) -> None:
    prune.write("p.prune", TINY)
    prune.write("measured.prune", TINY.replace("sparsity: ‖net.weights‖₀ ≤ 20%", "near: cross_entropy(net) ≤ 1"))
    prune.write("data.prune", TINY.replace("digits(", 'tensors("no.npz", '))
    prune.write("steep.prune", TINY.replace("lr = 0.1", "lr = 1e30"))
    cases: list[tuple[int, str, str]] = [
        (2, "p.prune --delta 5%", "--delta is of --probe alone"),
        (2, "p.prune --probe --delta five", "is no share such as 10% or 0.1"),
        (2, "p.prune --probe --share 0", "0 is not between 0 and 100%"),
        (2, "P310 --probe", "--probe is of a spec"),
        (1, "measured.prune --probe", "error[P480]"),
        (1, "data.prune --probe", "no.npz"),
        (5, "steep.prune --probe --seeds 1", "short run 1 of 3 failed"),
    ]
    for code, words, said in cases:
        process = prune("explain", *words.split())
        assert (process.returncode, process.stdout) == (code, ""), (words, process.stderr)
        assert said in process.stderr
