"""Proofs before training: what the lines of a problem imply about each other, from shapes alone.

    proofs = prove(problem, table)
    proofs["sparsity"].range          # Range(lower, upper, exact, why)
    proofs.infeasible, proofs.diagnostics

Everything claimed is sound: a set of lines that is called infeasible has no solution, and a line that is said never
to bind is implied by the lines named. What the bounds are and when they are exact: see `bounds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeAlias

from prunelang.compiler.problem import Problem
from prunelang.compiler.proofs import factors, report, words
from prunelang.compiler.proofs.bounds import Range, System
from prunelang.compiler.proofs.conflicts import Conflict, Evidence, conflicts, stem
from prunelang.compiler.proofs.lines import Line, extremes, lines_of
from prunelang.compiler.proofs.redundancy import implied, never_binds, room_left
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl.diagnostics import Diagnostic

__all__ = ["Conflict", "Proof", "Proofs", "Range", "prove"]

Verdict: TypeAlias = Literal["impossible", "in conflict", "open", "never binds", "can bind", "not decided by counts"]


@dataclass(frozen=True)
class Proof:
    """What is known about one structural constraint; bounds and values are in the unit of its function."""

    label: str
    function: str
    unit: str
    lower: Fraction | int | None  # asked
    upper: Fraction | int | None
    dense: int | None  # value with every entry kept; None where the weights decide it
    range: Range
    verdict: Verdict

    def __str__(self) -> str:
        ends = [f"≥ {words.number(self.lower)}"] if self.lower is not None else []
        ends += [f"≤ {words.number(self.upper)}"] if self.upper is not None else []
        of = f" of {words.number(self.dense)}" if self.dense is not None and ends else ""
        least, most = ("?" if end is None else words.number(end) for end in (self.range.lower, self.range.upper))
        asked = f"{self.label}: {self.function} {', '.join(ends)}{of} {self.unit}".rstrip()
        if self.function.startswith("∈"):
            return f"{asked}; made so, whatever the weights"
        if self.range.lower is None and self.range.upper is None:
            return f"{asked}; {self.verdict}"
        if self.verdict == "not decided by counts":
            between = "" if self.range.upper is None else f"anything from {least} to {most}, "
            return f"{asked}; {between}{self.range.why}"
        reach = "alone in" if self.verdict in {"impossible", "in conflict", "open"} else "the others leave"
        return f"{asked}; {self.verdict}; {reach} [{least}, {most}], {self.range.why}"


@dataclass(frozen=True)
class Proofs:
    """All that can be said about a problem before training."""

    proofs: tuple[Proof, ...]
    diagnostics: tuple[Diagnostic, ...]
    conflicts: tuple[tuple[str, ...], ...] = ()  # labels; disjoint sets, each of which cannot hold together

    @property
    def infeasible(self) -> bool:
        return bool(self.conflicts)

    @property
    def exit_code(self) -> int:
        """3 where the problem is proved infeasible, else 0."""
        return 3 if self.infeasible else 0

    def __getitem__(self, label: str) -> Proof:
        return next(p for p in self.proofs if p.label == label)

    def __str__(self) -> str:
        return "\n".join(map(str, self.proofs))


def prove(problem: Problem, table: ShapeTable) -> Proofs:
    """Every provable bound, conflict and redundancy among the constraints; about linear in their total size."""
    stated = lines_of(problem.constraints, table, problem.frozen)
    evidence = Evidence(factors.settled(stated, table), table, problem.frozen)
    broken = {line.index: d for line in evidence.lines if (d := _impossible(line, evidence)) is not None}
    lines = [line for line in evidence.lines if line.constraint.structural]
    sound = [line for line in lines if line.index not in broken]
    clashes = conflicts(evidence, sound)
    errors = [*_once(evidence.lines, broken), *(report.conflict(c, evidence) for c in clashes)]
    if errors:
        return _infeasible(evidence, lines, broken, clashes, errors)
    system = System(lines, evidence.sizes)
    ranges = {line.index: system.range(line) for line in lines}
    idle = implied(evidence, system, ranges)
    empty = {line.index: d for line in lines if (d := report.leaves_nothing(line, evidence)) is not None}
    cut = {line.index: d for line in lines if (d := report.cuts_off(line, evidence)) is not None}
    held = {line.index: d for line in lines if (d := report.stays_dense(line, evidence)) is not None}
    notes = [
        *_once(evidence.lines, empty),
        *_once(evidence.lines, cut),
        *_once(evidence.lines, held),
        *_once(evidence.lines, factors.dear(problem, table)),
        *(report.never_binds(x, evidence) for x in idle),
        *(report.can_bind(line, r, evidence) for line, r in room_left(ranges, lines, evidence)),
    ]
    return Proofs(
        tuple(_proof(x, ranges[x.index], _verdict(x, ranges[x.index], evidence), evidence) for x in lines), tuple(notes)
    )


def _impossible(line: Line, evidence: Evidence) -> Diagnostic | None:
    return factors.impossible(line, evidence) or report.impossible(line, evidence)


def _infeasible(
    evidence: Evidence,
    lines: Sequence[Line],
    broken: dict[int, Diagnostic],
    clashes: Sequence[Conflict],
    errors: Sequence[Diagnostic],
) -> Proofs:
    """Where lines conflict, "what the others leave" means nothing: each range is of the line's function alone."""
    clashing = {evidence.lines[i].label for c in clashes for i in c.lines} | {x for c in clashes for x in c.alike}
    found = []
    for line in lines:
        alone = Range(*extremes(line, evidence.sizes), False, "as lines conflict")
        verdict: Verdict = "in conflict" if line.label in clashing else "open"
        found.append(_proof(line, alone, "impossible" if line.index in broken else verdict, evidence))
    labels = [
        *(d.conflict for d in broken.values()),
        *(tuple(evidence.lines[i].label for i in c.lines) for c in clashes),
    ]
    return Proofs(tuple(found), tuple(errors), tuple(labels))


def _once(lines: Sequence[Line], found: dict[int, Diagnostic]) -> list[Diagnostic]:
    """One diagnostic for all instances of a ∀ line."""
    by_line: dict[object, list[int]] = {}
    for i in found:
        by_line.setdefault(stem(lines[i]), []).append(i)
    return [_with_instances(found[i], [lines[k].label for k in more]) for i, *more in by_line.values()]


def _with_instances(d: Diagnostic, labels: Sequence[str]) -> Diagnostic:
    return replace(d, notes=(*d.notes, f"the same holds for {words.listed(labels)}")) if labels else d


def _verdict(line: Line, r: Range, evidence: Evidence) -> Verdict:
    if never_binds(line, r, evidence):
        return "never binds"
    return "can bind" if line.tensors() and r.lower is not None else "not decided by counts"


def _proof(line: Line, r: Range, verdict: Verdict, evidence: Evidence) -> Proof:
    f = line.constraint.function
    return Proof(
        line.label, words.function(line), f.unit, line.low, line.high, report.dense(line, evidence), r, verdict
    )
