"""One default for all networks: the specs, what is read from a history, and the picture."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from benchmarks.one_default import __main__ as bench
from benchmarks.one_default.data import padded
from benchmarks.rows import Rows, read
from prunelang.runtime.data import Split


def test_every_spec_compiles(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["--dry-run"])
    assert capsys.readouterr().out.count("compiles") == len(bench.CASES)


@pytest.mark.parametrize("name", bench.CASES)
def test_the_solver_has_no_option(name: str) -> None:
    assert "\nsolve gda() with " in bench.spec_of(name)


def test_padding_keeps_the_image() -> None:
    images = torch.rand(5, 1, 28, 28)
    found = padded(Split(images, torch.arange(5)), 3)
    assert found.inputs.shape == (3, 3, 32, 32)
    assert torch.equal(found.inputs[:, 1, 2:30, 2:30], images[:3, 0])
    assert found.inputs.sum() == pytest.approx(3 * images[:3].sum().item(), rel=1e-5)


def test_a_run_is_recorded_drawn_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(
        bench.CASES["lenet_300_100"], model="mlp([64, 20, 10])", data="digits(batch = 64)", epochs=(1, 4, 1)
    )
    monkeypatch.setattr(bench, "CASES", {"small": small})
    path = tmp_path / "result.json"
    bench.main(["--only", "small", "--json", str(path), "--work", str(tmp_path)])
    (row,) = read(path).values()
    epochs = row["course"]["epochs"]
    assert row["status"] == "feasible-verified"
    assert row["constraints"]["sparsity"] == {"got": 74, "bound": 74}
    assert len(epochs) == 4
    assert row["course"]["levels"] == ["fc1.weight", "fc2.weight"]
    assert epochs[-1]["cost"]["sparsity"] == pytest.approx(0.05, rel=0.03)
    assert all(0 < y <= row["largest y"] for e in epochs for y in e["y"])
    told = json.loads(path.read_text(encoding="utf-8"))["summary"]["small"]
    assert told[0]["cost over budget at the end of solve"]["sparsity"] == pytest.approx(1.0, abs=0.03)
    monkeypatch.setattr(bench, "run", None)  # nothing is left to do
    bench.main(["--only", "small", "--json", str(path), "--work", str(tmp_path)])
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    bench.main(["--json", str(path), "--plot", str(tmp_path / "images" / "a.svg")])
    assert "kept items of a level" in (tmp_path / "images" / "a.svg").read_text(encoding="utf-8")


def test_a_failure_is_a_row() -> None:
    rows: Rows = {"net/0": {"status": "failed: the loss is not finite", "seconds": 1.0}}
    assert bench.summary(rows) == {"net": [{"status": "failed: the loss is not finite"}]}
