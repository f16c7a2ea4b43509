"""Names of what is compared: connectivities, a budget of synaptic operations, and methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

LEVELS: Final = ("25%", "12%", "5%", "2.35%", "0.73%")
SYNOPS: Final = "synops"
POINTS: Final = (*LEVELS, SYNOPS)

SOLVERS: Final[Mapping[str, str]] = {
    "gda": "gda()",
    "gda sequential": "gda(mode = sequential)",
    "ista stds_sine": "ista(threshold = stds_sine)",
    "ista lats": "ista(threshold = lats)",
}
"""What stands in the place of `gda()` in the spec, at a connectivity."""

MAGNITUDE: Final = "gradual magnitude"
DRIVEN: Final = ("gda", "lc")  # under the budget of operations
MATCHED: Final = {f"magnitude at {m}": m for m in DRIVEN}  # with as many weights as that has kept
METHODS: Final = (*SOLVERS, "lc", MAGNITUDE, *MATCHED)


def methods_at(point: str) -> tuple[str, ...]:
    """In the order in which they run: a matched method needs the row of the one that it matches."""
    return (*DRIVEN, *MATCHED) if point == SYNOPS else (*SOLVERS, MAGNITUDE)
