"""The benchmark of the LC toolkit's compressions: its specs, rows in small, the summary and the page."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

import prunelang
from benchmarks.factors import __main__ as bench
from benchmarks.factors import page
from benchmarks.factors.settings import CASES, FILE, PARTS, SPECS, TRIED, reference_spec, spec_of, stages
from benchmarks.rows import Rows, read

WEIGHTS = Path("reference.safetensors")


@pytest.mark.parametrize("name", CASES)
def test_every_case_compiles_as_its_spec_says(name: str) -> None:
    case = CASES[name]
    program = prunelang.compile(spec_of(case, WEIGHTS, "."))
    program.require_runnable()
    whole = prunelang.compile(SPECS / f"{case.spec}.prune")
    assert [s.kind for s in program.plan.stages] == ["solve", "finetune"]
    assert program.plan.model.arguments == whole.plan.model.arguments
    assert [s.optimizer for s in program.plan.stages] == [s.optimizer for s in whole.plan.stages[1:]]


def test_schedules_are_tried_on_held_out_images() -> None:
    text = spec_of(CASES["mixed"], WEIGHTS, ".", TRIED["late"])
    assert "lc(μ = 1e-4 * 1.35^k, steps" in text
    assert "validation = 10%" in text
    assert "error(net)" not in text  # the test images stay unseen
    assert "error(net, on = validation)" in reference_spec(".", held=True)
    program = prunelang.compile(text)
    program.require_runnable()


@pytest.mark.parametrize("name", CASES)
def test_the_spec_has_a_schedule_that_was_tried(name: str) -> None:
    assert any(stages(CASES[name]) == stages(CASES[name], schedule) for schedule in TRIED.values())


def test_it_rehearses(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["--dry-run", "--only", "mixed", FILE, "--schedules", "low"])
    assert capsys.readouterr().out.count("compiles") == 2


def test_the_budget_of_bytes_is_met_by_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = tmp_path / f"{PARTS}.prune"
    text = (SPECS / short.name).read_text(encoding="utf-8")
    text = text.replace("steps = 20", "steps = 3").replace("for 10 epochs", "for 1 epochs")
    short.write_text(text.replace("for 5 epochs", "for 1 epochs"), encoding="utf-8")
    monkeypatch.setattr(bench, "SPECS", tmp_path)
    row = bench.budgeted(tmp_path / "run", 0)
    counted, asked = row["constraints"]["file"]
    assert row["met"]
    assert row["file"] == Fraction(counted) == row["bytes"]
    assert row["file"] <= Fraction(asked)


def spreads(error: float) -> dict[str, object]:
    made = {"mean": error, "low": error, "high": error, "seeds": 1}
    return {"error": made, "params": {**made, "mean": 1234.4}, "bytes": {**made, "mean": 10_000}, "met": 1}


def test_the_page_says_which_rows_are_worse() -> None:
    file = {**spreads(1.0), "files": {"0": {"counted": 9990, "asked": 10000, "file": 9990}}}
    found = {"reference": spreads(2.0), "codebook": spreads(2.5), "mixed": spreads(2.6), FILE: file}
    published = {"reference": 2.13, **{name: case.published for name, case in CASES.items()}}
    shown = page.section({"summary": found, "published": published})
    assert "| codebooks of two values, one for each layer | 2.50 (1) | 2.56 | 1 234 | 10 000 |" in shown
    assert "at or below the published error in 1 of 2 rows; not so: 5 000 weights, rank 10, two values." in shown
    assert "files of 9 990 bytes, 10 000 asked; 1 of 1 have exactly the length" in shown


def test_the_summary_keeps_trials_apart() -> None:
    rows: Rows = {
        "tune/mixed/low/0": {"error": 3.0},
        "mixed/0": {"error": 2.0, "params": 10, "macs": 20, "bytes": 30, "met": True},
        "mixed/1": {"error": 4.0, "params": 12, "macs": 20, "bytes": 30, "met": False},
    }
    found = bench.summary(rows)
    assert found["tried"] == {"mixed": {"low": {"mean": 3.0, "low": 3.0, "high": 3.0, "seeds": 1}}}
    assert found["mixed"]["error"] == {"mean": 3.0, "low": 2.0, "high": 4.0, "seeds": 2}
    assert found["mixed"]["met"] == 1


def test_rows_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With runs of no length: what is written where, and that nothing is run twice."""
    row = {"error": 2.0, "params": 10, "macs": 20, "bytes": 30, "constraints": {}, "met": True, "status": "ok"}
    ran: list[str] = []

    def timed(text: str, out: Path, seed: int) -> dict[str, object]:
        ran.append(out.name)
        return {**row, "seconds": 1.0}

    monkeypatch.setattr(bench, "timed", timed)
    monkeypatch.setattr(bench, "reference", lambda seed, root, work, held: tmp_path)
    monkeypatch.setattr(bench, "row_of", lambda run: row)
    call = ["--root", ".", "--seeds", "0", "--json", str(tmp_path / "a.json"), "--work", str(tmp_path)]
    call += ["--only", "mixed", "codebook 1, 3"]
    for _ in range(2):
        bench.main(call)
    assert ran == ["mixed-0", "codebook_1_3-0"]
    bench.main([*call, "--tune", "--schedules", "low"])
    assert read(tmp_path / "a.json").keys() == {
        "reference/0",
        "mixed/0",
        "codebook 1, 3/0",
        "tune/mixed/low/0",
        "tune/codebook 1, 3/low/0",
    }
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["published"]["mixed"] == 2.51
