"""`prune report --html` as a browser shows it, light and dark, wide and narrow, without scripts.

Needs playwright and a Chromium: the one that it has installed, or the one that the environment variable CHROMIUM names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prunelang.page.render import report_page
from tests.cli.conftest import Done

pytest.importorskip("matplotlib")
playwright = pytest.importorskip("playwright.sync_api")

READABLE = 4.5  # contrast of text that WCAG 2.2 asks for (level AA)
TEXTS = """() => {
    const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const light = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
    const parsed = text => text.match(/[\\d.]+/g).map(Number);
    const behind = e => {
        for (; e; e = e.parentElement) {
            const c = parsed(getComputedStyle(e).backgroundColor);
            if (c.length < 4 || c[3] === 1) return c;
        }
        return [255, 255, 255];
    };
    const found = [];
    for (const e of document.body.querySelectorAll("*")) {
        const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
        const box = e.getBoundingClientRect();
        if (!own || e.closest("svg, math, details:not([open])") || !box.width) continue;
        const a = light(parsed(getComputedStyle(e).color)) + 0.05, b = light(behind(e)) + 0.05;
        found.push([e.textContent.trim().slice(0, 40), Math.max(a, b) / Math.min(a, b)]);
    }
    return found;
}"""
PICTURES = """() => [...document.querySelectorAll("svg, img")].map(e => {
    const box = e.getBoundingClientRect();
    return [box.width, box.height, e.closest("details:not([open])") !== null];
})"""


@pytest.fixture
def browser() -> Iterator[Any]:
    given = os.environ.get("CHROMIUM")
    with playwright.sync_playwright() as p:
        try:
            found = p.chromium.launch(
                executable_path=given, args=["--no-sandbox", "--no-zygote", "--single-process"] if given else []
            )
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {error}")
        yield found
        found.close()


@pytest.fixture(scope="module")
def page_file(done: Done, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(report_page(done.run), encoding="utf-8")
    return file


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_it_can_be_read(scheme: str, width: int, browser: Any, page_file: Path) -> None:
    context = browser.new_context(
        java_script_enabled=False, color_scheme=scheme, viewport={"width": width, "height": 900}
    )
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    assert asked == [page_file.as_uri()]
    texts = page.evaluate(TEXTS)
    assert len(texts) > 40
    assert [(text, ratio) for text, ratio in texts if ratio < READABLE] == []
    pictures = page.evaluate(PICTURES)
    assert len(pictures) >= 3
    assert all(w > 50 and h > 50 for w, h, folded in pictures if not folded)
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # wide tables scroll by themselves
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    shades = [int(x) for x in ground[4:-1].split(",")]
    assert (sum(shades) < 200) == (scheme == "dark"), ground
    context.close()
