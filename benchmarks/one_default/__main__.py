"""`solve gda()` with all its defaults on five networks: feasible at the end, without divergence, with bounded duals.

    python -m benchmarks.one_default --root MNIST_FOLDER --json benchmarks/one_default/result.json
    python -m benchmarks.one_default --plot docs/images/one_default.svg

Records levels, costs and multipliers epoch by epoch. Existing rows are kept. Two processes take networks of their own
and write to two files, which `--merge` joins.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import benchmarks.one_default.data  # noqa: F401  registers the data of resnet20
import prunelang
from benchmarks.command import parser_of, together
from benchmarks.rows import Row, Rows, read, write
from prunelang.compiler.graph import Graph, Multipliers, Sparsity
from prunelang.runtime.saddle import QUARTER

COUNT = "sparsity: ‖net.weights‖₀ ≤ 5%"
HALF = "compute: macs(net) ≤ 50%"


@dataclass(frozen=True)
class Case:
    """A network with its data, budgets, optimizer and epochs. Nothing of it speaks of the solver."""

    model: str
    data: str
    budgets: tuple[str, ...]
    optimizer: str
    epochs: tuple[int, int, int]  # before, in and after `solve`


SGD = "sgd(lr = ramp(0.1, 0.01, 0, 1, shape = cosine), momentum = 0.9)"
ADAM = "adam(lr = ramp(2e-3, 2e-4, 0, 1, shape = cosine))"
CASES: dict[str, Case] = {
    "lenet_300_100": Case("lenet_300_100()", "mnist({root}batch = 256)", (COUNT,), SGD, (4, 12, 3)),
    "lenet_5": Case("lenet_5()", "mnist({root}batch = 256)", (COUNT,), SGD, (2, 8, 1)),
    "lenet_5, macs": Case("lenet_5()", "mnist({root}batch = 256)", (HALF,), SGD, (2, 8, 1)),
    "resnet20": Case("resnet20()", "mnist_padded({root}batch = 128)", (COUNT,), SGD, (2, 6, 1)),
    "snn_mlp": Case("snn_mlp([784, 500, 10], T = 8)", "mnist({root}batch = 128)", (COUNT,), ADAM, (2, 8, 2)),
    "snn_conv": Case(
        "snn_conv(width = 8, T = 4, inputs = [1, 28, 28], convs = 2)",
        "mnist({root}batch = 128)",
        (COUNT,),
        ADAM,
        (2, 6, 1),
    ),
}


def spec_of(name: str, root: str | None = None) -> str:
    """The spec of a case; `solve gda()` says nothing."""
    case = CASES[name]
    data = case.data.format(root=f'root = "{root}", ' if root else "")
    before, within, after = case.epochs
    return "\n".join(
        (
            f"model net = {case.model}",
            f"data {data}",
            "minimize cross_entropy(net)",
            "subject to",
            *(f"    {budget}" for budget in case.budgets),
            f"pretrain with {case.optimizer} for {before} epochs",
            f"solve gda() with {case.optimizer} for {within} epochs",
            f"finetune with {case.optimizer.replace('0.1, 0.01', '0.01, 0.001')} for {after} epochs",
            'report "error": error(net)',
            "",
        )
    )


def run(name: str, seed: int, root: str | None, work: Path) -> Row:
    """One network."""
    start = time.perf_counter()
    program = prunelang.compile(spec_of(name, root))
    out = work / f"{name.replace(', ', '-')}-{seed}"
    solution = program.run(out, seed=seed)
    if solution.failure is not None:
        return {"status": f"failed: {solution.failure}", "seconds": round(time.perf_counter() - start, 1)}
    course = course_of(program.graph, out / "history.jsonl")
    return {
        "status": solution.certificate.status,
        "constraints": {
            c.label: {"got": int(str(c.got)), "bound": int(str(c.bound))} for c in solution.certificate.constraints
        },
        "error": round(100 * solution.reported("error"), 3),
        "largest y": max(max(e["y"]) for e in course["epochs"]),
        "largest z": max(max(e["z"].values()) for e in course["epochs"]),
        "course": course,
        "seconds": round(time.perf_counter() - start, 1),
    }


def course_of(graph: Graph, history: Path) -> dict[str, Any]:
    """Levels, their costs and multipliers after every epoch of `solve`: kept items, y, z, and R over the dense cost."""
    (levels,) = (node for node in graph.state if isinstance(node, Sparsity))
    (multipliers,) = (node for node in graph.state if isinstance(node, Multipliers))
    epochs = []
    for line in history.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] != "epoch" or event["stage"] != "solve":
            continue
        found = event["levels"]
        kept = [x.size - max(0, math.ceil(s - QUARTER)) for x, s in zip(levels.items, found["s"], strict=True)]
        cost = {r.label: r.value(kept) / r.dense for r in multipliers.resources}
        shares = [k / x.size for k, x in zip(kept, levels.items, strict=True)]
        epochs.append({"p": event["p"], "kept": shares, "cost": cost, "y": found["y"], "z": found["z"]})
    budget = {r.label: r.bound / r.dense for r in multipliers.resources}
    return {"levels": [x.name for x in levels.items], "budget": budget, "epochs": epochs}


def summary(rows: Rows) -> dict[str, Any]:
    """By network: the worst status, and how far duals went."""
    found: dict[str, Any] = {}
    for key, row in rows.items():
        name = key.rsplit("/", 1)[0]
        told = {k: row[k] for k in ("status", "error", "largest y", "largest z") if k in row}
        if "course" in row:
            last = row["course"]["epochs"][-1]["cost"]
            told["cost over budget at the end of solve"] = {
                label: round(last[label] / max(budget, 1e-12), 4) for label, budget in row["course"]["budget"].items()
            }
        found.setdefault(name, []).append(told)
    return found


def save(path: Path, rows: Rows) -> None:
    document = {
        "what": "solve gda() with all defaults: feasibility, and levels and multipliers epoch by epoch",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "summary": summary(rows),
    }
    write(path, document, rows)


def main(arguments: list[str] | None = None) -> None:
    parser = parser_of(__doc__, "one_default", seeds=(0,))
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="NETWORK", default=list(CASES))
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the result (.svg, .png) and stop")
    args = parser.parse_args(arguments)
    if args.dry_run:
        for name in args.only:
            prunelang.compile(spec_of(name)).require_runnable()
            print(f"{name}: compiles")
        return
    if args.plot:
        from benchmarks.one_default.plot import draw

        draw(json.loads(args.json.read_text(encoding="utf-8")), args.plot)
        return
    rows = together(args) if args.merge else read(args.json)
    root = str(Path(args.root).resolve()) if args.root else None
    for seed, name in () if args.merge else ((s, n) for s in args.seeds for n in args.only):
        key = f"{name}/{seed}"
        if key not in rows:
            rows[key] = run(name, seed, root, args.work)
            print(key, {k: v for k, v in rows[key].items() if k != "course"}, flush=True)
            save(args.json, rows)
    save(args.json, rows)
    for name, told in summary(rows).items():
        print(name, *told, sep="\n    ")


if __name__ == "__main__":
    main()
