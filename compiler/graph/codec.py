"""Graph ⇄ JSON. Every node is ``{"node": name, field: …}``; a round trip gives an equal graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args

from prunelang.compiler import forms, problem, schedule
from prunelang.compiler.graph import (
    blocks,
    calibration,
    coupling,
    factors,
    minimax,
    pruning,
    relaxed,
    resource,
    selection,
    state,
    steps,
    stopping,
    thresholds,
)
from prunelang.compiler.graph.base import Graph, State, Step

FORMAT_VERSION = 1


def to_json(graph: Graph) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "title": graph.title,
        "state": [_encode(s) for s in graph.state],
        "program": [_encode(s) for s in graph.program],
    }


def from_json(data: Mapping[str, Any]) -> Graph:
    if data.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"graph has format_version {data.get('format_version')!r}, this is {FORMAT_VERSION}")
    return Graph(data["title"], tuple(map(_decode, data["state"])), tuple(map(_decode, data["program"])))


def _encode(value: Any) -> Any:
    if isinstance(value, schedule.SCHEDULES):
        return {"schedule": schedule.to_json(value)}
    if is_dataclass(value):
        return {"node": type(value).__name__} | {f.name: _encode(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {"map": {k: _encode(v) for k, v in value.items()}}
    if isinstance(value, tuple | list):
        return [_encode(v) for v in value]
    return value


def _decode(value: Any) -> Any:
    match value:
        case {"node": str(name), **rest}:
            return _nodes()[name](**{str(k): _decode(v) for k, v in rest.items()})
        case {"schedule": inner}:
            return schedule.from_json(inner)
        case {"map": inner}:
            return {k: _decode(v) for k, v in inner.items()}
        case list():
            return tuple(_decode(v) for v in value)
    return value


@cache
def _nodes() -> dict[str, type]:
    records = (
        state.Combination,
        state.Loss,
        state.Quadratic,
        state.Penalty,
        state.Priced,
        coupling.Coupling,
        state.Part,
        state.Feasible,
        selection.Floor,
        minimax.Items,
        minimax.Piece,
        resource.Resource,
        thresholds.Rise,
        stopping.Saturated,
        forms.Composition,
        *get_args(forms.Form),
        problem.Budget,
        problem.FactorCost,
        problem.FactorTerm,
    )
    found: dict[str, type] = {c.__name__: c for c in records}
    for module in (
        state,
        steps,
        blocks,
        calibration,
        coupling,
        factors,
        minimax,
        stopping,
        selection,
        pruning,
        relaxed,
        thresholds,
    ):
        for item in vars(module).values():
            if isinstance(item, type) and issubclass(item, State | Step) and item not in (State, Step):
                found[item.__name__] = item
    return found
