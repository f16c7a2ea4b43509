"""``kill -9`` at random moments: what is resumed ends as what was left alone. The benchmark does it to every solver."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.resume.__main__ import kills


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are made by fork here")
@pytest.mark.parametrize("name", ["lc", "ista", "factors"])
def test_killed_and_resumed_is_uninterrupted(name: str, tmp_path: Path) -> None:
    found = kills(name, 3, tmp_path)
    assert (found["killed"], found["same"]) == (3, 3)
