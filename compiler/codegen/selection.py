"""`base` in the script: what is measured before the first solve."""

from __future__ import annotations

from prunelang.compiler.codegen import judging
from prunelang.compiler.codegen.expressions import quoted
from prunelang.compiler.codegen.program import Program
from prunelang.compiler.codegen.stopping import measured
from prunelang.compiler.graph import Observe


def observe(step: Observe, p: Program) -> None:
    """``base_i = value`` for each floor that speaks of `base`."""
    if p.judging:
        judging.observe(step, p)
        return
    p.writer.comment(step.line())
    for i, floor in enumerate(step.floors):
        name = p.bases.setdefault((floor.label, floor.split), f"base_{i + 1}")
        p.writer.line(f"{name} = {measured(floor.name, floor.split, dict(floor.arguments), p)}")
        p.writer.line(f"print(f{quoted(f'base: {floor.name} on {floor.split} {{{name}:.6g}}')})")
