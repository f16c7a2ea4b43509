"""Test error of LeNet-300-100 with tanh units under the compressions that the LC toolkit publishes results for.

    python -m benchmarks.factors --root MNIST_FOLDER --seeds 0 1 2 --json benchmarks/factors/result.json

Every run starts from the reference network of its seed. `--tune` runs the schedules tried, trained on 90 % of the
training images and judged on the rest; the specs hold those picked. Existing rows are kept. Two processes share one
`--work` and write to two files:

    python -m benchmarks.factors --root MNIST_FOLDER --prepare
    python -m benchmarks.factors --root MNIST_FOLDER --tune --only mixed --schedules low late --json a.json
    python -m benchmarks.factors --root MNIST_FOLDER --only codebook additive --json b.json
    python -m benchmarks.factors --merge a.json b.json
"""

from __future__ import annotations

import argparse
import json
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

import prunelang
from benchmarks.command import carried_out, parser_of
from benchmarks.factors.settings import CASES, FILE, PARTS, REFERENCE, SPECS, TRIED, reference_spec, spec_of
from benchmarks.rows import Row, Rows, read, spread, write
from prunelang.verification import export_directory

Json = dict[str, Any]


def row_of(run: Path) -> Row:
    """What a run left: error in %, what else its report says, and and what its constraints have and ask."""
    certificate = json.loads((run / "certificate.json").read_text(encoding="utf-8"))
    told = {x["title"]: x["value"] for x in certificate["report"]}
    return {
        "error": round(100 * float(Fraction(told.pop("error"))), 4),
        **{name: int(Fraction(value)) for name, value in told.items()},
        "constraints": {x["label"]: [x["got"], x["bound"]] for x in certificate["constraints"]},
        "met": all(x["satisfied"] is True for x in certificate["constraints"]),
        "status": certificate["status"],
    }


def timed(text: str, out: Path, seed: int) -> Row:
    """The row of one run. A numerical failure ends the benchmark."""
    start = time.perf_counter()
    solution = prunelang.compile(text).run(out, seed=seed)
    if solution.failure is not None:
        raise SystemExit(f"{out}: {solution.failure}")
    return {**row_of(out), "seconds": round(time.perf_counter() - start, 1)}


def reference(seed: int, root: str, work: Path, held: bool) -> Path:
    """The folder of a seed's network before compression, trained once."""
    out = work / f"reference{'-held' * held}-{seed}"
    if not (out / "certificate.json").is_file():
        prunelang.compile(reference_spec(root, held)).run(out, seed=seed)
    return out


def budgeted(out: Path, seed: int) -> Row:
    """The budget of bytes over parts of three kinds: what was asked, counted and certified, and the file's length."""
    text = (SPECS / f"{PARTS}.prune").read_text(encoding="utf-8")
    text = text[: text.index("\nreport ")] + '\nreport "error": error(net), "bytes": bytes(net)\n'
    return {**timed(text, out, seed), "file": export_directory(out).path.stat().st_size}


def measure(args: argparse.Namespace, rows: Rows) -> None:
    """Every run that has no row yet."""
    root = str(Path(args.root).resolve())
    for seed in args.seeds:
        start = reference(seed, root, args.work, args.tune)
        weights = start / "weights.safetensors"
        if not args.tune:
            rows.setdefault(f"reference/{seed}", row_of(start))
        save(args.json, rows)
        for name in () if args.prepare else args.only:
            for key, schedule in keys(name, seed, args):
                if key in rows:
                    continue
                out = args.work / key.replace("/", "-").replace(" ", "_").replace(",", "")
                if name == FILE:
                    rows[key] = budgeted(out, seed)
                else:
                    rows[key] = timed(spec_of(CASES[name], weights, root, schedule), out, seed)
                print(key, rows[key], flush=True)
                save(args.json, rows)


def keys(name: str, seed: int, args: argparse.Namespace) -> list[tuple[str, Any]]:
    """The rows of a case at a seed, with the schedule where schedules are tried."""
    if args.tune:
        return [] if name == FILE else [(f"tune/{name}/{s}/{seed}", TRIED[s]) for s in args.schedules]
    return [(f"{name}/{seed}", None)]


def rehearse(args: argparse.Namespace) -> None:
    """Compiles what would be run, without data or weights."""
    weights = Path("reference.safetensors")
    prunelang.compile(reference_spec(".")).require_runnable()
    for name in args.only:
        if name == FILE:
            prunelang.compile(SPECS / f"{PARTS}.prune").require_runnable()
        else:
            for schedule in (None, *(TRIED[s] for s in args.schedules)):
                prunelang.compile(spec_of(CASES[name], weights, ".", schedule)).require_runnable()
        print(f"{name}: compiles")


def main(arguments: list[str] | None = None) -> None:
    parser = parser_of(__doc__, "factors")
    cases = [*CASES, FILE]
    parser.add_argument("--only", nargs="+", choices=cases, metavar="CASE", default=cases)
    parser.add_argument("--tune", action="store_true", help="run the schedules tried, on 90 %% of the training images")
    parser.add_argument("--schedules", nargs="+", choices=TRIED, metavar="SCHEDULE", default=list(TRIED))
    parser.add_argument("--prepare", action="store_true", help="train the reference networks and stop")
    args = parser.parse_args(arguments)
    if carried_out(parser, args, rehearse=rehearse, measure=measure, save=save):
        print(json.dumps(summary(read(args.json)), indent=1, ensure_ascii=False))


def save(path: Path, rows: Rows) -> None:
    document = {
        "what": "LeNet-300-100 (tanh), MNIST: test error in % under the compressions of the LC toolkit's table",
        "published": {"reference": REFERENCE, **{name: case.published for name, case in CASES.items()}},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "summary": summary(rows),
    }
    write(path, document, rows)


def summary(rows: Rows) -> Json:
    """By case the spread over seeds of error, numbers and bytes; by case and schedule the error on held-out images."""
    found: Json = {}
    for name in ("reference", *CASES, FILE):
        runs = [row for key, row in rows.items() if key.rpartition("/")[0] == name]
        if runs:
            told = [k for k in ("error", "params", "macs", "bytes") if k in runs[0]]
            found[name] = {k: spread([r[k] for r in runs]) for k in told}
            found[name]["met"] = sum(r["met"] for r in runs)
    if FILE in found:
        files = {key.rpartition("/")[2]: row for key, row in rows.items() if key.startswith(f"{FILE}/")}
        found[FILE]["files"] = {
            s: dict(zip(("counted", "asked", "file"), (*r["constraints"]["file"], r["file"]), strict=True))
            for s, r in files.items()
        }
    tried: Json = {}
    for key, row in rows.items():
        if key.startswith("tune/"):
            _, name, schedule, _ = key.split("/")
            tried.setdefault(name, {}).setdefault(schedule, []).append(row["error"])
    if tried:
        found["tried"] = {n: {s: spread(v) for s, v in by.items()} for n, by in tried.items()}
    return found


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # what has shrunk below 1e-38 is slow to compute with
    main()
