"""Emitters of early stopping: what a loop watches, the best state that it passes through, and the way back to it."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from prunelang.compiler.codegen import factors
from prunelang.compiler.codegen.expressions import quoted
from prunelang.compiler.codegen.loop import criterion
from prunelang.compiler.codegen.program import Program
from prunelang.compiler.graph import (
    Buffers,
    Evaluate,
    Factors,
    Floor,
    Forget,
    KeepBest,
    Level,
    Loss,
    Penalty,
    Restore,
    Snapshot,
    Weights,
)
from prunelang.compiler.schedule import Constant, constant

METRICS = ("accuracy", "error", "cross_entropy", "nll", "mse")


def evaluate(step: Evaluate, p: Program) -> None:
    """``level = Σ weight · value``, in the order of the losses."""
    terms = [_weighed(x, step.split, p) for x in step.losses] + [_penalty(x, p) for x in step.penalties]
    p.writer.line(f"{p.name(step.level)} = {' + '.join(terms)}")


def _penalty(penalty: Penalty, p: Program) -> str:
    weight = p.name(penalty.weight) if isinstance(penalty.weight, str) else p.expression(penalty.weight)
    value = f"{p.helper('relaxed')}({p.name(penalty.of)}, {quoted(penalty.function)}, {penalty.beta!r})"
    return f"({weight}) * {value}"


def _weighed(loss: Loss, split: str, p: Program) -> str:
    value = measured(loss.name, split, dict(loss.arguments), p)
    if isinstance(loss.weight, Constant) and loss.weight.value == 1:
        return value
    return f"({p.expression(loss.weight)}) * {value}"


def measured(name: str, split: str, arguments: Mapping[str, Any], p: Program) -> str:
    """An expression for the value of a function over a whole split."""
    data = f"{split}_x, {split}_y"
    if name in METRICS:
        return f"{p.helper('measured')}(net, {quoted(name)}, {data})"
    text = criterion(Loss(name, constant(1), tuple(arguments.items())), p)
    return f"{p.helper('averaged')}(net, lambda outputs, x, y: {text}, {data})"


def snapshot(node: Snapshot, p: Program) -> None:
    """Each loop makes its own."""


def forget(step: Forget, p: Program) -> None:
    p.writer.call(f"{p.name(step.snapshot)} = {p.helper('Best')}(", [f"[{', '.join(_tensors(step, p))}]"])


def _tensors(step: Forget, p: Program) -> list[str]:
    """The tensors behind a snapshot, each once, as parts of a list."""
    parts: list[str] = []
    seen: set[str] = set()
    for name in p.nodes[step.snapshot].reads():
        node = p.nodes[name]
        if isinstance(node, Level) or (isinstance(node, Weights) and seen.issuperset(node.tensors)):
            continue
        if isinstance(node, Buffers):
            p.inliner.external("torch")
            parts.append(f"*map(net.get_buffer, [{', '.join(map(quoted, node.tensors))}])")
        elif isinstance(node, Factors):
            parts.append(f"*{factors.parameters(node, p)}")
        elif p.tensors(name):
            parts.append(f"*{p.name(name)}")
        if isinstance(node, Weights):
            seen |= set(node.tensors)
    return parts


def keep_best(step: KeepBest, p: Program) -> None:
    misses = [_miss(floor, p) for floor in step.floors]
    short = f"max({', '.join(misses)})" if len(misses) > 1 else misses[0] if misses else "0.0"
    offer = f"{p.name(step.snapshot)}.offer(({short}, {p.name(step.level)}){_levels(step.of, p)})"
    if not step.since:
        p.writer.line(offer)
        return
    with p.writer.block(f"if p >= {step.since!r}:"):
        p.writer.line(offer)


def _miss(floor: Floor, p: Program) -> str:
    value = measured(floor.name, floor.split, dict(floor.arguments), p)
    return f"{p.helper('miss')}({value}, {quoted(floor.relation)}, {limit(floor, p)})"


def limit(floor: Floor, p: Program) -> str:
    """The bound as an expression, with the roundings of `Floor.bound`."""
    if not floor.relative:
        return repr(floor.bound())
    base = p.bases[floor.label, floor.split]
    return f"{float(Fraction(floor.factor))!r} * {base} + {float(Fraction(floor.offset))!r}"


def _levels(of: tuple[str, ...], p: Program) -> str:
    found = [p.name(n) for n in of if isinstance(p.nodes[n], Level)]
    return f", ({', '.join(found)},)" if found else ""


def restore(step: Restore, p: Program) -> None:
    levels = _levels(step.of, p).removeprefix(", ")
    p.writer.comment(step.line())
    p.writer.line(f"{levels.strip('()')}{' = ' if levels else ''}{p.name(step.snapshot)}.restore({levels})")
