"""Verification: is a run's folder what its certificate says, and do the stored weights satisfy the spec?

Nothing in the folder is believed. The spec is compiled anew, the weights are recounted, and every line of the
certificate is built a second time and compared field by field. Only what no recount can know is taken as stated, and
said to be: measured values, `base`, prices, and whether a projection was exact.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeAlias

from prunelang.compiler.problem import Choice, Constraint, Count, GroupCount, Interval, Problem
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl.diagnostics import SpecError
from prunelang.runtime.certificate import (
    CERTIFICATE,
    FACTORS,
    SHAPES,
    SPEC,
    SUPPORT,
    WEIGHTS,
    Certificate,
    parse,
    read_if_there,
    status_of,
    stored_from,
)
from prunelang.runtime.exact import number, shown
from prunelang.runtime.files import FileProblem, decode, digest, parse_json, read, read_text
from prunelang.runtime.line import Given, Line, Measurement, line_of
from prunelang.runtime.meaning import meaning
from prunelang.runtime.price import Price
from prunelang.runtime.recount import recount
from prunelang.runtime.stored import Stored

Verdict: TypeAlias = Literal["ok", "fail", "measured", "unverified"]
ProblemOf: TypeAlias = Callable[[str, ShapeTable], Problem]
GAP = re.compile(r"exact|approximate|gap ≤ ([0-9./]{1,99})")


@dataclass(frozen=True)
class Finding:
    """`measured`: as the run stated it, on data that is not here. `unverified`: there is no recount."""

    verdict: Verdict
    sentence: str


@dataclass(frozen=True)
class Verification:
    findings: tuple[Finding, ...]
    certificate: Certificate | None = None

    @property
    def ok(self) -> bool:
        """Nothing failed, and every structural constraint was recounted."""
        return not any(f.verdict in ("fail", "unverified") for f in self.findings)

    @property
    def failures(self) -> tuple[str, ...]:
        return tuple(f.sentence for f in self.findings if f.verdict == "fail")

    def to_json(self) -> dict[str, Any]:
        findings = [{"verdict": f.verdict, "sentence": f.sentence} for f in self.findings]
        return {"format_version": 1, "ok": self.ok, "findings": findings}

    def text(self) -> str:
        width = max((len(f.verdict) for f in self.findings), default=0)
        return "\n".join(f"{f.verdict:<{width}}  {f.sentence}" for f in self.findings)


def verify_run(run: Path, problem_of: ProblemOf) -> Verification:
    """Check the folder of a run against itself, and the weights in it against its spec.

    `problem_of` compiles the text of a spec for a shape table, with the parameters that the certificate names, and may
    raise `SpecError`. What is wrong with a file in the folder is a finding, never an exception.
    """
    try:
        certificate = parse(read_text(run / CERTIFICATE), run / CERTIFICATE)
    except FileProblem as problem:
        return Verification((_said(problem),))
    findings: list[Finding] = []
    try:
        findings.extend(_run(run, certificate, problem_of))  # what was found before a file cannot be read stays
    except FileProblem as problem:
        findings.append(_said(problem))
    return Verification(tuple(findings), certificate)


def verify_weights(
    weights: Path,
    problem: Problem,
    table: ShapeTable,
    *,
    support: Path | None = None,
    factors: Path | None = None,
    bases: Mapping[str, Fraction] | None = None,
) -> Verification:
    """Check a weights file, with its kept positions and factors if it has any, against a compiled problem."""
    try:
        kept = None if support is None else read(support)
        made_of = None if factors is None else read(factors)
        stored = stored_from(read(weights), kept, table, weights, support, made_of, factors or Path(FACTORS))
        stored = replace(stored, frozen=problem.frozen)
    except FileProblem as found:
        return Verification((_said(found),))
    findings = [Finding("ok", f"{weights.name} holds the tensors of {table.model}, all finite")]
    for constraint in problem.constraints:
        line = line_of(constraint, stored, "", Given(base=(bases or {}).get(constraint.label)))
        findings.append(_outcome(line))
    return Verification(tuple(findings))


def _said(problem: FileProblem) -> Finding:
    return Finding("fail", f"{problem.message} [{problem.code}]")


# ── a run ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _run(run: Path, certificate: Certificate, problem_of: ProblemOf) -> Iterator[Finding]:
    spec, weights = read(run / SPEC), read(run / WEIGHTS)
    support, factors = read_if_there(run / SUPPORT), read_if_there(run / FACTORS)
    table = _table(run / SHAPES)
    hashes = (
        (SPEC, digest(spec), certificate.spec_hash),
        (SHAPES, table.digest, certificate.shapes_hash),
        (WEIGHTS, digest(weights), certificate.weights_hash),
        (SUPPORT, None if support is None else digest(support), certificate.support_hash),
        (FACTORS, None if factors is None else digest(factors), certificate.factors_hash),
    )
    for name, own, stated in hashes:
        if own != stated:
            yield Finding("fail", f"{name} is not the file that was certified: its sha256 differs")
        elif own is not None:
            yield Finding("ok", f"{name} is the file that was certified")
    if table.digest != certificate.shapes_hash:
        return  # of another network, or damaged: nothing can be read by it
    stored = stored_from(weights, support, table, run / WEIGHTS, run / SUPPORT, factors, run / FACTORS)
    text = decode(spec, run / SPEC)
    try:
        problem = problem_of(text, table)
    except SpecError as error:
        yield Finding("fail", f"{SPEC} does not compile: {error}")
        return
    yield from _compare(problem, replace(stored, frozen=problem.frozen), text, certificate)


def _table(path: Path) -> ShapeTable:
    try:
        table = ShapeTable.from_json(parse_json(read_text(path), path))
        known = all(t.size >= 0 and t.itemsize for t in table.tensors)
        known = known and all(x.weight in table.tensor and x.uses >= 0 for x in table.layers)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileProblem("P512", f"{path} is no shape table: {error!r}") from error
    if not known:
        raise FileProblem("P512", f"{path} is no shape table: it contradicts itself")
    return table


def _compare(problem: Problem, stored: Stored, spec: str, certificate: Certificate) -> Iterator[Finding]:
    """The certificate against the problem compiled anew and the weights counted anew."""
    if meaning(problem) != certificate.meaning_hash:
        yield Finding("fail", "the certificate speaks of a problem with another meaning than the spec")
    stated, asked = [x.label for x in certificate.constraints], [c.label for c in problem.constraints]
    if stated != asked:
        yield Finding("fail", f"the certificate has lines for {_list(stated)}, the spec has {_list(asked)}")
        return
    lines: list[Line] = []
    for constraint, line in zip(problem.constraints, certificate.constraints, strict=True):
        try:
            given = _given(line)
        except ValueError as error:
            yield Finding("fail", f"`{line.label}`: {error}")
            continue
        own = line_of(constraint, stored, spec, given)
        lines.append(own)
        yield _outcome(own)
        for f in fields(Line):
            there, here = getattr(line, f.name), getattr(own, f.name)
            if there != here or type(there) is not type(here):
                yield Finding("fail", f"`{line.label}`: the certificate states {f.name} {there!r}, and it is {here!r}")
    if len(lines) == len(asked) and status_of(lines) != certificate.status:
        yield Finding("fail", f"the certificate states {certificate.status}, and it is {status_of(lines)}")
    yield from _minimised(problem, stored, certificate)


def _minimised(problem: Problem, stored: Stored, certificate: Certificate) -> Iterator[Finding]:
    """What a search made small, as the report states it and as it is."""
    terms = problem.objective.terms
    if len(terms) != 1 or not isinstance(terms[0].function, Count | Choice | GroupCount):
        return
    title = f"minimize {terms[0].text or terms[0].function.name}"
    outcome = recount(Constraint(title, terms[0].function, Interval(upper=2**63)), stored)
    own = None if outcome.value is None else shown(outcome.value.middle)
    for item in (x for x in certificate.report if x.title == title):
        if item.value != own or type(item.value) is not type(own):
            yield Finding("fail", f"`{title}`: the report states {item.value!r}, and it is {own!r}")
        else:
            yield Finding("ok", f"`{title}`: {own} ({outcome.counted})")


def _given(line: Line) -> Given:
    """What a line states beyond any recount. Raises ValueError where that cannot be meant."""
    measured = None
    if line.kind == "measured" and line.got is not None:
        measured = Measurement(
            number(line.got), line.split_hash, line.samples, line.statement, line.confirmed, _half(line)
        )
    price = None
    if line.price is not None:
        if line.price_kind is None:
            raise ValueError("it states a price of no kind")
        price = Price(line.price, line.price_kind, line.price_spread)
    if line.projection is not None:
        gap = GAP.fullmatch(line.projection)
        if gap is None or (gap[1] and number(int(gap[1]) if gap[1].isdecimal() else gap[1]) <= 0):
            raise ValueError(f"it states the projection {line.projection!r}, neither exact nor approximate nor a gap")
    return Given(measured, None if line.base is None else number(line.base), price, line.projection)


def _half(line: Line) -> str | None:
    """`certify`, where the line says that it was measured there: the half of validation that nothing else read."""
    return line.split if line.split == "certify" else None


def _outcome(line: Line) -> Finding:
    """One sentence on one constraint."""
    bound, got, margin, _ = line.shown()
    relation = {"between": "in", "∈": "≥" if line.counted == "kept positions" else "≤"}.get(
        line.relation, line.relation
    )
    unit = f" {line.unit}" if line.unit else ""
    said = f"`{line.label}`: {got}{unit} {relation} {bound}{unit} ({line.counted}, margin {margin})"
    if line.satisfied is None:
        return Finding("unverified", f"`{line.label}`: {line.remark}")
    if not line.satisfied:
        return Finding("fail", f"`{line.label}` is violated: {line.remark}" if line.remark else f"{said} is violated")
    return Finding("measured" if line.kind == "measured" else "ok", said)


def _list(labels: list[str]) -> str:
    return ", ".join(f"`{x}`" for x in labels) or "none"
