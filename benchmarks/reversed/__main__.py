"""The fewest weights of LeNet-300-100 for an accuracy of 98, 97 and 95 % on validation.

    python -m benchmarks.reversed --root MNIST_FOLDER --seeds 0 1 2 --json benchmarks/reversed/result.json

Runs specs/reversed_lenet300.prune at 97 and 95 %, and dropout.prune beside this file at 98 %, from the dense network
of the seed, which is trained once. Existing rows are kept. Two processes share one `--work` and write to two files,
which `--merge` joins.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import benchmarks.reversed.network  # noqa: F401  registers the network of dropout.prune
import prunelang
from benchmarks.rows import Row, Rows, merged, read, spread, write

RESULT = Path("benchmarks/reversed/result.json")
PLAIN = Path(__file__).parents[2] / "specs" / "reversed_lenet300.prune"
SPECS = {"98%": Path(__file__).parent / "dropout.prune", "97%": PLAIN, "95%": PLAIN}
FLOORS = tuple(SPECS)
REPORT = 'report "test": accuracy(net), "validation": accuracy(net, on = validation)\n'


def head(text: str, root: str, weights: Path | None) -> str:
    """Model and data of the spec, with a folder for the data and, where given, starting weights."""
    model = re.search(r"^model net = (.+)$", text, re.MULTILINE)
    data = re.search(r"^data +mnist\((.*?)\)", text, re.MULTILINE)
    assert model is not None
    assert data is not None
    start = f' from "{weights}"' if weights is not None else ""
    return f'model net = {model[1]}{start}\ndata mnist(root = "{root}", {data[1]})\n'


def dense_spec(spec: Path, root: str) -> str:
    """The spec's own pretraining, on the same cut of the data."""
    text = spec.read_text(encoding="utf-8")
    stage = text[text.index("\npretrain ") + 1 : text.index("\nsolve ") + 1]
    return head(text, root, None) + f"minimize cross_entropy(net)\n{stage}{REPORT}"


def spec_of(floor: str, weights: Path, root: str) -> str:
    """The spec at a floor, with the dense network in the place of its pretraining."""
    text = SPECS[floor].read_text(encoding="utf-8")
    task = text[text.index("\nparam ") : text.index("\npretrain ")]
    task, changed = re.subn(r"param a = \S+", f"param a = {floor}", task)
    assert changed == 1, f"{SPECS[floor].name} has no floor `a`"
    stages = text[text.index("\nsolve ") + 1 : text.index("\nreport ") + 1]
    return head(text, root, weights) + task + "\n" + stages + REPORT


def dense(spec: Path, seed: int, root: str, work: Path) -> Path:
    """The weights of a seed's dense network, trained once for each spec."""
    out = work / f"dense-{spec.stem}-{seed}"
    if not (out / "certificate.json").is_file():
        prunelang.compile(dense_spec(spec, root)).run(out, seed=seed)
    return out / "weights.safetensors"


def run(floor: str, seed: int, root: str, work: Path) -> Row:
    """One search."""
    weights = dense(SPECS[floor], seed, root, work)
    start = time.perf_counter()
    out = work / f"{floor}-{seed}"
    solution = prunelang.compile(spec_of(floor, weights, root)).run(out, seed=seed)
    if solution.failure is not None:
        raise SystemExit(f"{floor}, {seed}: {solution.failure}")
    return {**row_of(out), "seconds": round(time.perf_counter() - start, 1)}


def row_of(out: Path) -> Row:
    """What a run left: weights kept, accuracies in %, whether the floor is confirmed, and what the search tried."""
    certificate = json.loads((out / "certificate.json").read_text(encoding="utf-8"))
    reported = {x["title"]: float(x["value"]) for x in certificate["report"]}
    (line,) = certificate["constraints"]
    events = [json.loads(x) for x in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    kernels = [t for t in load_file(out / "weights.safetensors").values() if t.dim() > 1]
    kept, total = sum(int(t.count_nonzero()) for t in kernels), sum(t.numel() for t in kernels)
    return {
        "kept": kept,
        "ratio": round(total / max(1, kept), 2),
        "certified accuracy": round(100 * float(Fraction(line["got"])), 4),
        "test accuracy": round(100 * reported["test"], 4),
        "status": certificate["status"],
        "met": bool(line["confirmed"]),
        "statement": line["statement"],
        "probed": [_probe(e) for e in events if e["event"] == "probed"],
        "tested": [_probe(e) for e in events if e["event"] == "tested"],
    }


def _probe(event: dict[str, Any]) -> list[Any]:
    """κ, the accuracy in %, and whether its confidence bound reaches the floor."""
    (floor,) = event["floors"]
    return [event["value"], round(100 * floor["value"], 3), floor["met"]]


def summary(rows: Rows) -> dict[str, Any]:
    """The spread over seeds by floor, and how many met it."""
    found: dict[str, Any] = {}
    for floor in FLOORS:
        group = [row for key, row in rows.items() if key.startswith(f"{floor}/")]
        if group:
            names = ("kept", "ratio", "certified accuracy", "test accuracy")
            found[floor] = {name: spread([r[name] for r in group]) for name in names}
            found[floor]["met"] = sum(r["met"] for r in group)
    return found


def save(path: Path, rows: Rows) -> None:
    document = {
        "what": "LeNet-300-100, MNIST: fewest weights under a floor on the accuracy on validation",
        "specs": {floor: spec.stem for floor, spec in SPECS.items()},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "summary": summary(rows),
    }
    write(path, document, rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of MNIST's idx files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--floors", nargs="+", choices=FLOORS, default=list(FLOORS))
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "prunelang-reversed")
    parser.add_argument("--dry-run", action="store_true", help="compile every spec and stop")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="JSON", help="add the rows of these files and stop")
    args = parser.parse_args(arguments)
    if args.dry_run:
        for floor in args.floors:
            for text in (dense_spec(SPECS[floor], "."), spec_of(floor, Path("dense.safetensors"), ".")):
                prunelang.compile(text).require_runnable()
        print(f"{', '.join(args.floors)}: compiles")
        return
    rows = merged([*([args.json] if args.json.is_file() else []), *args.merge]) if args.merge else read(args.json)
    if not args.merge and args.root is None:
        parser.error("--root is needed: the folder of MNIST's idx files")
    for seed, floor in [] if args.merge else [(s, f) for s in args.seeds for f in args.floors]:
        key = f"{floor}/{seed}"
        if key not in rows:
            rows[key] = run(floor, seed, str(Path(args.root).resolve()), args.work)
            print(key, rows[key], flush=True)
            save(args.json, rows)
    save(args.json, rows)
    for floor, found in summary(rows).items():
        print(floor, found)


if __name__ == "__main__":
    main()
