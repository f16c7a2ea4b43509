"""`prune explain`: the stages of compilation in their printed forms."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from prunelang.compiler.graph import listing, to_json
from prunelang.compiler.plan import StagePlan
from prunelang.compiler.problem import Measured, Term, tensors_of
from prunelang.compiler.schedule import evaluate, is_constant
from prunelang.compiler.solvers.base import solvers
from prunelang.dsl.diagnostics import SpecError, render
from prunelang.report import budgets_text, columns, grouped

if TYPE_CHECKING:
    from prunelang.api import Program

STAGES = ("all", "spec", "problem", "proofs", "solver", "graph")


def explain(program: Program, stage: str = "all") -> str:
    """One stage, or all of them under headings."""
    parts = {"spec": _spec, "problem": _problem, "proofs": _proofs, "solver": _solver, "graph": _graph}
    if stage != "all":
        return parts[stage](program)
    chosen = ("problem", "proofs", "solver", "graph")
    return "\n".join(f"── {name} {'─' * (76 - len(name))}\n{parts[name](program)}" for name in chosen)


def explain_json(program: Program, stage: str) -> str:
    """The graph and the parts of the explanation as data."""
    from prunelang.report import budgets_json

    found: dict[str, Any] = {"format_version": "1.0", "budgets": budgets_json(program)}
    found["stages"] = [
        {"kind": s.kind, "solver": s.solver.word if s.solver else None, "because": s.because} for s in program.plan.stages
    ]
    if stage in ("all", "graph") and not any(d.severity == "error" for d in program.obstacles):
        found["graph"] = to_json(program.graph)
    return json.dumps(found, ensure_ascii=False, indent=1)


def explain_code(subject: str) -> str | None:
    """The page of a diagnostic's code, if `subject` is one."""
    from prunelang.compiler.codes import page

    return page(subject)


def _spec(program: Program) -> str:
    from prunelang.dsl.formatter import format_spec

    return format_spec(program.plan.spec)


def _problem(program: Program) -> str:
    plan = program.plan
    objective = plan.problem.objective
    lines = [
        f"{plan.model.text}: {len(plan.table.layers)} layers, "
        f"{grouped(sum(t.size for t in plan.table.tensors if t.role == 'weight'))} kernel weights",
        f"{objective.sense}  " + " + ".join(_term(t) for t in objective.terms),
    ]
    if plan.problem.constraints:
        lines += ["subject to", budgets_text(program)]
        matched = [(c.label, f"{len(tensors_of(c.function))} tensors", ", ".join(_some(tensors_of(c.function)))) for c in plan.problem.constraints]
        lines += ["matched", columns(matched)]
    if plan.problem.frozen:
        lines.append("frozen  " + ", ".join(sorted(plan.problem.frozen)))
    return "\n".join(lines) + "\n"


def _term(term: Term) -> str:
    weight = "" if term.weight == 1 else f"{float(term.weight):g} · " if not hasattr(term.weight, "arguments") else f"({term.weight}) · "
    split = f" on {term.function.split}" if isinstance(term.function, Measured) else ""
    return f"{weight}{term.text or term.function.name}{split}"


def _some(names: tuple[str, ...], most: int = 6) -> list[str]:
    return [*names[:most], *([f"… {len(names) - most} more"] if len(names) > most else [])]


def _proofs(program: Program) -> str:
    from prunelang.compiler.bounds import prove

    return prove(program.plan.problem, program.plan.table).text() + "\n"


def _solver(program: Program) -> str:
    lines = []
    for s in program.plan.stages:
        lines.append(f"{s.kind}: {_length(s)} with {_optimizer(s)}")
        lines.append("    descends on " + " + ".join(t.text or t.function.name for t in s.losses))
        if s.solver is None:
            continue
        if s.because:
            lines.append(f"    chosen: {s.because}")
        for word, other in solvers().items():
            if word == s.solver.word:
                continue
            reasons = [r.reason for r in other().refusals(program.plan.problem)]
            lines.append(f"    {word}: {reasons[0] if reasons else 'would take it too'}")
    return "\n".join(lines) + "\n"


def _length(s: StagePlan) -> str:
    steps = getattr(s.solver, "steps", None) if s.solver is not None and s.solver.outer else None
    d = s.duration
    if steps is None:
        return f"{d.value} {d.unit}"
    if is_constant(d.value):
        return f"{steps} × {d.value} {d.unit} = {steps * evaluate(d.value, {}):g} {d.unit}"
    total = sum(max(1, round(evaluate(d.value, {"k": float(k), "p": k / steps}))) for k in range(steps))
    return f"{steps} × {d.value} {d.unit} = {total} {d.unit}"


def _optimizer(s: StagePlan) -> str:
    options = type(s.optimizer).model_fields
    shown = ", ".join(f"{k} = {str(v).lower() if isinstance(v, bool) else v}" for k in options if (v := getattr(s.optimizer, k)) is not None)
    return f"{s.optimizer.word}({shown})"


def _graph(program: Program) -> str:
    try:
        return listing(program.graph)
    except SpecError as error:
        return render(error.diagnostics, error.source) + "\n"
