"""The section of the pages that shows the result."""

from __future__ import annotations

from typing import Any

from benchmarks.factors.settings import CASES, FILE, PARTS
from benchmarks.markdown import spread_text, table
from prunelang.dsl.numbers import grouped


def section(result: dict[str, Any]) -> str:
    """Test errors beside those that the LC toolkit publishes, and the file of the budget of bytes."""
    found, published = result["summary"], result["published"]
    rows = [
        [
            case.title,
            _error(found[name]),
            f"{published[name]:.2f}",
            *(_mean(found[name], x) for x in ("params", "bytes")),
        ]
        for name, case in CASES.items()
        if name in found
    ]
    reference = found["reference"]
    rows.insert(
        0,
        [
            "reference network",
            _error(reference),
            f"{published['reference']:.2f}",
            *(_mean(reference, x) for x in ("params", "bytes")),
        ],
    )
    runs = [r for name, r in found.items() if name in CASES]
    met, total = sum(r["met"] for r in runs), sum(r["error"]["seeds"] for r in runs)
    head = ["", "test error", "published", "numbers stored", "bytes of the file"]
    return (
        "**Compressions of the LC toolkit's table**: LeNet-300-100 with tanh units on MNIST, test error in %. "
        "*Published* is what the toolkit's page states, from a reference network of its own. How schedules were picked "
        "is said beside the benchmark. Means over seeds, the lowest and highest in brackets, in parentheses how many. "
        f"Constraints met: {met} of {total} runs. {_verdict(found, published)}\n\n" + table(head, rows) + _file(found)
    )


def _error(found: dict[str, Any]) -> str:
    return spread_text(found["error"], 2)


def _mean(found: dict[str, Any], name: str) -> str:
    return grouped(round(found[name]["mean"])) if name in found else "–"


def _verdict(found: dict[str, Any], published: dict[str, float]) -> str:
    """Which rows are no worse than published, and which are."""
    worse = [c.title for n, c in CASES.items() if n in found and found[n]["error"]["mean"] > published[n]]
    measured = sum(n in found for n in CASES)
    end = f"; not so: {'; '.join(worse)}." if worse else "."
    return f"The mean is at or below the published error in {measured - len(worse)} of {measured} rows{end}"


def _file(found: dict[str, Any]) -> str:
    if FILE not in found:
        return ""
    files = found[FILE]["files"].values()
    exact = sum(f["file"] == f["counted"] <= f["asked"] for f in files)
    shown = ", ".join(grouped(f["file"]) for f in files)
    return (
        "\n\nOne budget of bytes over a sparse and a low-rank part of one layer and a codebook of another "
        f"(`specs/{PARTS}.prune`): files of {shown} bytes, {grouped(next(iter(files))['asked'])} asked; {exact} of "
        f"{len(files)} have exactly the length that the certificate counts."
    )
