"""Test error of LeNet-300-100 and LeNet-5 under one budget and under three, minimax beside `lc` and magnitude pruning.

    python -m benchmarks.minimax --root MNIST_FOLDER --seeds 0 1 2 --json benchmarks/minimax/result.json

Every run starts from the dense network of its seed and has the same number of epochs. Every result, those of the loop
written by hand too, is recounted from its file. Existing rows are kept; rows at a count that benchmarks.lenet300 has
measured already are taken from there. Two processes share one `--work` and write to two files:

    python -m benchmarks.minimax --root MNIST_FOLDER --prepare
    python -m benchmarks.minimax --root MNIST_FOLDER --networks lenet_5 --only gda lc --json a.json
    python -m benchmarks.minimax --merge a.json b.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import prunelang
from benchmarks.command import carried_out, parser_of
from benchmarks.magnitude import budgets_of, pruned
from benchmarks.minimax.settings import COUNTS, MAGNITUDE, NETWORKS, POINTS, Network, dense_spec, spec_of
from benchmarks.rows import Row, Rows, read, spread, write

SHARED = Path(__file__).parents[1] / "lenet300" / "result.json"
METHODS = list(dict.fromkeys(m for n in NETWORKS.values() for m in n.methods))


def row_of(run: Path) -> Row:
    """What a run left: test error in %, weights kept, and for every budget what was asked and what is there."""
    certificate = json.loads((run / "certificate.json").read_text(encoding="utf-8"))
    kernels = [t for t in load_file(run / "weights.safetensors").values() if t.dim() > 1]
    return {
        "error": round(100 * float(certificate["report"][0]["value"]), 4),
        "kept": sum(int(t.count_nonzero()) for t in kernels),
        "budgets": {x["label"]: [x["got"], x["bound"]] for x in certificate["constraints"]},
        "met": all(x["satisfied"] is True for x in certificate["constraints"]),
        "status": certificate["status"],
    }


def timed(network: Network, method: str, point: str, weights: Path, root: str, out: Path, seed: int) -> Row:
    """The row of one run. A numerical failure ends the benchmark."""
    start = time.perf_counter()
    if method == MAGNITUDE:
        weights = pruned(spec_of(network, MAGNITUDE, point, weights, root), weights, out, seed, network.magnitude)
    text = spec_of(network, method, point, weights, root)
    solution = prunelang.compile(text).run(out, seed=seed)
    if solution.failure is not None:
        raise SystemExit(f"{out}: {solution.failure}")
    return {**row_of(out), "seconds": round(time.perf_counter() - start, 1)}


def dense(name: str, seed: int, root: str, work: Path, rows: Rows) -> Path:
    """The weights of a seed's dense network, trained once, and its row."""
    out = work / f"dense-{name}-{seed}"
    if not (out / "certificate.json").is_file():
        prunelang.compile(dense_spec(NETWORKS[name], root)).run(out, seed=seed)
    rows.setdefault(f"{name}/dense/–/{seed}", row_of(out))
    return out / "weights.safetensors"


def shared(path: Path = SHARED) -> Iterator[tuple[str, Row]]:
    """Rows of benchmarks.lenet300 that are rows of this benchmark: the same start, budget of epochs and method."""
    for key, row in read(path).items():
        method, level, seed = key.split("/")
        if method in NETWORKS["lenet_300_100"].methods and level in COUNTS:
            met = row.get("status", "feasible-verified") == "feasible-verified"  # those by hand are asserted there
            taken = {"error": row["error"], "kept": row["kept"], "met": met, "seconds": row["seconds"]}
            yield f"lenet_300_100/{level}/{method}/{seed}", taken


def measure(name: str, args: argparse.Namespace, rows: Rows) -> None:
    """Every run of a network that has no row yet."""
    root, network = str(Path(args.root).resolve()), NETWORKS[name]
    weights = {seed: dense(name, seed, root, args.work, rows) for seed in args.seeds}
    save(args.json, rows)
    for seed in () if args.prepare else args.seeds:
        for point in args.levels:
            for method in (m for m in args.only or METHODS if m in network.methods):
                key = f"{name}/{point}/{method}/{seed}"
                if key in rows:
                    continue
                out = args.work / key.replace("/", "-").replace(" ", "_")
                rows[key] = timed(network, method, point, weights[seed], root, out, seed)
                print(key, rows[key], flush=True)
                save(args.json, rows)


def rehearse(args: argparse.Namespace) -> None:
    """Compiles what would be run, without data or weights."""
    for name in args.networks:
        network = NETWORKS[name]
        prunelang.compile(dense_spec(network, ".")).require_runnable()
        for method in (m for m in args.only or METHODS if m in network.methods):
            for point in args.levels:
                program = prunelang.compile(spec_of(network, method, point, Path("dense.safetensors"), "."))
                program.require_runnable()
                budgets_of(program.problem)
            print(f"{name}, {method}: compiles")


def all_of(args: argparse.Namespace, rows: Rows) -> None:
    """Every network that was asked for."""
    rows = {**dict(shared()), **rows}
    for name in args.networks:
        measure(name, args, rows)


def main(arguments: list[str] | None = None) -> None:
    parser = parser_of(__doc__, "minimax")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), metavar="NETWORK", default=list(NETWORKS))
    parser.add_argument("--levels", nargs="+", choices=POINTS, metavar="POINT", default=list(POINTS))
    parser.add_argument("--only", nargs="+", choices=METHODS, metavar="METHOD", help="methods to run")
    parser.add_argument("--prepare", action="store_true", help="train the dense networks and stop")
    args = parser.parse_args(arguments)
    if carried_out(parser, args, rehearse=rehearse, measure=all_of, save=save):
        print(table(summary(read(args.json))))


def save(path: Path, rows: Rows) -> None:
    document = {
        "what": "MNIST: test error in % under a count, multiply-adds, and both with the bytes of the csr file",
        "others": others(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "summary": summary(rows),
    }
    write(path, document, rows)


def others(path: Path = SHARED) -> dict[str, dict[str, Any]]:
    """By count, the solver of benchmarks.lenet300 with the least mean error, `gda` left out."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))["summary"]
    best = {}
    for level in COUNTS:
        named = {k.removesuffix(f" at {level}"): v for k, v in found.items() if k.endswith(f" at {level}")}
        name = min((n for n in named if n != "gda"), key=lambda n: named[n]["mean"])
        best[level] = {"method": name, **named[name]}
    return best


def summary(rows: Rows) -> dict[str, Any]:
    """By network, point and method: the spread of errors and kept weights over seeds, and how many met all budgets."""
    found: dict[str, Any] = {}
    for name, network in NETWORKS.items():
        starts = [row["error"] for key, row in rows.items() if key.startswith(f"{name}/dense/")]
        if starts:
            found.setdefault(name, {})["dense"] = {"error": spread(starts)}
        for point in POINTS:
            for method in network.methods:
                runs = [row for key, row in rows.items() if key.startswith(f"{name}/{point}/{method}/")]
                if runs:
                    line: dict[str, Any] = {k: spread([r[k] for r in runs]) for k in ("error", "kept")}
                    line["met"] = sum(r["met"] for r in runs)
                    found.setdefault(name, {}).setdefault(point, {})[method] = line
    return found


def table(found: dict[str, Any]) -> str:
    lines = [f"{'':<32}" + "".join(f"{m:>26}" for m in METHODS)]
    for name, points in found.items():
        for point, methods in ((p, m) for p, m in points.items() if p != "dense"):
            cells = [methods.get(m) for m in METHODS]
            shown = [f"{c['error']['mean']:.2f}, {c['met']} of {c['error']['seeds']} met" if c else "" for c in cells]
            lines.append(f"{f'{name}, {point}':<32}" + "".join(f"{x:>26}" for x in shown))
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # what has shrunk below 1e-38 is slow to compute with
    main()
