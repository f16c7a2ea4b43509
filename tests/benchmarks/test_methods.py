"""The benchmarks of methods: the specs that they make, how a strength is picked, and their summaries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import prunelang
from benchmarks.l0_methods import __main__ as l0
from benchmarks.l0_methods.settings import NETWORKS, dense_spec, spec_of
from benchmarks.lenet300 import __main__ as lenet300
from benchmarks.reversed import __main__ as floors
from benchmarks.rows import Rows, read, write

BENCHMARKS = Path(lenet300.__file__).parents[1]
NET = "lenet_300_100"


@pytest.mark.parametrize("name", lenet300.SOLVED)
def test_a_method_of_lenet300_compiles(name: str) -> None:
    program = prunelang.compile(lenet300.spec_of(name, "2%", Path("dense.safetensors"), "."))
    program.require_runnable()
    kinds = [s.kind for s in program.plan.stages]
    assert (kinds[0], kinds[-1]) == ("solve", "finetune")


def test_lenet300_rehearses_and_merges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lenet300.main(["--dry-run", "--only", "lc", "one-shot + finetune", "--json", str(tmp_path / "none.json")])
    assert capsys.readouterr().out.count("compiles") == 3
    a, b, out = (tmp_path / f"{x}.json" for x in ("a", "b", "out"))
    write(a, {}, {"lc/5%/0": {"error": 1.5, "kept": 13310}})
    write(b, {}, {"lc/5%/1": {"error": 1.7, "kept": 13310}})
    lenet300.main(["--merge", str(a), str(b), "--json", str(out)])
    assert "1.60 [1.50, 1.70]" in capsys.readouterr().out
    summary = json.loads(out.read_text(encoding="utf-8"))["summary"]
    assert summary == {"lc at 5%": {"mean": 1.6, "low": 1.5, "high": 1.7, "seeds": 2}}


def test_a_replaced_word_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lenet300.SOLVED, "other", ("lc_lenet300", ("stds_sine", "stds_linear")))
    with pytest.raises(ValueError, match="stds_sine"):
        lenet300.stages("other")


@pytest.mark.parametrize(("name", "method"), [(n, m) for n, network in NETWORKS.items() for m in network.methods])
def test_a_method_of_l0_compiles(name: str, method: str) -> None:
    network = NETWORKS[name]
    text = spec_of(network, method, network.methods[method].strengths[0], Path("dense.safetensors"), ".")
    program = prunelang.compile(text)
    program.require_runnable()
    solver = next(s for s in program.plan.stages if s.kind == "solve").solver
    assert solver is not None
    assert solver.word == method
    assert f"for {network.finetune} epochs" in text
    dense = prunelang.compile(dense_spec(network, "."))
    assert [s.kind for s in dense.plan.stages] == ["pretrain"]
    assert dense.plan.data.validation == program.plan.data.validation  # the same cut of train
    assert dense.plan.data.reads_validation
    assert program.plan.data.reads_validation


def rows_of(*validation: float) -> Rows:
    """A dense row and as many strengths of `drr` as numbers given, for seed 0."""
    rows: Rows = {f"{NET}/dense/–/0": {"error": 1.8, "validation": 2.0, "kept": 266_200, "ratio": 1.0, "bytes": 9}}
    for strength, value in zip(NETWORKS[NET].methods["drr"].strengths, validation, strict=False):
        row = {"error": value, "validation": value, "kept": 100, "ratio": 2662.0, "bytes": 5}
        rows[f"{NET}/drr/{strength}/0"] = row
    return rows


def test_the_strongest_within_the_drop_is_picked() -> None:
    strengths = NETWORKS[NET].methods["drr"].strengths
    assert l0.picked(rows_of(), NET, "drr") is None
    assert l0.picked(rows_of(2.1, 2.5, 2.6), NET, "drr") == strengths[1]
    assert l0.picked(rows_of(2.6, 2.7), NET, "drr") == strengths[0]
    found = l0.summary(rows_of(2.1, 2.4))[NET]
    assert list(found) == ["dense", "drr"]
    assert (found["drr"]["strength"], found["drr"]["within"]) == (strengths[1], True)
    assert found["drr"]["drop"]["mean"] == pytest.approx(0.6)
    assert not l0.summary(rows_of(2.6))[NET]["drr"]["within"]


def test_floors_compile(capsys: pytest.CaptureFixture[str]) -> None:
    floors.main(["--dry-run", "--floors", "98%", "97%"])
    assert "97%: compiles" in capsys.readouterr().out
    text = floors.spec_of("97%", Path("dense.safetensors"), ".")
    assert "param a = 97%" in text
    assert "pretrain" not in text


def test_floors_are_summed_up() -> None:
    row = {"ratio": 50.0, "certified accuracy": 98.1, "test accuracy": 98.0}
    found = floors.summary({"98%/0": {"kept": 5000, "met": True, **row}, "98%/1": {"kept": 6000, "met": False, **row}})
    assert found["98%"]["kept"] == {"mean": 5500, "low": 5000, "high": 6000, "seeds": 2}
    assert found["98%"]["met"] == 1


@pytest.mark.parametrize("name", ["lenet300", "l0_methods", "minimax", "spiking", "reversed", "teacher_student"])
def test_a_stored_summary_is_that_of_its_rows(name: str) -> None:
    from benchmarks.minimax import __main__ as minimax
    from benchmarks.spiking import __main__ as spiking
    from benchmarks.teacher_student import __main__ as teacher

    path = BENCHMARKS / name / "result.json"
    if not path.is_file():
        pytest.skip("not measured in this checkout")
    summaries = {"lenet300": lenet300, "l0_methods": l0, "reversed": floors, "teacher_student": teacher}
    summaries |= {"minimax": minimax, "spiking": spiking}
    assert json.loads(path.read_text(encoding="utf-8"))["summary"] == summaries[name].summary(read(path))
