"""What a run of block coordinate descent left in its history, checked once more from the numbers alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

EPSILON: Final = 2.0**-52
ALLOWED: Final = 64 * EPSILON  # of the objective, for the rounding of its sums
POINTS: Final = 60  # of a course that is drawn


@dataclass(frozen=True)
class Iteration:
    """L before and after, both at the τ of the iteration, ‖ΔP‖², the constant λ of the decrease, whether the step was
    taken, and Σ_b λ_b ‖ΔP_b‖² over the blocks, each with its own constant: no less than λ‖ΔP‖²."""

    before: float
    after: float
    moved: float
    decrease: float
    accepted: bool
    promised: float = 0.0
    tau: float = 1.0

    @property
    def slack(self) -> float:
        """``(L(P^{k−1}) − Σ_b λ_b ‖ΔP_b‖² − L(P^k)) / L(P^{k−1})``: at least −64 ε where the decrease is sufficient."""
        promised = max(self.promised, self.decrease * self.moved)
        return (self.before - promised - self.after) / abs(self.before or 1.0)


def iterations(history: Path) -> tuple[Iteration, ...]:
    """The iterations of a run, in order."""
    events = map(json.loads, history.read_text(encoding="utf-8").splitlines())
    return tuple(
        Iteration(e["before"], e["objective"], e["moved"], e["decrease"], e["accepted"], e["promised"], e["tau"])
        for e in events
        if e["event"] == "iteration"
    )


def violations(found: Sequence[Iteration]) -> int:
    """Steps that were taken without sufficient decrease, or that do not start where the last one taken ended; where
    τ has grown in between, L has another value at the same point."""
    taken = [x for x in found if x.accepted]
    short = sum(not x.slack >= -ALLOWED for x in taken)  # NaN counts as one
    broken = sum(b.before != a.after for a, b in pairwise(taken) if a.tau == b.tau)
    return short + broken


def course(found: Sequence[Iteration]) -> list[list[float]]:
    """``[k, L, min_{i ≤ k} ‖ΔP_i‖², Σ_i (L(P^{i−1}) − L(P^i)) / (λ k)]`` at about 60 iterations k, evenly on a
    logarithmic scale.

    Summing the decreases gives the bound: λ Σ_i ‖ΔP_i‖² is at most what all iterations take off L, which is L_0 − L_K
    where τ is the same throughout, and the least of k is no more than their mean.
    """
    taken = [x for x in found if x.accepted]
    if not taken:
        return []
    marks = {round(len(taken) ** (i / (POINTS - 1))) for i in range(POINTS)}
    fallen = sum(x.before - x.after for x in taken)
    least, weakest, rows = math.inf, math.inf, []
    for k, x in enumerate(taken, 1):
        least, weakest = min(least, x.moved), min(weakest, x.decrease)
        if k in marks:
            rows.append([k, x.after, least, fallen / (weakest * k)])
    return rows


def told(found: Sequence[Iteration]) -> dict[str, Any]:
    """The numbers of a row."""
    taken = [x for x in found if x.accepted]
    return {
        "iterations": len(found),
        "accepted": len(taken),
        "violations": violations(found),
        "least slack": min((x.slack for x in taken), default=None),
        "objective": [taken[0].before, taken[-1].after] if taken else None,
    }
