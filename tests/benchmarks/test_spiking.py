"""The benchmark of spiking networks: its specs, whole rows in small, and its summary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import prunelang
from benchmarks.rows import Rows, read
from benchmarks.spiking import __main__ as spiking
from benchmarks.spiking import page
from benchmarks.spiking.points import MAGNITUDE, MATCHED, SYNOPS, methods_at
from benchmarks.spiking.settings import NETWORKS, Network, cosine, dense_spec, spec_of, stages

pytest.importorskip("spikingjelly")

DENSE = Path("dense.safetensors")
SMALL = Network("snn_mlp([64, 24, 24, 10], T = 2)", 2, 2, 1, data="digits(batch = 64, validation = 40%)")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_method_compiles(name: str) -> None:
    network = NETWORKS[name]
    dense = prunelang.compile(dense_spec(network, "."))
    assert [s.kind for s in dense.plan.stages] == ["pretrain"]
    for point in {"0.73%", SYNOPS} & set(network.points):
        for method in methods_at(point):
            kept = 500 if method in MATCHED else None
            program = prunelang.compile(spec_of(network, method, point, DENSE, ".", kept))
            program.require_runnable()
            assert bool(program.plan.stages) == bool(stages(network, method))
            assert (program.plan.data.validation, program.plan.data.reads_validation) == (
                dense.plan.data.validation,
                True,
            )


def test_the_budget_of_epochs_is_equal() -> None:
    network = NETWORKS["snn_mlp"]
    assert "for 6 epochs" in stages(network, "gda")
    assert "lc(steps = 6)" in stages(network, "lc")
    assert "for 1 epochs" in stages(network, "lc")
    assert all("for 4 epochs" in stages(network, m) for m in ("gda", "gda sequential", "ista lats", "lc"))
    assert network.magnitude.epochs == 10
    assert cosine(0, 0.0) == pytest.approx(2e-3)
    assert cosine(9, 1.0) == pytest.approx(1e-6)


@pytest.mark.parametrize(("point", "methods"), [("25%", ["gda", MAGNITUDE]), (SYNOPS, ["lc", "magnitude at lc"])])
def test_rows_are_measured_and_kept(
    point: str, methods: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(spiking, "NETWORKS", {"small": SMALL})
    out = tmp_path / "result.json"
    call = ["--root", ".", "--seeds", "0", "--json", str(out), "--work", str(tmp_path), "--networks", "small"]
    call += ["--levels", point]
    if point == SYNOPS:
        spiking.main([*call, "--only", methods[1]])
        assert "waits for small/synops/lc/0" in capsys.readouterr().out
    spiking.main([*call, "--only", *methods])
    first, second = (read(out)[f"small/{point}/{m}/0"] for m in methods)
    dense = read(out)["small/dense/–/0"]
    assert second["met"]
    assert second["kept"] <= (first["kept"] if point == SYNOPS else dense["weights"] // 4)
    assert first["synops"] < dense["synops"]
    if point == SYNOPS:
        assert "95 % confidence" in first["statement"]
        assert first["met"] == (first["status"] == "feasible-verified")
    capsys.readouterr()
    spiking.main([*call, "--only", *methods])
    assert capsys.readouterr().out.count("is there") == 2
    document = json.loads(out.read_text(encoding="utf-8"))
    assert set(document["summary"]["small"][point]) == set(methods)
    assert "small" in page.section(document)


def rows_of(**accuracy: float) -> Rows:
    """A dense row of seed 0 and one of every method at 0.73 %, in the order of `methods_at`."""
    row = {"kept": 100, "synops": 50.0, "spikes": 9.0, "met": True}
    rows: Rows = {"snn_mlp/dense/–/0": {**row, "accuracy": 98.2, "kept": 1000, "synops": 200.0}}
    for method, value in accuracy.items():
        rows[f"snn_mlp/0.73%/{method.replace('_', ' ')}/0"] = {**row, "accuracy": value}
    return rows


def test_it_is_summed_up_and_shown() -> None:
    found = spiking.summary(rows_of(gda=95.0, gda_sequential=93.5))
    assert found["snn_mlp"]["dense"]["accuracy"]["mean"] == 98.2
    assert found["snn_mlp"]["0.73%"]["gda"]["share"]["mean"] == 0.25
    result = {
        "summary": found,
        "networks": {"snn_mlp": "N"},
        "epochs": {"snn_mlp": {"dense": 1, "solve": 2, "finetune": 3}},
    }
    shown = page.section(result)
    assert "Joint against sequential on snn_mlp: +1.50 points at 0.73%." in shown
    assert "| snn_mlp, `gda`, sequential | – | – | – | – | 93.50 (1) |" in shown
    assert "has no result" in shown
    assert spiking.summary({}) == {}


def test_it_rehearses(capsys: pytest.CaptureFixture[str]) -> None:
    spiking.main(["--dry-run", "--networks", "snn_mlp", "--levels", "5%", SYNOPS])
    assert capsys.readouterr().out.count("compiles") == 9
