"""What a run shows while it runs: a bar with loss, constraints and prices on a terminal, JSON lines in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prunelang.runtime.machine import Event


def lines(stream: IO[str]) -> Callable[[Event], None]:
    """Every event as one line of JSON."""

    def write(event: Event) -> None:
        stream.write(json.dumps(dict(event), ensure_ascii=False) + "\n")
        stream.flush()

    return write


@contextmanager
def shown(quiet: bool, stream: IO[str] = sys.stderr) -> Iterator[Callable[[Event], None]]:
    """The observer for `stream`: nothing when quiet, a bar on a terminal, JSON lines otherwise."""
    if quiet:
        yield lambda event: None
    elif stream.isatty():
        yield from _bar(stream)
    else:
        yield lines(stream)


def _bar(stream: IO[str]) -> Iterator[Callable[[Event], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<9}"), BarColumn(), TextColumn("{task.fields[facts]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream), transient=False) as progress:
        tasks: dict[str, Any] = {}

        def observe(event: Event) -> None:
            stage = event.get("stage")
            if event["event"] == "stage":
                tasks[str(stage)] = progress.add_task(str(stage), total=1.0, facts="")
            elif stage in tasks:
                progress.update(tasks[str(stage)], completed=float(event.get("p", 1.0)), facts=facts(event))

        yield observe


def facts(event: Event) -> str:
    """One line: loss, each constraint's value against its bound, prices, and the distance of the split."""
    parts = [f"loss {event['loss']:.4f}"] if event.get("loss") is not None else []
    if "distance" in event:
        parts.append(f"‖W−θ‖ {event['distance']:.3g}")
    for c in event.get("constraints", ()):
        price = f" @ {c['price']:.2g}" if c.get("price") is not None else ""
        parts.append(f"{c['label']} {c['value']:g}/{c['bound']:g}{price}")
    return "  ".join(parts)
