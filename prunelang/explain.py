"""`prune explain`: the stages of compilation in their printed forms."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from prunelang.compiler.description import explained as description_lines
from prunelang.compiler.description import penalty_form
from prunelang.compiler.factor_words import explained as factor_lines
from prunelang.compiler.options import Options
from prunelang.compiler.plan import Plan, StagePlan
from prunelang.compiler.problem import Measured, Problem, Term, tensors_of
from prunelang.compiler.pruners.base import removable
from prunelang.compiler.resources import explained as resource_lines
from prunelang.compiler.reversed import forward
from prunelang.compiler.runnability import solved_problem
from prunelang.compiler.schedule import SCHEDULES, evaluate, is_constant
from prunelang.compiler.solvers.base import Solver, compressed, solvers
from prunelang.compiler.stopping import ending
from prunelang.compiler.synops import explained as activity_lines
from prunelang.dsl.diagnostics import SpecError, render
from prunelang.dsl.numbers import grouped
from prunelang.report import FORMAT_VERSION, budgets_json, budgets_text, columns

if TYPE_CHECKING:
    from prunelang.api import Program
    from prunelang.compiler.proofs import Proof

STAGES = ("all", "spec", "problem", "proofs", "solver", "graph")


def explain(program: Program, stage: str = "all") -> str:
    """One stage, or all but the spec's own text under headings."""
    parts = {"spec": _spec, "problem": _problem, "proofs": _proofs, "solver": _solver, "graph": _graph}
    if stage != "all":
        return parts[stage](program)
    chosen = ("problem", "proofs", "solver", "graph")
    return "\n".join(f"── {name} {'─' * (76 - len(name))}\n{parts[name](program)}" for name in chosen)


def explain_json(program: Program, stage: str = "all") -> dict[str, Any]:
    """The same stages as data: budgets, proofs, the stages of the run, the graph."""
    parts: dict[str, Callable[[], Any]] = {
        "spec": lambda: _spec(program),
        "problem": lambda: _problem_json(program.plan),
        "proofs": lambda: [{"label": p.label, "verdict": p.verdict, "text": str(p)} for p in _proved(program)],
        "solver": lambda: [_stage_json(s, forward(program.plan.problem)) for s in program.plan.stages],
        "graph": lambda: _graph_json(program),
    }
    chosen = tuple(parts) if stage == "all" else (stage,)
    return {"format_version": FORMAT_VERSION, "file": program.plan.source.name} | {s: parts[s]() for s in chosen}


def _problem_json(plan: Plan) -> dict[str, Any]:
    made_of = [dict(zip(("label", "tensors", "text"), row, strict=True)) for row in factor_lines(plan)]
    return {"model": plan.model.text, "budgets": budgets_json(plan)} | ({"made_of": made_of} if made_of else {})


def is_code(subject: str) -> bool:
    """Whether this is the code of a diagnostic, such as P310, rather than a file."""
    return re.fullmatch(r"[Pp]\d{3}", subject) is not None


def code_text(subject: str) -> str | None:
    """The page of a diagnostic's code; None where there is no such code."""
    from prunelang.compiler.codes import page

    return page(subject)


def code_json(subject: str) -> dict[str, Any]:
    """The same as data."""
    from prunelang.compiler.codes import CODES

    return {"format_version": FORMAT_VERSION, **asdict(CODES[subject.upper()])}


# ── spec, problem, proofs ────────────────────────────────────────────────────────────────────────────────────────


def _spec(program: Program) -> str:
    from prunelang.dsl.formatter import format_spec

    return format_spec(program.plan.source.text)


def _problem(program: Program) -> str:
    plan = program.plan
    objective = plan.problem.objective
    kernels = sum(t.size for t in plan.table.tensors if t.role == "weight")
    lines = [
        f"{plan.model.text}: {counted(len(plan.table.layers), 'layer')}, {grouped(kernels)} kernel weights",
        f"{objective.sense}  " + " + ".join(map(term_text, objective.terms)),
    ]
    constraints = plan.problem.constraints
    if constraints:
        lines += ["subject to", budgets_text(plan)]
        matched = [(c.label, tensors_of(c.function)) for c in constraints]
        rows = [(label, counted(len(names), "tensor"), _some(names)) for label, names in matched if names]
        lines += ["matched", columns(rows)] if rows else []
    made_of = [row for row in factor_lines(plan) if any(row)]
    lines += ["made of", columns(made_of)] if made_of else []
    if plan.problem.frozen:
        lines.append("frozen  " + ", ".join(sorted(plan.problem.frozen)))
    return "\n".join(lines) + "\n"


def term_text(term: Term) -> str:
    """One term of the objective with its weight."""
    name = term.text or term.function.name
    split = f" on {term.function.split}" if isinstance(term.function, Measured) else ""
    if isinstance(term.weight, SCHEDULES):
        weight = f"({term.weight}) · "
    else:
        weight = "" if term.weight == 1 else f"{float(term.weight):g} · "
    return f"{weight}{name}{split}"


def _some(names: tuple[str, ...], most: int = 4) -> str:
    return ", ".join([*names[:most], *([f"… {len(names) - most} more"] if len(names) > most else [])])


def counted(number: int, what: str) -> str:
    """``1 layer``, ``3 layers``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _proved(program: Program) -> tuple[Proof, ...]:
    from prunelang.compiler.proofs import prove

    return prove(program.plan.problem, program.plan.table).proofs


def _proofs(program: Program) -> str:
    return "".join(f"{proof}\n" for proof in _proved(program)) or "no constraint is decided by shapes\n"


# ── solver ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _solver(program: Program) -> str:
    lines: list[str] = []
    for stage in program.plan.stages:
        lines += _stage(stage, forward(program.plan.problem))
        if stage.pruner is not None:
            lines += _spared(program.plan)
        if stage.solver is not None:
            lines += description_lines(program.plan)
            lines += [f"    {line}" for line in activity_lines(program.plan, stage)]
            lines += [f"    {line}" for line in resource_lines(program.plan, stage)]
            lines += _implied(stage, program)
            lines += _alternatives(stage, program)
    return "\n".join(lines) + "\n" if lines else "no stage: nothing is trained\n"


def _stage(s: StagePlan, problem: Problem) -> Iterator[str]:
    if s.pruner is not None:
        yield f"{s.kind} {_call(s.pruner)}"
        yield from (f"    reads {split}" for split in s.pruner.splits)
        return
    yield s.kind if s.solver is None else f"{s.kind} {_call(s.solver)}"
    if s.solver is None or s.solver.descends:
        yield f"    for {_length(s)} with {_call(s.optimizer)}"
        yield from (f"    {line}" for line in ending(s, problem))
        yield "    descends on " + (" + ".join(map(term_text, s.losses)) or "nothing")
    if s.because:
        yield f"    chosen: {s.because}"


def _spared(plan: Plan) -> Iterator[str]:
    """The tensors that a pruner leaves as they are, although constraints speak of them."""
    problem = solved_problem(plan)
    spared = removable(problem, tuple(t.name for t in plan.table.tensors if t.name in compressed(problem)))[1]
    if spared:
        yield f"    leaves {', '.join(spared)}, which may not lose positions"


def _alternatives(s: StagePlan, program: Program) -> Iterator[str]:
    """What the other solvers say to this problem: those that would take it, and by reason those that would not."""
    assert s.solver is not None
    problem = forward(penalty_form(program.plan.problem, program.plan.table))
    by_reason: dict[str, list[str]] = {}
    for word, other in solvers().items():
        if word != s.solver.word:
            reason = next((r.reason.removeprefix(f"`{word}` ") for r in other().refusals(problem)), "")
            by_reason.setdefault(reason, []).append(word)
    if takers := by_reason.pop("", []):
        yield f"    {', '.join(takers)} would take it too"
    for reason, words in by_reason.items():
        yield f"    not taken by {', '.join(words)}: {reason.removeprefix('does not take ')}"


def _implied(s: StagePlan, program: Program) -> Iterator[str]:
    """What the stage solves in effect, where its solver has something to say and the length of an epoch is known."""
    assert s.solver is not None
    if type(s.solver).implied is Solver.implied:  # says nothing: the data need not be looked at
        return
    if not program.plan.problem.objective.terms or unknown_size(program) is not None:
        return
    batches = -(-program.train_size // program.plan.data.batch)
    yield from (f"    {line}" for line in s.solver.implied(s, solved_problem(program.plan), batches))


def _length(s: StagePlan) -> str:
    """``20 × 1 epochs = 20 epochs``: of an inner loop, and of all of them."""
    d = s.duration
    steps = getattr(s.solver, "steps", None) if s.solver is not None and s.solver.outer else None
    if steps is None:
        return f"{d.value} {d.unit}"
    if is_constant(d.value):
        return f"{steps} × {d.value} {d.unit} = {steps * evaluate(d.value, {}):g} {d.unit}"
    total = sum(max(1, round(evaluate(d.value, {"k": float(k), "p": k / steps}))) for k in range(steps))
    return f"{steps} × {d.value} {d.unit} = {total} {d.unit}"


def _call(options: Options) -> str:
    """``sgd(lr = 0.1, momentum = 0.9, …)`` with every option that has a value."""
    values = ((name, getattr(options, name)) for name in type(options).model_fields)
    shown = (f"{k} = {str(v).lower() if isinstance(v, bool) else v}" for k, v in values if v is not None)
    return f"{options.word}({', '.join(shown)})"


def _stage_json(s: StagePlan, problem: Problem) -> Mapping[str, Any]:
    if s.pruner is not None:
        return {"kind": s.kind, "pruner": _call(s.pruner), "reads": list(s.pruner.splits)}
    return {
        "kind": s.kind,
        "solver": None if s.solver is None else _call(s.solver),
        "optimizer": _call(s.optimizer),
        "length": _length(s),
        "ends": list(ending(s, problem)),
        "descends_on": [term_text(t) for t in s.losses],
        "because": s.because or None,
    }


# ── graph ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _graph(program: Program) -> str:
    try:
        reason = unknown_size(program)
        return program.listing() if reason is None else f"not lowered: {reason}\n"
    except SpecError as error:
        return render(error.diagnostics, error.source) + "\n"


def _graph_json(program: Program) -> Mapping[str, Any]:
    try:
        reason = unknown_size(program)
        return program.to_json() if reason is None else {"not_lowered": reason}
    except SpecError as error:
        return {"not_lowered": [d.to_json(error.source) for d in error.diagnostics]}


def unknown_size(program: Program) -> str | None:
    """Why the number of training samples, and with it the length of an epoch, is not known; None if it is."""
    try:
        _ = program.train_size
    except Exception as error:
        # the catalog did not know, so the data was looked for, and torch is loaded by now
        from prunelang.runtime.data.dataset import DataUnavailable

        if not isinstance(error, DataUnavailable):
            raise
        return f"the length of an epoch is not known, since {error.message}"
    return None
