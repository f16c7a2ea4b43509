"""Measured constraints in a script: floors on the network as it is, `base`, and the outcomes of a search.

The executor says the same through `prunelang.runtime.search`, which knows runs, events and checkpoints beside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunelang.compiler.graph.selection import Floor
from prunelang.runtime.bracket import Bracket, front
from prunelang.runtime.floors import COUNTS, Highs, Verdict, judge
from prunelang.runtime.losses import each
from prunelang.runtime.standalone import measured, miss
from prunelang.runtime.synops import Activity, Meter


class Judge:
    """Whether floors are met by the network as it is, on splits by name; `base` is what was noted of them before.

    `kernels` and `steps` are those of a spiking network, where synaptic operations are counted.
    """

    def __init__(
        self,
        net: nn.Module,
        splits: Mapping[str, tuple[Tensor, Tensor]],
        kernels: Sequence[str] = (),
        steps: int = 0,
    ) -> None:
        self.net, self.splits = net, splits
        self.meter = Meter(net, lambda split: splits[split][0], kernels, steps)
        if kernels:
            self.meter.require()
        self.bases: dict[tuple[str, str], float] = {}
        self.starts: dict[tuple[str, str], NDArray[np.float64]] = {}
        self.highs: dict[tuple[str, str], float] = {}
        self.entering: list[Tensor] = []

    def activity(self, split: str) -> Activity:
        """What the neurons of a spiking network do on a split."""
        return self.meter.on(split)

    def value(self, name: str, split: str) -> float:
        """The value of a function on a split."""
        if name in ("synops", "spikes", "energy"):
            found = self.activity(split)
            return found.total(name) / len(found.synops)
        return measured(self.net, name, *self.splits[split])

    @torch.no_grad()
    def each(self, name: str, split: str) -> NDArray[np.float64]:
        """The same, a value for each sample."""
        if name in ("synops", "spikes", "energy"):
            return self.activity(split).values(name)
        training, (x, y) = self.net.training, self.splits[split]
        self.net.eval()
        found = []
        for start in range(0, len(x), 1024):
            inputs, targets = x[start : start + 1024], y[start : start + 1024]
            found.append(each(name, self.net(inputs), targets).reshape(len(inputs), -1).mean(1).cpu())
        self.net.train(training)
        return torch.cat(found).numpy()

    def note(self, *floors: Floor) -> None:
        """`base` is the value of these functions with the network as it is; its weights are kept."""
        self.entering = [t.detach().to("cpu", copy=True) for t in state(self.net)]
        self._note(floors)

    def _note(self, floors: Iterable[Floor]) -> None:
        for floor in floors:
            key = floor.label, floor.split
            self.bases[key] = self.value(floor.name, floor.split)
            self.starts[key] = self.each(floor.name, floor.split)
            if floor.name in COUNTS:
                self.highs[key] = self.activity(floor.split).most(floor.name)

    def note_fresh(self, floors: Sequence[Floor]) -> None:
        """`base` on a split that was not looked at before, of the weights that were kept."""
        relative = [f for f in floors if f.relative]
        if relative:
            restore_(state(self.net), self.entering)
            self._note(relative)

    def verdict(self, floor: Floor, again: bool = False) -> Verdict:
        """A floor on the network as it is; with `again` it is met only if fresh samples are likely to meet it too."""
        key, highs = (floor.label, floor.split), None
        value, values = self.value(floor.name, floor.split), self.each(floor.name, floor.split)
        if floor.name in COUNTS:
            highs = Highs(self.activity(floor.split).most(floor.name), self.highs.get(key, 0.0))
        return judge(floor, value, values, self.bases.get(key, 0.0), self.starts.get(key), highs, again)

    def met(self, *floors: Floor) -> bool:
        """Whether fresh samples are likely to meet all floors."""
        found = [self.verdict(floor, again=True) for floor in floors]
        return all(v.met for v in found)

    def miss(self, floor: Floor) -> float:
        """By how much a floor of a count is missed, so far inside that fresh samples are likely to meet it too."""
        found = self.verdict(floor, again=True)
        short = found.margin if floor.relation == "≥" else -found.margin
        return miss(found.limit + short, floor.relation, found.limit)


def state(net: nn.Module) -> list[Tensor]:
    """Every tensor of a network."""
    return [*net.parameters(), *net.buffers()]


@torch.no_grad()
def restore_(tensors: Iterable[Tensor], kept: Iterable[Tensor]) -> None:
    """Every tensor as it was kept."""
    for t, other in zip(tensors, kept, strict=True):
        t.copy_(other)


# ── the search ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Kept:
    """The network, its kept positions and what it is made of, as they were at a level, on the host."""

    level: int
    tensors: list[Tensor]
    factors: Mapping[str, Tensor]
    margins: tuple[float, ...] = ()


class Probes:
    """The body of a search again and again: which level comes next, from where, and which outcome is handed back.

    ``smallest``: the smallest level whose outcome meets all floors; ``largest``: the largest. Each probe starts from
    the network of the last level that held. What held on `select` is tested on `certify`, the safest first, up to the
    first that fails (a fixed sequence of tests, so that the level of each is that of all).
    """

    def __init__(
        self,
        judge: Judge,
        floors: Sequence[Floor],
        span: tuple[int, int],
        tolerance: float,
        sense: Literal["smallest", "largest"],
        masks: Sequence[Tensor] = (),
    ) -> None:
        self.judge, self.floors = judge, floors
        self.tensors = [*state(judge.net), *masks]
        self.bracket = Bracket(span[1], span[0], tolerance, sense)
        self.entering = self._kept(span[1], {})
        self.accepted: list[Kept] = []
        self.safest: Kept | None = None
        _ = [judge.verdict(floor) for floor in floors]  # a network that draws numbers has drawn them then

    def _kept(self, level: int, factors: Mapping[str, Tensor], margins: tuple[float, ...] = ()) -> Kept:
        tensors = [t.detach().to("cpu", copy=True) for t in self.tensors]
        made = {n: t.detach().to("cpu", copy=True) for n, t in factors.items()}
        return Kept(level, tensors, made, margins)

    def next(self) -> int | None:
        """The level to try, with the network that it starts from in place; None at the end."""
        level = self.bracket.next()
        if level is not None:
            restore_(self.tensors, (self.accepted[-1] if self.accepted else self.entering).tensors)
        return level

    def take(self, level: int, ended: bool, factors: Mapping[str, Tensor] | None = None) -> str:
        """The network as it is came out at a level; `ended` is False where training failed. Says what it came to."""
        found = [self.judge.verdict(floor) for floor in self.floors] if ended else []
        met = bool(found) and all(v.met for v in found)
        if found:
            outcome = self._kept(level, factors or {}, tuple(v.margin for v in found))
            known = self.safest
            self.safest = outcome if known is None else max(known, outcome, key=lambda s: min(s.margins))
            if met:
                self.accepted = front(self.accepted, outcome, self.bracket.sense)
        self.bracket.take(level, met)
        values = ", ".join(f"{v.label} {v.value:.6g}" for v in found)
        return f"{'holds' if met else 'does not hold'}: {values or 'training failed'}"

    def settle(self) -> Kept:
        """The outcome that the tests leave, in place. Raises `ArithmeticError` where every probe failed."""
        if self.safest is None:
            raise ArithmeticError("no level of the search could be trained")
        final = [replace(f, split="certify") for f in self.floors if f.split == "select"]
        order = self.accepted or [self.safest]
        chosen = order[0] if final else order[-1]
        if final and self.accepted:
            self.judge.note_fresh(final)
            for kept in order:
                restore_(self.tensors, kept.tensors)
                found = [self.judge.verdict(floor) for floor in final]
                if not all(v.met for v in found):
                    break
                chosen = kept
        restore_(self.tensors, chosen.tensors)
        return chosen
