"""What a person reads: resolved budgets of a check, and the table asked / got / margin / price of a run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelang.compiler.factor_words import set_text
from prunelang.compiler.problem import Blocks, Constraint, Interval, Kept, Named, NofM, Relative
from prunelang.dsl.diagnostics import Diagnostic
from prunelang.dsl.numbers import grouped

if TYPE_CHECKING:
    from prunelang.compiler.plan import Plan
    from prunelang.execution import Solution
    from prunelang.runtime.certificate import Certificate, Line

FORMAT_VERSION = "1.0"


def columns(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset(), indent: str = "  ") -> str:
    """Aligned columns; those in `right` to the right."""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True)))
        for r in rows
    )
    return "\n".join((indent + line).rstrip() for line in lines)


# ── check ────────────────────────────────────────────────────────────────────────────────────────────────────────


def bound_text(c: Constraint) -> str:
    """The bound in integers where it has one: ``≤ 13 310 of 266 200``."""
    unit = f" {c.function.unit}" if c.function.unit else ""
    match c.set:
        case Interval(lower, upper):
            low = "" if lower is None else f"≥ {_exact(lower)}"
            high = "" if upper is None else f"≤ {_exact(upper)}"
            of = "" if c.dense is None else f" of {grouped(c.dense)}"
            return " and ".join(x for x in (low, high) if x) + of + unit
        case Relative(relation, factor, offset):
            sign = "−" if offset < 0 else "+"
            return f"{relation} {float(factor):g}·base" + (f" {sign} {abs(float(offset)):g}" if offset else "") + unit
        case Kept():
            return "every entry kept"
        case NofM(n, m):
            return f"≤ {n} of every {m} in a row"
        case Blocks(rows, columns):
            return f"whole {rows} × {columns} blocks"
        case Named() as named:
            return f"in {set_text(named)}"


def _exact(value: Fraction | int) -> str:
    return grouped(int(value)) if value == int(value) else f"{float(value):g}"


def budgets_text(plan: Plan) -> str:
    """One line a constraint: label, function, what was asked, and what that is in integers."""
    rows = [(c.label, c.function.name, c.asked, bound_text(c)) for c in plan.problem.constraints]
    if not rows:
        return "no constraints"
    return columns([("constraint", "function", "asked", "bound"), *rows])


def budgets_json(plan: Plan) -> list[dict[str, Any]]:
    """The same as data. Bounds that are no integers are exact fractions as text; relative ones stand in `set`."""
    return [
        {
            "label": c.label,
            "function": c.function.name,
            "asked": c.asked,
            "unit": c.function.unit,
            "dense": c.dense,
            "structural": c.structural,
            "lower": _number(c.set.lower) if isinstance(c.set, Interval) else None,
            "upper": _number(c.set.upper) if isinstance(c.set, Interval) else None,
            "set": None if isinstance(c.set, Interval) else bound_text(c),
        }
        for c in plan.problem.constraints
    ]


def _number(value: Fraction | int | None) -> int | str | None:
    return None if value is None else int(value) if value == int(value) else str(value)


def summary(name: str, found: Iterable[Diagnostic]) -> str:
    """``lenet.prune: 0 errors, 1 warning, 2 notes``."""
    severities = [d.severity for d in found]

    def count(word: str) -> str:
        n = severities.count(word)  # type: ignore[arg-type]  # the three words are the severities
        return f"{n} {word}{'' if n == 1 else 's'}"

    return f"{name}: {count('error')}, {count('warning')}, {count('note')}"


# ── run ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def result_text(solution: Solution) -> str:
    """The table of a run, how long it took, and what no constraint says but everybody wants to know."""
    text = f"{certificate_text(solution.certificate, solution.directory)}   {solution.seconds:.1f} s"
    if not solution.emptied:
        return text
    layers = ", ".join(f"`{name}`" for name in solution.emptied)
    floor = f'‖net["{solution.emptied[0]}"].weights‖₀ ≥ 1%'
    return (
        f"{text}\n  warning: {layers} has no weight left, so that its input is lost; a floor such as {floor} keeps some"
    )


def certificate_text(certificate: Certificate, directory: Path) -> str:
    """Asked, got, margin and price of every constraint, then the report items and the status."""
    rows = [("constraint", "asked", "bound", "got", "margin", "price", "", "")]
    for line in certificate.constraints:
        bound, got, margin, price = (grouped_text(text) for text in line.shown())
        mark = {True: "✓", False: "✗", None: "?"}[line.satisfied]
        rows.append((line.label, line.asked, bound, got, margin, price, line.unit, mark))
    parts = [columns(rows, frozenset({2, 3, 4, 5}))] if certificate.constraints else []
    if certificate.report:
        items = [(item.title, grouped_text(item.shown()), item.split or "") for item in certificate.report]
        parts.append(columns(items, frozenset({1})))
    said = [(x.label, text) for x in certificate.constraints for text in (_base(x), x.statement, x.remark) if text]
    parts += ["\n".join(f"  `{label}`: {text}" for label, text in said)] if said else []
    if certificate.resumed:
        parts.append(f"  {resumed_text(certificate)}")
    parts.append(f"  status: {certificate.status}   {directory / 'certificate.json'}")
    return "\n\n".join(parts)


def resumed_text(certificate: Certificate) -> str:
    """What a run says that was taken up again in a mode that does not promise the same bits."""
    often = "once" if certificate.resumed == 1 else f"{certificate.resumed} times"
    return f"Resumed {often} without `--deterministic`: a run that is left alone may differ in its last bits."


def _base(line: Line) -> str:
    """What `base` was, where a bound speaks of it."""
    if line.base is None:
        return ""
    where = f" on {line.split}" if line.split else ""
    return f"base = {float(Fraction(line.base)):.6g}{f' {line.unit}' if line.unit else ''}{where}"


def grouped_text(text: str) -> str:
    """``13310`` as ``13 310``, in a text of numbers and units."""
    return re.sub(r"(?<![\d.])\d{4,}(?!\.?\d)", lambda m: grouped(int(m[0])), text)


def result_json(solution: Solution) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "directory": str(solution.directory),
        "seconds": round(solution.seconds, 3),
        "failure": solution.failure,
        "interrupted": solution.interrupted,
        "emptied_layers": list(solution.emptied),
        "certificate": solution.certificate.to_json(),
    }


def report_markdown(solution: Solution, spec: str, name: str) -> str:
    """``report.md`` of a run directory."""
    return f"# {name}\n\n```\n{result_text(solution)}\n```\n\n## The spec\n\n```prune\n{spec.rstrip()}\n```\n"
