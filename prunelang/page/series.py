"""Curves from the events of a run: one point an epoch, or an outer iteration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Points = tuple[list[float], list[float]]
RECORDS = ("epoch", "outer", "stage")
"""Events that hold numbers of the run."""


@dataclass
class Series:
    """Numbers by name over epochs, and where each stage begins."""

    loss: Points = field(default_factory=lambda: ([], []))
    distance: Points = field(default_factory=lambda: ([], []))
    values: dict[str, Points] = field(default_factory=dict)  # of constraints, divided by their bounds
    prices: dict[str, Points] = field(default_factory=dict)
    levels: dict[str, Points] = field(default_factory=dict)
    stages: list[tuple[float, str]] = field(default_factory=list)
    epochs: float = 0.0


def series(history: Sequence[Mapping[str, Any]]) -> Series:
    """Epochs are counted over the whole run; what is recorded after an outer iteration stands at the epoch before."""
    found = Series()
    bounds: dict[str, float] = {}
    for event in history:
        stage = str(event.get("stage", ""))
        if event.get("event") == "begin" and (not found.stages or found.stages[-1][1] != stage):
            found.stages.append((found.epochs, stage))
        found.epochs += event.get("event") == "epoch"
        bounds |= {label: bound for label, _, bound in _constraints(event) if bound}
        for tag, value in numbers_of(event):
            kind, _, name = tag.partition("/")
            if kind == "constraint":
                if name in bounds:
                    _add(found.values.setdefault(name, ([], [])), found.epochs, value / bounds[name])
            elif kind == "price":
                _add(found.prices.setdefault(name, ([], [])), found.epochs, value)
            elif kind == "level":
                _add(found.levels.setdefault(name, ([], [])), found.epochs, value)
            elif kind == "distance" or event["event"] == "epoch":
                _add(found.distance if kind == "distance" else found.loss, found.epochs, value)
    found.levels = {name: points for name, points in found.levels.items() if any(points[1])}
    return found


def numbers_of(event: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The finite numbers of an event by tag: ``loss``, ``distance``, ``constraint/LABEL``, ``price/…``, ``level/…``."""
    if event.get("event") not in RECORDS:
        return
    for name in ("loss", "distance"):
        yield from _tagged(name, event.get(name))
    for label, value, _ in _constraints(event):
        yield from _tagged(f"constraint/{label}", value)
    for c in _items(event.get("constraints")):
        yield from _tagged(f"price/{c.get('label')}", c.get("price"))
    levels = event.get("levels")
    for name, level in levels.items() if isinstance(levels, Mapping) else ():
        yield from _tagged(f"level/{name}", level)


def _tagged(tag: str, value: Any) -> Iterator[tuple[str, float]]:
    """A number, or those of a list or mapping, by place or key."""
    if isinstance(value, Mapping | list):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, entry in pairs:
            number = _number(entry)
            if number is not None:
                yield f"{tag}[{key}]", number
        return
    number = _number(value)
    if number is not None:
        yield tag, number


def _constraints(event: Mapping[str, Any]) -> Iterator[tuple[str, float | None, float | None]]:
    return (
        (str(c.get("label")), _number(c.get("value")), _number(c.get("bound")))
        for c in _items(event.get("constraints"))
    )


def _items(items: Any) -> Iterator[Mapping[str, Any]]:
    return (c for c in items if isinstance(c, Mapping)) if isinstance(items, list) else iter(())


def _add(points: Points, at: float, value: float) -> None:
    points[0].append(at)
    points[1].append(value)


def _number(value: Any) -> float | None:
    ok = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if ok else None
