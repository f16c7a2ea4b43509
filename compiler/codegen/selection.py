"""Emitters of what looks at data that is not trained on: `base`; and what no script carries out."""

from __future__ import annotations

from prunelang.compiler.codegen.expressions import quoted
from prunelang.compiler.codegen.program import Program
from prunelang.compiler.codegen.stopping import measured
from prunelang.compiler.description import NAME as DESCRIPTION
from prunelang.compiler.graph import KeepBest, Observe, Search, Sweep, walk
from prunelang.compiler.synops import MEASURED as ACTIVITY
from prunelang.dsl.diagnostics import Diagnostic, SpecError


def observe(step: Observe, p: Program) -> None:
    """``base_i = value`` for each floor that speaks of `base`."""
    p.writer.comment(step.line())
    for i, floor in enumerate(step.floors):
        name = p.bases.setdefault((floor.label, floor.split), f"base_{i + 1}")
        p.writer.line(f"{name} = {measured(floor.name, floor.split, dict(floor.arguments), p)}")
        p.writer.line(f"print(f{quoted(f'base: {floor.name} on {floor.split} {{{name}:.6g}}')})")


def require_no_coded_length(p: Program) -> None:
    """Raises `SpecError` (P459) for a graph that measures a description length on its way."""
    steps = (s for s in walk(p.graph.program) if isinstance(s, Observe | KeepBest))
    labels = {floor.label for s in steps for floor in s.floors if floor.name == DESCRIPTION}
    found = [
        Diagnostic(
            "P459",
            "error",
            f"a script writes no coded files, and `{c.label}` is measured on one while it trains",
            c.span,
            hint="`prune run` it, or leave the constraint out and measure what the script saves",
        )
        for c in p.plan.problem.constraints
        if c.label in labels
    ]
    if found:
        raise SpecError(found, p.plan.source)


def require_no_activity(p: Program) -> None:
    """Raises `SpecError` (P477) for a spec with a constraint on what neurons do."""
    found = [
        Diagnostic(
            "P477",
            "error",
            f"a script measures no firing rates, and `{c.label}` is decided by them",
            c.span,
            hint="`prune run` it, or emit it with a count in the place of this line",
        )
        for c in p.plan.problem.constraints
        if c.function.name in ACTIVITY
    ]
    if found:
        raise SpecError(found, p.plan.source)


def require_no_splitting(p: Program) -> None:
    """Raises `SpecError` (P494) for a graph that splits the network into its layers."""
    if any(isinstance(s, Sweep) for s in walk(p.graph.program)):
        found = [
            Diagnostic("P494", "error", f"`{s.solver.word}` is not written as a script", s.span, hint="`prune run` it")
            for s in p.plan.stages
            if s.solver is not None and not s.solver.descends
        ]
        raise SpecError(found, p.plan.source)


def require_no_search(p: Program) -> None:
    """Raises `SpecError` (P450) for a graph that searches."""
    if not any(isinstance(s, Search) for s in walk(p.graph.program)):
        return
    objective = p.plan.problem.objective
    found = Diagnostic(
        "P450",
        "error",
        "a search is not written as a script: how often it trains depends on what it measures",
        objective.span,
        hint="`prune run` it, then emit the forward problem with the bound that it found: `minimize L s.t. ‖w‖₀ ≤ κ`",
    )
    raise SpecError([found], p.plan.source)
