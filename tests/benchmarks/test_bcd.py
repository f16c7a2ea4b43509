"""The benchmark of block coordinate descent: its specs, the check of a history, rows in small, page and picture."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path

import pytest

import prunelang
from benchmarks.bcd import __main__ as bench
from benchmarks.bcd import history, page
from benchmarks.bcd import settings as s
from benchmarks.bcd.history import Iteration
from benchmarks.rows import Rows, read
from prunelang.compiler.schedule import evaluate
from prunelang.compiler.solvers.bcd import Bcd


@pytest.mark.parametrize(("key", "text"), [*bench.decrease(0), *list(bench.sensitivity(0))[::7]])
def test_every_run_of_bcd_compiles(key: str, text: str) -> None:
    program = prunelang.compile(text)
    program.require_runnable()
    assert [stage.kind for stage in program.plan.stages] == ["solve"]


@pytest.mark.parametrize("name", s.NETWORKS)
@pytest.mark.parametrize("method", s.METHODS)
def test_every_method_compiles_at_every_ratio(name: str, method: str) -> None:
    for ratio in s.NETWORKS[name].ratios:
        prunelang.compile(s.compared(name, method, ratio, 8, ".")).require_runnable()


def test_options_are_varied_around_the_defaults() -> None:
    bcd = Bcd()
    found = {"γ": bcd.gamma, "ρ": bcd.rho, "ω": bcd.omega, "α": bcd.alpha}
    assert {name: evaluate(value, {}) for name, value in found.items()} == {x: float(s.DEFAULTS[x]) for x in found}
    assert "bcd(α = 100 * 0.1, steps" in s.varied(s.settings()["α=100"])
    assert "bcd(γ = 0.01 * 1, ρ = 100 * 1, steps" in s.varied(s.settings()["γ=0.01 ρ=100"])
    listed = [prunelang.compile(s.varied(x)).listing() for x in ({}, {"τ": 1.0})]
    assert levels(listed[0]) == levels(listed[1])


def levels(listing: str) -> list[str]:
    found = [" ".join(line.split()) for line in listing.splitlines() if line.startswith("level")]
    assert found
    return found


@pytest.mark.parametrize("name", s.NETWORKS)
def test_ranks_are_the_largest_at_a_ratio(name: str) -> None:
    """Numbers stored are those that a budget over the same trains counts."""
    network = s.NETWORKS[name]
    for ratio in network.ratios:
        text = s.compared(name, "lc", ratio, 8, ".").replace("subject to\n", "subject to\n    all: params(net) ≤ 9G\n")
        (r,) = {int(line.rpartition("≤ ")[2]) for line in text.splitlines() if "tt_rank" in line}
        layers = [math.prod(m * n for m, n in modes) for modes in network.modes.values()]
        rest = network.dense - sum(layers)
        bound = Fraction(ratio) * network.dense
        assert rest + s.stored(name, r) <= bound < rest + s.stored(name, r + 1)


@pytest.mark.parametrize("method", s.METHODS)
@pytest.mark.parametrize("passes", [4, 30, 61])
def test_all_methods_read_the_data_as_often(method: str, passes: int) -> None:
    plan = prunelang.compile(s.compared("mlp", method, "0.09", passes, ".")).plan
    if method == s.BCD:
        assert f"steps = {passes}" in s.compared("mlp", method, "0.09", passes, ".")
        return
    total = 0
    for text in s.stages(method, passes):
        epochs = int(text.rpartition("for ")[2].split()[0])
        steps = int(text.partition("steps = ")[2].partition(")")[0]) if "steps" in text else 1
        total += epochs * steps
    assert total == passes
    assert len(plan.stages) == len(s.stages(method, passes))


def test_a_history_is_checked_from_its_numbers() -> None:
    good = [
        Iteration(10.0, 8.0, 2.0, 0.5, True),
        Iteration(8.0, 9.0, 1.0, 0.5, False),
        Iteration(8.0, 7.5, 1.0, 0.5, True),
    ]
    assert history.violations(good) == 0
    assert history.violations([*good, Iteration(7.5, 7.2, 1.0, 0.5, True)]) == 1  # falls by 0.3 in place of 0.5
    assert history.violations([*good, Iteration(7.6, 6.0, 1.0, 0.5, True)]) == 1  # starts elsewhere
    assert history.violations([*good, Iteration(7.5, math.nan, 1.0, 0.5, True)]) == 1
    rounding = Iteration(7.5, 7.0 + 7.5 * 60 * history.EPSILON, 1.0, 0.5, True)
    assert history.violations([*good, rounding]) == 0
    told = history.told(good)
    assert told | {"least slack": 0.0} == {
        "iterations": 3,
        "accepted": 2,
        "violations": 0,
        "least slack": 0.0,
        "objective": [10.0, 7.5],
    }


def test_the_course_lies_below_its_bound() -> None:
    """Of a descent whose every step falls by exactly λ‖ΔP‖²."""
    value, found = 1.0, []
    for k in range(1, 200):
        moved = 1 / (k * k)
        found.append(Iteration(value, value - 0.25 * moved, moved, 0.25, True))
        value = found[-1].after
    rows = history.course(found)
    assert rows[0][0] == 1
    assert rows[-1][0] == 199
    assert len(rows) <= history.POINTS
    assert all(least <= bound for _, _, least, bound in rows)
    assert [least for _, _, least, _ in rows] == pytest.approx([1 / (k * k) for k, *_ in rows])


def test_epochs_at_equal_time() -> None:
    rows: Rows = {
        bench.key_of("mlp", "bcd", "0.09", "passes", 0): {"processor": 120.0},
        bench.key_of("mlp", "dense", "0.09", "passes", 0): {"processor": 40.0},
    }
    assert bench.affordable(rows, "mlp", "dense", "0.09", 0, 20) == 60
    assert bench.affordable(rows, "mlp", "lc", "0.09", 0, 20) is None
    assert "compare/mlp/1/dense/passes/0" in rows


def test_runs_are_checked_kept_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CHAINS", {"mlp": ("mlp([64, 16, 10])", 4)})
    monkeypatch.setattr(s, "CHAINS", {"mlp": ("mlp([64, 16, 10])", 4)})
    monkeypatch.setattr(bench, "BLOCKS", {"tt": s.BLOCKS["tt"]})
    path = tmp_path / "result.json"
    call = ["--decrease", "--seeds", "0", "--json", str(path), "--work", str(tmp_path)]
    bench.main(call)
    (row,) = read(path).values()
    assert row["status"] == "feasible-verified"
    assert (row["iterations"], row["violations"]) == (4, 0)
    assert row["objective"][1] < row["objective"][0]
    assert row["course"][-1][0] == row["accepted"]
    monkeypatch.setattr(bench, "timed", None)  # nothing is left to do
    bench.main(call)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["summary"]["decrease"]["mlp/tt"]["violations"] == 0
    assert "Violations: 0 in" in page.section(found)
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    bench.main(["--json", str(path), "--plot", str(tmp_path / "images" / "a.svg")])
    assert "mlp: L" in (tmp_path / "images" / "a.svg").read_text(encoding="utf-8")


def test_a_failure_is_a_row() -> None:
    rows: Rows = {
        "sensitivity/γ=100 ρ=1/0": {"status": "failed: L is not finite"},
        "sensitivity/γ=100 ρ=1/1": {"accuracy": 90.0},
        "sensitivity/τ=10/0": {"accuracy": 95.0},
    }
    found = bench.summary(rows)
    assert found["sensitivity"]["γ=100 ρ=1"]["failed"] == 1
    shown = page.section({"summary": found})
    assert "| γ × 100 | – | – | 90.00 (1) | – | – |" in shown
    assert "| τ | – | – | – | 95.00 (1) | – |" in shown
    assert "between 90.0 and 95.0 %" in shown


def test_the_page_compares_at_equal_passes_and_time() -> None:
    row = {"params": 10, "met": True, "processor": 60.0}
    rows: Rows = {
        "compare/mlp/0.09/bcd/passes/0": {**row, "accuracy": 97.0, "iterations": 50, "violations": 0},
        "compare/mlp/0.09/lc/passes/0": {**row, "accuracy": 96.0},
        "compare/mlp/0.09/lc/time/0": {**row, "accuracy": 96.5},
        "compare/mlp/0.02/bcd/passes/0": {**row, "accuracy": 90.0, "iterations": 50, "violations": 0},
        "compare/mlp/0.02/factors/time/0": {**row, "accuracy": 96.5},
        "compare/mlp/1/dense/passes/0": {**row, "accuracy": 98.0},
    }
    shown = page.section({"summary": bench.summary(rows), "passes": {"mlp": 50}, "published": s.PUBLISHED})
    assert "| mlp, 0.09, `lc` | 96.00 (1) | 60 | 96.50 (1) | 60 |" in shown
    assert "| mlp, dense, by SGD | 98.00 (1) | 60 | – | – |" in shown
    assert "Violations of the decrease: 0 in 100 iterations." in shown
    assert "the best mean among the compressed networks at 1 of 2 points." in shown
    assert "cnn 98.2 at 0.013, 98.4 at 0.18" in shown
