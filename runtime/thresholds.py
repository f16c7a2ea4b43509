"""Soft thresholds at run time: the shape of a rise, courses, steering to a count, the hit at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from prunelang.compiler import schedule as clock
from prunelang.compiler import thresholds as shapes
from prunelang.compiler.graph import (
    Aim,
    Fill,
    Hit,
    Latent,
    Materialize,
    Offset,
    Retain,
    Rise,
    Steer,
    Sums,
    Tabulate,
    TrainedLevel,
)
from prunelang.compiler.graph.state import known
from prunelang.runtime import kernels
from prunelang.runtime.compress import project_part
from prunelang.runtime.machine import Machine
from prunelang.runtime.prox.select import kth_magnitude


def shape_of(rise: Rise, m: Machine) -> shapes.Shape:
    """f of a rise, as a function of p/reach."""
    sums = m.tables[rise.sums] if rise.sums else ()
    return shapes.shape_of(rise.shape, rise.reach, rise.beta, sums)


# ── before the loop ──────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def fill(step: Fill, m: Machine) -> None:
    for t in m.values[step.target]:
        t.fill_(step.value)


def tabulate(step: Tabulate, m: Machine) -> None:
    node = m.nodes[step.sums]
    assert isinstance(node, Sums)
    length = max(1, round(m.value(node.duration)))
    total = length * len(m.feed) if node.unit == "epochs" else length

    def rate(epoch: float, at: float, p: float) -> float:
        return clock.evaluate(node.rate, {"epoch": epoch, "step": at, "p": p, "k": 0.0})

    m.tables[step.sums] = shapes.prefix_sums(rate, total, len(m.feed))


def aim(step: Aim, m: Machine) -> None:
    if step.sums is None:
        assert step.value is not None
        end = step.value
    else:
        end = shapes.between(m.tables[step.sums], step.rise.reach)
    m.courses[step.level] = (0.0, 0.0, end, 1.0)


@torch.no_grad()
def offset(step: Offset, m: Machine) -> None:
    weights, theta = m.values[step.of], m.values[step.latent]
    if step.kappa is None:
        assert step.value is not None
        d, above = step.value, 0.0
    else:
        d = above = beyond(weights, known(step.kappa))
    kernels.offset_(theta, weights, d, above)
    kernels.soft_(weights, theta, d)
    m.levels[step.level] = d


# ── every step ───────────────────────────────────────────────────────────────────────────────────────────────────


def materialize(step: Materialize, m: Machine) -> None:
    shape = shape_of(step.rise, m)
    level = kernels.anchored(m.clocks["p"], m.courses[step.level], step.rise.reach, shape)
    m.levels[step.level] = level
    _soft(step.latent, level, m.values[step.of], m.values[step.latent], m)


@torch.no_grad()
def _soft(latent: str, level: float, weights: Sequence[Tensor], theta: Sequence[Tensor], m: Machine) -> None:
    """``W ← soft(θ, d)`` with the one threshold, or with each tensor's own."""
    node = m.nodes[latent]
    assert isinstance(node, Latent)
    if node.trained is None:
        kernels.soft_(weights, theta, level)
    else:
        kernels.soft_by_(weights, theta, kernels.own_thresholds(m.values[node.trained][0], level, node.budget))


def handover(latent: str, m: Machine) -> Callable[[], None]:
    """What a descent does with the gradient of what a latent writes."""
    node = m.nodes[latent]
    assert isinstance(node, Latent)
    theta, weights = m.values[latent], m.values[node.of]
    if node.trained is None:
        return partial(kernels.hand_over_, theta, weights)
    s, level = m.values[node.trained][0], node.level

    def exact() -> None:
        d = kernels.own_thresholds(s, m.levels[level], node.budget)
        kernels.differentiate_(theta, s, weights, d, node.budget)

    return exact


# ── counts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def magnitudes(latent: str, m: Machine) -> list[Tensor]:
    """What is compared with the level, entry by entry: θ itself, or |θ|/eˢ under trained thresholds."""
    node = m.nodes[latent]
    assert isinstance(node, Latent)
    theta = [t.detach() for t in m.values[latent]]
    return theta if node.trained is None else kernels.relative(theta, m.values[node.trained][0])


def beyond(tensors: Sequence[Tensor], kappa: int) -> float:
    """The level that leaves κ entries above it: the (κ+1)-th largest magnitude, 0 if there are no more than κ."""
    if kappa >= sum(t.numel() for t in tensors):
        return 0.0
    return float(kth_magnitude(tensors, kappa + 1).value)


@torch.no_grad()
def steer(step: Steer, m: Machine) -> None:
    q = beyond(magnitudes(step.latent, m), known(step.kappa))
    p, d = m.clocks["p"], m.levels[step.level]
    last = m.steers.get(step.level, (p, q)) if p > 0 else (p, q)
    m.courses[step.level] = kernels.steered(p, d, q, last, step.rise.reach)
    m.steers[step.level] = (p, q)


@torch.no_grad()
def hit(step: Hit, m: Machine) -> None:
    """The support is that of the projection of θ; d is the largest magnitude outside it; W ← soft(θ, d) inside."""
    (part,) = step.onto.parts
    weights, masks = m.values[step.of], m.view(step.support, part.tensors)
    before = [w.detach().clone() for w in weights]
    compared = magnitudes(step.latent, m)
    projected = [v.clone() for v in compared]
    project_part(part, projected, masks, m, (id(step), 0))
    outside = [torch.where(mask, 0, v).abs().amax() for v, mask in zip(compared, masks, strict=True) if v.numel()]
    level = float(torch.stack(outside).amax())
    level = max(level, m.levels[step.level]) if step.floor else level
    m.levels[step.level] = level
    theta = [t.detach() for t in m.values[step.latent]]
    _soft(step.latent, level, weights, theta, m)
    for w, mask in zip(weights, masks, strict=True):
        w.mul_(mask)
    m.cuts[part.labels] = kernels.relative_change(before, weights)


@torch.no_grad()
def retain(step: Retain, m: Machine) -> None:
    for mask, w in zip(m.view(step.support, m.names(step.of)), m.values[step.of], strict=True):
        torch.ne(w, 0, out=mask)


def history(m: Machine) -> dict[str, float]:
    """Every level by name, trained ones by tensor: the thresholds are part of a run's history."""
    found = dict(m.levels)
    for name, node in m.nodes.items():
        if isinstance(node, TrainedLevel):
            found |= {f"{name}[{t}]": v for t, v in zip(m.names(name), m.values[name][0].tolist(), strict=True)}
    return found
