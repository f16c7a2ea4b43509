"""`prune report --html`: whole, closed to the outside, readable without scripts, and true to the certificate."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from prunelang.page.facts import events
from prunelang.page.render import report_page
from prunelang.page.series import numbers_of, series
from prunelang.runtime.certificate import CERTIFICATE, Reported
from prunelang.runtime.files import FileProblem
from prunelang.verification import certificate_of
from tests.cli.conftest import Done

pytest.importorskip("matplotlib")

HOSTILE = '</td></pre></style><script>alert("1")</script><img src=x onerror=alert(1)>&lt;"\'$_{'
VOID = {"meta", "br", "link", "img", "input", "hr"}
SOURCES = ("src", "href", "srcset", "action", "data", "poster", "xlink:href")


class Page(HTMLParser):
    """What stands in a page; complains about tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def text(done: Done) -> str:
    return report_page(done.run)


def copied(done: Done, to: Path) -> Path:
    shutil.copytree(done.run, to)
    return to


def numbers(value: object) -> Iterator[str]:
    """Every number in a certificate, as text."""
    if isinstance(value, dict):
        for v in value.values():
            yield from numbers(v)
    elif isinstance(value, list):
        for v in value:
            yield from numbers(v)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?|[0-9a-f]{64}", value):
        yield value


def test_every_number_of_the_certificate_is_on_the_page(done: Done, text: str) -> None:
    certificate = certificate_of(done.run).to_json()
    del certificate["digest"]  # of the certificate itself: it says whether that is whole, nothing about the run
    words = " ".join(Page(text).words)
    assert [n for n in numbers(certificate) if n not in words] == []


def test_nothing_runs_and_nothing_is_fetched(text: str) -> None:
    page = Page(text)
    assert page.of("script") == page.of("link") == page.of("img") == page.of("iframe") == []
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert all((attributes.get(name) or "#").startswith("#") for name in SOURCES)
    assert re.findall(r"(?:https?:)?//[\w.]+|@import|url\((?!#)", text) == []
    assert "default-src 'none'" in text


def test_it_can_be_read_by_everybody(text: str) -> None:
    page = Page(text)
    assert page.of("html")[0]["lang"] == "en"
    assert [t["scope"] for t in page.of("th") if t["scope"] not in ("col", "row")] == []
    assert len(page.of("caption")) == sum("scroll" in (d.get("class") or "") for d in page.of("div"))
    assert all(svg["role"] == "img" and svg["aria-labelledby"] for svg in page.of("svg"))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    named = {a["href"].removeprefix("#") for a in page.of("a") if a.get("href")}  # type: ignore[union-attr]
    assert named <= set(ids)


def test_the_contrast_of_text_on_its_ground() -> None:
    """WCAG: 4.5 : 1 for text, in both schemes; curves on the page's ground have 3 : 1 and more."""
    from prunelang.page.style import STYLE

    def luminance(colour: str) -> float:
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    def contrast(one: str, other: str) -> float:
        dark, light = sorted((luminance(one), luminance(other)))
        return (light + 0.05) / (dark + 0.05)

    schemes = [dict(re.findall(r"--([\w]+): (#\w{6})", part)) for part in STYLE.split("@media (prefers")[:2]]
    assert len(schemes) == 2
    for colours in schemes:
        for ground in ("ground", "raised"):
            for ink in ("ink", "soft", "good", "bad", "open"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert all(contrast(colours[f"c{i}"], colours["ground"]) >= 3 for i in range(8))


def test_the_problem_is_mathematics(text: str) -> None:
    page = Page(text)
    assert len(page.of("math")) >= 3
    assert "<mo>≤</mo>" in text
    assert "≤ 94 of 1 184" in text


def test_plots_have_no_colours_of_their_own(text: str) -> None:
    drawn = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert drawn
    assert {c for svg in drawn for c in re.findall(r"#[0-9a-f]{6}\b", svg)} == set()


def test_hostile_texts_stay_texts(done: Done, tmp_path: Path) -> None:
    run = copied(done, tmp_path / 'a"b<c>&d')
    certificate = certificate_of(run)
    lines = tuple(replace(x, label=HOSTILE, statement=HOSTILE, remark=HOSTILE) for x in certificate.constraints)
    changed = replace(
        certificate,
        constraints=lines,
        report=(Reported(HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        versions={HOSTILE: HOSTILE},
        parameters={HOSTILE: HOSTILE},
    )
    (run / CERTIFICATE).write_text(changed.dumps(), encoding="utf-8")
    (run / "graph.txt").write_text(HOSTILE, encoding="utf-8")
    (run / "spec.prune").write_text(f"# {HOSTILE}\n", encoding="utf-8")
    told = {
        "event": "epoch",
        "stage": HOSTILE,
        "loss": 1.0,
        "levels": {HOSTILE: 2.0},
        "constraints": [{"label": HOSTILE, "value": 1, "bound": 2, "price": 3}],
    }
    begun = {"event": "begin", "stage": HOSTILE}
    ended = {"event": "certified", "failure": HOSTILE}
    history = "\n".join(json.dumps(e) for e in (begun, told, told, ended))
    (run / "history.jsonl").write_text(history, encoding="utf-8")
    text = report_page(run)
    page = Page(text)
    assert page.of("script") == page.of("img") == []
    assert "<script" not in text
    assert page.of("svg")
    assert sum(HOSTILE in word for word in page.words) > 10


def test_a_killed_run_has_a_page_too(done: Done, tmp_path: Path) -> None:
    run = copied(done, tmp_path / "killed")
    for name in (CERTIFICATE, "weights.safetensors", "shapes.json", "spec.prune"):
        (run / name).unlink()
    cut = (run / "history.jsonl").read_text(encoding="utf-8")[:-200]
    (run / "history.jsonl").write_text(cut, encoding="utf-8")
    page = Page(report_page(run))
    words = " ".join(page.words)
    assert "no certificate" in words
    assert "Course of the run" in words
    assert page.of("svg")


def test_a_changed_certificate_is_said_to_be_changed(done: Done, tmp_path: Path) -> None:
    run = copied(done, tmp_path / "changed")
    path = run / CERTIFICATE
    path.write_text(path.read_text(encoding="utf-8").replace('"seed": 3', '"seed": 4'), encoding="utf-8")
    assert "changed after it was written" in " ".join(Page(report_page(run)).words)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(FileProblem) as caught:
        report_page(tmp_path)
    assert caught.value.code == "P569"


def test_the_command(done: Done) -> None:
    prune = done.prune
    run = prune("report", "runs/tiny", "--html", "-o", "page.html")
    assert (run.returncode, run.stdout) == (0, "wrote page.html\n")
    assert (prune.folder / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert prune("report", "runs/tiny", "-o", "page.html").returncode == 2
    assert prune("report", "runs/tiny", "--html", "--format", "json").returncode == 2


def test_curves_from_events() -> None:
    """Two epochs of a stage, an outer record between, levels as numbers, lists and mappings."""
    bound = {"label": "a", "value": 5, "bound": 10, "price": None}
    told = [
        {"event": "begin", "stage": "solve"},
        {"event": "epoch", "stage": "solve", "loss": 2.0, "levels": {"μ": 0.5, "s": [1.0, 2.0]}},
        {"event": "outer", "stage": "solve", "loss": 2.0, "distance": 3.0, "constraints": [bound]},
        {"event": "epoch", "stage": "solve", "loss": float("nan"), "levels": {"z": {"a": 4.0}}, "constraints": "x"},
    ]
    found = series(told)
    assert found.loss == ([1.0], [2.0])
    assert found.distance == ([1.0], [3.0])
    assert found.values == {"a": ([1.0], [0.5])}
    assert found.prices == {}
    assert set(found.levels) == {"μ", "s[0]", "s[1]", "z[a]"}
    assert (found.stages, found.epochs) == ([(0.0, "solve")], 2.0)
    assert list(numbers_of({"event": "begin", "loss": 1.0})) == []
    assert events('{"event": "epoch"}\n[1]\n{"event"') == [{"event": "epoch"}]


def test_every_field_of_a_line_has_its_place(done: Done) -> None:
    """A field that certificates get is shown, or said here to be shown elsewhere."""
    line = certificate_of(done.run).constraints[0]
    left = ("satisfied", "confirmed", "price", "price_spread")
    numeric = ("bound", "got", "kept", "margin", "base", "samples")
    names = [f.name for f in fields(line) if f.name not in left]
    shown = {n: str(7_000_003 + i) if n in numeric else f"∷{n}∷" for i, n in enumerate(names)}
    from prunelang.page.markup import joined
    from prunelang.page.render import _constraints

    certificate = replace(certificate_of(done.run), constraints=(replace(line, **shown),))  # type: ignore[arg-type]
    text = joined([_constraints(certificate)]).text
    assert [name for name, word in shown.items() if word not in text] == []
