"""How many weights a student should keep, by the number of samples: test loss and description length.

    python -m benchmarks.teacher_student --json benchmarks/teacher_student/result.json
    python -m benchmarks.teacher_student --plot docs/images/teacher_student.svg

Runs specs/teacher_student.prune for every seed (a teacher and its samples), size and α; α = 0 is ordinary training as
long. Existing rows are kept. Two processes take seeds of their own and write to two files, which `--merge` joins.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import prunelang
from benchmarks.rows import Row, Rows, merged, read, write
from benchmarks.teacher_student import problem

RESULT = Path("benchmarks/teacher_student/result.json")
SPEC = Path(__file__).parents[2] / "specs" / "teacher_student.prune"
SIZES = (30, 300, 2000)
ALPHAS = ("0", "3e-6", "1e-5", "3e-5", "1e-4", "3e-4", "1e-3", "3e-3", "1e-2")


def spec_of(alpha: str, data: Path) -> str:
    """The spec on the samples of a file; for α = 0 its steps without the penalty, the solver and the pruners."""
    text = SPEC.read_text(encoding="utf-8").replace("teacher.safetensors", str(data))
    if float(alpha):
        return text.replace("param α = 1e-4", f"param α = {alpha}")
    kept = text.replace(" + α * ‖net.params‖₀", "").replace("param α = 1e-4\n", "").replace("1000 steps", "7000 steps")
    return kept[: kept.index("\nsolve ")] + kept[kept.index("\nreport ") :]


def run(seed: int, n: int, alpha: str, work: Path) -> Row:
    """One student."""
    start = time.perf_counter()
    data = problem.write(work / f"teacher-{seed}-{n}.safetensors", seed, n)
    solution = prunelang.compile(spec_of(alpha, data)).run(work / f"student-{seed}-{n}-{alpha}", seed=seed)
    if solution.failure is not None:
        raise SystemExit(f"{seed}, {n}, {alpha}: {solution.failure}")
    kept, train = int(solution.reported("kept")), solution.reported("train")
    return {
        "kept": kept,
        "train": round(train, 7),
        "test": round(solution.reported("test"), 7),
        "data_bits": round(problem.data_bits(n, train), 1),
        "model_bits": round(problem.model_bits(kept), 1),
        "seconds": round(time.perf_counter() - start, 1),
    }


def of(rows: Rows, n: int, seed: str | None = None) -> dict[str, list[Row]]:
    """The rows of a size, and of a seed where given, by α in the order of `ALPHAS`."""
    seeds = seeds_of(rows, n) if seed is None else [seed]
    found = {a: [rows[k] for s in seeds if (k := f"{n}/{a}/{s}") in rows] for a in ALPHAS}
    return {a: r for a, r in found.items() if r}


def seeds_of(rows: Rows, n: int) -> list[str]:
    """The seeds that a size has rows of."""
    return sorted({k.rsplit("/", 1)[1] for k in rows if k.startswith(f"{n}/")}, key=int)


def description(row: Row) -> float:
    """Bits of data and model."""
    bits: float = row["data_bits"] + row["model_bits"]
    return bits


def summary(rows: Rows) -> dict[str, Any]:
    """By size: at every α the geometric mean of test losses, mean bits and kept weights; and where each is least.

    `best by seed` are the weights kept at the least test loss, and the least description, of every seed.
    """
    found: dict[str, Any] = {}
    for n in SIZES:
        groups = of(rows, n)
        if not groups:
            continue
        curve = {
            a: {
                "kept": round(statistics.fmean(r["kept"] for r in group), 1),
                "test": round(statistics.geometric_mean(r["test"] for r in group), 6),
                "bits": round(statistics.fmean(description(r) for r in group), 1),
                "seeds": len(group),
            }
            for a, group in groups.items()
        }
        own = [[r for group in of(rows, n, s).values() for r in group] for s in seeds_of(rows, n)]
        found[str(n)] = {
            "curve": curve,
            "least test loss": min(curve.values(), key=lambda c: c["test"])["kept"],
            "least description": min(curve.values(), key=lambda c: c["bits"])["kept"],
            "best by seed": {
                "test": [min(r, key=lambda x: x["test"])["kept"] for r in own],
                "description": [min(r, key=description)["kept"] for r in own],
            },
        }
    return found


def save(path: Path, rows: Rows) -> None:
    document = {
        "what": "teacher 2-5-8-1, student 2-25-25-1 (tanh): mean squared errors, parameters kept of 751, bits",
        "noise": problem.NOISE,
        "parameters": problem.PARAMETERS,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "summary": summary(rows),
    }
    write(path, document, rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--alphas", nargs="+", choices=ALPHAS, default=list(ALPHAS))
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "prunelang-teacher")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write 2 000 samples of seed 0 and stop")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="JSON", help="add the rows of these files and stop")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the result (.svg, .png) and stop")
    args = parser.parse_args(arguments)
    if args.write:
        problem.write(args.write, 0, problem.POOL)
        return
    if args.plot:
        from benchmarks.teacher_student.plot import draw

        draw(json.loads(args.json.read_text(encoding="utf-8")), args.plot)
        return
    rows = merged([*([args.json] if args.json.is_file() else []), *args.merge]) if args.merge else read(args.json)
    runs = [] if args.merge else [(s, n, a) for s in args.seeds for n in args.sizes for a in args.alphas]
    for seed, n, alpha in runs:
        key = f"{n}/{alpha}/{seed}"
        if key not in rows:
            rows[key] = run(seed, n, alpha, args.work)
            print(key, rows[key], flush=True)
            save(args.json, rows)
    save(args.json, rows)
    for size, found in summary(rows).items():
        print(size, {k: v for k, v in found.items() if k != "curve"})


if __name__ == "__main__":
    main()
