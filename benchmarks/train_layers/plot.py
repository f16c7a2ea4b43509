"""The picture of a result: time over that of the dense layer, by the share of its multiply-adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # told apart without colour vision
MARKS: Final = ("o", "s", "^", "D")
STYLE: Final[Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "train_layers",
    "legend.frameon": False,
}
TITLES: Final = {"forward": "forward pass", "step": "training step"}


def draw(result: dict[str, Any], path: Path) -> None:
    """A panel for the forward pass and one for the step; a colour for each batch, a mark for each form."""
    runs = {tuple(key.split("/")): row for key, row in result["runs"].items()}
    batches = sorted({int(key[1]) for key in runs})
    forms = sorted({key[2] for key in runs})
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyplot.rc_context(STYLE):
        figure, panels = pyplot.subplots(1, 2, figsize=(9.0, 3.6), layout="constrained", sharey=True)
        for axes, name in zip(panels, TITLES, strict=True):
            for (_, batch, form, _), row in runs.items():
                colour = COLOURS[batches.index(int(batch)) % len(COLOURS)]
                mark = MARKS[forms.index(form) % len(MARKS)]
                axes.plot(row["macs"], row[name]["median"], mark, color=colour, markersize=5, alpha=0.8)
            axes.axhline(1, color="#777777", linewidth=0.8)
            axes.axline((0.01, 0.01), (1, 1), color="#777777", linewidth=0.8, linestyle=":")
            axes.set(xscale="log", yscale="log", xlabel="multiply-adds over dense", title=TITLES[name])
        panels[0].set_ylabel("time over dense")
        for i, batch in enumerate(batches):
            panels[1].plot([], [], "o", color=COLOURS[i % len(COLOURS)], label=f"batch {batch}")
        for i, form in enumerate(forms):
            panels[1].plot([], [], MARKS[i % len(MARKS)], color="#777777", label=form)
        panels[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
        pyplot.close(figure)
