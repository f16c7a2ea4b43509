"""Time of layers as tensor trains and as low-rank factors over that of the dense layer, by rank and batch.

    python -m benchmarks.train_layers --json benchmarks/train_layers/result.json
    python -m benchmarks.train_layers --plot docs/images/train_layers.svg

The modules are those that `prune export --shrink` writes. Every layer is timed in turn, round after round, so that a
drift of the machine meets all of them: a forward pass without gradients, and forward and backward as in training.
Existing rows are kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.rows import Row, Rows, merged, read, write
from benchmarks.train_layers.settings import BATCHES, LAYERS, RANKS, Layer

RESULT = Path("benchmarks/train_layers/result.json")
LEAST = 0.01  # seconds that one timing lasts at least, by repetition


def forward(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """A forward pass without gradients."""

    @torch.no_grad()
    def run() -> None:
        layer(x)

    return run


def step(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward, and backward to the parameters and to the input."""
    x = x.clone().requires_grad_()

    def run() -> None:
        layer(x).sum().backward()

    return run


PASSES = {"forward": forward, "step": step}


def seconds(run: Callable[[], None], repeat: int, device: str) -> float:
    start = time.perf_counter()
    for _ in range(repeat):
        run()
    if device != "cpu":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeat


def measure(layer: Layer, batch: int, rounds: int, device: str) -> dict[str, Row]:
    """Rows by form and rank, of one layer at one batch."""
    made: dict[tuple[str, int], nn.Module] = {("dense", 0): layer.dense().to(device)}
    shares = {}
    for form, (modes, build) in layer.forms().items():
        for rank in RANKS:
            shares[form, rank] = layer.shares(modes, rank)
            made[form, rank] = build(rank).to(device)
    x = layer.sample(batch).to(device)
    rows: dict[str, Row] = {f"{form}/{rank}": dict(share) for (form, rank), share in shares.items()}
    for name, make in PASSES.items():
        for key, times in timings({k: make(m, x) for k, m in made.items()}, rounds, device).items():
            if key[1]:
                rows[f"{key[0]}/{key[1]}"][name] = times
    return rows


def timings(
    runs: dict[tuple[str, int], Callable[[], None]], rounds: int, device: str
) -> dict[tuple[str, int], dict[str, Any]]:
    """Of every run, the median and quartiles of its time over that of the first one in the same round."""
    repeat = {}
    for key, run in runs.items():
        run()
        repeat[key] = max(1, round(LEAST / max(1e-7, seconds(run, 1, device))))
    first = next(iter(runs))
    ratios: dict[tuple[str, int], list[float]] = {key: [] for key in runs}
    base = []
    for turn in range(rounds):
        order = list(runs) if turn % 2 else list(reversed(runs))
        taken = {key: seconds(runs[key], repeat[key], device) for key in order}
        base.append(taken[first])
        for key in runs:
            ratios[key].append(taken[key] / taken[first])
    dense = round(1e6 * statistics.median(base), 1)
    return {key: {**spread(found), "dense, µs": dense} for key, found in ratios.items()}


def spread(ratios: list[float]) -> dict[str, Any]:
    low, mid, high = statistics.quantiles(ratios, n=4)
    return {"median": round(mid, 3), "quartiles": [round(low, 3), round(high, 3)]}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", choices=list(LAYERS), metavar="LAYER", default=list(LAYERS))
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--merge", type=Path, nargs="+", metavar="JSON", help="add the rows of these files and stop")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the result (.svg, .png) and stop")
    args = parser.parse_args(arguments)
    if args.plot:
        from benchmarks.train_layers.plot import draw

        draw(json.loads(args.json.read_text(encoding="utf-8")), args.plot)
        return
    torch.set_num_threads(args.threads)
    rows = merged([*([args.json] if args.json.is_file() else []), *args.merge]) if args.merge else read(args.json)
    for name in () if args.merge else args.layers:
        for batch in args.batches:
            if any(key.startswith(f"{name}/{batch}/") for key in rows):
                continue
            found = measure(LAYERS[name], batch, args.rounds, args.device)
            rows |= {f"{name}/{batch}/{key}": row for key, row in found.items()}
            for key, row in found.items():
                print(f"{name}, batch {batch}, {key}: {row['forward']['median']} forward, {row['step']['median']} step")
            save(args, rows)
    save(args, rows)


def save(args: argparse.Namespace, rows: Rows) -> None:
    document = {
        "what": "time of a factored layer over that of its dense layer, of neighbouring runs",
        "torch": torch.__version__,
        "device": args.device,
        "threads": args.threads,
        "rounds": args.rounds,
    }
    write(args.json, document, rows)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
