"""The printed form of a graph: reads as the algorithm does in its paper."""

from __future__ import annotations

from prunelang.compiler.graph.base import Graph, Step
from prunelang.compiler.graph.state import Level
from prunelang.compiler.graph.steps import Outer


def listing(graph: Graph) -> str:
    """The whole graph, state first, then the program."""
    scheduled = {s.name: s.schedule for s in graph.state if isinstance(s, Level) and s.schedule is not None}
    lines = [f"# {graph.title}", *(s.line() for s in graph.state), ""]

    def add(program: tuple[Step, ...], depth: int) -> None:
        for step in program:
            indent = "    " * depth
            head = indent + step.line()
            if isinstance(step, Outer) and step.levels:
                shown = ";  ".join(f"{n} = {scheduled[n]}" for n in step.levels if n in scheduled)
                head = f"{head:<36} {shown}"
            lines.append(head)
            for heading, body in step.bodies():
                if not body:
                    continue
                if heading:
                    lines.append(f"{indent}    {heading}")
                add(body, depth + (2 if heading else 1))

    add(graph.program, 0)
    return "\n".join(lines) + "\n"
