"""``pareto.svg``: cost against quality, a curve for each solver, with the spread over seeds."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from prunelang.dsl.names import to_unicode
from prunelang.dsl.numbers import grouped
from prunelang.runtime.files import FileProblem

if TYPE_CHECKING:
    from prunelang.sweeping.table import Group, Sweep

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666", "#a05a2c")
"""Told apart with any kind of colour vision (Okabe and Ito), and by their markers in print."""
MARKERS = "osD^vPX*"
APART = 1.25  # ticks of a logarithmic axis, at least, as a factor
WIDE = 8.0  # ends of an axis further apart than this factor are drawn on a logarithmic one


def require() -> None:
    """Errors: `FileProblem` P568 where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        hint = "pip install 'prunelang[report]', or leave the plot out with --no-plot."
        raise FileProblem("P568", "plots need matplotlib, which is not installed", hint)


def pareto(sweep: Sweep) -> str:
    """The plot as SVG text; the same sweep gives the same text."""
    require()
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    x, y = sweep.axes
    assert x is not None
    assert y is not None
    settings: Any = {"svg.hashsalt": "prunelang", "svg.fonttype": "path", "font.size": 10, "font.family": "DejaVu Sans"}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        groups = [g for g in sweep.groups() if g.x is not None and g.y is not None]
        for i, solver in enumerate(sweep.grid.solvers):
            _curve(axes, [g for g in groups if g.solver == solver], _plain(solver), i)
        _front(axes, [g for g in groups if g.front])
        costs = [g.x.mean for g in groups if g.x is not None]
        if min(costs) > 0 and max(costs) / min(costs) > WIDE:
            axes.set_xscale("log")
            ticks = _ticks(costs)
            axes.set_xticks(ticks, [grouped(round(t)) if t >= 100 else f"{t:.3g}" for t in ticks])
            axes.set_xticks([], minor=True)
        for axis, title in ((axes.xaxis, x), (axes.yaxis, y)):
            unit = sweep.unit(title)
            axis.set_label_text(_plain(to_unicode(title) + (f" [{unit}]" if unit else "")))
        axes.set_title(_plain(f"{sweep.name}: {_seeds(len(sweep.grid.seeds))}"), fontsize=10)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": "prunelang"})
    return file.getvalue()


def _curve(axes: Any, groups: list[Group], label: str, at: int) -> None:
    """Means with their deviations, every run as a small point; hollow where a run violates something."""
    if not groups:
        return
    groups = sorted(groups, key=lambda g: g.x.mean if g.x else 0.0)
    colour, marker = COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]
    xs, ys = _means(groups)
    dx, dy = _deviations(groups)
    axes.errorbar(xs, ys, xerr=dx, yerr=dy, color=colour, lw=1.4, elinewidth=0.9, capsize=2.5, alpha=0.9, zorder=2)
    axes.plot([], [], color=colour, marker=marker, lw=1.4, label=label)
    for g in groups:
        assert g.x is not None
        assert g.y is not None
        axes.plot(g.x.values, g.y.values, ".", color=colour, ms=3, alpha=0.5, zorder=1)
        face = colour if g.satisfied else "none"
        axes.plot(g.x.mean, g.y.mean, marker=marker, ms=6, mfc=face, mec=colour, zorder=3)


def _ticks(costs: list[float]) -> list[float]:
    """The costs that were met, from the largest down, those that would crowd another left out."""
    found: list[float] = []
    for cost in sorted(costs, reverse=True):
        if not found or found[-1] / cost > APART:
            found.append(cost)
    return found[::-1]


def _means(groups: list[Group]) -> tuple[list[float], list[float]]:
    return [g.x.mean for g in groups if g.x], [g.y.mean for g in groups if g.y]


def _deviations(groups: list[Group]) -> tuple[list[float], list[float]]:
    of = ([g.x for g in groups], [g.y for g in groups])
    dx, dy = ([(s.deviation if s else None) or 0.0 for s in spreads] for spreads in of)
    return dx, dy


def _front(axes: Any, groups: list[Group]) -> None:
    """The groups that no other is better than in both: ringed, and joined by a dashed line."""
    if not groups:
        return
    xs, ys = _means(sorted(groups, key=lambda g: g.x.mean if g.x else 0.0))
    axes.plot(xs, ys, ls="--", lw=1, color="#888888", zorder=0)
    ring = {"marker": "o", "ms": 12, "mfc": "none", "mec": "#888888", "ls": "none", "zorder": 4}
    axes.plot(xs, ys, **ring, label="Pareto front of the means")


def _plain(text: str) -> str:
    """Text as it stands: a dollar sign begins no formula."""
    return text.replace("$", r"\$")


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"mean ± standard deviation over {count} seeds"
