"""The picture of a result: what levels keep, what is left of the budgets, and the duals, over the stage."""

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
    "svg.hashsalt": "one_default",
    "legend.frameon": False,
}


def draw(result: dict[str, Any], path: Path) -> None:
    """A row of three panels for each network: kept items of every level, y of every level, and costs with z."""
    runs = {k.rsplit("/", 1)[0]: r for k, r in sorted(result["runs"].items(), reverse=True) if "course" in r}
    names = sorted(runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyplot.rc_context(STYLE):
        size = (9.0, 2.1 * max(1, len(names)))
        figure, panels = pyplot.subplots(max(1, len(names)), 3, figsize=size, layout="constrained", squeeze=False)
        for name, row in zip(names, panels, strict=False):
            _network(name, runs[name]["course"], row)
        for axes, title in zip(panels[0], ("kept items of a level", "y of a level", "cost, and z"), strict=True):
            axes.set_title(title, pad=16)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
        pyplot.close(figure)


def _network(name: str, course: dict[str, Any], row: Any) -> None:
    kept, pulls, costs = row
    epochs = course["epochs"]
    p = [e["p"] for e in epochs]
    for i in range(len(course["levels"])):
        colour = COLOURS[i % len(COLOURS)]
        kept.plot(p, [e["kept"][i] for e in epochs], color=colour, linewidth=1.2)
        pulls.plot(p, [e["y"][i] for e in epochs], color=colour, linewidth=1.2)
    prices = costs.twinx()
    prices.spines["right"].set_visible(True)
    for i, (label, budget) in enumerate(course["budget"].items()):
        colour = COLOURS[i]
        costs.plot(p, [e["cost"][label] for e in epochs], color=colour, linewidth=1.6, label=label)
        costs.axhline(budget, color=colour, linewidth=1, linestyle=":")
        prices.plot(p, [e["z"][label] for e in epochs], color=colour, linewidth=1, linestyle="--")
    for axes in (kept, pulls, costs, prices):
        axes.set(yscale="log")
    kept.set_ylabel(name)
    costs.legend(loc="upper right", fontsize=8)
    for axes in row:
        axes.set(xlabel="share of the stage", xlim=(0, 1))
