"""The report page: one HTML file with nothing outside of it, and nothing in it that runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from prunelang.compiler.formats import cheapest
from prunelang.dsl.names import to_unicode
from prunelang.dsl.numbers import grouped
from prunelang.notation import formula as f
from prunelang.notation.mathml import math
from prunelang.notation.statement import Stated, stated
from prunelang.page import figures
from prunelang.page.facts import Facts, facts
from prunelang.page.markup import Content, Markup, joined, pairs, section, table, tag
from prunelang.page.series import series
from prunelang.page.style import STYLE
from prunelang.report import grouped_text, resumed_text
from prunelang.runtime.certificate import STATUSES, Certificate, Line

MOST_HISTOGRAMS = 24
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
SIGNS = {True: ("✓ holds", "good"), False: ("✗ violated", "bad"), None: ("? not checked", "open")}
STATUS_CLASS = {"feasible-verified": "good", "feasible-unverified": "open", "violated": "bad"}


def report_page(run: Path) -> str:
    """The page of a run directory. Errors: `FileProblem` P568 without matplotlib, P569 for what is no run directory."""
    from prunelang.sweeping.plot import require

    require()
    return page(facts(run))


def page(found: Facts) -> str:
    """The whole document."""
    parts = [p for p in _sections(found) if p.text]
    title = _title(found)
    names = [_heading(p) for p in parts]
    links = (tag("li", tag("a", name, href=f"#{anchor}")) for name, anchor in names)
    body = joined(
        (
            tag(
                "header", tag("h1", title), _verdict(found), tag("nav", tag("ul", joined(links)), aria_label="Contents")
            ),
            tag("main", joined(parts)),
            tag("footer", tag("p", f"Written by prunelang from the files of {found.directory.name}; nothing was run.")),
        )
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"{tag('title', title).text}\n<style>{STYLE}</style>\n</head>\n<body>\n{body.text}\n</body>\n</html>\n"
    )


def _heading(part: Markup) -> tuple[str, str]:
    """Title and anchor of a section, which `section` wrote first."""
    anchor = part.text.split('aria-labelledby="', 1)[1].split('"', 1)[0]
    return part.text.split(">", 2)[2].split("<", 1)[0], anchor


def _title(found: Facts) -> str:
    return (
        f"{found.directory.resolve().name}: {found.plan.model.text}" if found.plan else found.directory.resolve().name
    )


def _verdict(found: Facts) -> Markup:
    """The status, and how the run ended, in a sentence each."""
    certificate, said = found.certificate, []
    if certificate is None:
        said.append(tag("p", tag("span", "no certificate", class_="status bad")))
        said.append(tag("p", "The run came to no end: what follows is what it left."))
    else:
        kind = STATUS_CLASS[certificate.status]
        said.append(tag("p", tag("span", certificate.status, class_=f"status {kind}")))
        sentence = STATUSES[certificate.status]
        said.append(tag("p", f"{sentence[0].upper()}{sentence[1:]}."))
        if certificate.resumed:
            said.append(tag("p", resumed_text(certificate), class_="soft"))
    if found.ending.get("failure"):
        said.append(
            tag("p", f"The run failed: {found.ending['failure']}. Its weights are the last good ones.", class_="bad")
        )
    if found.ending.get("interrupted"):
        said.append(tag("p", "The run was interrupted. Its weights are those of the last boundary.", class_="open"))
    if found.missing:
        said.append(tag("ul", joined(tag("li", m) for m in found.missing), class_="soft"))
    return joined(said)


def _sections(found: Facts) -> Iterator[Markup]:
    if found.certificate is not None:
        yield _constraints(found.certificate)
        yield _report(found.certificate)
    yield _problem(found)
    yield _course(found)
    yield _layers(found)
    yield _histograms(found)
    if found.listing:
        yield section("Graph", tag("pre", found.listing, tabindex="0"))
    if found.spec:
        yield section("Spec", tag("pre", found.spec, tabindex="0"))
    yield _environment(found)


# ── what was asked, and what came out ────────────────────────────────────────────────────────────────────────────


def _constraints(certificate: Certificate) -> Markup:
    if not certificate.constraints:
        return section("Constraints", tag("p", "The spec has no constraints."))
    rows = []
    for line in certificate.constraints:
        bound, got, margin, price = (grouped_text(text) for text in line.shown())
        said, kind = SIGNS[line.satisfied]
        rows.append((line.label, line.asked, bound, got, margin, line.unit, price, tag("span", said, class_=kind)))
    head = ("constraint", "asked", "bound", "got", "margin", "unit", "price", "")
    main = table(head, rows, "What was asked, and what the saved file holds", frozenset({2, 3, 4}))
    details = tag("details", tag("summary", "How each is known"), *(_detail(x) for x in certificate.constraints))
    remarks = [(x.label, text) for x in certificate.constraints for text in (x.statement, x.remark) if text]
    notes = tag("ul", joined(tag("li", tag("b", label), f": {text}") for label, text in remarks)) if remarks else ""
    return section("Constraints", main, notes, details)


def _detail(x: Line) -> Markup:
    """Everything that the certificate states of a constraint, exactly."""
    numbers = {
        "bound": x.bound if not isinstance(x.bound, list) else " … ".join(map(str, x.bound)),
        "got": x.got,
        "counted": x.counted,
        "kept positions": x.kept,
        "margin": x.margin,
        "base": x.base,
        "projection": x.projection,
        "price": None if x.price is None else repr(x.price),
        "kind of price": x.price_kind,
        "spread of price": None if x.price_spread is None else repr(x.price_spread),
        "kept by": x.keeps,
        "decided by": x.kind,
        "measured on": x.split,
        "samples": x.samples,
        "digest of split": x.split_hash,
        "confirmed": x.confirmed,
        "line of the spec": x.line,
    }
    rows = [("function", x.function), ("condition", x.text), ("relation", x.relation)]
    rows += [(k, str(v)) for k, v in numbers.items() if v is not None and v != ""]
    return joined((tag("h3", x.label), pairs((a, tag("code", b)) for a, b in rows)))


def _report(certificate: Certificate) -> Markup:
    if not certificate.report:
        return Markup("")
    rows = [
        (i.title, tag("span", grouped_text(i.shown()), title=str(i.value)), i.split or "") for i in certificate.report
    ]
    exact = pairs((i.title, tag("code", "–" if i.value is None else str(i.value))) for i in certificate.report)
    details = tag("details", tag("summary", "In full"), exact)
    return section(
        "Report", table(("item", "value", "on"), rows, "Items of the spec's report", frozenset({1})), details
    )


# ── the problem ──────────────────────────────────────────────────────────────────────────────────────────────────


def _problem(found: Facts) -> Markup:
    if found.plan is None:
        return Markup("")
    s = stated(found.plan)
    return section("Problem", tag("div", _formulas(s), class_="problem"), _where(s), _stages(s))


def _formulas(s: Stated) -> Markup:
    """Objective and constraints below each other, with their numbers beside them."""
    least = Markup(math(f.Under(f.Word(s.sense), f.Symbol("W"))))
    on = f"on {', '.join(s.splits)}" if s.splits else ""
    rows = [tag("tr", tag("th", least, scope="row"), tag("td", _math(s.objective)), tag("td", on, class_="soft"))]
    for i, c in enumerate(s.conditions):
        said = [f"{label}: {text}" if label else text for label, text in c.numbers]
        said += [f"and {c.left_out} more"] if c.left_out else []
        head = "subject to" if i == 0 else ""
        label = [tag("b", f"{c.label}: ")] if c.label else []
        numbers = joined(said, "<br>") if not said else Markup("<br>".join(joined([x]).text for x in said))
        cells = (tag("th", head, scope="row") if head else tag("td"), tag("td", _math(c.formula)))
        rows.append(tag("tr", *cells, tag("td", *label, numbers, class_="soft")))
    return tag("table", tag("tbody", joined(rows)))


def _math(node: f.Formula) -> Markup:
    return Markup(math(node))


def _where(s: Stated) -> Markup:
    items = (tag("li", _math(symbol), "" if what in ("param", "let") else f" is {what}") for symbol, what in s.where)
    return joined((tag("h3", "where"), tag("ul", joined(items))))


def _stages(s: Stated) -> Markup:
    if not s.stages:
        return Markup("")
    return joined((tag("h3", "solved by"), pairs((kind, what) for kind, what in s.stages)))


# ── the course of the run ────────────────────────────────────────────────────────────────────────────────────────


def _course(found: Facts) -> Markup:
    curves = series(found.history)
    drawn = (
        ("Loss on the training samples, mean of each epoch", figures.losses(curves)),
        ("Constraints, in shares of their bounds", figures.constraints(curves)),
        ("Prices of the budgets", figures.prices(curves)),
        ("Levels of the solver", figures.levels(curves)),
        ("Distance between the weights and their copy", figures.distance(curves)),
    )
    shown = [tag("figure", tag("figcaption", said), Markup(svg)) for said, svg in drawn if svg]
    return section("Course of the run", *shown) if shown else Markup("")


# ── layers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _layers(found: Facts) -> Markup:
    """Per kernel: entries, non-zero ones, density, multiply-adds, and bytes in the cheapest of the export formats."""
    if found.table is None or found.weights is None:
        return Markup("")
    made_of = _made_of(found)
    rows: list[tuple[Content, ...]] = []
    for layer in found.table.layers:
        tensor = found.table.tensor[layer.weight]
        kept = int(np.count_nonzero(found.weights[layer.weight]))
        density = kept / tensor.size if tensor.size else 0.0
        how = cheapest(tensor, kept)
        size = _bytes(found, layer.weight, kept)
        bar = tag("span", tag("span", style=f"width: {100 * density:.4g}%"), class_="bar", aria_hidden="true")
        rows.append(
            (
                layer.name,
                "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}".join(map(str, tensor.shape)),
                grouped(tensor.size),
                grouped(kept),
                joined((f"{100 * density:.4g} % ", bar), ""),
                grouped(layer.uses * tensor.size),
                grouped(layer.uses * kept),
                made_of.get(layer.weight) or f"{grouped(size)} ({how})",
            )
        )
    head = ("layer", "shape", "weights", "not zero", "density", "MACs, dense", "MACs, of what is left", "bytes stored")
    numbers = frozenset({2, 3, 4, 5, 6, 7})
    return section("Layers", table(head, rows, "Kernels: what is left, and what it costs", numbers))


def _bytes(found: Facts, name: str, kept: int) -> int:
    from prunelang.compiler.formats import store

    assert found.table is not None
    tensor = found.table.tensor[name]
    return store(tensor, cheapest(tensor, kept)).nbytes(kept)


def _made_of(found: Facts) -> dict[str, str]:
    from prunelang.runtime.packed import described

    return {} if found.factors is None else described(found.factors)


def _histograms(found: Facts) -> Markup:
    if found.table is None or found.weights is None:
        return Markup("")
    weights = found.weights
    kernels = sorted((x.weight for x in found.table.layers), key=lambda n: -weights[n].size)
    chosen = set(kernels[:MOST_HISTOGRAMS])
    drawn = []
    for i, layer in enumerate(x for x in found.table.layers if x.weight in chosen):
        svg = figures.histogram(layer.name, found.weights[layer.weight], i)
        drawn.append(tag("figure", tag("figcaption", layer.name), Markup(svg)))
    left_out = len(kernels) - len(chosen)
    note = tag("p", f"The {MOST_HISTOGRAMS} largest of {len(kernels)} kernels.", class_="soft") if left_out else ""
    return section("Weights", tag("p", "Values that are not zero."), note, tag("div", *drawn, class_="small"))


# ── where it was run ─────────────────────────────────────────────────────────────────────────────────────────────


def _environment(found: Facts) -> Markup:
    c = found.certificate
    rows: list[tuple[Content, Content]] = []
    if c is not None:
        rows += [(name, version) for name, version in c.versions.items()]
        rows += [("seed", str(c.seed)), ("mode", c.mode)]
        rows += [(f"param {to_unicode(name)}", value) for name, value in c.parameters.items()]
        hashes = {
            "spec": c.spec_hash,
            "meaning": c.meaning_hash,
            "shapes": c.shapes_hash,
            "weights": c.weights_hash,
            "support": c.support_hash,
            "factors": c.factors_hash,
        }
        rows += [(f"sha256 of {k}", tag("span", v, class_="hash")) for k, v in hashes.items() if v]
        rows.append(("format of the certificate", str(c.format_version)))
    if found.seconds is not None:
        rows.append(("seconds", f"{found.seconds:.1f}"))
    return section("Environment", pairs(rows)) if rows else Markup("")
