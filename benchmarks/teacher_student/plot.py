"""The picture of a result: test loss and description length over the weights kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from prunelang.dsl.numbers import grouped

COLOURS: Final = {"30": "#D55E00", "300": "#009E73", "2000": "#0072B2"}  # told apart without colour vision
MARKERS: Final = {"30": "o", "300": "s", "2000": "^"}
STYLE: Final[Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "teacher_student",
    "legend.frameon": False,
}


def draw(result: dict[str, Any], path: Path) -> None:
    """Two panels over the number of parameters kept; a filled marker where a curve is least."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyplot.rc_context(STYLE):
        figure, (loss, bits) = pyplot.subplots(1, 2, figsize=(8.4, 3.5), layout="constrained")
        for size, found in result["summary"].items():
            curve = sorted(found["curve"].values(), key=lambda c: c["kept"])
            kept = [c["kept"] for c in curve]
            least = min(c["bits"] for c in curve)
            _line(loss, size, kept, [c["test"] for c in curve])
            _line(bits, size, kept, [(c["bits"] - least) / int(size) for c in curve])
        noise = result["noise"] ** 2
        loss.axhline(noise, color="0.5", linewidth=1, linestyle=":")
        loss.text(1, noise, "noise", color="0.35", ha="right", va="top", transform=loss.get_yaxis_transform())
        loss.set(yscale="log", title="Test loss", ylabel="mean squared error")
        loss.set_yticks([0.01, 0.03, 0.1], ["0.01", "0.03", "0.1"])
        bits.set(title="Description length", ylabel="bits a sample above the least")
        bits.set_yscale("symlog", linthresh=1)
        bits.set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
        bits.set_ylim(bottom=-0.15)
        for axes in (loss, bits):
            axes.set(xscale="log", xlabel=f"parameters kept, of {result['parameters']}")
            axes.set_xticks([10, 30, 100, 300, 751], ["10", "30", "100", "300", "751"])
            axes.minorticks_off()
        bits.legend(title="samples", loc="upper left")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
        pyplot.close(figure)


def _line(axes: Any, size: str, kept: list[float], values: list[float]) -> None:
    best = values.index(min(values))
    style = {"color": COLOURS[size], "marker": MARKERS[size]}
    axes.plot(kept, values, linewidth=1.6, markersize=4, markerfacecolor="white", label=grouped(int(size)), **style)
    axes.plot(kept[best : best + 1], values[best : best + 1], markersize=9, **style)
