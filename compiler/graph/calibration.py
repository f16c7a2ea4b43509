"""A budget of synaptic operations: measured on samples, driven by a weighted count, decided by measuring again.

Σ_t Σ_j spike_j · fanout_j of a kernel falls with every weight that goes, by the spikes of the neuron which that weight
reads. With c_t the mean spikes that a kept weight of kernel t reads in one sample, it is Σ_t c_t · nnz(t), a count that
solvers project onto and price. Rates change as the network does, so c is measured again and again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from prunelang.compiler.graph.base import State, Step, Sync
from prunelang.compiler.graph.selection import Floor
from prunelang.compiler.graph.state import Feasible

SPLIT = "calibration"
SAMPLES = 2048
"""Of train, that firing rates are measured on, at most."""
PREFIX = "surrogate of "
"""Of the label of a count, before that of the constraint which it stands for."""
SCALE = 1000
"""Coefficients are whole numbers of thousandths of a spike."""


@dataclass(frozen=True)
class Calibration(State):
    """``Σ_t c_t · nnz(t) ≤ B`` for the measured constraint `floor`, with c and B from the split `calibration`.

    B is the bound less what the confidence bound on the samples of `certified`, the split that the constraint will be
    decided on, lies above their mean.
    """

    floor: Floor
    tensors: tuple[str, ...]
    certified: str

    def line(self) -> str:
        return f"bound   {self.name} of {self.floor}: Σ c_t nnz(t)   [t: {', '.join(self.tensors)}]"


@dataclass(frozen=True)
class Calibrate(Step):
    """c_t ← √(c_t · spikes that a kept weight of t reads) with `of` in the network, by no more than a factor of two
    either way; B ← the bound less its confidence reach. The first time c_t is what is measured with `of` as it is;
    afterwards, with `onto`, as it would be after the projection. `rounds` times."""

    bound: str
    of: str
    onto: Feasible | None = None
    rounds: int = 1
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        network = f"Π({self.of})" if self.onto else self.of
        times = f"   [{self.rounds} rounds]" if self.rounds > 1 else ""
        return f"calibrate {self.bound}: c ← spikes per kept weight of {network}{times}"

    def reads(self) -> tuple[str, ...]:
        return (self.of,)

    def writes(self) -> tuple[str, ...]:
        return (self.bound,)


@dataclass(frozen=True)
class Tighten(Step):
    """While a floor fails on the split that choices read: calibrate, lower B, and project again; `rounds` at most.

    `recalibrate` batches renew the statistics of batch normalisation after each projection.
    """

    of: str
    onto: Feasible
    support: str
    bounds: tuple[str, ...]
    floors: tuple[Floor, ...]
    rounds: int
    recalibrate: int = 0
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        what = " ∧ ".join(map(str, self.floors))
        return f"tighten {', '.join(self.bounds)}: {self.of} ← Π{self.onto}({self.of}) until {what}"

    def reads(self) -> tuple[str, ...]:
        return (self.of, self.support, *self.bounds)

    def writes(self) -> tuple[str, ...]:
        return (self.of, self.support)


def named_bounds(step: Step) -> tuple[str, ...]:
    """The calibrations that must be known for the numbers of what a step projects onto."""
    if isinstance(step, Calibrate):
        return ()
    onto = getattr(step, "onto", None)
    parts = onto.parts if isinstance(onto, Feasible) else ()
    found: list[Mapping[str, Any]] = [b for p in parts for b in p.bounds]
    return tuple(dict.fromkeys(str(b["measured"]) for b in found if b.get("measured")))
