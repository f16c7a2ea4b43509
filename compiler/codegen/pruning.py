"""Emitters of steps that remove weights: what the executor calls, with the network and the samples of the script."""

from __future__ import annotations

from collections.abc import Iterable

from prunelang.compiler.codegen.loop import criterion
from prunelang.compiler.codegen.program import BATCHES, Program
from prunelang.compiler.codegen.stopping import measured
from prunelang.compiler.graph import Bracket, Loss, Reach
from prunelang.compiler.schedule import evaluate

PRUNING = "prunelang.runtime.pruning"
AT_START = {"k": 0.0, "epoch": 0.0, "step": 0.0, "p": 0.0}  # a stage that trains nothing stays there


def bracket(step: Bracket, p: Program) -> None:
    w = p.writer
    w.comment(step.line())
    f = " + ".join(_times(x, measured(x.name, step.split, dict(x.arguments), p)) for x in step.losses)
    weights, masks = p.view(step.of, step.tensors), p.view(step.support, step.tensors)
    w.call(f"crossing = {p.inliner.use(PRUNING, 'bracket_')}(", [weights, masks, f"lambda: {f}", repr(step.delta)])
    w.line('print(f"{crossing.kept} weights with |w| ≥ {crossing.epsilon:.6g} stay")')


def reach(step: Reach, p: Program) -> None:
    w = p.writer
    w.comment(step.line())
    feed = f"{p.inliner.use(BATCHES, 'batches')}(train_x, train_y, {p.data.batch}, args.seed, drawn)"
    w.line(f"batch = next(iter({feed}))")
    weights, masks = p.view(step.of, step.tensors), p.view(step.support, step.tensors)
    if step.method == "random_gradient":
        f = " + ".join(_times(x, criterion(x, p)) for x in step.losses)
        call = f"{p.inliner.use(PRUNING, 'remove_inactive_')}("
        loss = f"lambda outputs, x, y: {f}"
        w.call(call, ["net", weights, masks, loss, "batch", str(step.draws), "args.seed + drawn"])
        return
    unknown = p.inliner.use("prunelang.runtime.reachability", "Untraceable")
    rest, spared = _tensors(step.rest, p.tensors(step.rest), p), _tensors(step.of, step.spared, p)
    with w.block("try:"):
        call = f"{p.inliner.use(PRUNING, 'remove_unreachable_')}("
        w.call(call, ["net", weights, masks, rest, spared, "batch[0][:1]"])
    with w.block(f"except {unknown} as reason:"):
        w.line('print(f"nothing is removed: {reason}")')


def _tensors(state: str, names: Iterable[str], p: Program) -> str:
    chosen = tuple(names)
    return p.view(state, chosen) if chosen else "[]"


def _times(loss: Loss, value: str) -> str:
    weight = evaluate(loss.weight, AT_START)
    return value if weight == 1.0 else f"{weight!r} * {value}"
