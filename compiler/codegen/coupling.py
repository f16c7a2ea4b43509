"""Probabilistic gates in the script: the joint step of a coupling, and the controller of its α."""

from __future__ import annotations

from prunelang.compiler.codegen.program import Program
from prunelang.compiler.graph import Coupling, Descend, Gates, SteerGates
from prunelang.compiler.schedule import SCHEDULES

COUPLING = "prunelang.runtime.coupling"


def gates(node: Gates, p: Program) -> None:
    p.writer.line(f"{p.name(node.name)} = [torch.zeros_like(w.detach()) for w in {p.name(node.of)}]")


def optimizers(head: Descend) -> tuple[str, ...]:
    """The optimizers beside the descent's own."""
    return tuple(name for c in head.couplings for name in (c.by, c.ascent))


def gradients(head: Descend, p: Program) -> None:
    """All gradients of the couplings, at the point where those of the data terms are."""
    for c in head.couplings:
        alpha = p.expression(c.weight) if isinstance(c.weight, SCHEDULES) else p.name(c.weight)
        grads = f"{p.kernel('gradients')}({p.name(c.of)})"
        values = [grads, *(p.name(n) for n in (c.of, c.copy, c.gates, c.dual)), alpha]
        p.writer.call(f"residuals = {p.inliner.use(COUPLING, 'couple_')}(", values)
        past = [p.name(c.past)] if c.past else []
        p.writer.call(f"{p.inliner.use(COUPLING, 'rise_')}(", [p.name(c.dual), "residuals", *past])


def step(c: Coupling, p: Program) -> None:
    """What moves beside the weights, masked as they are."""
    for optimizer in (p.name(c.by), p.name(c.ascent)):
        p.writer.line(f"{optimizer}.found_inf = {p.kernel('not_finite')}(loss.detach())")
        p.writer.line(f"{optimizer}.step()")
    p.writer.line(f"{p.inliner.use(COUPLING, 'clip_')}({p.name(c.gates)}, {p.name(c.dual)}, {c.cap!r})")


def steer_gates(step: SteerGates, p: Program) -> None:
    w, alpha, share, cut = p.writer, p.name(step.level), p.name(step.share), p.name(step.cut)
    of, kept, n = p.name(step.of), p.view(step.copy, p.tensors(step.of)), p.entries(step.of)
    w.comment(step.line())
    w.line(f"last, {cut} = {cut}, {p.kernel('relative_change')}({of}, {kept})")
    w.line(f"kappa = sum(int(torch.count_nonzero(v)) for v in {kept})")
    values = [str(n), "kappa", share, cut, "last", "p", "epoch", repr(step.reach), repr(step.residue)]
    w.call(f"{share}, rank = {p.inliner.use(COUPLING, 'ranked')}(", values)
    pressures = f"{p.inliner.use(COUPLING, 'pressures')}({of}, {p.name(step.dual)})"
    w.line(f"{alpha} = {p.helper('kth_largest')}({pressures}, rank + 1) ** 2 if rank < {n} else 0.0")
