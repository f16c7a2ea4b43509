"""Spiking networks on MNIST: accuracy by connectivity, and a bound on synaptic operations.

    python -m benchmarks.spiking --root MNIST_FOLDER --seeds 0 1 2 --json benchmarks/spiking/result.json

Every run starts from the dense network of its seed and has the same number of epochs. At the point `synops`, the
operations are at most 0.3 of the dense network's, and magnitude pruning is given as many weights as the run beside it
has kept. Existing rows are kept. Two processes share one `--work` and write to two files:

    python -m benchmarks.spiking --root MNIST_FOLDER --prepare
    python -m benchmarks.spiking --root MNIST_FOLDER --only gda --json a.json
    python -m benchmarks.spiking --merge a.json b.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import prunelang
from benchmarks.command import carried_out, parser_of
from benchmarks.magnitude import budgets_of, pruned
from benchmarks.rows import Row, Rows, read, spread, write
from benchmarks.spiking.points import MATCHED, METHODS, POINTS, methods_at
from benchmarks.spiking.settings import NETWORKS, Network, dense_spec, spec_of, stages


def row_of(run: Path) -> Row:
    """What a run left: accuracies in %, weights kept, operations and spikes of a test sample, and what is certified."""
    certificate = json.loads((run / "certificate.json").read_text(encoding="utf-8"))
    reported = {x["title"]: float(Fraction(x["value"])) for x in certificate["report"]}
    kernels = [t for t in load_file(run / "weights.safetensors").values() if t.dim() > 1]
    row = {
        "accuracy": round(100 * reported["test"], 4),
        "validation": round(100 * reported["validation"], 4),
        "kept": sum(int(t.count_nonzero()) for t in kernels),
        "weights": sum(t.numel() for t in kernels),
        "synops": round(reported["synops"], 2),
        "spikes": round(reported["spikes"], 2),
        "met": all(x["satisfied"] is True for x in certificate["constraints"]),
        "status": certificate["status"],
    }
    for line in (x for x in certificate["constraints"] if x["label"] == "events"):
        row |= {"certified": float(Fraction(line["got"])), "base": float(Fraction(line["base"]))}
        row["statement"] = line["statement"]
    return row


def timed(network: Network, method: str, text: Callable[[Path], str], weights: Path, out: Path, seed: int) -> Row:
    """The row of one run of the spec that `text` makes for starting weights. A numerical failure ends the benchmark."""
    start = time.perf_counter()
    if not stages(network, method):
        weights = pruned(text(weights), weights, out, seed, network.magnitude)
    solution = prunelang.compile(text(weights)).run(out, seed=seed)
    if solution.failure is not None:
        raise SystemExit(f"{out}: {solution.failure}")
    return {**row_of(out), "seconds": round(time.perf_counter() - start, 1)}


def dense(name: str, seed: int, root: str, work: Path, rows: Rows) -> Path:
    """The weights of a seed's dense network, trained once, and its row."""
    out = work / f"dense-{name.replace(' ', '_')}-{seed}"
    if not (out / "certificate.json").is_file():
        prunelang.compile(dense_spec(NETWORKS[name], root)).run(out, seed=seed)
    rows.setdefault(f"{name}/dense/–/{seed}", row_of(out))
    return out / "weights.safetensors"


def measure(name: str, args: argparse.Namespace, rows: Rows) -> None:
    """Every run of a network that has no row yet. What matches a run waits for the row of that run."""
    root, network = str(Path(args.root).resolve()), NETWORKS[name]
    seeds = [seed for seed in args.seeds if seed < network.seeds]
    weights = {seed: dense(name, seed, root, args.work, rows) for seed in seeds}
    save(args.json, rows)
    for seed in () if args.prepare else seeds:
        for point in (p for p in args.levels if p in network.points):
            for method in (m for m in methods_at(point) if m in args.only):
                key = f"{name}/{point}/{method}/{seed}"
                model = f"{name}/{point}/{MATCHED.get(method)}/{seed}"
                if key in rows or (method in MATCHED and model not in rows):
                    print(f"{key}: {'is there' if key in rows else f'waits for {model}'}", flush=True)
                    continue
                kept = rows[model]["kept"] if method in MATCHED else None
                out = args.work / key.replace("/", "-").replace(" ", "_")
                text = partial(spec_of, network, method, point, root=root, kept=kept)
                rows[key] = timed(network, method, text, weights[seed], out, seed)
                print(key, rows[key], flush=True)
                save(args.json, rows)


def rehearse(args: argparse.Namespace) -> None:
    """Compiles what would be run, without data or weights."""
    for name in args.networks:
        network = NETWORKS[name]
        prunelang.compile(dense_spec(network, ".")).require_runnable()
        for point in (p for p in args.levels if p in network.points):
            for method in (m for m in methods_at(point) if m in args.only):
                kept = 1000 if method in MATCHED else None
                text = spec_of(network, method, point, Path("dense.safetensors"), ".", kept)
                program = prunelang.compile(text)
                program.require_runnable()
                if not stages(network, method):
                    budgets_of(program.problem)
                print(f"{name}, {point}, {method}: compiles")


def all_of(args: argparse.Namespace, rows: Rows) -> None:
    """Every network that was asked for."""
    for name in args.networks:
        measure(name, args, rows)


def main(arguments: list[str] | None = None) -> None:
    parser = parser_of(__doc__, "spiking")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), metavar="NETWORK", default=list(NETWORKS))
    parser.add_argument("--levels", nargs="+", choices=POINTS, metavar="LEVEL", default=list(POINTS))
    parser.add_argument("--only", nargs="+", choices=METHODS, metavar="METHOD", default=list(METHODS))
    parser.add_argument("--prepare", action="store_true", help="train the dense networks and stop")
    args = parser.parse_args(arguments)
    if carried_out(parser, args, rehearse=rehearse, measure=all_of, save=save):
        print(table(summary(read(args.json))))


def save(path: Path, rows: Rows) -> None:
    document = {
        "what": "spiking networks on MNIST, 54 000 / 6 000 / 10 000 samples: accuracy in %, operations and spikes",
        "networks": {k: n.constructor for k, n in NETWORKS.items()},
        "epochs": {k: {"dense": n.dense, "solve": n.solve, "finetune": n.finetune} for k, n in NETWORKS.items()},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "summary": summary(rows),
    }
    write(path, document, rows)


def summary(rows: Rows) -> dict[str, Any]:
    """By network: the dense one, accuracy by connectivity and method, and what the bound on operations led to."""
    found: dict[str, Any] = {}
    for name in NETWORKS:
        starts = {k.rsplit("/", 1)[1]: row for k, row in rows.items() if k.startswith(f"{name}/dense/")}
        if not starts:
            continue
        dense = {k: spread([r[k] for r in starts.values()]) for k in ("accuracy", "synops", "spikes", "kept")}
        levels = {p: by_method(rows, name, p, starts) for p in POINTS}
        found[name] = {"dense": dense, **{p: x for p, x in levels.items() if x}}
    return found


def by_method(rows: Rows, name: str, point: str, starts: Rows) -> dict[str, Any]:
    """The spreads over seeds at one point; operations also as a share of those of the seed's dense network."""
    found: dict[str, Any] = {}
    for method in methods_at(point):
        runs = {s: rows[k] for s in starts if (k := f"{name}/{point}/{method}/{s}") in rows}
        if runs:
            line: dict[str, Any] = {
                k: spread([r[k] for r in runs.values()]) for k in ("accuracy", "kept", "synops", "spikes")
            }
            line["share"] = spread([r["synops"] / starts[s]["synops"] for s, r in runs.items()], 4)
            line["met"] = sum(r["met"] for r in runs.values())
            statements = [r["statement"] for r in runs.values() if r.get("statement")]
            found[method] = line | ({"statement": statements[0]} if statements else {})
    return found


def table(found: dict[str, Any]) -> str:
    lines = []
    for name, points in found.items():
        lines.append(f"{name}, dense: {points['dense']['accuracy']['mean']:.2f} %")
        for point in (p for p in POINTS if p in points):
            for method, r in points[point].items():
                shown = (
                    f"{r['accuracy']['mean']:6.2f} %{r['kept']['mean']:>10.0f} kept{r['share']['mean']:>8.3f} of SynOps"
                )
                lines.append(f"{f'{name}, {point}, {method}':<40}{shown}, {r['met']} of {r['kept']['seeds']} met")
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # what has shrunk below 1e-38 is slow to compute with
    main()
