"""The section of the pages that shows the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.markdown import table

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "train_layers.svg"


def section(result: dict[str, Any]) -> str:
    """Time of a forward pass and of a training step over those of the dense layer, and where factors are faster."""
    runs = result["runs"]
    batches = sorted({int(key.split("/")[1]) for key in runs})
    lines: dict[tuple[str, str, int], dict[int, Any]] = {}
    for key, row in runs.items():
        layer, batch, form, rank = key.split("/")
        lines.setdefault((layer, form, int(rank)), {})[int(batch)] = row
    rows = []
    for (layer, form, rank), by_batch in sorted(lines.items()):
        some = next(iter(by_batch.values()))
        cells = [
            f"{by_batch[b]['forward']['median']:.2f}, {by_batch[b]['step']['median']:.2f}" if b in by_batch else "–"
            for b in batches
        ]
        shares = [f"{100 * some[x]:.1f}" for x in ("parameters", "macs")]
        rows.append([f"{layer}, {form}, rank {rank}", *shares, *cells])
    threads = "one thread" if result["threads"] == 1 else f"{result['threads']} threads"
    head = ["", "numbers, %", "multiply-adds, %", *(f"batch {b}" for b in batches)]
    return (
        "**Factored layers beside dense ones**: time over that of the dense layer, of a forward pass and of a training "
        f"step, on {result['device']} with {threads}, torch {result['torch']}; medians of {result['rounds']} rounds. "
        f"Numbers stored and multiply-adds in % of the dense layer. {_verdict(runs)}\n\n"
        + table(head, rows)
        + "\n\n![Time over that of the dense layer, by multiply-adds](docs/images/train_layers.svg)" * PICTURE.is_file()
    )


def _verdict(runs: dict[str, Any]) -> str:
    """How many layers with fewer multiply-adds are faster."""
    fewer = [row for row in runs.values() if row["macs"] < 1]
    told = [f"{sum(row[x]['median'] < 1 for row in fewer)} {what}" for x, what in PASSES.items()]
    return (
        f"Of {len(fewer)} settings with fewer multiply-adds than the dense layer, {told[0]} and {told[1]} take less "
        "time."
    )


PASSES = {"forward": "forward passes", "step": "training steps"}
