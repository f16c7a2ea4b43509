"""What the pages say about runs that were killed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.markdown import table


def section(result: Mapping[str, Any]) -> str:
    """Kills over all problems, and what a checkpoint costs."""
    kills = result["kills"].values()
    total = {what: sum(row[what] for row in kills) for what in ("killed", "same", "from a checkpoint")}
    rows = [
        [f"`{name}`", f"{row['bytes'] / 1e6:.2f} MB", f"{row['milliseconds']:.0f} ms"]
        for name, row in result["cost"].items()
    ]
    return (
        f"**Killed and resumed**: {len(result['kills'])} specs over all solvers, each killed (SIGKILL) at random "
        f"moments {next(iter(kills))['killed']} times with a checkpoint after every epoch. Of {total['killed']} runs "
        f"{total['same']} ended, resumed, at the same bytes as the run that was left alone: weights, factors, "
        f"certificate, history. {total['from a checkpoint']} went on from a checkpoint; the others were killed before "
        "the first and began anew. What one checkpoint of `lc` with momentum costs:\n\n"
        + table(["network", "size", "time"], rows)
    )
