"""Tensors that are made of factors, in the script: compositions, projections onto them, W composed, gradients."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args

from prunelang.compiler.codegen.expressions import layout, literal
from prunelang.compiler.codegen.program import Program
from prunelang.compiler.codegen.sources import Symbol
from prunelang.compiler.codegen.writer import Group, Piece
from prunelang.compiler.forms import Composition, Form, LowRank, Sparse, TensorTrain
from prunelang.compiler.graph import Compose, Factor, Factors, Finish, Graph, Part, Priced, Project, Reproject, walk
from prunelang.compiler.problem import Budget

CORES = "prunelang.runtime.cores"
COMPOSITIONS = "prunelang.runtime.prox.compositions"
SINGLE = "prunelang.runtime.prox.single"
FORMS = "prunelang.compiler.forms"


def absent(graph: Graph) -> frozenset[Symbol]:
    """The classes of forms that no tensor of the graph is made of."""
    parts = [part for step in walk(graph.program) for part in getattr(getattr(step, "onto", None), "parts", ())]
    made = [c for part in parts for c in part.compositions]
    made += [c for node in graph.state if isinstance(node, Factors) for c in node.compositions]
    used = {type(form) for c in made for form in c.forms}
    return frozenset(Symbol(FORMS, kind.__name__) for kind in get_args(Form) if kind not in used)


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def state(node: Factors, p: Program) -> None:
    """Factors by name, empty until a projection writes them, and the tensors that they compose, by name."""
    name = p.name(node.name)
    p.writer.comment(node.line())
    p.writer.line(f"{name}: dict[str, torch.Tensor] = {{}}")
    p.writer.line(f"Δ_{name} = {variables(node.compositions, p)}")
    p.writer.line(f"made_{name} = {_named(node.tensors, node.of, p)}")


def declare(part: Part, key: tuple[int, int], priced: Priced | None, p: Program) -> None:
    """The projection of a part, made once."""
    made, budgets = variables(part.compositions, p), variables(part.budgets, p)
    cost = priced.on(part) if priced else None
    costs = [] if cost is None else [constructed(cost, p)]
    name = f"Π{len(p.projections) + 1}"
    p.projections[key] = name
    if not (part.budgets or costs or any(len(c.forms) > 1 for c in part.compositions)):
        p.writer.line(f"{name} = {p.inliner.use(SINGLE, 'Single')}({made})")
        return
    composer = p.inliner.use(COMPOSITIONS, "Composer")
    p.writer.call(f"{name} = {composer}(", [made, *([budgets] if part.budgets or costs else []), *costs])


def variables(data: tuple[Composition, ...] | tuple[Budget, ...], p: Program) -> str:
    """A tuple of variables, each declared where it is first asked for."""
    return "(" + "".join(f"{_variable(x, p)}, " for x in data).removesuffix(" " if len(data) == 1 else ", ") + ")"


def _variable(data: Composition | Budget, p: Program) -> str:
    if data not in p.data_of_factors:
        symbol = "Δ" if isinstance(data, Composition) else "B"
        number = sum(isinstance(x, type(data)) for x in p.data_of_factors) + 1
        p.data_of_factors[data] = f"{symbol}{number}"
        made = constructed(data, p)
        assert isinstance(made, Group)
        p.writer.call(f"{symbol}{number} = {made.head}", made.items, made.tail)
    return p.data_of_factors[data]


def constructed(value: Any, p: Program) -> Piece:
    """Plain data as the expression that makes it; fields that have their default value are left out."""
    if isinstance(value, tuple) and any(is_dataclass(v) for v in value):
        return Group("(", tuple(constructed(v, p) for v in value))
    if not is_dataclass(value):
        return layout(value)
    given: list[Piece] = []
    skipped = False
    for f in fields(value):
        own = getattr(value, f.name)
        if f.default is not MISSING and own == f.default:
            skipped = True
            continue
        piece = constructed(own, p)
        lead = f"{f.name}=" if skipped else ""
        given.append(lead + piece if isinstance(piece, str) else Group(lead + piece.head, piece.items, piece.tail))
    return Group(f"{p.inliner.use(type(value).__module__, type(value).__name__)}(", tuple(given))


def _named(tensors: tuple[str, ...], of: str, p: Program) -> str:
    return f"dict(zip({literal(tensors)}, {p.view(of, tensors)}))"


# ── projections ──────────────────────────────────────────────────────────────────────────────────────────────────


def project_part(step: Project | Factor | Reproject, number: int, part: Part, of: str, p: Program) -> None:
    """Project the tensors of a part in the state `of`; what they are made of goes to the step's factors."""
    w, name = p.writer, p.projections[id(step), number]
    for text in p.constraint_lines(part.labels):
        w.comment(text)
    price = ""
    if isinstance(step, Project) and step.priced and step.priced.on(part):
        assert step.over is not None
        price = f", 2.0 * ({p.expression(step.priced.weight)}) / {p.name(step.over)}"
    tensors = f"{{name: v.detach() for name, v in zip({literal(part.tensors)}, {p.view(of, part.tensors)})}}"
    factors = None if isinstance(step, Reproject) else step.factors
    call = f"{name}.project_({tensors}{price})"
    w.line(call if factors is None else f"{p.name(factors)} |= {call}.factors")
    support = None if isinstance(step, Reproject) else step.support
    if support:
        with w.block(f"for mask in {p.view(support, part.tensors)}:"):
            w.line("mask.fill_(True)")


def factor(step: Factor, p: Program) -> None:
    w, name = p.writer, p.name(step.factors)
    w.comment(step.line())
    w.line(f"{name} = {{}}")
    for i, part in enumerate(step.onto.parts):
        project_part(step, i, part, step.of, p)
    if step.start == "random":
        w.line(f"{p.inliner.use(CORES, 'redraw_')}(Δ_{name}, {name}, args.seed)")
    settle(step.factors, p)


def reproject(step: Reproject, p: Program) -> None:
    p.writer.comment(step.line())
    for i, part in enumerate(step.onto.parts):
        project_part(step, i, part, step.of, p)


# ── W from the factors ───────────────────────────────────────────────────────────────────────────────────────────


def compose(step: Compose, p: Program) -> None:
    if step.exact:
        p.writer.comment(step.line())
        settle(step.factors, p)
        return
    p.writer.line(f"cores_{p.name(step.factors)}.write_()  # {step.line()}")


def settle(factors: str, p: Program) -> None:
    name = p.name(factors)
    p.writer.line(f"{p.inliner.use(CORES, 'settle_')}(Δ_{name}, {name}, made_{name})")


def enter(node: Factors, p: Program) -> None:
    """Before the first batch: W with the graph of its gradient."""
    name = p.name(node.name)
    p.writer.line(f"cores_{name} = {p.inliner.use(CORES, 'Cores')}(Δ_{name}, {name}, made_{name})")


def hand_over(node: Factors, p: Program) -> None:
    p.writer.line(f"cores_{p.name(node.name)}.hand_over_()")


def parameters(node: Factors, p: Program) -> str:
    """The trained factors, for an optimizer."""
    return f"{p.inliner.use(CORES, 'numbers')}({p.name(node.name)})"


# ── recounts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def assertion(part: Part, step: Finish, p: Program) -> None:
    """Ranks, counts, values and budgets, read off what the tensors are made of."""
    factors = p.name(step.factors) if step.factors else "{}"
    check = p.inliner.use(CORES, "require_made")
    data = [variables(part.compositions, p), variables(part.budgets, p), factors]
    p.writer.call(f"{check}(", [*data, _named(part.tensors, step.of, p)])


def report(part: Part, step: Finish, p: Program) -> None:
    """A printed line for the sizes of every composition and for every budget."""
    if step.factors is None:
        return
    w, name = p.writer, p.name(step.factors)
    for c in part.compositions:
        if not any(isinstance(f, LowRank | TensorTrain | Sparse) for f in c.forms):
            continue  # codes are as many as entries
        found = f"dict({p.inliner.use(CORES, 'sizes')}({_variable(c, p)}, {name}))"
        w.line(f'print("ranks and counts:", {found})')
    if part.budgets:
        data = f"{variables(part.compositions, p)}, {variables(part.budgets, p)}, {name}"
        spent = f"{p.inliner.use(CORES, 'spent')}({data})"
        with w.block(f"for label, value, most in {spent}:"):
            w.line('print(f"{label}: {value} ≤ {most}")')
