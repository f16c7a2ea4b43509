"""Block coordinate descent: its certificate, gradients at equal passes and at equal time beside it, and its options.

    python -m benchmarks.bcd --decrease --json benchmarks/bcd/result.json
    python -m benchmarks.bcd --sensitivity
    python -m benchmarks.bcd --root MNIST_FOLDER --compare --networks mlp --seeds 0 1 2
    python -m benchmarks.bcd --plot docs/images/bcd.svg

`--decrease` runs every kind of block on two networks and the embedded digits, and checks the decrease of every
iteration again from the numbers in the history. `--compare` measures tensor trains on MNIST by `bcd`, by descent over
the same cores (`factors`), by `lc` with the projection, and a dense network by descent: as many passes over the data as
`bcd` has iterations, and again as many as take the processor time of `bcd`. Existing rows are kept; `--merge` joins the
files of two processes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

import prunelang
from benchmarks.bcd.history import course, iterations, told
from benchmarks.bcd.settings import (
    BCD,
    BLOCKS,
    CHAINS,
    DENSE,
    MATCHES,
    METHODS,
    NETWORKS,
    PUBLISHED,
    checked,
    compared,
    settings,
    varied,
)
from benchmarks.command import parser_of, together
from benchmarks.rows import Row, Rows, read, spread, write

STUDIES = ("decrease", "compare", "sensitivity")


def row_of(run: Path) -> Row:
    """What a run left: test accuracy in %, numbers stored, and whether its constraints hold."""
    certificate = json.loads((run / "certificate.json").read_text(encoding="utf-8"))
    reported = {x["title"]: Fraction(x["value"]) for x in certificate["report"]}
    return {
        "accuracy": round(100 * float(reported["accuracy"]), 4),
        "params": int(reported["params"]),
        "met": all(x["satisfied"] is True for x in certificate["constraints"]),
        "status": certificate["status"],
    }


def timed(text: str, out: Path, seed: int) -> Row:
    """The row of one run, with seconds of the processor and of the clock. A run that fails numerically is a row too."""
    clock, processor = time.perf_counter(), time.process_time()
    solution = prunelang.compile(text).run(out, seed=seed)
    spent = {
        "processor": round(time.process_time() - processor, 1),
        "seconds": round(time.perf_counter() - clock, 1),
    }
    if solution.failure is not None:
        return {"status": f"failed: {solution.failure}", **spent}
    found = iterations(out / "history.jsonl")
    return {**row_of(out), **(told(found) if found else {}), **spent}


# ── what each study runs ──────────────────────────────────────────────────────────────────────────────────────────────


def decrease(seed: int) -> Iterator[tuple[str, str]]:
    """Key and spec of the runs whose every iteration is checked."""
    for name in CHAINS:
        for blocks in BLOCKS:
            yield f"decrease/{name}/{blocks}/{seed}", checked(name, blocks)


def sensitivity(seed: int) -> Iterator[tuple[str, str]]:
    """Key and spec of the runs with other options."""
    for name, options in settings().items():
        yield f"sensitivity/{name}/{seed}", varied(options)


def compare(args: argparse.Namespace, seed: int, rows: Rows) -> Iterator[tuple[str, str]]:
    """Key and spec of the methods beside each other. What needs the time of another run waits for its row."""
    root = str(Path(args.root).resolve()) if args.root else "."
    for name in args.networks:
        passes = args.passes or NETWORKS[name].passes
        for ratio in NETWORKS[name].ratios:
            for match in MATCHES:
                for method in (m for m in METHODS if m in args.only):
                    key = key_of(name, method, ratio, match, seed)
                    count = passes if match == "passes" else affordable(rows, name, method, ratio, seed, passes)
                    if count is not None and (match == "passes" or method != BCD):
                        yield key, compared(name, method, ratio, count, root)


def key_of(name: str, method: str, ratio: str, match: str, seed: int) -> str:
    """A dense network has one row for all ratios."""
    at = "1" if method == DENSE else ratio
    return f"compare/{name}/{at}/{method}/{match}/{seed}"


def affordable(rows: Rows, name: str, method: str, ratio: str, seed: int, passes: int) -> int | None:
    """Epochs of a method that take the processor time of `bcd` at the same ratio (of a dense network: at the first);
    None where either has not been measured."""
    own = rows.get(key_of(name, method, ratio, "passes", seed))
    bcd = rows.get(key_of(name, BCD, ratio, "passes", seed))
    if own is None or bcd is None:
        return None
    return max(1, round(passes * bcd["processor"] / own["processor"]))


def measure(args: argparse.Namespace, rows: Rows) -> None:
    """Every run of the studies asked for that has no row yet."""
    made: dict[str, Callable[[int], Iterator[tuple[str, str]]]] = {
        "decrease": decrease,
        "sensitivity": sensitivity,
        "compare": lambda seed: compare(args, seed, rows),
    }
    for study in (s for s in STUDIES if getattr(args, s)):
        for seed in args.seeds:
            for key, text in made[study](seed):
                if key in rows:
                    continue
                out = args.work / key.replace("/", "-").replace(" ", "_")
                rows[key] = timed(text, out, seed)
                if study != "sensitivity" and "iterations" in rows[key]:
                    rows[key]["course"] = course(iterations(out / "history.jsonl"))
                print(key, {k: v for k, v in rows[key].items() if k != "course"}, flush=True)
                save(args.json, rows)


def rehearse(args: argparse.Namespace) -> None:
    """Compiles what would be run, without data or weights."""
    texts = dict(decrease(0)) | dict(sensitivity(0))
    texts |= {
        key_of(name, m, ratio, "passes", 0): compared(name, m, ratio, 8, ".")
        for name in args.networks
        for ratio in NETWORKS[name].ratios
        for m in args.only
    }
    for key, text in texts.items():
        prunelang.compile(text).require_runnable()
        print(f"{key}: compiles")


def main(arguments: list[str] | None = None) -> None:
    parser = parser_of(__doc__, "bcd")
    parser.add_argument("--decrease", action="store_true", help="check the decrease of every iteration")
    parser.add_argument("--compare", action="store_true", help="beside gradients, on MNIST")
    parser.add_argument("--sensitivity", action="store_true", help="with other γ, ρ, τ and α")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), metavar="NETWORK", default=list(NETWORKS))
    parser.add_argument("--only", nargs="+", choices=METHODS, metavar="METHOD", default=list(METHODS))
    parser.add_argument("--passes", type=int, help="iterations of bcd, and epochs at equal passes")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the result (.svg, .png) and stop")
    args = parser.parse_args(arguments)
    if args.dry_run:
        rehearse(args)
        return
    if args.plot:
        from benchmarks.bcd.plot import draw

        draw(json.loads(args.json.read_text(encoding="utf-8")), args.plot)
        return
    if args.compare and args.root is None:
        parser.error("--root is needed: the folder of MNIST's idx files")
    if args.merge:
        save(args.json, together(args))
    else:
        measure(args, read(args.json))
    print(json.dumps(summary(read(args.json)), indent=1, ensure_ascii=False))


# ── what is stored ────────────────────────────────────────────────────────────────────────────────────────────────────


def save(path: Path, rows: Rows) -> None:
    document = {
        "what": "block coordinate descent: sufficient decrease, MNIST beside gradients, and its options",
        "passes": {name: network.passes for name, network in NETWORKS.items()},
        "published": PUBLISHED,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "summary": summary(rows),
    }
    write(path, document, rows)


def summary(rows: Rows) -> dict[str, Any]:
    """By study: iterations and violations by network and blocks, accuracies by ratio and method, and by option."""
    groups: dict[str, list[Row]] = {}
    for key, row in rows.items():
        groups.setdefault(key.rpartition("/")[0], []).append(row)
    found: dict[str, Any] = {study: {} for study in STUDIES}
    for key, runs in sorted(groups.items()):
        study, _, rest = key.partition("/")
        found[study][rest] = {"decrease": _decreases, "compare": _spreads, "sensitivity": _accuracies}[study](runs)
    return {study: by for study, by in found.items() if by}


def _decreases(runs: list[Row]) -> dict[str, Any]:
    done = [r for r in runs if "iterations" in r]
    told = {k: sum(r[k] for r in done) for k in ("iterations", "accepted", "violations")}
    return {**told, "runs": len(runs), "failed": len(runs) - len(done), **_accuracies(runs)}


def _accuracies(runs: list[Row]) -> dict[str, Any]:
    done = [r["accuracy"] for r in runs if "accuracy" in r]
    return {"accuracy": spread(done) if done else None, "failed": len(runs) - len(done)}


def _spreads(runs: list[Row]) -> dict[str, Any]:
    done = [r for r in runs if "accuracy" in r]
    found = {**_accuracies(runs), "processor": spread([r["processor"] for r in runs], 0)}
    if done:
        found |= {"params": max(r["params"] for r in done), "met": sum(r["met"] for r in done)}
    if any("violations" in r for r in done):
        found |= {k: sum(r[k] for r in done) for k in ("iterations", "violations")}
    return found


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # what has shrunk below 1e-38 is slow to compute with
    main()
