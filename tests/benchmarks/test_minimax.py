"""The benchmark of minimax under budgets: its specs, whole rows in small, and its summary."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
import torch

import prunelang
from benchmarks.magnitude import Training
from benchmarks.minimax import __main__ as minimax
from benchmarks.minimax import page
from benchmarks.minimax.settings import COUNTS, MAGNITUDE, NETWORKS, POINTS, Network, dense_spec, file_bound, spec_of
from benchmarks.rows import Rows, read, write
from prunelang.compiler.problem import Interval

DENSE = Path("dense.safetensors")
SGD = "sgd(lr = 0.1, momentum = 0.9)"
SMALL = Network(
    "mlp([64, 64, 10])",
    "digits(batch = 64)",
    f"pretrain with {SGD} for 1 epochs\n",
    {
        "gda": f"solve gda() with {SGD} for 1 epochs\nfinetune with {SGD} for 1 epochs\n",
        "lc": f"solve lc(steps = 2) with {SGD} for 1 epochs\nfinetune with {SGD} for 1 epochs\n",
    },
    Training(1, partial(torch.optim.SGD, momentum=0.9), lambda epoch, done: 0.1),
)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_method_compiles_at_every_point(name: str) -> None:
    network = NETWORKS[name]
    dense = prunelang.compile(dense_spec(network, "."))
    assert [s.kind for s in dense.plan.stages] == ["pretrain"]
    for method in network.stages:
        for point in POINTS:
            program = prunelang.compile(spec_of(network, method, point, DENSE, "."))
            program.require_runnable()
            assert [s.kind for s in program.plan.stages] == ["solve", "finetune"]
            solver = program.plan.stages[0].solver
            assert solver is not None
            assert solver.word == method
            assert replace(program.plan.data, span=dense.plan.data.span) == dense.plan.data
    assert prunelang.compile(spec_of(network, MAGNITUDE, "2%, all", DENSE, ".")).plan.stages == ()


def test_the_file_binds_below_the_count() -> None:
    network = NETWORKS["lenet_300_100"]
    program = prunelang.compile(spec_of(network, MAGNITUDE, "2%, all", DENSE, "."))
    bounds = [c.set for c in program.problem.constraints]
    assert bounds == [Interval(upper=5324), Interval(upper=26_620), Interval(upper=21_828)]
    by_count = 5324 * 6 + 4436  # two bytes an index beside four of a value; 4 436 without any weight
    assert file_bound(network, Fraction(2, 100)) == int(0.6 * by_count)


@pytest.mark.parametrize("method", ["gda", MAGNITUDE])
def test_a_row_is_measured_and_kept(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (minimax, page):
        monkeypatch.setattr(module, "NETWORKS", {"small": SMALL} if module is minimax else {"small": "small"})
    monkeypatch.setattr(minimax, "shared", lambda: ())
    out = tmp_path / "result.json"
    call = ["--root", ".", "--seeds", "0", "--json", str(out), "--work", str(tmp_path), "--networks", "small"]
    call += ["--levels", "5%, all", "--only", method]
    minimax.main(call)
    row = read(out)[f"small/5%, all/{method}/0"]
    assert row["met"]
    assert row["budgets"].keys() == {"sparsity", "compute", "file"}
    assert all(got <= bound for got, bound in row["budgets"].values())
    assert f"small/5%, all/{method}/0" in capsys.readouterr().out
    minimax.main(call)
    assert "budgets" not in capsys.readouterr().out  # nothing was run again
    document = json.loads(out.read_text(encoding="utf-8"))
    assert document["summary"]["small"]["5%, all"][method]["met"] == 1
    assert "Budgets met: 1 of 1 runs" in page.section({**document, "others": {}})


def test_it_rehearses(capsys: pytest.CaptureFixture[str]) -> None:
    minimax.main(["--dry-run", "--networks", "lenet_300_100", "--levels", "compute"])
    assert capsys.readouterr().out.count("compiles") == 3


def test_rows_at_a_count_are_shared_with_lenet300(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    rows: Rows = {
        "lc/5%/0": {"error": 1.5, "kept": 13310, "status": "feasible-verified", "seconds": 1.0},
        "lc/5%/1": {"error": 1.5, "kept": 13310, "status": "violated", "seconds": 1.0},
        "gradual magnitude/5%/0": {"error": 1.8, "kept": 13310, "seconds": 1.0},
        "drr/5%/0": {"error": 1.4, "kept": 13310, "status": "feasible-verified", "seconds": 1.0},
        "dense/100%/0": {"error": 1.7},
    }
    found = {
        f"{m} at {x}": {"mean": e, "low": e, "high": e, "seeds": 1}
        for x in COUNTS
        for m, e in (("gda", 1.0), ("drr", 1.4))
    }
    write(path, {"summary": found}, rows)
    taken = dict(minimax.shared(path))
    assert {k: r["met"] for k, r in taken.items()} == {
        "lenet_300_100/5%/lc/0": True,
        "lenet_300_100/5%/lc/1": False,
        "lenet_300_100/5%/gradual magnitude/0": True,
    }
    assert minimax.others(path)["2%"]["method"] == "drr"
    assert minimax.others(tmp_path / "none.json") == {}


def test_the_budget_of_epochs_is_equal() -> None:
    """The loop by hand has as many epochs as a method's stages together."""
    for network in NETWORKS.values():
        for text in network.stages.values():
            numbers = [int(x) for x in re.findall(r"for (\d+) epochs", text)]
            steps = re.search(r"steps = (\d+)", text)
            assert numbers[0] * (int(steps[1]) if steps else 1) + numbers[1] == network.magnitude.epochs
