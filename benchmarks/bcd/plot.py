"""The picture of a result: how the objective falls, and how the least residual falls below the bound L₀/(λk)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # told apart without colour vision
STYLE: Final[Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "bcd",
    "legend.frameon": False,
}


def draw(result: dict[str, Any], path: Path) -> None:
    """Two panels for each network, of the runs of the first seed: L_k, and min ‖ΔP‖² with its bound, over k."""
    runs = _runs(result)
    names = sorted({name for name, _ in runs}) or [""]
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyplot.rc_context(STYLE):
        size = (9.0, 3.0 * len(names))
        figure, panels = pyplot.subplots(len(names), 2, figsize=size, layout="constrained", squeeze=False)
        for name, row in zip(names, panels, strict=True):
            _network(name, {blocks: c for (n, blocks), c in runs.items() if n == name}, row)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
        pyplot.close(figure)


def _runs(result: dict[str, Any]) -> dict[tuple[str, str], list[list[float]]]:
    found = {}
    for key, row in sorted(result["runs"].items()):
        study, name, blocks, *rest = key.split("/")
        if study == "decrease" and rest == ["0"] and row.get("course"):
            found[name, blocks] = row["course"]
    return found


def _network(name: str, runs: dict[str, list[list[float]]], row: Any) -> None:
    objective, residual = row
    for colour, (blocks, points) in zip(COLOURS, runs.items(), strict=False):
        k, value, least, bound = zip(*points, strict=True)
        objective.plot(k, value, color=colour, linewidth=1.4, label=blocks)
        residual.plot(k, least, color=colour, linewidth=1.4, label=blocks)
        residual.plot(k, bound, color=colour, linewidth=1, linestyle=":")
    for axes in row:
        axes.set(xscale="log", yscale="log", xlabel="iteration")
    objective.set(ylabel=f"{name}: L")
    residual.set(ylabel="least ‖ΔP‖² (dotted: (L₀ − L)/λk)")
    objective.legend(loc="lower left", fontsize=8)
