"""Nodes of the relaxations of ‖·‖₀ that are descended on: how the weight of a penalty is steered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prunelang.compiler.graph.base import Step, Sync


@dataclass(frozen=True)
class SteerPenalty(Step):
    """The controller of the weight α of a penalty, once an epoch, from ``c = ‖of − copy‖/‖of‖`` with copy = Π_C(of).

    The first time α becomes what moves the largest entry outside the projection to 0 by p = `reach`, at the pace of
    the optimizer. From then on ``α ← α·exp(clip(ln(c/c₋) − ln(r/c)/n))`` with c₋ the value an epoch ago, n the epochs
    left until p = `reach` and r = `residue`: α grows while c falls too slowly for c = r there, and sinks below it.
    Where c is near r already and a rise of α made it larger, the rise is taken back: then c is the trembling of
    weights around 0, which grows with α.
    """

    level: str
    before: str  # the level that holds α an epoch ago
    cut: str  # the level that holds c
    of: str
    copy: str
    optimizer: str
    reach: float
    residue: float
    slope: float  # of the penalty's function at 0
    batches: int  # per epoch
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        c = f"‖{self.of} − {self.copy}‖/‖{self.of}‖"
        return f"{self.cut} ← {c};  steer {self.level}: {self.cut} → {self.residue:g} at p = {self.reach:g}"

    def reads(self) -> tuple[str, ...]:
        return (self.level, self.before, self.cut, self.of, self.copy, self.optimizer)

    def writes(self) -> tuple[str, ...]:
        return (self.level, self.before, self.cut)
