"""Rows of results: kept, merged, and the spread of seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.rows import Conflict, merged, read, spread, write


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    assert read(path) == {}
    write(path, {"what": "ε"}, {"b/0": {"error": 2.0}, "a/0": {"error": 1.0}})
    assert list(read(path)) == ["a/0", "b/0"]
    assert json.loads(path.read_text(encoding="utf-8"))["what"] == "ε"
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_two_files_become_one(tmp_path: Path) -> None:
    a, b, c = (tmp_path / f"{x}.json" for x in "abc")
    write(a, {}, {"dense/0": {"error": 1.0, "seconds": 3.0}, "lc/0": {"error": 2.0}})
    write(b, {}, {"dense/0": {"error": 1.0, "seconds": 4.0}, "drr/0": {"error": 3.0}})
    write(c, {}, {"lc/0": {"error": 2.5}})
    assert merged([a, b]) == {
        "dense/0": {"error": 1.0, "seconds": 3.0},
        "lc/0": {"error": 2.0},
        "drr/0": {"error": 3.0},
    }
    with pytest.raises(Conflict, match="lc/0"):
        merged([a, b, c])
    with pytest.raises(FileNotFoundError):
        merged([a, tmp_path / "d.json"])


def test_the_spread_of_seeds() -> None:
    assert spread([1.23456, 2.0, 1.0]) == {"mean": 1.412, "low": 1.0, "high": 2.0, "seeds": 3}
