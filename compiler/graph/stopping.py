"""Nodes of early stopping: a loop watches a loss, keeps the best state that it passes through, and goes back to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from prunelang.compiler.graph.base import State, Step, Sync
from prunelang.compiler.graph.selection import Floor
from prunelang.compiler.graph.state import Loss, Penalty


@dataclass(frozen=True)
class Snapshot(State):
    """A copy of other state, made when that was best; empty before."""

    of: tuple[str, ...]

    def line(self) -> str:
        return f"kept    {self.name} of {', '.join(self.of)}"

    def reads(self) -> tuple[str, ...]:
        return self.of


@dataclass(frozen=True)
class Saturated:
    """The test of a loop's end: `level`, read once an epoch, has stopped to fall over the last `window` epochs.

    Epochs that end before p = `since` do not count.
    """

    level: str
    window: int
    since: float = 0.0

    def __str__(self) -> str:
        since = f" from p = {self.since:g} on" if self.since else ""
        return f"until {self.level} is saturated over {self.window} epochs{since}"


@dataclass(frozen=True)
class Evaluate(Step):
    """``level ← Σ weight · f(net, on = split) + Σ penalties``, over the whole split, in evaluation mode, with the
    weights as they are."""

    level: str
    split: str
    losses: tuple[Loss, ...]
    penalties: tuple[Penalty, ...] = ()
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        f = [f"{' + '.join(x.text or x.name for x in self.losses)} on {self.split}", *map(str, self.penalties)]
        return f"{self.level} ← {' + '.join(f)}"

    def reads(self) -> tuple[str, ...]:
        return tuple(n for x in self.penalties for n in (x.of, *x.level))

    def writes(self) -> tuple[str, ...]:
        return (self.level,)


@dataclass(frozen=True)
class Forget(Step):
    """``snapshot ← ∅``"""

    snapshot: str

    def line(self) -> str:
        return f"{self.snapshot} ← ∅"

    def writes(self) -> tuple[str, ...]:
        return (self.snapshot,)


@dataclass(frozen=True)
class KeepBest(Step):
    """``snapshot ← of`` if the state is better than the one kept, from p = `since` on.

    Of two states that meet all `floors` the one with the lower `level` is better; one that meets them is better than
    one that does not; of two that do not, the one that misses them by less: the largest miss in units of its bound.
    """

    snapshot: str
    level: str
    of: tuple[str, ...]
    floors: tuple[Floor, ...] = ()
    since: float = 0.0
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        given = f" where {' ∧ '.join(map(str, self.floors))}" if self.floors else ""
        since = f", from p = {self.since:g} on" if self.since else ""
        return f"{self.snapshot} ← {', '.join(self.of)} at the lowest {self.level}{given}{since}"

    def reads(self) -> tuple[str, ...]:
        return (self.level, *self.of)

    def writes(self) -> tuple[str, ...]:
        return (self.snapshot,)


@dataclass(frozen=True)
class Restore(Step):
    """``of ← snapshot``, unless that is empty."""

    snapshot: str
    of: tuple[str, ...]
    stage: Literal["pretrain", "solve", "finetune"]
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        return f"{', '.join(self.of)} ← {self.snapshot}"

    def reads(self) -> tuple[str, ...]:
        return (self.snapshot,)

    def writes(self) -> tuple[str, ...]:
        return self.of
