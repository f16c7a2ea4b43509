"""The program as a course that waits for batches: run to its end, taken up where it was left, or driven from outside.

`drive` executes a graph's program and yields the descent under way each time that it wants a batch. `run` feeds it; a
bound stepper lets somebody else's loop feed it. Every sequence of steps keeps its place in a `Frame` of plain data, so
that a machine with the same state and the same frames ahead goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

from prunelang.compiler.graph import Batches, Level, Outer, Phase, Step
from prunelang.runtime import kernels
from prunelang.runtime.descent import Descent, require_finite
from prunelang.runtime.machine import Frame, Machine

Execute = Callable[[Step, Machine], None]


def drive(m: Machine, execute: Execute) -> Generator[Descent, None, None]:
    """The whole program: from its head, or from where the frames ahead say."""
    yield from sequence(m.graph.program, m, execute)


def sequence(body: tuple[Step, ...], m: Machine, execute: Execute) -> Iterator[Descent]:
    """Steps one after the other, with a frame of their own while they are under way."""
    frame = m.ahead.pop(0) if m.ahead else Frame()
    m.frames.append(frame)
    depth = len(m.frames)
    try:
        for at in range(frame.at, len(body)):
            if at > frame.at:
                frame.at, frame.kept = at, None
            yield from advance(body[at], m, execute)
    finally:
        del m.frames[depth - 1 :]


def advance(step: Step, m: Machine, execute: Execute) -> Iterator[Descent]:
    """One step of the sequence under way: a loop yields whenever it wants a batch, anything else is executed."""
    match step:
        case Phase():
            yield from _phase(step, m, execute)
        case Outer():
            yield from _outer(step, m, execute)
        case Batches():
            yield from _batches(step, m, execute)
        case _:
            execute(step, m)


# Loops find in `m.frames[-1].kept` what they left there. Where frames are still ahead, the place is further inside.


def _phase(step: Phase, m: Machine, execute: Execute) -> Iterator[Descent]:
    over = m.frames[-1].kept is not None
    if over and not m.ahead:
        m.arrive()
        return
    if not over and not m.ahead:
        m.observe({"event": "begin", "stage": step.name})
        m.clocks.update(k=0.0, epoch=0.0, step=0.0, p=0.0)
        m.stage_span = (0.0, 1.0)
    yield from sequence(step.body, m, execute)
    require_finite(m, step.name)
    m.keep_good()
    m.boundary(stage=len(m.frames) == 1, over=True)  # within a search, stages are short


def _outer(step: Outer, m: Machine, execute: Execute) -> Iterator[Descent]:
    frame, inside = m.frames[-1], bool(m.ahead)
    left = frame.kept
    if left is not None and not inside:
        m.arrive()
    for k in range(0 if left is None else left["k"], step.count):
        frame.kept = {"k": k}
        m.stage_span = (k / step.count, (k + 1) / step.count)
        if not inside:
            m.clocks.update(k=float(k), p=k / step.count)
            for name in step.levels:
                node = m.nodes[name]
                assert isinstance(node, Level) and node.schedule is not None
                m.levels[name] = m.value(node.schedule)
        inside = False
        yield from sequence(step.body, m, execute)
        m.boundary(k=k + 1)
    m.clocks["p"] = 1.0


def _batches(step: Batches, m: Machine, execute: Execute) -> Iterator[Descent]:
    frame = m.frames[-1]
    left = frame.kept
    if left is None:
        m.clocks.update(epoch=0.0, step=0.0, p=m.stage_span[0])
    after = tuple(partial(execute, inner, m) for inner in step.body[1:])
    descent = Descent(m, step, after, left)
    if left is not None:
        m.arrive()
    length = max(1, round(m.value(step.duration)))
    batches = len(m.feed)
    total = length * batches if step.unit == "epochs" else length
    start, end = m.stage_span
    place: dict[str, Any] = {"done": 0, "epoch": 0, "cursor": 0, "watched": [], "first": None, "ended": False} | (
        left or {}
    )
    place["ended"] = place["ended"] or place["done"] >= total  # of a loop that has been made shorter since
    while not place["ended"]:
        frame.kept = place
        m.clocks["epoch"] = float(place["epoch"])
        descent.begin_epoch(place["cursor"] > 0)
        descent.samples = m.feed.epoch(m.epochs, place["cursor"])
        while place["cursor"] < batches and place["done"] < total:
            done = place["done"]
            m.clocks["step"] = float(done)
            m.clocks["p"] = start + (end - start) * done / total
            descent.coming = start + (end - start) * (done + 1) / total
            yield descent
            if descent.over:
                break
            place["done"] += 1
            place["cursor"] += 1
        m.epochs += 1
        m.clocks["p"] = start + (end - start) * place["done"] / total
        for inner in step.settle:
            execute(inner, m)
        descent.end_epoch()
        m.keep_good()
        for inner in step.each_epoch:
            execute(inner, m)
        watched, ended = place["watched"], place["done"] == total
        if step.until is not None and m.clocks["p"] >= step.until.since:
            watched = [*watched, m.levels[step.until.level]]
            if kernels.saturated(watched, step.until.window):
                m.clocks["p"] = end
                ended = True
        place |= {"epoch": place["epoch"] + 1, "cursor": 0, "watched": watched, "first": descent.first, "ended": ended}
        m.boundary(**place)
    descent.close()
