"""Probabilistic gates at run time: the gradients of the coupling, the joint step, the controller of α."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prunelang.compiler import schedule as clock
from prunelang.compiler.graph import Coupling, Optimizer, SteerGates
from prunelang.runtime import kernels
from prunelang.runtime.machine import Machine
from prunelang.runtime.prox.select import kth_magnitude

# ── what the executor and an emitted script call ─────────────────────────────────────────────────────────────────


def couple_(
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    copies: Sequence[Tensor],
    gates: Sequence[Tensor],
    duals: Sequence[Tensor],
    alpha: float,
) -> list[Tensor]:
    """All gradients of ``αΣγ + ⟨u, r⟩``, ``r = (θ − wγ)² + w²γ(1 − γ)``, at one point; returns r.

    ``∂θ = 2u(θ − wγ)`` is added to `grads`; ``∂w = 2uγ(w − θ)`` and ``∂γ = α + uw(w − 2θ)`` become gradients of w and
    γ. r is a number for each number of u: its own entry's, or the sum over the tensor.
    """
    residuals = []
    for g, theta, w, gamma, u in zip(grads, weights, copies, gates, duals, strict=True):
        gated = w * gamma
        apart = theta - gated
        g.addcmul_(u, apart, value=2.0)
        w.grad = ((w - theta) * gamma).mul_(u).mul_(2.0)
        gamma.grad = (w - 2.0 * theta).mul_(w).mul_(u).add_(alpha)
        r = apart.square_().addcmul_(gated.mul_(w), 1.0 - gamma)
        residuals.append(r if u.dim() else r.sum())
    return residuals


def rise_(duals: Sequence[Tensor], residuals: Sequence[Tensor], past: Sequence[Tensor] | None = None) -> None:
    """The gradient of u for an optimizer that descends: ``−r``, or ``past − 2r``, and then ``past ← r``."""
    if past is None:
        for u, r in zip(duals, residuals, strict=True):
            u.grad = -r
        return
    for u, r, before in zip(duals, residuals, past, strict=True):
        u.grad = before - 2.0 * r
        before.copy_(r)


def clip_(gates: Sequence[Tensor], duals: Sequence[Tensor], cap: float | None) -> None:
    """``γ ← clip(γ, 0, 1)`` and ``u ← clip(u, 0, cap)``."""
    for gamma in gates:
        gamma.clamp_(0.0, 1.0)
    for u in duals:
        u.clamp_(0.0, cap)


def pressures(weights: Sequence[Tensor], duals: Sequence[Tensor]) -> list[Tensor]:
    """``√u |W|``: a gate wants to be open where its square is above α."""
    return [(w.detach() * u.sqrt()).abs_() for w, u in zip(weights, duals, strict=True)]


FALL, RISE, LEAST = 0.9, 1.1, 0.5  # of rank'/κ in an epoch, and where it ends


def ranked(
    n: int, kappa: int, share: float, cut: float, last: float, p: float, epoch: int, reach: float, residue: float
) -> tuple[float, int]:
    """(rank'/κ, rank'): how many of n values u W² are to be above α, when a cut would keep κ and take the part `cut`.

    ``n^(1−x) κ^x`` at x = p/reach < 1. From there on a share of κ, which sinks while the cut falls too slowly to be at
    `residue` by the end, ``cut · (cut/residue)^(1/epochs left) > last``, and rises once it is there.
    """
    if p < reach:
        return 1.0, max(kappa, round(n * (max(kappa, 1) / n) ** (p / reach)))
    if cut <= residue:
        share = min(1.0, share * RISE)
    elif cut * (cut / residue) ** (1.0 / kernels.epochs_left(p, epoch, 1.0)) > last:
        share = max(LEAST, share * FALL)
    return share, round(share * kappa)


# ── executor ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Coupled:
    """A coupling of the descent with its two optimizers. What follows no clock is looked up once."""

    def __init__(self, m: Machine, coupling: Coupling, again: bool = False) -> None:
        self.m, self.coupling = m, coupling
        self.weights, self.copies = m.values[coupling.of], m.values[coupling.copy]
        self.gates, self.duals = m.values[coupling.gates], m.values[coupling.dual]
        self.past = m.values[coupling.past] if coupling.past else None
        self.optimizers = {name: m.enter(name, again) for name in (coupling.by, coupling.ascent)}
        self.timed = [t for name in self.optimizers for t in self._timed(name)]
        schedule = None if isinstance(coupling.weight, str) else coupling.weight
        self.moves = schedule is not None and bool(clock.clocks_of(schedule) & {"step", "p"})
        self.alpha = 0.0

    def _timed(self, name: str) -> list[tuple[str, str, clock.Schedule, bool]]:
        """(optimizer, option, value, whether in every step) of the options that follow a clock."""
        node = self.m.nodes[name]
        assert isinstance(node, Optimizer)
        found = [(o, v, clock.clocks_of(v)) for o, v in node.options.items() if not isinstance(v, bool)]
        return [(name, o, v, bool(c & {"step", "p"})) for o, v, c in found if c & {"step", "p", "epoch"}]

    def begin_epoch(self) -> None:
        self._set(every_step=False)
        self._weigh()

    def _weigh(self) -> None:
        weight = self.coupling.weight
        self.alpha = self.m.levels[weight] if isinstance(weight, str) else self.m.value(weight)

    def _set(self, *, every_step: bool) -> None:
        for name, option, value, each in self.timed:
            if each == every_step:
                now = self.m.value(value)
                for group in self.optimizers[name].param_groups:
                    group[option] = now

    def add(self) -> None:
        """The gradients at this point, onto those of the data terms."""
        self._set(every_step=True)
        if self.moves:
            self._weigh()
        grads = kernels.gradients(self.weights)
        residuals = couple_(grads, self.weights, self.copies, self.gates, self.duals, self.alpha)
        rise_(self.duals, residuals, self.past)

    @torch.no_grad()
    def step(self, masked: Tensor) -> None:
        """Everything but W moves. A loss that is not finite masks this too."""
        for optimizer in self.optimizers.values():
            optimizer.found_inf = masked  # type: ignore[attr-defined]  # read by fused kernels
            optimizer.step()
        clip_(self.gates, self.duals, self.coupling.cap)


@torch.no_grad()
def steer_gates(step: SteerGates, m: Machine) -> None:
    weights, kept = m.values[step.of], m.view(step.copy, m.names(step.of))
    n, kappa = sum(w.numel() for w in weights), sum(int(torch.count_nonzero(t)) for t in kept)
    last, cut = m.levels[step.cut], kernels.relative_change(weights, kept)
    p, epoch = m.clocks["p"], int(m.clocks["epoch"])
    share, rank = ranked(n, kappa, m.levels[step.share], cut, last, p, epoch, step.reach, step.residue)
    found = pressures(weights, m.values[step.dual])
    alpha = float(kth_magnitude(found, rank + 1).value) ** 2 if rank < n else 0.0
    m.levels.update({step.cut: cut, step.share: share, step.level: alpha})
