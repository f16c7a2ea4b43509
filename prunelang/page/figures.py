"""Plots as SVG inside the page: transparent, without fonts or colours of their own, so that the page's themes hold."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunelang.page.series import Points, Series

INK, GRID = "#010101", "#020202"
SERIES = tuple(f"#0300{i:02x}" for i in range(8))
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
"""Curves are told apart without colours too."""
VARIABLES = {INK: "currentColor", GRID: "var(--line)", **{c: f"var(--c{i})" for i, c in enumerate(SERIES)}}
MOST_CURVES = 8
SMALL = 1e-3  # share of the largest value that a logarithmic axis is for


def losses(found: Series) -> str:
    """Mean training loss of each epoch."""
    if not found.loss[0]:
        return ""
    figure, axes = _figure(found)
    axes.plot(*found.loss, color=SERIES[0], lw=1.6)
    values = [v for v in found.loss[1] if v > 0]
    if values and min(values) < max(values) / 20 and len(values) == len(found.loss[1]):
        axes.set_yscale("log")
    axes.set_ylabel("loss")
    first, last = found.loss[1][0], found.loss[1][-1]
    return _svg(figure, "loss", f"Training loss over {len(found.loss[0])} epochs, from {first:.4g} to {last:.4g}.")


def constraints(found: Series) -> str:
    """Values divided by their bounds: 1 is the bound."""
    curves = {k: p for k, p in found.values.items() if p[0]}
    if not curves:
        return ""
    figure, axes = _figure(found)
    axes.axhline(1.0, color=INK, lw=0.8, ls=":")
    _curves(axes, curves)
    axes.set_ylabel("value / bound")
    ends = ", ".join(f"{label} ends at {p[1][-1]:.4g} of its bound" for label, p in _first(curves).items())
    return _svg(figure, "constraints", f"Constraints relative to their bounds over the epochs: {ends}.")


def prices(found: Series) -> str:
    """Prices of budgets, where the solver states them."""
    if not found.prices:
        return ""
    figure, axes = _figure(found)
    _curves(axes, found.prices)
    axes.set_ylabel("price, loss per unit")
    ends = ", ".join(f"{label} ends at {p[1][-1]:.4g}" for label, p in _first(found.prices).items())
    return _svg(figure, "prices", f"Prices of the budgets over the epochs: {ends}.")


def levels(found: Series) -> str:
    """Penalty coefficients, thresholds and other levels."""
    if not found.levels:
        return ""
    figure, axes = _figure(found)
    _curves(axes, found.levels)
    values = [v for _, ys in found.levels.values() for v in ys if v]  # before its stage a level is 0
    if min(values) > 0 and min(values) < SMALL * max(values):
        axes.set_yscale("log")
    axes.set_ylabel("level")
    ends = ", ".join(f"{name} ends at {p[1][-1]:.4g}" for name, p in _first(found.levels).items())
    return _svg(figure, "levels", f"Levels of the solver over the epochs: {ends}.")


def distance(found: Series) -> str:
    """How far weights and copy are apart, where the solver has a copy."""
    if not found.distance[0]:
        return ""
    figure, axes = _figure(found)
    axes.plot(*found.distance, color=SERIES[2], lw=1.6)
    axes.set_ylabel("‖W − θ‖")
    first, last = found.distance[1][0], found.distance[1][-1]
    return _svg(figure, "distance", f"Distance of the weights to their copy, from {first:.4g} to {last:.4g}.")


def histogram(name: str, values: NDArray[np.generic], at: int) -> str:
    """The weights that are not zero; zeros would hide them."""
    from matplotlib.ticker import MaxNLocator

    kept = values[(values != 0) & np.isfinite(values)].astype(np.float64).ravel()
    figure, axes = _blank((3.1, 1.5))
    if kept.size:
        axes.hist(kept, bins=41, color=SERIES[0], lw=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    else:
        axes.set_axis_off()
    span = f" between {kept.min():.4g} and {kept.max():.4g}" if kept.size else ""
    return _svg(figure, f"weights{at}", f"Histogram of the {kept.size} non-zero weights of {name}{span}.")


# ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _first(curves: Mapping[str, Points]) -> dict[str, Points]:
    """As many as can be told apart, those first that end highest."""
    order = sorted(curves.items(), key=lambda kv: -abs(kv[1][1][-1]))
    return dict(order[:MOST_CURVES]) if len(order) > MOST_CURVES else dict(curves)


def _curves(axes: Any, curves: Mapping[str, Points]) -> None:
    shown = _first(curves)
    for i, (label, points) in enumerate(shown.items()):
        axes.plot(*points, color=SERIES[i % len(SERIES)], ls=DASHES[i % len(DASHES)], lw=1.6, label=_plain(label))
    title = f"{len(shown)} of {len(curves)}" if len(shown) < len(curves) else None
    axes.legend(frameon=False, fontsize=8, loc="best", title=title, title_fontsize=8, labelcolor=INK)


def _figure(found: Series) -> tuple[Any, Any]:
    """Axes over epochs, with a line where a stage begins."""
    figure, axes = _blank((7.2, 2.9))
    axes.set_xlabel("epoch")
    axes.set_xlim(0, 1.02 * max(found.epochs, 1.0))
    for at, stage in found.stages:
        axes.axvline(at, color=GRID, lw=1)
        axes.annotate(
            _plain(stage), (at, 1.0), xycoords=("data", "axes fraction"), xytext=(3, 2),
            textcoords="offset points", fontsize=8, color=INK,
        )  # fmt: skip
    return figure, axes


def _blank(size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor="none")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot(facecolor="none")
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.tick_params(colors=INK, labelsize=8)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any, key: str, said: str) -> str:
    """The picture as an element: ids of its own, no metadata, no address, and a text for those who do not see it."""
    import matplotlib as mpl

    file = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key}):
        figure.savefig(file, format="svg", metadata=nothing, transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]*)"', rf'id="{key}-\1"', text)
    text = re.sub(r"url\(#", f"url(#{key}-", text)
    text = re.sub(r'xlink:href="#', f'href="#{key}-', text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font)", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert size is not None
    head = (
        f'<svg role="img" aria-labelledby="{key}-title" viewBox="0 0 {size[1]} {size[2]}" '
        f'style="max-width: {float(size[1]) * 4 / 3:.0f}px">'
        f'<title id="{key}-title">{escape(said)}</title>'
    )
    return head + text[text.index(">") + 1 :].strip()


def _plain(text: str) -> str:
    """Text as it stands: a dollar sign begins no formula, an underscore hides no curve from the legend."""
    return ("\N{ZERO WIDTH SPACE}" if text.startswith("_") else "") + text.replace("$", r"\$")
