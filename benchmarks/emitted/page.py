"""What the pages say about scripts against the executor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from benchmarks.markdown import table


def section(result: Mapping[str, Any]) -> str:
    """Pairs of spec and solver by solver: how many ran, and how many were equal."""
    solvers = dict.fromkeys(solver for row in result.values() for solver in row)
    rows = []
    for solver in solvers:
        found = Counter(row[solver] for row in result.values() if solver in row)
        taken = found["equal"] + found["differs"]
        rows.append([f"`{solver}`" if " " not in solver else solver, str(taken), str(found["equal"])])
    total = [str(sum(int(row[i]) for row in rows)) for i in (1, 2)]
    return (
        "**Emitted scripts**: every spec of `specs/`, cut to a few steps on random samples, with its own solver and "
        "with every other that takes it; script and executor end at the same weights bit for bit (float64, "
        "deterministic mode, one thread; the script in a process that cannot import prunelang).\n\n"
        + table(["solver", "pairs run", "equal bits"], [*rows, ["all", *total]])
    )
