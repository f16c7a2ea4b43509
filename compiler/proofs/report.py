"""Findings as diagnostics: P310 impossible, P301 never binds, P302 how far the others reach, P303 nothing is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from prunelang.compiler.problem import Blocks, FactorCost, Kept, NofM, Structural
from prunelang.compiler.proofs import words
from prunelang.compiler.proofs.bounds import Range
from prunelang.compiler.proofs.channels import reasons
from prunelang.compiler.proofs.conflicts import Change, Conflict, Evidence
from prunelang.compiler.proofs.lines import Line, extremes
from prunelang.compiler.proofs.redundancy import Implied
from prunelang.dsl.diagnostics import Diagnostic, Label

MOST_REASONS = 4  # of groups that stay dense


def dense(line: Line, evidence: Evidence) -> int | None:
    """Where percentages refer to: what checking found, else the value with every entry kept."""
    return line.constraint.dense if line.constraint.dense is not None else extremes(line, evidence.sizes)[1]


# ── a line that is impossible by itself ──────────────────────────────────────────────────────────────────────────


def impossible(line: Line, evidence: Evidence) -> Diagnostic | None:
    """P310 for a line that no weights satisfy, whatever the others say."""
    match line.constraint.set:
        case NofM(n=n, m=m) if n < 0 or m < 1:
            return _impossible(line, f"n_of_m({n}, {m}) needs 0 ≤ n and 1 ≤ m")
        case Blocks(rows=p, columns=q) if p < 1 or q < 1:
            return _impossible(line, f"blocks({p}, {q}) needs at least one row and one column")
    least, most = extremes(line, evidence.sizes)
    name, unit = words.function(line), line.constraint.function.unit
    if line.low is not None and line.high is not None and line.low > line.high:
        return _impossible(line, f"it asks for at least {words.number(line.low)} and at most {words.number(line.high)}")
    if line.high is not None and least is not None and least > line.high:
        even = " even with every weight removed" if line.tensors() else ""
        if isinstance(line.constraint.function, Structural) and evidence.table.channels:
            even = " even with every channel removed that can be"
        proof = f"{name} ≥ {words.number(least)} > {words.amount(line.high, unit)}{even}"
        found = _impossible(line, proof, Change(line.index, "≤", least), least, None, evidence)
        return replace(found, notes=(*found.notes, *held_dense(line, evidence)))
    if line.low is not None and most is not None and most < line.low:
        even = " even with every weight kept" if line.tensors() else ""
        proof = f"{name} ≤ {words.number(most)} < {words.amount(line.low, unit)}{even}"
        return _impossible(line, proof, Change(line.index, "≥", most), None, most, evidence)
    return None


def _impossible(
    line: Line,
    proof: str,
    change: Change | None = None,
    least: int | None = None,
    most: int | None = None,
    evidence: Evidence | None = None,
) -> Diagnostic:
    text, data = ("", {}) if change is None or evidence is None else words.change(change, line, dense(line, evidence))
    ends = {"lhs_min": least, "lhs_max": most, "rhs": line.low if least is None else line.high}
    return Diagnostic(
        code="P310",
        severity="error",
        message=f"`{line.label}` cannot hold",
        span=line.constraint.span,
        notes=(f"proof: {proof}",),
        hint=f"the smallest change that helps: {text}" if text else None,
        conflict=(line.label,),
        certificate=_certificate(line, ends) if change else {},
        relaxations=(data,) if data else (),
    )


# ── lines that cannot hold together ──────────────────────────────────────────────────────────────────────────────


def conflict(c: Conflict, evidence: Evidence) -> Diagnostic:
    """P310 with the minimal set of lines, the arithmetic, and the smallest change to each."""
    lines = [evidence.lines[i] for i in c.lines]
    subject, others = lines[0], lines[1:]
    proof, ends = _arithmetic(subject, c)
    ways = [words.change(x, evidence.lines[x.line], dense(evidence.lines[x.line], evidence)) for x in c.changes]
    texts = [text for text, _ in ways]
    together = "cannot hold together" if others else "cannot hold"
    return Diagnostic(
        code="P310",
        severity="error",
        message=f"{words.listed(x.label for x in lines)} {together}",
        span=subject.constraint.span,
        label=words.asked(subject, dense(subject, evidence)),
        secondary=tuple(Label(x.constraint.span, _demand(x, evidence)) for x in _distinct(subject, others)),
        notes=tuple(_notes(c, proof)),
        hint=f"the smallest change to one line that helps: {', or '.join(texts)}" if texts else None,
        conflict=tuple(x.label for x in lines),
        certificate={
            **_certificate(subject, ends),
            "terms": [{"tensor": t, "kept": n, "coefficient": k} for t, n, k in c.terms],
            "minimal": c.minimal,
            "relaxation": c.relaxed,
        },
        relaxations=tuple(data for _, data in ways),
    )


def _arithmetic(subject: Line, c: Conflict) -> tuple[str, dict[str, object]]:
    """The sum that breaks the subject's bound."""
    name, unit, r = words.function(subject), subject.constraint.function.unit, c.range
    if subject.high is not None and r.lower is not None and r.lower > subject.high:
        constant, value, sign, end, clash = subject.below_constant, r.lower, "≥", subject.high, ">"
        ends: dict[str, object] = {"lhs_min": r.lower, "rhs": end}
    elif subject.low is not None and r.upper is not None and r.upper < subject.low:
        constant, value, sign, end, clash = subject.above_constant, r.upper, "≤", subject.low, "<"
        ends = {"lhs_max": r.upper, "rhs": end}
    else:
        span = f"{words.number(subject.low or 0)} to {words.amount(subject.high or 0, unit)}"
        return f"no number of kept positions gives {name} from {span}", {}
    if subject.channels is not None and sign == "≥" and not c.terms:
        kept = subject.channels
        total = f"{kept.sum_of(c.members)} = {words.number(value)}"
        return f"{name} ≥ {total} > {words.amount(end, unit)}, {kept.members(c.members)}", ends
    total = words.sum_of(c.terms, constant or 0)
    plain = "+" not in total and "·" not in total
    result = (total if plain else f"{total} = {words.number(value)}") if c.terms else words.number(value)
    return f"{name} {sign} {result} {clash} {words.amount(end, unit)}", ends


def _notes(c: Conflict, proof: str) -> list[str]:
    notes = [f"proof: {proof}"]
    if not c.minimal:
        notes.append("the list of lines may not be minimal: there are too many to try")
    elif c.relaxed and len(c.lines) > 1:
        notes.append("the proof uses a bound: no line of these can be left out of it, yet fewer may conflict too")
    if c.alike:
        notes.append(f"the same holds for {words.listed(c.alike)}")
    return notes


def _demand(line: Line, evidence: Evidence) -> str:
    match line.constraint.set:
        case Kept():
            return f"keeps {words.number(line.low or 0)}"
        case NofM():
            return f"keeps at most {words.number(line.high or 0)}"
    return words.asked(line, dense(line, evidence))


def _distinct(subject: Line, others: Sequence[Line]) -> list[Line]:
    """One line for each place in the file: instances of a ∀ share theirs."""
    by_place = {x.constraint.span: x for x in reversed(others)}
    by_place.pop(subject.constraint.span, None)
    return sorted(by_place.values(), key=lambda x: x.index)


def _certificate(line: Line, ends: Mapping[str, object]) -> dict[str, object]:
    found = {k: v for k, v in ends.items() if v is not None}
    return {"function": words.function(line), **found, "unit": line.constraint.function.unit}


# ── lines that do nothing, or everything ─────────────────────────────────────────────────────────────────────────


def never_binds(x: Implied, evidence: Evidence) -> Diagnostic:
    """P301: which lines imply this one, with the arithmetic."""
    line = evidence.lines[x.line]
    by = [evidence.lines[i] for i in x.by]
    if by:
        why = f"{words.listed(b.label for b in by)} {'implies' if len(by) == 1 else 'imply'} it"
    elif x.range is not None:
        why = "the other lines together imply it"
    elif isinstance(line.constraint.function, FactorCost):
        why = "the largest ranks already satisfy it"
    else:
        why = "the dense network already satisfies it" if line.low is None else "all weights satisfy it"
    return Diagnostic(
        code="P301",
        severity="note",
        message=f"`{line.label}` can never bind: {why}",
        span=line.constraint.span,
        label=words.asked(line, dense(line, evidence)),
        secondary=tuple(Label(b.constraint.span, _demand(b, evidence)) for b in _distinct(line, by)),
        notes=(
            *_reach(line, x.range, evidence),
            *((f"the same holds for {words.listed(x.alike)}",) if x.alike else ()),
        ),
        certificate={
            **_certificate(line, {} if x.range is None else {"lower": x.range.lower, "upper": x.range.upper}),
            "by": [b.label for b in by],
        },
    )


def _reach(line: Line, r: Range | None, evidence: Evidence) -> list[str]:
    """``sparse_macs ≤ 13 310 ≤ 79 860``, and its mirror for a lower bound."""
    least, most = (r.lower, r.upper) if r is not None else extremes(line, evidence.sizes)
    name, unit = words.function(line), line.constraint.function.unit
    found = []
    if line.high is not None and most is not None:
        found.append(f"{name} ≤ {words.number(most)} ≤ {words.amount(line.high, unit)}")
    if line.low is not None and least is not None:
        found.append(f"{name} ≥ {words.number(least)} ≥ {words.amount(line.low, unit)}")
    return found


def can_bind(line: Line, r: Range, evidence: Evidence) -> Diagnostic:
    """P302: how much of the dense value the other lines allow."""
    whole = dense(line, evidence) or 0
    share = words.percentage(r.upper or 0, whole, up=True)
    up_to = f"{'exactly' if r.exact else 'at most'} {words.amount(r.upper or 0, line.constraint.function.unit)}"
    return Diagnostic(
        code="P302",
        severity="note",
        message=f"`{line.label}` can bind: the other lines allow up to {share} of the dense value",
        span=line.constraint.span,
        label=words.asked(line, whole),
        notes=(f"the most that the others allow is {up_to}",),
        certificate=_certificate(line, {"lower": r.lower, "upper": r.upper}),
    )


def leaves_nothing(line: Line, evidence: Evidence) -> Diagnostic | None:
    """P303 for an upper bound that forces every weight it speaks of to zero."""
    if not _forces_zero(line, evidence):
        return None
    return Diagnostic(
        code="P303",
        severity="warning",
        message=f"`{line.label}` leaves nothing: every weight it speaks of must be zero",
        span=line.constraint.span,
        label=words.asked(line, dense(line, evidence)),
    )


def cuts_off(line: Line, evidence: Evidence) -> Diagnostic | None:
    """P465 for a structural bound below what one member of each group costs: some group keeps none."""
    if line.channels is None or line.high is None:
        return None
    ones = [1] * len(line.channels.cost.groups)
    value = line.channels.cost.value(ones)
    if value <= line.high:
        return None
    name, unit = words.function(line), line.constraint.function.unit
    total = f"{line.channels.sum_of(ones)} = {words.number(value)}"
    return Diagnostic(
        code="P465",
        severity="warning",
        message=f"`{line.label}` leaves a coupling group without members: nothing passes through it",
        span=line.constraint.span,
        label=words.asked(line, dense(line, evidence)),
        notes=(f"with one member of each group {name} = {total} > {words.amount(line.high, unit)}",),
        hint=f"the smallest bound that leaves one of each: ≤ {words.amount(value, unit)}",
    )


def stays_dense(line: Line, evidence: Evidence) -> Diagnostic | None:
    """P466 for a structural bound that speaks of groups whose members cannot be removed, with the reasons."""
    f = line.constraint.function
    if not isinstance(f, Structural) or line.high is None or line.high >= f.dense:
        return None
    notes = held_dense(line, evidence)
    if not notes:
        return None
    return Diagnostic(
        code="P466",
        severity="note",
        message=f"`{line.label}` counts channels that cannot be removed: they stay dense",
        span=line.constraint.span,
        notes=notes,
    )


def held_dense(line: Line, evidence: Evidence) -> tuple[str, ...]:
    """The groups of a structural function that keep all their members, and why."""
    f = line.constraint.function
    found = reasons(f, evidence.table) if isinstance(f, Structural) else ()
    more = (f"… and {len(found) - MOST_REASONS} more",) if len(found) > MOST_REASONS else ()
    return (*found[:MOST_REASONS], *more)


def _forces_zero(line: Line, evidence: Evidence) -> bool:
    if isinstance(line.constraint.function, Structural) and evidence.table.channels:
        return False  # what it leaves is said in members: see `cuts_off`
    if isinstance(line.constraint.set, NofM):
        return line.constraint.set.n == 0 and bool(line.below)
    least, _ = extremes(line, evidence.sizes)
    if line.high is None or least is None or not line.constraint.structural:
        return False
    if line.per:
        return line.high < 1
    if line.below:
        return all(least + min(a + c for a, c in p) - min(c for _, c in p) > line.high for p in line.below.values())
    return line.high == 0
