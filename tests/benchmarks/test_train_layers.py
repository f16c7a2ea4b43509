"""The benchmark of factored layers: what is timed is what is said, rows in small, the page and the picture."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.rows import read
from benchmarks.train_layers import __main__ as bench
from benchmarks.train_layers import page
from benchmarks.train_layers.settings import LAYERS, Layer

SMALL = {
    "linear": Layer(12, 8, {"train, 2 cores": ((4, 3), (2, 4))}),
    "convolution": Layer(3, 4, {"train, 2 cores": ((2, 3), (2, 9))}, kernel=3, side=5),
}


@pytest.mark.parametrize("layer", [*LAYERS.values(), *SMALL.values()])
def test_modes_fit(layer: Layer) -> None:
    for modes in layer.trains.values():
        assert prod(m for m, _ in modes) == layer.outputs
        assert prod(n for _, n in modes) == layer.columns


@pytest.mark.parametrize("name", SMALL)
def test_shares_are_those_of_the_modules(name: str) -> None:
    layer = SMALL[name]
    x = layer.sample(2)

    def counted(module: torch.nn.Module) -> tuple[int, int]:
        with FlopCounterMode(display=False) as counter:
            made = module(x)
        assert made.shape == layer.dense()(x).shape
        size = sum(p.numel() for n, p in module.named_parameters() if n != "bias")
        return size, counter.get_total_flops()

    size, flops = counted(layer.dense())
    for modes, build in layer.forms().values():
        found, operations = counted(build(2))
        assert layer.shares(modes, 2) == {
            "parameters": pytest.approx(found / size, abs=1e-5),
            "macs": pytest.approx(operations / flops, abs=1e-5),
        }


def test_layers_are_timed_kept_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "LAYERS", SMALL)
    monkeypatch.setattr(bench, "RANKS", (1, 2))
    monkeypatch.setattr(bench, "LEAST", 1e-4)
    path = tmp_path / "result.json"
    call = ["--json", str(path), "--layers", "convolution", "--batches", "1", "3", "--rounds", "2"]
    bench.main(call)
    rows = read(path)
    assert rows.keys() == {
        f"convolution/{b}/{form}/{r}" for b in (1, 3) for form in ("low rank", "train, 2 cores") for r in (1, 2)
    }
    for row in rows.values():
        assert row["forward"]["median"] > 0
        assert row["step"]["quartiles"][0] <= row["step"]["median"] <= row["step"]["quartiles"][1]
    monkeypatch.setattr(bench, "measure", None)  # nothing is left to do
    bench.main(call)
    assert "| convolution, low rank, rank 1 |" in page.section(json.loads(path.read_text(encoding="utf-8")))
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    bench.main(["--json", str(path), "--plot", str(tmp_path / "images" / "a.svg")])
    assert "forward pass" in (tmp_path / "images" / "a.svg").read_text(encoding="utf-8")


def test_the_page_says_how_many_are_faster() -> None:
    fast, slow = {"median": 0.5}, {"median": 1.5}
    rows = {
        "linear/1/low rank/4": {"parameters": 0.1, "macs": 0.1, "forward": slow, "step": slow},
        "linear/32/low rank/4": {"parameters": 0.1, "macs": 0.1, "forward": fast, "step": slow},
        "linear/32/low rank/9": {"parameters": 0.9, "macs": 1.8, "forward": fast, "step": fast},
    }
    shown = page.section({"runs": rows, "device": "cpu", "threads": 1, "torch": "2", "rounds": 2})
    assert "Of 2 settings with fewer multiply-adds than the dense layer, 1 forward passes and 0 training steps" in shown
    assert "| linear, low rank, rank 9 | 90.0 | 180.0 | – | 0.50, 0.50 |" in shown
