"""`Observe` and `Search`: what `base` is, and the best bound under which measured constraints still hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

import torch
from torch import Tensor

from prunelang.compiler.graph import Feasible, Finish, Floor, Observe, Search, Support, walk
from prunelang.runtime.floors import COUNTS, Highs, Verdict, function_of, judge
from prunelang.runtime.machine import Interrupted, Machine, NumericalFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from prunelang.compiler.graph import Step
    from prunelang.compiler.problem import Measured
    from prunelang.runtime.evaluate import Outcome
    from prunelang.runtime.price import Price

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


@dataclass(frozen=True)
class State:
    """The network and its kept positions at a level, on the host."""

    level: int
    tensors: dict[str, Tensor]
    masks: dict[str, list[Tensor]]
    margins: tuple[float, ...] = ()  # of the floors, on the split that choices read
    gaps: dict[tuple[str, ...], float] = field(default_factory=dict)  # of its projections
    prices: dict[str, Price] = field(default_factory=dict)
    factors: dict[str, Tensor] | None = None  # of a network that is composed

    @classmethod
    def of(cls, m: Machine, level: int, margins: tuple[float, ...] = ()) -> State:
        tensors = {n: t.detach().to("cpu", copy=True) for n, t in m.tensors.items()}
        supports = (s.name for s in m.graph.state if isinstance(s, Support))
        masks = {n: [x.to("cpu", copy=True) for x in m.values[n]] for n in supports}
        factors = {n: t.detach().to("cpu", copy=True) for n, t in m.factors.items()} if m.composed else None
        return cls(level, tensors, masks, margins, dict(m.gaps), dict(m.prices), factors)

    @torch.no_grad()
    def restore(self, m: Machine) -> None:
        for name, t in m.tensors.items():
            t.copy_(self.tensors[name])
        for name, masks in self.masks.items():
            for mask, kept in zip(m.values[name], masks, strict=True):
                mask.copy_(kept)
        m.gaps, m.prices = dict(self.gaps), dict(self.prices)
        m.composed = self.factors is not None
        if self.factors is not None:
            device = next(iter(m.tensors.values())).device
            m.install({n: t.to(device, copy=True) for n, t in self.factors.items()})


def observe(step: Observe, m: Machine) -> None:
    """Keeps the weights as they are, and what is measured on them of `base` on splits that choices read."""
    m.entering = {n: t.detach().to("cpu", copy=True) for n, t in m.tensors.items()}
    for floor in step.floors:
        note_base(floor.label, function_of(floor), m)
    shown = [{"label": f.label, "split": f.split, "value": m.bases[f.label, f.split]} for f in step.floors]
    m.observe({"event": "base", "values": shown})


def note_base(label: str, function: Measured, m: Machine) -> Outcome:
    """What `base` is for a constraint, with the network as it is: its value, and what each sample has."""
    outcome = m.measure(function)
    m.bases[label, function.split] = outcome.value
    values = m.each(function)
    if values is not None:
        m.starts[label, function.split] = values
    if function.name in COUNTS:
        m.highs[label, function.split] = m.activity(function.split).most(function.name)
    return outcome


def verdicts(floors: Iterable[Floor], m: Machine) -> list[Verdict]:
    """Every floor on the network as it is now."""
    return [verdict(floor, m) for floor in floors]


def verdict(floor: Floor, m: Machine, again: bool = False) -> Verdict:
    """A floor on the network as it is now; with `again` it is met only if fresh samples are likely to meet it too."""
    function, key = function_of(floor), (floor.label, floor.split)
    value, values = m.measure(function).value, m.each(function)
    return judge(floor, value, values, m.bases.get(key, 0.0), m.starts.get(key), highs_of(floor, m), again)


def highs_of(floor: Floor, m: Machine) -> Highs | None:
    """The greatest values that one sample can have, of what is counted; None of anything else."""
    if floor.name not in COUNTS:
        return None
    return Highs(m.activity(floor.split).most(floor.name), m.highs.get((floor.label, floor.split), 0.0))


def search(step: Search, m: Machine, execute: Callable[[Step, Machine], None]) -> None:
    """Probes, then the test of the accepted outcomes. An interruption hands back the best of those so far."""
    m.observe({"event": "begin", "stage": "search"})
    entering = State.of(m, step.top)
    m.short = {v.label: v.value for v in verdicts(step.floors, m) if not v.met}
    m.observe({"event": "entering", "stage": "search", "short": m.short})
    bracket = Bracket(step.top, step.least, step.tolerance, step.sense)
    accepted: list[State] = []
    safest: State | None = None
    failure: NumericalFailure | None = None
    for probe in range(step.probes):
        level = bracket.next()
        if level is None:
            break
        _start(step, level, accepted[-1] if accepted else entering, m)
        head = {"stage": "search", "probe": probe + 1, "level": step.level, "value": level}
        m.observe({"event": "probe", **head, "share": probe / step.probes})
        try:
            body = step.at(level)
            m.feasible = next((s.onto for s in walk(body) if isinstance(s, Finish)), Feasible(()))
            for inner in body:
                execute(inner, m)
            found = verdicts(step.floors, m)
        except NumericalFailure as error:
            failure, found = error, []
        except Interrupted:
            _hand_back(accepted, m)
            raise
        met = bool(found) and all(v.met for v in found)
        if found:
            outcome = State.of(m, level, tuple(v.margin for v in found))
            safest = outcome if safest is None else max(safest, outcome, key=lambda s: min(s.margins))
            if met:
                accepted = _kept(accepted, outcome, step.sense)
        bracket.take(level, met)
        m.observe(_event(step, probe + 1, level, found, met))
    if safest is None:
        raise failure or NumericalFailure("no level could be tried", "search")
    _settle(step, accepted, safest, m)


def _start(step: Search, level: int, state: State, m: Machine) -> None:
    """The network of `state`, nothing else of what ran before, and the new level."""
    state.restore(m)
    m.keep_good()
    m.optimizers.clear()
    m.cache.clear()  # projections hold the bounds that they were made with
    m.steers.clear()
    m.courses.clear()
    m.levels[step.level] = float(level)


def _kept(accepted: list[State], outcome: State, sense: str) -> list[State]:
    """From the safest to the best, without those that a better level met with margins no smaller, as happens while the
    network still learns: they would only end the last test early. Of many the safest and the last ones."""
    order = sorted([*accepted, outcome], key=lambda s: -s.level if sense == "smallest" else s.level)
    front = [s for i, s in enumerate(order) if not any(_safer(better, s) for better in order[i + 1 :])]
    return front if len(front) <= KEPT else [front[0], *front[2:]]


def _safer(one: State, other: State) -> bool:
    return all(a >= b for a, b in zip(one.margins, other.margins, strict=True))


def _hand_back(accepted: list[State], m: Machine) -> None:
    if accepted:
        accepted[-1].restore(m)
        m.keep_good()


def _settle(step: Search, accepted: list[State], safest: State, m: Machine) -> None:
    """The fixed-sequence test: outcomes from the safest on, each on `certify`, up to the first that fails.

    Each hypothesis "this outcome breaks a floor" is tested at the full level, and only if all before it were rejected;
    so the chance to hand back one that breaks a floor is at most that level, however many were tried (Maurer,
    Hothorn & Lehmacher 1995). What failed on `select` is not tested.
    """
    final = [replace(f, split="certify") for f in step.floors if f.split == "select"]
    order = accepted or [safest]
    chosen, passed, tested = order[0], 0, 0
    if final and accepted:
        _measure_base(final, m)
        for state in order:
            state.restore(m)
            tested += 1
            found = verdicts(final, m)
            m.observe(_event(step, tested, state.level, found, all(v.met for v in found), "tested"))
            if not all(v.met for v in found):
                break
            chosen, passed = state, passed + 1
    elif accepted:
        chosen = order[-1]
    chosen.restore(m)
    m.levels[step.level] = float(chosen.level)
    m.cache.clear()
    m.keep_good()
    m.observe(
        {"event": "found", "stage": "search", "level": step.level, "value": chosen.level, "accepted": len(accepted),
         "tested": tested, "passed": passed}
    )  # fmt: skip


def _measure_base(floors: list[Floor], m: Machine) -> None:
    """What `base` is on the split that was not looked at before, with the weights that entered the first solve."""
    relative = [f for f in floors if f.relative]
    if not relative:
        return
    State(0, m.entering, {}).restore(m)
    for floor in relative:
        note_base(floor.label, function_of(floor), m)


def _event(
    step: Search, number: int, level: int, found: list[Verdict], met: bool, what: str = "probed"
) -> dict[str, object]:
    floors = [
        {"label": v.label, "value": v.value, "limit": v.limit, "met": v.met,
         "bound": None if v.interval is None else v.interval.bound}
        for v in found
    ]  # fmt: skip
    return {
        "event": what, "stage": "search", "probe": number, "level": step.level, "value": level, "floors": floors,
        "accepted": met,
    }  # fmt: skip
