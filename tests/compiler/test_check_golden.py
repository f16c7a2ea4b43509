"""Every diagnostic of the checker has a spec that shows it, with the whole transcript beside it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from prunelang.compiler.codes import CODES, page
from tests.compiler.checking import transcript
from tests.golden_support import GOLDEN

ROOT = Path(__file__).parents[2]
SPECS = sorted((GOLDEN / "bad" / "check").glob("*.prune"))
SOURCES = [*(ROOT / "compiler" / "checking").glob("*.py"), *(ROOT / "compiler").glob("*.py")]
ELSEWHERE = {
    "P234": "a tree that no text yields: test_check_hostile.py",
}


def codes_in(paths: list[Path]) -> set[str]:
    return {c for p in paths for c in re.findall(r'"(P[2-5]\d\d)"', p.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_transcript(path: Path, golden: Callable[[Path, str], None]) -> None:
    golden(path.with_suffix(".txt"), transcript(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_transcript_shows_the_codes_in_its_name(path: Path) -> None:
    text = path.with_suffix(".txt").read_text(encoding="utf-8")
    assert all(f"[{code}]" in text for code in re.findall(r"P\d\d\d", path.stem))


def test_every_code_of_the_checker_has_a_golden_file() -> None:
    shown = {c for p in SPECS for c in re.findall(r"\[(P\d\d\d)\]", p.with_suffix(".txt").read_text(encoding="utf-8"))}
    assert codes_in(SOURCES) - shown - ELSEWHERE.keys() == set()


def test_every_code_in_the_sources_is_in_the_catalogue_and_back() -> None:
    used = {
        c
        for folder in ("dsl", "compiler", "runtime", "prunelang")
        for p in (ROOT / folder).rglob("*.py")
        if "codes" not in p.parts
        for c in re.findall(r'"(P[1-5]\d\d)"', p.read_text(encoding="utf-8"))
    }
    assert used == CODES.keys()


def test_every_page_says_what_why_and_how() -> None:
    for code in CODES.values():
        assert all(text.strip() for text in (code.title, code.what, code.why, code.mend))
        assert code.mend.endswith(".")
    assert "selector that matches nothing" in (page("p213") or "")
    assert page("lenet") is None
