"""One emitter per kind of state: its declaration in the script."""

from __future__ import annotations

from functools import singledispatch

from prunelang.compiler.codegen import blocks, coupling, factors, judging, minimax, stopping, thresholds
from prunelang.compiler.codegen.expressions import quoted
from prunelang.compiler.codegen.program import Program
from prunelang.compiler.graph import (
    Activations,
    Buffers,
    Calibration,
    Copy,
    Data,
    Dual,
    Factors,
    Gates,
    Latent,
    Level,
    Multipliers,
    Optimizer,
    Outer,
    Rest,
    Selection,
    Snapshot,
    Sparsity,
    State,
    Sums,
    Support,
    TrainedLevel,
    Weights,
    walk,
)


@singledispatch
def emit_state(node: State, p: Program) -> None:
    raise TypeError(f"no emitter for {type(node).__name__}")


@emit_state.register(Weights)
@emit_state.register(Rest)
def _(node: Weights | Rest, p: Program) -> None:
    if node.tensors:
        p.writer.call(f"{p.name(node.name)} = {p.helper('parameters')}(", ["net", *map(quoted, node.tensors)])


@emit_state.register
def _(node: Buffers, p: Program) -> None:
    """They live in the network; the steps that change them go through it."""
    p.writer.comment(f"{node.line()}   (in net)")


@emit_state.register
def _(node: Data, p: Program) -> None:
    p.writer.comment(f"{node.text}: {node.batches} batches of {node.batch} an epoch")


@emit_state.register
def _(node: Copy, p: Program) -> None:
    p.writer.line(f"{p.name(node.name)} = [torch.zeros_like(w.detach()) for w in {p.name(node.of)}]")


@emit_state.register
def _(node: Dual, p: Program) -> None:
    zero = "torch.zeros_like(w.detach())" if node.each == "entry" else "w.detach().new_zeros(())"
    p.writer.line(f"{p.name(node.name)} = [{zero} for w in {p.name(node.like)}]")


emit_state.register(Activations)(blocks.activations)
emit_state.register(Factors)(factors.state)
emit_state.register(Calibration)(judging.calibration)
emit_state.register(Gates)(coupling.gates)
emit_state.register(Sparsity)(minimax.sparsity)
emit_state.register(Multipliers)(minimax.multipliers)
emit_state.register(Selection)(minimax.selection)
emit_state.register(Latent)(thresholds.latent)
emit_state.register(TrainedLevel)(thresholds.trained_level)
emit_state.register(Snapshot)(stopping.snapshot)


@emit_state.register
def _(node: Sums, p: Program) -> None:
    """The step that fills it makes it."""


@emit_state.register
def _(node: Support, p: Program) -> None:
    ones = "torch.ones_like(w, dtype=torch.bool)"
    p.writer.line(f"{p.name(node.name)} = [{ones} for w in {p.name(node.of)}]  # kept positions")


@emit_state.register
def _(node: Level, p: Program) -> None:
    """A level with a schedule is set where its loop begins, one without by the steps that come first."""
    set_by_loop = {n for step in walk(p.graph.program) if isinstance(step, Outer) for n in step.levels}
    if node.schedule is not None and node.name not in set_by_loop:
        p.writer.line(f"{p.name(node.name)} = 0.0")


@emit_state.register
def _(node: Optimizer, p: Program) -> None:
    """A fresh one is made where its loop begins."""
    if node.policy == "kept":
        p.writer.line(f"{p.name(node.name)}: torch.optim.Optimizer | None = None")
