"""The reference pages are those that the registries give, and hold every name."""

from __future__ import annotations

import pytest

from prunelang.compiler.codes import CODES
from prunelang.compiler.functions import FUNCTIONS, SETS
from prunelang.compiler.optimizers import OPTIMIZERS
from prunelang.compiler.pruners.base import pruners
from prunelang.compiler.solvers.base import solvers
from prunelang.docs import FOLDER, main, pages


@pytest.mark.parametrize("name", pages())
def test_page_is_up_to_date(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == pages()[name], "run `python -m prunelang.docs`"


def test_check_finds_a_stale_page(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunelang.docs.FOLDER", tmp_path)
    assert main(["--check"]) == 1
    assert main([]) == 0
    assert main(["--check"]) == 0


def test_pages_hold_every_name() -> None:
    found = pages()
    assert all(f"`{name}(" in found["functions.md"] for name in FUNCTIONS)
    assert all(name in found["sets.md"] for name in SETS if name != "values")
    assert all(f"## `{word}`" in found["solvers.md"] for word in solvers())
    assert all(f"## `{word}`" in found["pruners.md"] for word in pruners())
    assert all(f"## `{word}`" in found["optimizers.md"] for word in OPTIMIZERS)
    assert all(f"## {code}: " in found["diagnostics.md"] for code in CODES)
