"""The section of the pages that shows the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.markdown import table
from prunelang.dsl.numbers import grouped

NETWORKS = {"lenet_300_100": "LeNet-300-100", "lenet_5": "LeNet-5", "resnet20": "ResNet-20"}
UNITS = {"sparsity": "weights", "compute": "MACs"}
PICTURE = Path(__file__).parent.parent.parent / "docs" / "images" / "one_default.svg"


def section(result: dict[str, Any]) -> str:
    """Whether every run ends feasible, how near the game comes to its bounds, and how far duals went."""
    runs = result["runs"]
    rows = [_row(key, runs[key]) for key in sorted(runs)]
    met = sum(r["status"] == "feasible-verified" for r in runs.values())
    return (
        "**One default**: `solve gda()` without any option on MNIST, with the weights down to 5 %, or the "
        "multiply-adds to 50 % by whole channels; ResNet-20 on 10 000 images with a margin and three equal channels. "
        "Optimizers and lengths of stages differ, as they do without a constraint. *Cost at the end of "
        "`solve`* is R/B before the last projection, *y* and *z* the largest multipliers of the whole stage. "
        f"Feasible and verified: {met} of {len(runs)} runs.\n\n"
        + table(["", "got", "bound", "cost at the end of `solve`", "largest y", "largest z", "test error, %"], rows)
        + "\n\n![Levels, their multipliers, costs and prices over the stage](docs/images/one_default.svg)"
        * PICTURE.is_file()
    )


def _row(key: str, run: dict[str, Any]) -> list[str]:
    """A run; of one that failed, why."""
    name, _, seed = key.rpartition("/")
    base, _, rest = name.partition(", ")
    shown = f"{NETWORKS.get(base, f'`{base}`')}{', ' * bool(rest)}{rest}{f', seed {seed}' * (seed != '0')}"
    if "course" not in run:
        return [f"{shown}: {run['status']}", *["–"] * 6]
    course = run["course"]
    bounds, last = course["budget"], course["epochs"][-1]["cost"]
    of = [(label, c) for label, c in run["constraints"].items() if label in bounds]
    return [
        shown,
        ", ".join(f"{grouped(c['got'])} {UNITS.get(label, '')}".rstrip() for label, c in of),
        ", ".join(grouped(c["bound"]) for _, c in of),
        ", ".join(f"{last[label] / bounds[label]:.4f}" for label, _ in of),
        f"{run['largest y']:.3g}",
        f"{run['largest z']:.3g}",
        f"{run['error']:.2f}",
    ]
