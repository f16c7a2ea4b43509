"""The section of the pages that shows the result."""

from __future__ import annotations

from typing import Any

from benchmarks.markdown import spread_text, table

NETWORKS = {"lenet_300_100": "LeNet-300-100", "lenet_5": "LeNet-5"}
METHODS = {"gda": "`gda`", "lc": "`lc`", "gradual magnitude": "gradual magnitude"}


def section(result: dict[str, Any]) -> str:
    """Test errors by network, point and method, whether budgets are met, and who is ahead where."""
    found, others = result["summary"], result.get("others", {})
    points = [(name, p, r) for name, all_of in found.items() for p, r in all_of.items() if p != "dense"]
    rows = []
    for name, point, by_method in points:
        other = others.get(point) if name == "lenet_300_100" else None
        cells = [_error(by_method.get(m)) for m in METHODS]
        cells.append(f"{spread_text(other, 2)}, `{other['method']}`" if other else "–")
        rows.append([f"{NETWORKS[name]}, {point}", *cells])
    runs = [r for _, _, by_method in points for r in by_method.values()]
    met, all_runs = sum(r["met"] for r in runs), sum(r["error"]["seeds"] for r in runs)
    dense = ", ".join(f"{NETWORKS[n]} {spread_text(r['dense']['error'], 2)}" for n, r in found.items() if "dense" in r)
    return (
        "**Minimax under resource budgets on MNIST**: test error in %. *5 %* is a count of weights, *compute* is "
        "`sparse_macs(net) ≤ 10%`, *all* is the count, that, and a file of `bytes(net, format = csr)` at most 60 % of "
        "what the count alone would take, all at once. Magnitude pruning keeps the largest weights over all layers "
        f"until every budget holds. Dense: {dense}. Epochs after that: 40 for LeNet-300-100, 11 for LeNet-5, for every "
        "method. The last column is the best other solver of `lenet300` where that was measured. Means over seeds, the "
        f"lowest and highest in brackets, in parentheses how many. Budgets met: {met} of {all_runs} runs. "
        f"{_verdict(points)}\n\n" + table(["", *METHODS.values(), "best other solver"], rows)
    )


def _error(found: dict[str, Any] | None) -> str:
    return "–" if found is None else spread_text(found["error"], 2)


def _verdict(points: list[tuple[str, str, dict[str, Any]]]) -> str:
    """At how many points the mean error of `gda` is no greater than that of each other method measured there."""
    both = [r for _, _, r in points if "gda" in r and len(r) > 1]
    ahead = sum(all(r["gda"]["error"]["mean"] <= o["error"]["mean"] for m, o in r.items() if m != "gda") for r in both)
    return f"`gda` has the least mean error of the methods measured at {ahead} of {len(both)} points."
