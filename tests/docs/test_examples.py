"""Every fenced block of the README and of docs/ is run: what it prints, or why it is refused, is what the page says.

``pytest tests/docs --update-golden`` writes what the commands print over what the pages say they do.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prunelang.runtime import prox, registry
from prunelang.runtime.prox import registry as operators
from tests.docs.blocks import PAGES, ROOT, Block, agrees, blocks_of, completed, rewrite, shape
from tests.docs.session import Session, Shared


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    return Shared(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page registers is forgotten after it."""
    for names in (registry.models, registry.data, registry.losses):
        monkeypatch.setattr(names, "_entries", dict(names._entries))
    monkeypatch.setattr(prox, "__path__", list(prox.__path__))
    operators.operators()
    monkeypatch.setattr(operators, "_OPERATORS", dict(operators._OPERATORS))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_page(page: Path, tmp_path: Path, shared: Shared, own_registries: None, request: pytest.FixtureRequest) -> None:
    session = Session(tmp_path, shared)
    wrong = {b: found for b in blocks_of(page) if (found := session.follow(b)) is not None}
    if request.config.getoption("--update-golden"):
        rewrite(page, session.texts)
        wrong = {b: found for b, found in wrong.items() if b.line not in session.texts}
    assert not wrong, "\n\n".join(f"{b.place}: {found}" for b, found in wrong.items())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


# ── the tests' own tools ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "no words"),
        (("text",), "plain"),
        (("prune",), "model net = lenet_300_100("),
        (("prune", "error", "P310"), completed("‖net.weights‖₀ ≤ 5%")),
        (("prune", "fragment"), "‖net.wieghts‖₀ ≤ 5%"),
        (("json",), "{"),
        (("sh",), "make coffee"),
        (("console",), "$ rm -r specs"),
        (("console",), "$ echo one\ntwo"),
        (("text", "output"), "something"),
        (("text", "diagram"), "nowhere/"),
    ],
)
def test_wrong_blocks_are_found(words: tuple[str, ...], text: str, tmp_path: Path, shared: Shared) -> None:
    assert Session(tmp_path, shared).follow(Block(ROOT / "README.md", 1, words, text)) is not None


def test_numbers_and_gaps() -> None:
    assert shape("10 397 B,  15.0 %") == shape("9 B, 3 %")
    assert shape("≤ 1702  ✓") != shape("≤ 1702  ✗")
    assert shape("exit code 0") != shape("exit code 4")
    assert agrees("a\n…\nd", "a\nb\nc\nd\n")
    assert agrees("a\n…\nd", "a\nd")
    assert not agrees("a\n…\nd", "a\nb")


def test_a_fragment_becomes_a_spec() -> None:
    whole = completed("param κ = 5%\n‖net.weights‖₀ ≤ κ")
    assert whole.splitlines()[:3] == ["model net = lenet_300_100()", "data mnist()", "param κ = 5%"]
    assert "subject to\n    ‖net.weights‖₀ ≤ κ\nsolve auto" in whole
