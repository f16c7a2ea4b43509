"""`Observe` and `Search`: what `base` is, and the best bound under which measured constraints still hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunelang.compiler.graph import Feasible, Finish, Floor, Observe, Search, Support, walk
from prunelang.runtime.bracket import Bracket, front
from prunelang.runtime.drive import sequence
from prunelang.runtime.floors import COUNTS, Highs, Verdict, function_of, judge
from prunelang.runtime.machine import Interrupted, Machine, NumericalFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from prunelang.compiler.graph import Step
    from prunelang.compiler.problem import Measured
    from prunelang.runtime.evaluate import Outcome
    from prunelang.runtime.price import Price


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


@dataclass
class Course:
    """What a search knows between two epochs of a probe."""

    entering: State
    bracket: Bracket
    accepted: list[State] = field(default_factory=list)
    safest: State | None = None
    failure: tuple[str, str] | None = None  # of the last probe that met one: its message, and where
    probe: int = 0  # the number of those that are over
    level: int | None = None  # of the probe under way


def search(step: Search, m: Machine, execute: Callable[[Step, Machine], None]) -> None:
    """Probes, then the test of the accepted outcomes. An interruption hands back the best of those so far."""
    left = m.frames[-1].kept
    course: Course = _begun(step, m) if left is None else left["search"]
    try:
        _probes(step, course, m, execute)
    except Interrupted:
        _hand_back(course.accepted, m)
        raise
    if course.safest is None:
        raise NumericalFailure(*(course.failure or ("no level could be tried", "search")))
    _settle(step, course.accepted, course.safest, m)


def _begun(step: Search, m: Machine) -> Course:
    m.observe({"event": "begin", "stage": "search"})
    entering = State.of(m, step.top)
    m.short = {v.label: v.value for v in verdicts(step.floors, m) if not v.met}
    m.observe({"event": "entering", "stage": "search", "short": m.short})
    return Course(entering, Bracket(step.top, step.least, step.tolerance, step.sense))


def _probes(step: Search, course: Course, m: Machine, execute: Callable[[Step, Machine], None]) -> None:
    """Every probe from the one under way on, if there is one."""
    if m.frames[-1].kept is not None and not m.ahead:
        m.arrive()
    m.frames[-1].kept = {"search": course}
    while course.probe < step.probes:
        if course.level is None:
            course.level = course.bracket.next()
            if course.level is None:
                return
            _start(step, course.level, course.accepted[-1] if course.accepted else course.entering, m)
            head = {"stage": "search", "probe": course.probe + 1, "level": step.level, "value": course.level}
            m.observe({"event": "probe", **head, "share": course.probe / step.probes})
        _probe(step, course, course.level, m, execute)
        course.probe, course.level = course.probe + 1, None
        m.boundary(search=course)


def _probe(step: Search, course: Course, level: int, m: Machine, execute: Callable[[Step, Machine], None]) -> None:
    found: list[Verdict] = []
    m.probed = body = step.at(level)
    m.feasible = next((s.onto for s in walk(body) if isinstance(s, Finish)), Feasible(()))
    try:
        for descent in sequence(body, m, execute):
            descent.take()
        found = verdicts(step.floors, m)
    except NumericalFailure as error:
        course.failure = str(error), error.where
    met = bool(found) and all(v.met for v in found)
    if found:
        outcome = State.of(m, level, tuple(v.margin for v in found))
        course.safest = outcome if course.safest is None else max(course.safest, outcome, key=lambda s: min(s.margins))
        if met:
            course.accepted = front(course.accepted, outcome, step.sense)
    course.bracket.take(level, met)
    m.observe(_event(step, course.probe + 1, level, found, met))


def _start(step: Search, level: int, state: State, m: Machine) -> None:
    """The network of `state`, nothing else of what ran before, and the new level."""
    state.restore(m)
    m.keep_good()
    m.optimizers.clear()
    m.cache.clear()  # projections hold the bounds that they were made with
    m.steers.clear()
    m.courses.clear()
    m.levels[step.level] = float(level)


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
