"""Relaxations of ‖·‖₀ while they run: how the weight of a penalty follows what the projection would still remove."""

from __future__ import annotations

import torch

from prunelang.compiler.graph import SteerPenalty
from prunelang.runtime import kernels
from prunelang.runtime.machine import Machine


@torch.no_grad()
def steer_penalty(step: SteerPenalty, m: Machine) -> None:
    """Reads what is outside the projection, and sets α for the next epoch."""
    weights, kept = m.values[step.of], m.values[step.copy]
    cut = kernels.relative_change(weights, kept)
    alpha, left = m.levels[step.level], kernels.epochs_left(m.clocks["p"], int(m.clocks["epoch"]), step.reach)
    if alpha == 0.0:
        change, pace = kernels.largest_change(weights, kept), kernels.pace(m.optimizers[step.optimizer], weights)
        m.levels[step.level] = kernels.first_weight(change, step.slope, pace, left * step.batches)
    else:
        m.levels[step.level] = kernels.raised(alpha, m.levels[step.before], cut, m.levels[step.cut], step.residue, left)
    m.levels[step.before], m.levels[step.cut] = alpha, cut
