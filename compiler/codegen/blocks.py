"""Block coordinate descent in the script: the network as a chain, its splitting, iterations, and the way back."""

from __future__ import annotations

from prunelang.compiler.codegen import factors, feasible
from prunelang.compiler.codegen.expressions import literal, quoted
from prunelang.compiler.codegen.program import Program
from prunelang.compiler.codegen.writer import Group, Piece
from prunelang.compiler.graph import Activations, Block, Join, Layers, Part, Split, Sweep

DESCENT = "prunelang.runtime.blocks.descent"


def activations(node: Activations, p: Program) -> None:
    """The step that splits the network makes them."""
    p.writer.comment(node.line())


def split(step: Split, p: Program) -> None:
    w, name = p.writer, p.name(step.activations)
    node = p.nodes[step.activations]
    assert isinstance(node, Activations)
    w.comment(step.line())
    w.piece(_assigned(f"chain_{name}", factors.constructed(p.chain, p)))
    w.line(f"{p.inliner.use(DESCENT, 'require_chain')}(net, chain_{name}, train_x[:4])")
    w.line(f"net_{name} = dict(net.named_parameters())")
    onto = Group("(", tuple(_onto(step, i, part, p) for i, part in enumerate(step.onto.parts)))
    given: list[Piece] = [f"chain_{name}", f"net_{name}", "train_x", "train_y", onto]
    given += [f"{k}={getattr(step, k)!r}" for k in ("gamma", "rho", "omega", "alpha")]
    given += [f"start={quoted(step.start)}", "seed=args.seed"]
    given += [f"store={quoted(node.store)}"] if node.store != "device" else []
    given += [f"chunk={node.chunk}"] if node.chunk is not None else []
    w.call(f"{name} = {p.inliner.use(DESCENT, 'Descent')}.start(", given)


def _assigned(name: str, piece: Piece) -> Piece:
    return f"{name} = {piece}" if isinstance(piece, str) else Group(f"{name} = {piece.head}", piece.items, piece.tail)


def _onto(step: Split, number: int, part: Part, p: Program) -> Group:
    """What Θ of a part is in: so many non-zeros, or compositions with their projection."""
    if part.compositions:
        made, project = factors.variables(part.compositions, p), p.projections[id(step), number]
        return Group(f"{p.inliner.use(DESCENT, 'Composed')}(", (made, f"lambda W: {project}.project_(W).factors"))
    bounds = feasible.selected(part)
    assert bounds is not None
    (bound,) = bounds
    return Group(f"{p.inliner.use(DESCENT, 'Counted')}(", (literal(part.tensors), feasible.kappa(bound, part, p)))


def sweep(step: Sweep, p: Program) -> None:
    w, name = p.writer, p.name(step.activations)
    for inner in step.body:
        w.comment(inner.line())
        for block in inner.body if isinstance(inner, Layers) else ():
            w.comment(f"    {block.line()}")
    w.comment(step.line().removesuffix(":"))
    w.line(f"found = {name}.iterate({p.name(step.tau)}, {step.inner})")
    with w.block("if found is None:"):
        w.line("break  # no step lowers L any more")
    w.line(f"{name}.follow_(net_{name})")
    w.line("print(f\"k = {k}: L = {found.objective:.6g}{'' if found.accepted else ', refused'}\")")


def join(step: Join, p: Program) -> None:
    w, name = p.writer, p.name(step.activations)
    w.comment(step.line())
    masks = "{}"
    if step.support:
        masks = f"dict(zip({literal(p.tensors(step.support))}, {p.name(step.support)}))"
    w.line(f"{name}.join_(net_{name}, {masks})")
    if step.factors:
        w.line(f"{p.name(step.factors)} = {name}.factors(DTYPE)")


def inside(step: Block | Layers, p: Program) -> None:
    """What an iteration does by itself; its comment says it."""
