"""Sweeps: rows, what is shared, what is not repeated, and what the tables say."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import prunelang
from prunelang.dsl.diagnostics import SpecError
from prunelang.exits import Exit
from prunelang.resuming.record import ResumeRefused
from prunelang.runtime.files import FileProblem
from prunelang.sweeping import Sweep, sweep
from prunelang.sweeping.grid import Cell
from prunelang.sweeping.plot import _ticks
from prunelang.sweeping.row import Row
from prunelang.sweeping.run import locked

TINY = """\
language 1
model net = mlp([64, 16, 10])
data  digits(batch = 256)
param κ = 10%
minimize   cross_entropy(net)
subject to
    sparsity: ‖net.weights‖₀ ≤ κ
pretrain with sgd(lr = 0.1, momentum = 0.9) for 2 epochs
solve    lc(steps = 2) with sgd(lr = 0.1 * 0.98^k, momentum = 0.9) for 1 epochs
report   accuracy(net), bytes(net)
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "tiny.prune"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def swept(spec: Path) -> Sweep:
    """2 values × 3 solvers × 2 seeds, one of the solvers cannot take the problem."""
    return sweep(
        spec,
        {"κ": ["10%", 0.05]},
        solvers=["lc", "ista", "bcd"],
        seeds=2,
        out=spec.parent / "swept",
        deterministic=True,
        plot=False,
    )


def files(folder: Path) -> Mapping[Path, int]:
    """When each file of the runs was written."""
    return {p: p.stat().st_mtime_ns for p in sorted((folder / "runs").rglob("*")) if p.is_file()}


def events_of(run: Path | None) -> list[dict[str, Any]]:
    assert run is not None
    return [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]


def test_rows(swept: Sweep) -> None:
    assert [r.outcome for r in swept.rows] == (["feasible-verified"] * 4 + ["refused"] * 2) * 2
    assert [r.got.get("sparsity") for r in swept.rows[:5]] == [118, 118, 118, 118, None]
    assert swept.rows[6].cell == Cell((("kappa", "5%"),), "lc", 0)
    assert swept.rows[6].bounds == {"sparsity": 59.0}
    refused = swept.rows[4]
    assert (refused.code, refused.directory) == ("P414", None)
    assert "`bcd` cannot run this" in refused.message
    assert swept.exit == Exit.DONE


def test_shared_pretraining_gives_the_bits_of_a_run_alone(swept: Sweep, spec: Path, tmp_path: Path) -> None:
    """Weights and history: a run of the sweep cannot be told from one that trains everything itself."""
    assert len(list((swept.directory / "pretrained").iterdir())) == 2  # one for each seed
    for row in (swept.rows[1], swept.rows[8]):  # lc at 10 % of seed 1, ista at 5 % of seed 0
        assert row.directory is not None
        text = (row.directory / "spec.prune").read_text(encoding="utf-8")
        (tmp_path / "alone.prune").write_text(text, encoding="utf-8")
        program = prunelang.compile(tmp_path / "alone.prune", params=row.cell.parameters)
        alone = program.run(tmp_path / row.cell.folder, seed=row.cell.seed, deterministic=True)
        assert alone.weights.read_bytes() == (row.directory / "weights.safetensors").read_bytes()
        told = [
            [{k: v for k, v in event.items() if k != "seconds"} for event in events_of(directory)]
            for directory in (alone.directory, row.directory)
        ]
        assert told[0] == told[1]


def test_finished_runs_are_not_repeated(swept: Sweep, spec: Path) -> None:
    """More values run more, and nothing again; layout and comments have no meaning."""
    before = files(swept.directory)
    spec.write_text("# a comment\n" + TINY.replace("subject to", "s.t."), encoding="utf-8")
    again = sweep(
        spec, {"κ": ["5%", "20%"]}, solvers=["lc"], seeds=2, out=swept.directory, deterministic=True, plot=False
    )
    assert [r.reused for r in again.rows] == [True, True, False, False]
    assert all(files(swept.directory)[path] == at for path, at in before.items())
    assert [r.got for r in again.rows[:2]] == [r.got for r in swept.rows[6:8]]
    spec.write_text(TINY, encoding="utf-8")


def test_another_meaning_is_not_overwritten(swept: Sweep, spec: Path) -> None:
    before = files(swept.directory)
    spec.write_text(TINY.replace("lr = 0.1,", "lr = 0.2,"), encoding="utf-8")
    options: dict[str, Any] = {"solvers": ["lc"], "out": swept.directory, "deterministic": True, "plot": False}
    with pytest.raises(ResumeRefused) as caught:
        sweep(spec, {"κ": ["10%"]}, **options)
    assert caught.value.code == "P562"
    assert files(swept.directory) == before
    spec.write_text(TINY, encoding="utf-8")


def test_replaced_runs(spec: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"out": tmp_path / "out", "plot": False}
    first = sweep(TINY, {"κ": ["10%"]}, **options)
    second = sweep(TINY.replace("lr = 0.1,", "lr = 0.2,"), {"κ": ["10%"]}, replace=True, **options)
    assert (first.rows[0].reused, second.rows[0].reused) == (False, False)
    assert first.rows[0].report != second.rows[0].report


def test_a_damaged_run_is_run_again(swept: Sweep, spec: Path) -> None:
    directory = swept.rows[0].directory
    assert directory is not None
    weights = directory / "weights.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-4] + b"abcd")
    options: dict[str, Any] = {"out": swept.directory, "deterministic": True, "plot": False}
    again = sweep(spec, {"κ": ["10%"]}, solvers=["lc"], **options)
    assert again.rows[0].reused is False
    assert weights.read_bytes() == good


def test_an_interruption_keeps_what_is_finished(spec: Path, tmp_path: Path) -> None:
    """Stopped in its second run, it goes on in that run, at its last checkpoint: the same bits as without the stop."""
    asked: list[int] = []
    out = tmp_path / "out"

    def told(event: Mapping[str, Any]) -> None:
        if event["event"] == "swept":
            asked.append(1)

    def stop() -> bool:
        if asked:
            asked.append(1)
        return len(asked) > 3  # a few boundaries into the run after the first

    options: dict[str, Any] = {"seeds": 2, "deterministic": True, "plot": False}
    values = {"κ": ["10%", "5%"]}
    first = sweep(spec, values, out=out, observe=told, stop=stop, **options)
    assert [r.outcome for r in first.rows] == ["feasible-verified", "interrupted", "not run", "not run"]
    assert first.exit == Exit.INTERRUPTED
    second = sweep(spec, values, out=out, **options)
    assert [r.reused for r in second.rows] == [True, False, False, False]
    assert second.exit == Exit.DONE
    whole = sweep(spec, values, out=tmp_path / "whole", **options)
    for one, other in zip(second.rows, whole.rows, strict=True):
        assert one.directory is not None
        assert other.directory is not None
        named = "weights.safetensors"
        assert (one.directory / named).read_bytes() == (other.directory / named).read_bytes()


def test_processes_give_the_same_bits(swept: Sweep, spec: Path, tmp_path: Path) -> None:
    found = sweep(spec, {"κ": ["10%"]}, solvers=["lc", "ista"], out=tmp_path, jobs=2, deterministic=True, plot=False)
    for row, other in zip(found.rows, (swept.rows[0], swept.rows[2]), strict=True):
        assert row.outcome == "feasible-verified"
        assert row.directory is not None
        assert other.directory is not None
        named = "weights.safetensors"
        assert (row.directory / named).read_bytes() == (other.directory / named).read_bytes()


def test_a_chain_starts_from_the_result_before(spec: Path, tmp_path: Path) -> None:
    """The first run is as without a chain, later ones are not; an earlier one that changed makes them anew."""
    options: dict[str, Any] = {"out": tmp_path / "chain", "deterministic": True, "plot": False}
    chained = sweep(spec, {"κ": ["20%", "10%"]}, chain=True, **options)
    plain = sweep(spec, {"κ": ["20%", "10%"]}, **{**options, "out": tmp_path / "plain"})
    assert chained.rows[0].report == plain.rows[0].report
    stages = [e["stage"] for e in events_of(chained.rows[1].directory) if e["event"] == "begin"]
    assert stages == ["solve"]
    again = sweep(spec, {"κ": ["20%", "10%"]}, chain=True, **options)
    assert [r.reused for r in again.rows] == [True, True]
    with pytest.raises(SpecError) as caught:
        sweep(spec, {"κ": ["20%"]}, chain=True, **options)
    assert caught.value.diagnostics[0].code == "P563"


def test_infeasible_values_are_rows(tmp_path: Path) -> None:
    text = TINY.replace("≤ κ", '≤ κ\n    output: net["fc2"].weights ∈ dense')
    found = sweep(text, {"κ": ["20%", "1%"]}, out=tmp_path, plot=False)
    assert [r.outcome for r in found.rows] == ["feasible-verified", "refused"]
    assert found.rows[1].code == "P310"
    with pytest.raises(SpecError) as caught:  # all of them: the spec itself is wrong
        sweep(text, {"κ": ["2%", "1%"]}, out=tmp_path / "none", plot=False)
    assert caught.value.diagnostics[0].code == "P310"
    assert not (tmp_path / "none").exists()


def test_reversed_forms(tmp_path: Path) -> None:
    """What a search makes small is the cost of the plot."""
    text = TINY.replace("minimize   cross_entropy(net)", "minimize   ‖net.weights‖₀")
    text = text.replace("sparsity: ‖net.weights‖₀ ≤ κ", "floor: accuracy(net) ≥ κ").replace("κ = 10%", "κ = 50%")
    text = text.replace("batch = 256", "batch = 256, validation = 40%").replace("steps = 2", "steps = 2, probes = 2")
    found = sweep(text, {"κ": ["40%", "50%"]}, out=tmp_path, plot=False)
    assert found.axes == ("minimize ‖net.weights‖₀", "accuracy(net)")
    assert all(g.x is not None for g in found.groups())


def test_one_sweep_a_directory(spec: Path, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(FileProblem) as caught:
        sweep(spec, {"κ": ["10%"]}, out=tmp_path, plot=False)
    assert caught.value.code == "P566"


@pytest.mark.parametrize("axes", [{"x": "fame"}, {"y": "accuracy"}])
def test_axes_that_are_not_there(axes: dict[str, str], spec: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        sweep(spec, {"κ": ["10%"]}, out=tmp_path / "none", plot=False, **axes)  # type: ignore[arg-type]
    assert caught.value.diagnostics[0].code == "P565"
    assert not (tmp_path / "none").exists()


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_csv_and_json_say_the_same(swept: Sweep) -> None:
    rows = list(csv.DictReader(io.StringIO(swept.csv())))
    document = swept.to_json()
    assert len(rows) == len(document["runs"]) == 12
    for row, run in zip(rows, document["runs"], strict=True):
        assert (row["κ"], row["solver"], row["seed"]) == (run["values"]["κ"], run["solver"], str(run["seed"]))
        assert row["status"] == run["status"]
        if run["report"]:
            assert float(row["accuracy(net)"]) == run["report"]["accuracy(net)"]
            assert (swept.directory / row["directory"] / "certificate.json").is_file()


def made(swept: Sweep, *rows: tuple[str, str, str, float, float]) -> Sweep:
    """A sweep of rows (κ, solver, status, x, y)."""
    found = [
        Row(Cell((("kappa", k),), s, i), o, got={"sparsity": x}, report={"accuracy(net)": y})  # type: ignore[arg-type]
        for i, (k, s, o, x, y) in enumerate(rows)
    ]
    return replace(swept, rows=tuple(found), asked=("sparsity", "accuracy(net)"))


OK, BAD = "feasible-verified", "violated"


def test_the_front_holds_what_nothing_beats(swept: Sweep) -> None:
    """More accuracy is better, fewer weights are; violated runs are on no front, and beat nothing."""
    found = made(
        swept, ("1%", "lc", OK, 10, 0.5), ("1%", "ista", OK, 10, 0.4), ("2%", "lc", OK, 20, 0.9),
        ("2%", "ista", OK, 30, 0.9), ("3%", "lc", BAD, 5, 0.99), ("4%", "lc", OK, 10, 0.5),
    )  # fmt: skip
    front = [(g.values[0][1], g.solver) for g in found.groups() if g.front]
    assert front == [("1%", "lc"), ("2%", "lc"), ("4%", "lc")]


def test_means_are_over_runs_that_satisfy_everything(swept: Sweep) -> None:
    rows = [("1%", "lc", OK, 10.0, 0.5), ("1%", "lc", OK, 12.0, 0.7), ("1%", "lc", BAD, 99.0, 0.9)]
    group = made(swept, *rows).groups()[0]
    assert group.x is not None
    assert (group.x.mean, group.satisfied, len(group.rows)) == (11.0, 2, 3)
    assert group.x.deviation == pytest.approx(2**0.5)
    only = made(swept, rows[2]).groups()[0]
    assert only.x is not None
    assert only.x.values == (99.0,)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ((OK, OK), Exit.DONE),
        ((OK, "refused"), Exit.DONE),
        (("refused",), Exit.SPEC),
        ((OK, BAD), Exit.VIOLATED),
        ((BAD, "failed"), Exit.NUMERICAL),
        (("failed", "not run"), Exit.INTERRUPTED),
    ],
)
def test_exit_codes(outcomes: tuple[str, ...], code: Exit, swept: Sweep) -> None:
    assert made(swept, *(("1%", "lc", o, 1.0, 1.0) for o in outcomes)).exit == code


def test_the_plot(swept: Sweep) -> None:
    pytest.importorskip("matplotlib")
    from prunelang.sweeping.plot import pareto

    text = pareto(swept)
    assert text == pareto(swept)
    assert "<svg" in text
    assert "<script" not in text


def test_plots_say_what_they_need(monkeypatch: pytest.MonkeyPatch, spec: Path, tmp_path: Path) -> None:
    monkeypatch.setattr("prunelang.sweeping.plot.find_spec", lambda name: None)
    with pytest.raises(FileProblem) as caught:
        sweep(spec, {"κ": ["10%"]}, out=tmp_path / "none")
    assert caught.value.code == "P568"
    assert not (tmp_path / "none").exists()


def test_ticks_stand_at_the_costs_that_were_met() -> None:
    assert _ticks([1702.0, 170.0, 340.0, 851.0, 1650.0, 172.0]) == [172.0, 340.0, 851.0, 1702.0]
    assert _ticks([5.0]) == [5.0]
