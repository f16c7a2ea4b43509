"""What holds of a minimax in every graph: levels, selections, duals and multipliers that belong together."""

from __future__ import annotations

from collections.abc import Iterator

from prunelang.compiler.graph.base import Graph, Step, walk
from prunelang.compiler.graph.minimax import Confine, Multipliers, Saddle, Select, Selection, Shrink, Sparsity
from prunelang.compiler.graph.state import Dual, Weights
from prunelang.compiler.graph.steps import Batches


def games(graph: Graph) -> Iterator[str]:
    """Findings: levels of tensors that are not in their weights, budgets of levels that do not exist, moves of numbers
    that belong to other levels, and selections that a batch uses before it makes them."""
    nodes = {s.name: s for s in graph.state}
    tensors = {s.name: set(s.tensors) for s in graph.state if isinstance(s, Weights)}
    for state in graph.state:
        if isinstance(state, Sparsity):
            yield from _levels(state, tensors.get(state.of, set()))
        if isinstance(state, Multipliers):
            yield from _budgets(state, nodes.get(state.of))
    owner = {s.name: s.of for s in graph.state if isinstance(s, Selection | Multipliers)}
    owner |= {s.name: s.like for s in graph.state if isinstance(s, Dual)}
    for step in walk(graph.program):
        if isinstance(step, Select) and owner.get(step.selection) != step.levels:
            yield f"`{step.line()}` selects by `{step.levels}`, which `{step.selection}` is not of"
        if isinstance(step, Shrink) and owner.get(step.dual) != owner.get(step.selection):
            yield f"`{step.line()}`: `{step.dual}` and `{step.selection}` are of different levels"
        if isinstance(step, Saddle):
            yield from _moves(step, owner)
        if isinstance(step, Batches):
            yield from _order(step.body)


def _levels(state: Sparsity, known: set[str]) -> Iterator[str]:
    for items in state.items:
        for name in sorted({*items.tensors, *(p.tensor for p in items.pieces)} - known):
            yield f"`{state.name}` has a level of `{name}`, which is not in `{state.of}`"
        if not 0 <= items.least <= items.size or items.size < 1:
            yield f"`{state.name}`: level {items.name} keeps {items.least} of {items.size} items"


def _budgets(state: Multipliers, levels: object) -> Iterator[str]:
    count = len(levels.items) if isinstance(levels, Sparsity) else 0
    for r in state.resources:
        if any(not 0 <= i < count for i in r.levels()):
            yield f"`{state.name}`: the budget `{r.label}` speaks of a level that `{state.of}` does not have"
    if state.weights and len(state.weights) != len(state.resources):
        yield f"`{state.name}` has {len(state.weights)} weights for {len(state.resources)} costs"


def _moves(step: Saddle, owner: dict[str, str]) -> Iterator[str]:
    a = step.allocate
    for name in (a.dual, a.multipliers, a.selection):
        if owner.get(name) != a.levels:
            yield f"`{a.line()}` moves `{a.levels}` by `{name}`, which is not of it"
    if (step.order == "nupi") != (len(step.past) == 2):
        yield f"`{step.line()}` remembers {len(step.past)} of y and z"


def _order(body: tuple[Step, ...]) -> Iterator[str]:
    """In every step a selection is made before it is used."""
    made: set[str] = set()
    for step in body:
        used = step.selection if isinstance(step, Shrink | Confine) else None
        used = step.allocate.selection if isinstance(step, Saddle) else used
        if used is not None and used not in made:
            yield f"`{step.line()}` uses `{used}`, which was not selected in this step"
        if isinstance(step, Select):
            made.add(step.selection)
