"""Golden files: an expected text beside its input. ``pytest --update-golden`` rewrites them; review the diff."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parent / "golden"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compares a text with a file; with ``--update-golden`` writes the file instead."""
    update = request.config.getoption("--update-golden")

    def compare(file: Path, got: str) -> None:
        if update:
            file.write_text(got, encoding="utf-8", newline="")
            return
        assert file.exists(), f"{file.name} is missing: run pytest --update-golden and review what it writes"
        assert got == file.read_bytes().decode("utf-8")

    return compare
