"""`prune explain --format mermaid`: the graph as a flowchart, loops as boxes around what they repeat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from prunelang.compiler.graph.base import Graph, Step
from prunelang.compiler.graph.steps import Batches, Outer, Phase

ENTITIES = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;", "\\": "#92;"}


def mermaid(graph: Graph) -> str:
    """A ``flowchart`` that any Mermaid sets, with nothing in it that is not quoted."""
    made = _Chart()
    made.lines.append("flowchart TB")
    made.lines.append(f"    %% {_comment(graph.title)}")
    made.lines.append('    subgraph state["state"]')
    made.lines.append("        direction LR")
    made.lines += [f'        s{i}[("{quoted(s.line())}")]' for i, s in enumerate(graph.state, 1)]
    made.lines.append("    end")
    first, last = made.sequence(graph.program, 1)
    made.lines += [f"    {edge}" for edge in made.edges]
    made.lines += ['    begin(["begin"])', f"    begin --> {first}", '    done(["end"])', f"    {last} --> done"]
    return "\n".join(made.lines) + "\n"


@dataclass
class _Chart:
    """Lines under construction: nodes and boxes where they stand, all arrows behind them."""

    lines: list[str] = field(default_factory=list)
    edges: list[str] = field(default_factory=list)
    count: int = 0

    def sequence(self, program: tuple[Step, ...], depth: int) -> tuple[str, str]:
        """The steps one below the other, joined by arrows; the first node and the last."""
        places = [self.step(step, depth) for step in program]
        for (_, before), (after, _) in pairwise(places):
            self.edges.append(f"{before} --> {after}")
        return places[0][0], places[-1][1]

    def step(self, step: Step, depth: int) -> tuple[str, str]:
        """One step: a node, or a box with what it repeats."""
        self.count += 1
        own, indent = f"n{self.count}", "    " * depth
        bodies = [(heading, body) for heading, body in step.bodies() if body]
        if not bodies:
            self.lines.append(f'{indent}{own}["{quoted(step.line())}"]')
            return own, own
        self.lines.append(f'{indent}subgraph {own}["{quoted(step.line().rstrip(":"))}"]')
        self.lines.append(f"{indent}    direction TB")
        ends = list(self._bodies(bodies, depth + 1))
        for (_, before), (after, _) in pairwise(ends):
            self.edges.append(f"{before} --> {after}")
        self.lines.append(f"{indent}end")
        first, last = ends[0][0], ends[-1][1]
        again = _again(step)
        if again:
            self.edges.append(f'{last} -. "{quoted(again)}" .-> {first}')
        return first, last

    def _bodies(self, bodies: list[tuple[str, tuple[Step, ...]]], depth: int) -> Iterator[tuple[str, str]]:
        for heading, body in bodies:
            if not heading:
                yield self.sequence(body, depth)
                continue
            self.count += 1
            box, indent = f"n{self.count}", "    " * depth
            self.lines.append(f'{indent}subgraph {box}["{quoted(heading.rstrip(":"))}"]')
            self.lines.append(f"{indent}    direction TB")
            ends = self.sequence(body, depth + 1)
            self.lines.append(f"{indent}end")
            yield ends


def _again(step: Step) -> str:
    """What the way back to the head of a loop says."""
    if isinstance(step, Outer):
        return "next k"
    if isinstance(step, Batches):
        return "next epoch" if step.each_epoch else "next batch"
    return "" if isinstance(step, Phase) else "again"


def quoted(text: str) -> str:
    """Text inside a quoted label: entities for all that Mermaid or HTML would read as its own."""
    return "".join(ENTITIES.get(c, " " if c.isspace() else c if c.isprintable() else "") for c in text).strip()


def _comment(text: str) -> str:
    """A comment ends with its line, and braces in it would begin a directive."""
    return " ".join(text.split()).replace("{", "(").replace("}", ")")
