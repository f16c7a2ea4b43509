"""The minimax under budgets in the script: levels and multipliers, and the game that the executor plays too."""

from __future__ import annotations

from dataclasses import fields

from prunelang.compiler.codegen import judging
from prunelang.compiler.codegen.expressions import layout, literal, quoted
from prunelang.compiler.codegen.feasible import frozen_cost
from prunelang.compiler.codegen.program import Program
from prunelang.compiler.codegen.writer import Group, Piece
from prunelang.compiler.graph import (
    Batches,
    Confine,
    Finish,
    Items,
    Multipliers,
    Resource,
    Saddle,
    Select,
    Selection,
    Shrink,
    Sparsity,
    Start,
    walk,
)
from prunelang.compiler.joint import ChoiceBound, CountBound, from_json

GAME = "prunelang.runtime.game"
RESOURCE = "prunelang.compiler.graph.resource"
NODES = "prunelang.compiler.graph.minimax"

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────


def sparsity(node: Sparsity, p: Program) -> None:
    p.writer.comment(node.line())
    _numbers(node.name, len(node.items), p)


def multipliers(node: Multipliers, p: Program) -> None:
    p.writer.comment(node.line())
    _numbers(node.name, len(node.resources), p)


def _numbers(state: str, count: int, p: Program) -> None:
    """A list of one vector, as every state is a list of tensors."""
    p.writer.line(f"{p.name(state)} = [torch.zeros({count}, dtype=torch.float64, device=args.device)]")


def selection(node: Selection, p: Program) -> None:
    p.writer.line(f"{p.name(node.name)} = [torch.zeros_like({p.name(node.of)}[0]) for _ in range(4)]  # τ′, Σ, ‖·‖², τ")


# ── before the loop ──────────────────────────────────────────────────────────────────────────────────────────────


def start(step: Start, p: Program) -> None:
    node, budgets = p.nodes[step.levels], p.nodes[step.multipliers]
    assert isinstance(node, Sparsity)
    assert isinstance(budgets, Multipliers)
    w, game = p.writer, _game(step.levels)
    saddle = next(s for s in walk(p.graph.program) if isinstance(s, Saddle) and s.allocate.levels == step.levels)
    w.comment(step.line())
    moved = [f"{p.name(n)}[0]" for n in (step.levels, step.dual, step.multipliers)]
    past = f"({', '.join(f'{p.name(n)}[0]' for n in step.past)})" if step.past else ""
    given: list[Piece] = [
        Group("[", tuple(_level(items, p) for items in node.items), "]"),
        Group("[", tuple(_owned(items, p) for items in node.items), "]"),
        Group("[", tuple(str(items.least) for items in node.items), "]"),
        *moved,
        p.name(saddle.allocate.selection),
        *([past] if past else []),
    ]
    w.call(f"{game} = {p.inliner.use(GAME, 'Game')}(", given)
    free = [str(w is None) for w in budgets.weights] or ["True"] * len(budgets.resources)
    held = _held(p)
    resources = tuple(_resource(r, held.get(r.label, []), p) for r in budgets.resources)
    given = [Group("[", resources, "]"), Group("[", tuple(free), "]"), repr(step.share)]
    if any(r.measured for r in budgets.resources):
        w.call(f"resources_{step.levels} = [", resources, "]")
        made = tuple(_items(items, p) for items in node.items)
        w.call(f"items_{step.levels} = [", made, "]")
        w.line("sizes = {name: v.numel() for name, v in net.named_parameters()}")
        given[0] = judging.current(budgets, p, first=True)
    w.call(f"{game}.start(", given)


def _items(items: Items, p: Program) -> Piece:
    """A level's name, tensors and range; no level of a measured budget is of channels."""
    kind = p.inliner.use(NODES, "Items")
    return Group(f"{kind}(", tuple(layout(getattr(items, f.name)) for f in fields(Items) if f.name != "pieces"))


def _game(levels: str) -> str:
    return f"game_{levels}"


def _level(items: Items, p: Program) -> Piece:
    if not items.pieces:
        return Group(f"{p.inliner.use(GAME, 'entries')}(", (_tensors(items.tensors, p),))
    kind = p.inliner.use(NODES, "Piece")
    pieces = (Group(f"{kind}(", (quoted(x.tensor), str(x.dim), str(x.start), str(x.repeat))) for x in items.pieces)
    tensors = _tensors(tuple(x.tensor for x in items.pieces), p)
    return Group(f"{p.inliner.use(GAME, 'Members')}(", (tensors, Group("[", tuple(pieces), "]"), str(items.size)))


def _owned(items: Items, p: Program) -> str:
    return _tensors(tuple(x.tensor for x in items.pieces) or items.tensors, p)


def _tensors(names: tuple[str, ...], p: Program) -> str:
    return f"{p.helper('parameters')}(net, {', '.join(map(quoted, names))})"


def _held(p: Program) -> dict[str, list[str]]:
    """By bound, terms for what the tensors that no level holds cost: those that are not trained."""
    parts = (part for step in walk(p.graph.program) if isinstance(step, Finish) for part in step.onto.parts)
    bounds = ((b, part) for part in parts for b in from_json(part.bounds) if isinstance(b, CountBound | ChoiceBound))
    return {b.name: frozen_cost(b, part, p) for b, part in bounds}


def _resource(r: Resource, held: list[str], p: Program) -> Group:
    """Only what differs from the defaults is said."""
    plain = Resource(r.label, r.name, r.terms)
    given: list[Piece] = [quoted(r.label), quoted(r.name), layout(r.terms)]
    for field in fields(Resource)[3:]:
        value = getattr(r, field.name)
        if field.name == "constant" and held:
            given.append(f"constant={' + '.join([str(r.constant), *held])}")
        elif value != getattr(plain, field.name):
            given.append(_named(field.name, value))
    return Group(f"{p.inliner.use(RESOURCE, 'Resource')}(", tuple(given))


def _named(name: str, value: object) -> Piece:
    """``name=value`` of a call."""
    found = layout(value)
    return f"{name}={found}" if isinstance(found, str) else Group(f"{name}={found.head}", found.items, found.tail)


def enter(loop: Batches, p: Program) -> None:
    """What the game needs to know of a loop: its optimizer, and how fast it moves."""
    for saddle in (s for s in loop.body if isinstance(s, Saddle)):
        game, a, r = _game(saddle.allocate.levels), saddle.allocate, saddle.residual
        p.writer.line(f"{game}.enter({p.name(loop.optimizer)})")
        said = {
            "s": a.rate,
            "pace": a.pace,
            "spare": a.spare,
            "y": r.rate,
            "half": r.half,
            "first": r.first,
            "last": r.last,
            "z": saddle.budgets.rate,
            "reach": saddle.budgets.reach,
            "order": saddle.order,
            "nu": saddle.nu,
            "kappa": saddle.kappa,
        }
        rates = [f"{k}={literal(v)}" for k, v in said.items()]
        p.writer.call(f"rates_{a.levels} = {p.inliner.use(GAME, 'Rates')}(", rates)


# ── every step ───────────────────────────────────────────────────────────────────────────────────────────────────


def select(step: Select, p: Program) -> None:
    p.writer.comment(step.line())
    p.writer.line(f"{_game(step.levels)}.select()")


def shrink(step: Shrink, p: Program) -> None:
    _on_selection(step, "shrink()", p)


def confine(step: Confine, p: Program) -> None:
    if step.by is None:
        _on_selection(step, f"cut([{', '.join(map(str, step.only))}])", p)
    else:
        _on_selection(step, "confine()", p)


def _on_selection(step: Shrink | Confine, call: str, p: Program) -> None:
    node = p.nodes[step.selection]
    assert isinstance(node, Selection)
    p.writer.comment(step.line())
    p.writer.line(f"{_game(node.of)}.{call}")


def play(step: Saddle, p: Program) -> None:
    for inner in (step.allocate, step.residual, step.budgets):
        p.writer.comment(inner.line())
    game, budgets = _game(step.allocate.levels), p.nodes[step.allocate.multipliers]
    assert isinstance(budgets, Multipliers)
    if budgets.weights:
        given = ["None" if w is None else p.expression(w) for w in budgets.weights]
        p.writer.line(f"{game}.charge([{', '.join(given)}])")
    p.writer.line(f"{game}.play(rates_{step.allocate.levels}, p)")
