"""The section of the pages that shows the result."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import spread_text, table
from benchmarks.spiking.points import DRIVEN, LEVELS, MAGNITUDE, MATCHED, SYNOPS
from prunelang.dsl.numbers import grouped

METHODS = {
    "gda": "`gda`",
    "gda sequential": "`gda`, sequential",
    "ista stds_sine": "`ista`, STDS sine",
    "ista lats": "`ista`, LATS",
    MAGNITUDE: "gradual magnitude",
}


def section(result: dict[str, Any]) -> str:
    """Accuracy by connectivity, and operations, spikes and accuracy under a bound on operations."""
    found = result["summary"]
    return f"{_connectivity(result, found)}\n\n{_operations(found)}"


def _connectivity(result: dict[str, Any], found: dict[str, Any]) -> str:
    rows = []
    for name, points in found.items():
        for method, shown in METHODS.items():
            cells = [points.get(x, {}).get(method) for x in LEVELS]
            if any(cells):
                rows.append([f"{name}, {shown}", *("–" if c is None else spread_text(c["accuracy"], 2) for c in cells)])
    dense = ", ".join(f"`{result['networks'][n]}` {spread_text(r['dense']['accuracy'], 2)}" for n, r in found.items())
    epochs = ", ".join(f"{name} {e['dense']} and {e['solve'] + e['finetune']}" for name, e in result["epochs"].items())
    verdict = " ".join(_joint(name, points) for name, points in found.items())
    return (
        "**Spiking networks on MNIST**: test accuracy in % at a share of the connections. Every method starts from the "
        f"same dense network of a seed ({dense}) and has as many epochs. Epochs before and after: {epochs}. Means over "
        f"seeds, the lowest and highest in brackets, in parentheses how many.{' ' * bool(verdict)}{verdict}\n\n"
        + table(["connectivity", *LEVELS], rows)
    )


def _joint(name: str, points: dict[str, Any]) -> str:
    """How joint descent compares with the sequential form at the smallest connectivities measured."""
    both = [x for x in LEVELS if {"gda", "gda sequential"} <= points.get(x, {}).keys()]
    if not both:
        return ""
    gain = {
        x: points[x]["gda"]["accuracy"]["mean"] - points[x]["gda sequential"]["accuracy"]["mean"] for x in both[-2:]
    }
    shown = " and ".join(f"{g:+.2f} points at {x}" for x, g in gain.items())
    return f"Joint against sequential on {name}: {shown}."


def _operations(found: dict[str, Any]) -> str:
    rows, said = [], ""
    for name, points in found.items():
        dense, met = points["dense"], points.get(SYNOPS, {})
        if met:
            rows.append([f"{name}, dense", *_counts(dense), "100.0", "100.00", f"{dense['accuracy']['mean']:.2f}", "–"])
        for method in (m for m in (*DRIVEN, *MATCHED) if m in met):
            r = met[method]
            shown = f"`{method}`" if method in DRIVEN else f"magnitude, as many weights as `{MATCHED[method]}`"
            kept = f"{100 * r['kept']['mean'] / dense['kept']['mean']:.2f}"
            bound = f"{r['met']} of {r['kept']['seeds']}" if method in DRIVEN else "–"
            share = f"{100 * r['share']['mean']:.1f}"
            rows.append([f"{name}, {shown}", *_counts(r), share, kept, spread_text(r["accuracy"], 2), bound])
            said = said or r.get("statement", "")
    if not rows:
        return "The bound on synaptic operations has no result in this checkout."
    head = ["", "SynOps", "spikes", "SynOps, % of dense", "connections, %", "accuracy, %", "bound met"]
    return (
        "**At most 0.3 of the synaptic operations** (`specs/snn_synops.prune`): operations and spikes of one test "
        "image, means over seeds. Magnitude pruning keeps as many weights as the run named beside it and has no bound. "
        f"*Bound met* counts certificates, each on images that nothing else has read{f': {said}' if said else ''}.\n\n"
        + table(head, rows)
    )


def _counts(found: dict[str, Any]) -> list[str]:
    return [grouped(round(found[x]["mean"])) for x in ("synops", "spikes")]
