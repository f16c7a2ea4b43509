"""The search for the best level: which one is tried next, and which of the outcomes wait for the last test.

Nothing here knows a network: the executor and emitted scripts hold their outcomes in kinds of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeVar

SHRINK: Final = 4  # factor between probes until one fails
KEPT: Final = 8  # outcomes that met their floors and wait for the last test: the safest, and the last ones found


@dataclass
class Bracket:
    """Bisection for the end of the levels that are accepted, in ``log(level − least)``.

    ``smallest``: levels from some threshold up to `top` are accepted. ``largest``: those from `least` up to one. An
    outcome depends on where its training started, and starts get better: a level that was rejected two accepted ones
    ago, or from another start than the best so far when the bracket is narrow, is tried once more.
    """

    top: int
    least: int
    tolerance: float
    sense: Literal["smallest", "largest"] = "smallest"
    good: int | None = None
    accepted: int = 0  # how many so far
    rejected: dict[int, int] = field(default_factory=dict)  # level → how many were accepted before it was tried

    def take(self, level: int, accepted: bool) -> None:
        """The outcome at a level that was tried from the network of `good`."""
        if not accepted:
            self.rejected[level] = self.accepted
            return
        self.accepted += 1
        self.rejected.pop(level, None)
        better = min if self.sense == "smallest" else max
        self.good = level if self.good is None else better(self.good, level)

    @property
    def bad(self) -> int | None:
        """The nearest rejected level on the side where better ones would lie."""
        if self.sense == "smallest":
            return max((x for x in self.rejected if self.good is None or x < self.good), default=None)
        return min((x for x in self.rejected if self.good is None or x > self.good), default=None)

    def next(self) -> int | None:
        """The level to try; None when the bracket is as narrow as asked, or nothing is left."""
        bad, good = self.bad, self.good
        low, high = (bad, good) if self.sense == "smallest" else (good, bad)
        if low is None:
            last = self.top if high is None else high
            level = self.least + (last - self.least) // SHRINK
            return level if level != high else self._again()
        end = self.top if high is None else high
        if self._again(2) is None and end > low + 1 and end > low * (1.0 + self.tolerance):
            middle = self.least + round(math.sqrt((end - self.least) * max(low - self.least, 0.5)))
            return min(max(middle, low + 1), end - 1)
        if high is None and low < self.top:
            return self.top
        return self._again()

    def _again(self, newer: int = 1) -> int | None:
        """The nearest rejected level, if that many were accepted since."""
        bad = self.bad
        return bad if bad is not None and self.accepted >= self.rejected[bad] + newer else None


class Outcome(Protocol):
    """What came out at a level."""

    @property
    def level(self) -> int: ...

    @property
    def margins(self) -> tuple[float, ...]:
        """Of the floors, on the split that choices read."""


T = TypeVar("T", bound=Outcome)


def front(accepted: Sequence[T], outcome: T, sense: str) -> list[T]:
    """From the safest to the best, without those that a better level met with margins no smaller, as happens while the
    network still learns: they would only end the last test early. Of many the safest and the last ones."""
    order = sorted([*accepted, outcome], key=lambda s: -s.level if sense == "smallest" else s.level)
    left = [s for i, s in enumerate(order) if not any(safer(better, s) for better in order[i + 1 :])]
    return left if len(left) <= KEPT else [left[0], *left[2:]]


def safer(one: Outcome, other: Outcome) -> bool:
    return all(a >= b for a, b in zip(one.margins, other.margins, strict=True))
