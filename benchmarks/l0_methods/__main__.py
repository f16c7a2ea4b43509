"""Relaxations of ‖w‖₀ on LeNet-300-100 and LeNet-5: error, compression and coded bytes at matched accuracy.

    python -m benchmarks.l0_methods --root MNIST_FOLDER --seeds 0 1 2 --json benchmarks/l0_methods/result.json

Every run starts from the dense network of its seed. Seed 0 tries a method's strengths (α, or κ where a count is asked)
from mild to strong until the error on validation is more than 0.5 points above the dense network's; the strongest
within serves every seed. Existing rows are kept. Two processes share one `--work` and write to two files:

    python -m benchmarks.l0_methods --root MNIST_FOLDER --prepare
    python -m benchmarks.l0_methods --root MNIST_FOLDER --only drr lc --json a.json
    python -m benchmarks.l0_methods --merge a.json b.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import prunelang
from benchmarks.command import carried_out, parser_of
from benchmarks.l0_methods.settings import DROP, NETWORKS, dense_spec, spec_of
from benchmarks.rows import Row, Rows, read, spread, write

METHODS = list(dict.fromkeys(m for n in NETWORKS.values() for m in n.methods))


def row_of(run: Path) -> Row:
    """What a run left: errors in %, kernel weights that are not 0, their number in all, coded bytes."""
    certificate = json.loads((run / "certificate.json").read_text(encoding="utf-8"))
    reported = {x["title"]: x["value"] for x in certificate["report"]}
    kernels = [t for t in load_file(run / "weights.safetensors").values() if t.dim() > 1]
    kept, total = sum(int(t.count_nonzero()) for t in kernels), sum(t.numel() for t in kernels)
    return {
        "error": round(100 * float(reported["test"]), 4),
        "validation": round(100 * float(reported["validation"]), 4),
        "kept": kept,
        "ratio": round(total / max(1, kept), 2),
        "bytes": int(reported["bytes(net, format = coded)"]),
        "status": certificate["status"],
    }


def timed(text: str, out: Path, seed: int) -> Row:
    """The row of a run. A numerical failure ends the benchmark."""
    start = time.perf_counter()
    solution = prunelang.compile(text).run(out, seed=seed)
    if solution.failure is not None:
        raise SystemExit(f"{out}: {solution.failure}")
    return {**row_of(out), "seconds": round(time.perf_counter() - start, 1)}


def dense(name: str, seed: int, root: str, work: Path, rows: Rows) -> Path:
    """The weights of a seed's dense network, trained once for all networks of that constructor, and its row."""
    out = work / f"dense-{NETWORKS[name].spec}-{seed}"
    if not (out / "certificate.json").is_file():
        timed(dense_spec(NETWORKS[name], root), out, seed)
    rows.setdefault(f"{name}/dense/–/{seed}", row_of(out))
    return out / "weights.safetensors"


def picked(rows: Rows, name: str, method: str) -> str | None:
    """The strongest strength whose error on validation stays within `DROP`; else the mildest; None before any run."""
    tried = [s for s in NETWORKS[name].methods[method].strengths if f"{name}/{method}/{s}/0" in rows]
    return next((s for s in reversed(tried) if within(rows, name, method, s)), tried[0] if tried else None)


def within(rows: Rows, name: str, method: str, strength: str) -> bool:
    """Whether seed 0 lost at most `DROP` points on validation."""
    row = rows[f"{name}/{method}/{strength}/0"]
    found: float = row["validation"] - rows[f"{name}/dense/–/0"]["validation"]
    return round(found, 6) <= DROP


def measure(name: str, args: argparse.Namespace, rows: Rows) -> None:
    """Every run of a network that has no row yet."""
    root = str(Path(args.root).resolve())
    seeds = [seed for seed in sorted(args.seeds) if seed < NETWORKS[name].seeds]
    weights = {seed: dense(name, seed, root, args.work, rows) for seed in seeds}
    save(args.json, rows)
    for method in () if args.prepare else (m for m in args.only or METHODS if m in NETWORKS[name].methods):
        for seed in seeds:
            strengths = NETWORKS[name].methods[method].strengths if seed == 0 else (picked(rows, name, method),)
            for strength in strengths:
                if strength is None:
                    raise SystemExit(f"{name}, {method}: seed 0 is run first, it decides the strength")
                key = f"{name}/{method}/{strength}/{seed}"
                if key not in rows:
                    text = spec_of(NETWORKS[name], method, strength, weights[seed], root)
                    rows[key] = timed(text, args.work / key.replace("/", "-").replace(" ", "_"), seed)
                    print(key, rows[key], flush=True)
                    save(args.json, rows)
                if seed == 0 and not within(rows, name, method, strength):
                    break


def all_of(args: argparse.Namespace, rows: Rows) -> None:
    """Every network that was asked for."""
    for name in args.networks:
        measure(name, args, rows)
    save(args.json, rows)


def main(arguments: list[str] | None = None) -> None:
    parser = parser_of(__doc__, "l0_methods")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), metavar="NETWORK", default=list(NETWORKS))
    parser.add_argument("--only", nargs="+", choices=METHODS, metavar="METHOD", help="methods to run")
    parser.add_argument("--prepare", action="store_true", help="train the dense networks and stop")
    args = parser.parse_args(arguments)
    if carried_out(parser, args, rehearse=rehearse, measure=all_of, save=save):
        print(table(summary(read(args.json))))


def rehearse(args: argparse.Namespace) -> None:
    """Compiles what would be run, without data or weights."""
    for name in args.networks:
        network = NETWORKS[name]
        prunelang.compile(dense_spec(network, ".")).require_runnable()
        for method in (m for m in args.only or METHODS if m in network.methods):
            for strength in network.methods[method].strengths:
                text = spec_of(network, method, strength, Path("dense.safetensors"), ".")
                prunelang.compile(text).require_runnable()
            print(f"{name}, {method}: compiles")


def save(path: Path, rows: Rows) -> None:
    document = {
        "what": "MNIST, 55 000 / 5 000 / 10 000 samples: errors in %, kernel weights kept, bytes of the coded file",
        "drop": DROP,
        "epochs": {k: {"dense": n.dense, "solve": n.solve, "finetune": n.finetune} for k, n in NETWORKS.items()},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "summary": summary(rows),
    }
    write(path, document, rows)


def summary(rows: Rows) -> dict[str, dict[str, Any]]:
    """By network and method, at the strength that seed 0 picked: the spread over seeds of every number."""
    found: dict[str, dict[str, Any]] = {}
    for name in NETWORKS:
        starts = {k.rsplit("/", 1)[1]: row for k, row in rows.items() if k.startswith(f"{name}/dense/")}
        if starts:
            values = list(starts.values())
            found.setdefault(name, {})["dense"] = {k: spread([r[k] for r in values]) for k in ("error", "bytes")}
        for method in NETWORKS[name].methods:
            strength = picked(rows, name, method) if "0" in starts else None
            runs = {s: rows[k] for s in starts if (k := f"{name}/{method}/{strength}/{s}") in rows}
            if strength is not None and runs:
                line: dict[str, Any] = {"strength": strength, "within": within(rows, name, method, strength)}
                line |= {k: spread([r[k] for r in runs.values()]) for k in ("error", "ratio", "kept", "bytes")}
                line["drop"] = spread([r["error"] - starts[s]["error"] for s, r in runs.items()])
                found[name][method] = line
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = [f"{'':<42}{'strength':>10}{'error %':>10}{'drop':>8}{'ratio':>9}{'bytes':>10}"]
    for name, methods in found.items():
        for method, r in methods.items():
            cells = [r.get("strength", "–"), f"{r['error']['mean']:.2f}"]
            cells += [f"{r[k]['mean']:.{d}f}" if k in r else "–" for k, d in (("drop", 2), ("ratio", 1), ("bytes", 0))]
            shown = "".join(f"{c:>{w}}" for c, w in zip(cells, (10, 10, 8, 9, 10), strict=True))
            lines.append(f"{f'{name}, {method}':<42}{shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
