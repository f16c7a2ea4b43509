"""Rows of a result that a run adds to one by one, so that an interrupted run goes on where it stopped.

A row has a key ``part/part/…`` that ends in the seed. Two processes write to two files; `merged` makes one of them.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Rows = dict[str, Row]


class Conflict(ValueError):
    """Two files hold different rows of one key."""


def read(path: Path) -> Rows:
    """The rows of a result; none if there is no such file."""
    rows: Rows = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else {}
    return rows


def write(path: Path, document: Mapping[str, Any], rows: Rows) -> None:
    """`document` and the rows in order, whole or not at all."""
    text = json.dumps({**document, "runs": dict(sorted(rows.items()))}, indent=1, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(text + "\n", encoding="utf-8")
    beside.replace(path)


def merged(paths: Iterable[Path]) -> Rows:
    """The rows of all files. Raises `Conflict` where two differ in more than the time they took."""
    rows: Rows = {}
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(path)
        for key, row in read(path).items():
            if key in rows and _timeless(rows[key]) != _timeless(row):
                raise Conflict(f"{path} has another row for {key} than a file before it")
            rows.setdefault(key, row)
    return rows


def _timeless(row: Row) -> Row:
    return {k: v for k, v in row.items() if k != "seconds"}


def spread(values: Sequence[float], digits: int = 2) -> dict[str, float | int]:
    """Mean, lowest and highest of the seeds, and how many."""
    return {
        "mean": round(statistics.fmean(values), digits + 1),
        "low": round(min(values), digits),
        "high": round(max(values), digits),
        "seeds": len(values),
    }
