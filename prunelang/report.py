"""What a person reads: resolved budgets of a check, and the table asked / got / margin / price of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from prunelang.compiler.problem import Blocks, Constraint, Interval, Kept, Named, NofM, Relative
from prunelang.dsl.diagnostics import Diagnostic

if TYPE_CHECKING:
    from prunelang.api import Program
    from prunelang.execution import Solution

FORMAT_VERSION = "1.0"


def grouped(value: int) -> str:
    """``13310`` as ``13 310``."""
    return f"{value:,}".replace(",", " ")


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
        case Named(name=name):
            return f"in {name}"


def _exact(value: Any) -> str:
    return grouped(int(value)) if value == int(value) else f"{float(value):g}"


def budgets_text(program: Program) -> str:
    """One line a constraint: label, function, what was asked, and what that is in integers."""
    rows = [(c.label, c.function.name, c.asked, bound_text(c)) for c in program.plan.problem.constraints]
    if not rows:
        return "no constraints"
    return columns([("constraint", "function", "asked", "bound"), *rows])


def budgets_json(program: Program) -> list[dict[str, Any]]:
    return [
        {
            "label": c.label,
            "function": c.function.name,
            "asked": c.asked,
            "unit": c.function.unit,
            "dense": c.dense,
            "structural": c.structural,
            **_interval(c),
        }
        for c in program.plan.problem.constraints
    ]


def _interval(c: Constraint) -> dict[str, Any]:
    if not isinstance(c.set, Interval):
        return {"lower": None, "upper": None, "set": getattr(c.set, "name", type(c.set).__name__.lower())}
    return {k: None if v is None else int(v) if v == int(v) else str(v) for k, v in (("lower", c.set.lower), ("upper", c.set.upper))}


def summary(name: str, found: Iterable[Diagnostic]) -> str:
    """``lenet.prune: 0 errors, 1 warning, 2 notes``."""
    severities = [d.severity for d in found]

    def count(word: str) -> str:
        n = severities.count(word)  # type: ignore[arg-type]  # the three words are the severities
        return f"{n} {word}{'' if n == 1 else 's'}"

    return f"{name}: {count('error')}, {count('warning')}, {count('note')}"


# ── run ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def result_text(solution: Solution) -> str:
    """The table of a run: asked, got, margin and price of every constraint, then the report items."""
    certificate = solution.certificate
    rows = [("constraint", "asked", "bound", "got", "margin", "price", "")]
    for line in certificate.constraints:
        rows.append((line.label, line.asked, *line.shown(), "✓" if line.satisfied else "✗"))
    parts = [columns(rows, frozenset({2, 3, 4, 5}))] if certificate.constraints else []
    if certificate.report:
        parts.append(columns([(r.title, r.shown(), r.split or "") for r in certificate.report], frozenset({1})))
    parts.append(f"  status: {certificate.status}   {solution.directory}/certificate.json   {solution.seconds:.1f} s")
    return "\n\n".join(parts)


def result_json(solution: Solution) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "directory": str(solution.directory),
        "seconds": round(solution.seconds, 3),
        "failure": solution.failure,
        "interrupted": solution.interrupted,
        "certificate": solution.certificate.to_json(),
    }


def report_markdown(solution: Solution, spec: str, name: str) -> str:
    """``report.md`` of a run directory."""
    return f"# {name}\n\n```\n{result_text(solution)}\n```\n\n## The spec\n\n```prune\n{spec.rstrip()}\n```\n"
