"""What a run shows while it runs: a bar with losses and distances on a terminal, JSON lines in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from prunelang.dsl.diagnostics import Diagnostic, render
from prunelang.dsl.numbers import grouped
from prunelang.dsl.spans import Source

if TYPE_CHECKING:
    from prunelang.runtime.machine import Event


@dataclass(frozen=True)
class Display:
    """Where a run's events and its remarks go; both to stderr."""

    observe: Callable[[Event], None]
    text: Callable[[str], None]
    as_events: bool = False

    def diagnostics(self, found: Iterable[Diagnostic], source: Source) -> None:
        """Warnings and notes: as the checker prints them, or an event each."""
        listed = list(found)
        if self.as_events:
            for d in listed:
                self.observe({"event": "diagnostic", **d.to_json(source)})
        elif listed:
            self.text(render(listed, source))

    def warned(self, message: str) -> None:
        """What did not go as it should, and did no harm."""
        if self.as_events:
            self.observe({"event": "warning", "message": message})
        else:
            self.text(f"prune: warning: {message}")

    def failed(self, message: str) -> None:
        """Why a run ended early."""
        if self.as_events:
            self.observe({"event": "failed", "message": message})
        else:
            self.text(f"prune: {message}")


@contextmanager
def shown(quiet: bool, stream: IO[str] | None = None) -> Iterator[Display]:
    """The display for `stream` (stderr): no progress when quiet, a bar on a terminal, JSON lines otherwise."""
    out = sys.stderr if stream is None else stream
    if quiet:
        yield Display(lambda event: None, _printer(out))
    elif out.isatty():
        with _bar(out) as display:
            yield display
    else:
        yield Display(_lines(out), _printer(out), as_events=True)


def _printer(stream: IO[str]) -> Callable[[str], None]:
    def write(text: str) -> None:
        stream.write(text + "\n")
        stream.flush()

    return write


def _lines(stream: IO[str]) -> Callable[[Event], None]:
    """Every event as one line of JSON."""
    write = _printer(stream)
    return lambda event: write(json.dumps(dict(event), ensure_ascii=False))


@contextmanager
def _bar(stream: IO[str]) -> Iterator[Display]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeRemainingColumn(),
    )
    console = Console(file=stream, highlight=False)
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, Any] = {}

        def observe(event: Event) -> None:
            stage = str(event.get("stage"))
            if event["event"] == "short run":
                text(short_run(event))
            elif event["event"] in ("begin", "resumed"):
                for name, task in tasks.items():
                    if name != "search":
                        progress.update(task, completed=1.0)
                if stage in tasks:
                    progress.reset(tasks[stage], facts="")
                else:
                    tasks[stage] = progress.add_task(stage, total=1.0, facts="")
            elif event["event"] in ("entering", "probe", "probed", "tested", "found"):
                done = {"found": 1.0, "probe": event.get("share", 0.0)}.get(event["event"])
                progress.update(tasks[stage], completed=done, facts=sought(event))
            elif event["event"] == "pruned":
                progress.update(tasks[stage], completed=1.0, facts=removed(event))
            elif event["event"] == "best":
                progress.update(tasks[stage], completed=1.0, facts=best(event))
            elif stage in tasks:
                progress.update(tasks[stage], completed=float(event.get("p", 1.0)), facts=facts(event))

        def text(message: str) -> None:
            console.print(message, markup=False, soft_wrap=True)

        yield Display(observe, text)


def short_run(event: Event) -> str:
    """One line: which of the runs of a probe begins."""
    moved = f"{event['label']} ≤ {event['bound']}" if "label" in event else "as it is"
    return f"short run {event['run']} of {event['runs']}: {moved}, seed {event['seed']}"


def removed(event: Event) -> str:
    """One line: what a pruner removed, and how the loss changed where it was measured."""
    if "nothing because" in event:
        return f"nothing removed: {event['nothing because']}"
    parts = [f"{grouped(event['removed'])} weights removed, {grouped(event['kept'])} left"]
    if "bound" in event:
        parts.append(f"loss on {event['split']} {event['f(0)']:.4f} → {event['f(epsilon)']:.4f} ≤ {event['bound']:.4f}")
    return "  ".join(parts)


def best(event: Event) -> str:
    """One line: how long a stage ran, and which state it went back to."""
    if event.get("after") is None:
        return f"{event['epochs']:g} epochs"
    miss = f", misses its bounds by {event['miss']:.2%}" if event["miss"] else ""
    return f"{event['epochs']:g} epochs, best after {event['after']:g}: loss {event['loss']:.4f}{miss}"


def sought(event: Event) -> str:
    """One line of a search: the level that is tried, tested or found, and what came out of it."""
    if event["event"] == "entering":
        short = ", ".join(f"{label} {value:.6g}" for label, value in event["short"].items())
        return f"the network to start from misses {short}" if short else ""
    level = f"{event['level']} = {event['value']:,}".replace(",", " ")
    if event["event"] == "found":
        return f"{level}, {event['passed']} of {event['tested']} tests passed"
    outcome = ", ".join(f"{f['label']} {f['value']:.4g}{' ✓' if f['met'] else ' ✗'}" for f in event.get("floors", ()))
    return f"{level}  {outcome}".rstrip()


def facts(event: Event) -> str:
    """One line: the loss, the distance of the split, and each constraint against its bound with its price."""
    parts = [f"loss {event['loss']:.4f}"] if event.get("loss") is not None else []
    if event.get("distance") is not None:
        parts.append(f"‖W−θ‖ {event['distance']:.3g}")
    for c in event.get("constraints", ()):
        price = f" @ {c['price']:.2g}" if c.get("price") is not None else ""
        parts.append(f"{c['label']} {c['value']:g}/{c['bound']:g}{price}")
    return "  ".join(parts)
