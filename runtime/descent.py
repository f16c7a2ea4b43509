"""`Descent`: the inner loop's step, made once per loop so that a batch costs what a hand-written loop costs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from prunelang.compiler import schedule as clock
from prunelang.compiler.graph import Batches, Descend, Factors, Latent, Optimizer, Penalty, Quadratic, Weights
from prunelang.runtime import kernels
from prunelang.runtime.composed import cores
from prunelang.runtime.coupling import Coupled
from prunelang.runtime.machine import Criterion, Machine, NumericalFailure, first_not_finite
from prunelang.runtime.thresholds import handover

COUPLED = ("sgd", "adam")  # weight decay is added to the gradient, so μW may ride on it
DIVERGED = 1e4  # a mean loss this many times (1 + the loop's first) is divergence


class Descent:
    """One `Descend` with what follows it in every step.

    Everything that does not depend on the step is done here, once: which options follow which clock, the constant
    c = μt of the pull, which tensors' gradients are restricted or handed to a latent.
    """

    def __init__(self, m: Machine, loop: Batches, after: tuple[Callable[[], None], ...]) -> None:
        head = loop.body[0]
        assert isinstance(head, Descend)
        self.m = m
        self.optimizer = m.enter(loop.optimizer)
        self.after = after
        self.terms = [(x.weight, m.criterion(x)) for x in head.losses]
        self.losses: list[tuple[float, Criterion]] = []
        self.weighs_each_step = any(clock.clocks_of(x.weight) & {"step", "p"} for x in head.losses)
        self.latents = [_latent(m, name) for name in head.latents]
        m.composed = m.composed and not _moves_composed(m, head)
        self.kept: list[Tensor] = []
        self.support = self._support(head)
        self._options(loop.optimizer)
        self._pull(head.quadratic)
        self.penalties = [Relaxed(m, x) for x in head.penalties]
        self.couplings = [Coupled(m, x) for x in head.couplings]
        self.total = torch.zeros((), dtype=torch.float64, device=self._device())
        self.count = 0
        self.first: float | None = None

    def _device(self) -> torch.device:
        return next(iter(self.m.tensors.values())).device

    def _support(self, head: Descend) -> tuple[list[Tensor], list[Tensor]] | None:
        if head.support is None:
            return None
        made = {t for s in head.latents if isinstance(f := self.m.nodes[s], Factors) for t in f.tensors}
        names = tuple(n for n in self.m.names(head.support) if n not in made)
        if not names:
            return None
        weights = [self.m.tensors[n] for n in names]
        self.kept = self.m.view(head.support, names)
        return weights, [x.to(w.dtype) for x, w in zip(self.kept, weights, strict=True)]

    def _options(self, name: str) -> None:
        """Split the scheduled options by how often they change."""
        node = self.m.nodes[name]
        assert isinstance(node, Optimizer)
        self.each_step: list[tuple[str, clock.Schedule]] = []
        self.each_epoch: list[tuple[str, clock.Schedule]] = []
        for option, value in node.options.items():
            if isinstance(value, bool):
                continue
            clocks = clock.clocks_of(value)
            if clocks & {"step", "p"}:
                self.each_step.append((option, value))
            elif "epoch" in clocks:
                self.each_epoch.append((option, value))
        self.algorithm = node.algorithm

    def _pull(self, quadratics: tuple[Quadratic, ...]) -> None:
        """Fold μ‖W − t‖²/2: μW into coupled weight decay where there is one, c = μt once for the loop."""
        self.pulls: list[tuple[list[Tensor], list[Tensor], float, bool]] = []
        rides = self.algorithm in COUPLED
        with torch.no_grad():
            for q in quadratics:
                mu, weights = self.m.levels[q.level], self.m.values[q.of]
                self.pulls.append((weights, [t * mu for t in self.m.values[q.target]], mu, rides))
                for group in self.optimizer.param_groups:
                    if rides and group["name"] == q.of:
                        group["own_decay"] = group["weight_decay"]
                        group["weight_decay"] = group["weight_decay"] + mu

    def _set(self, options: list[tuple[str, clock.Schedule]]) -> None:
        for name, value in options:
            now = self.m.value(value)
            for group in self.optimizer.param_groups:
                group[name] = now

    def begin_epoch(self) -> None:
        self.m.model.train()
        self._weigh()
        for penalty in self.penalties:
            penalty.weigh(self.m)
        for coupling in self.couplings:
            coupling.begin_epoch()
        self._set(self.each_epoch)
        if self.support is not None:  # an epoch may have ended with fewer positions than it began with
            for mask, kept in zip(self.support[1], self.kept, strict=True):
                mask.copy_(kept)
        self.total.zero_()
        self.count = 0

    def _weigh(self) -> None:
        self.losses = [(self.m.value(weight), criterion) for weight, criterion in self.terms]

    def step(self, x: Tensor, y: Tensor, p_after: float) -> None:
        """Forward, backward, closed-form gradients, masked update, and what follows every step."""
        if self.each_step:
            self._set(self.each_step)
        if self.weighs_each_step:
            self._weigh()
        loss = self._loss(x, y)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        detached = loss.detach()
        self.total += detached
        self.count += 1
        self._closed_form()
        masked = kernels.not_finite(detached)
        self.optimizer.found_inf = masked  # type: ignore[attr-defined]  # read by fused kernels
        self.optimizer.step()
        for coupling in self.couplings:
            coupling.step(masked)
        self.optimizer.zero_grad(set_to_none=True)
        for weights, _ in self.latents:
            for w in weights:
                w.grad = None
        self.m.clocks["p"] = p_after
        for follow in self.after:
            follow()

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        outputs = self.m.model(x)
        (weight, criterion), *others = self.losses
        loss = criterion(outputs, x, y)
        if weight != 1.0:
            loss = loss * weight
        for weight, criterion in others:
            loss = loss + weight * criterion(outputs, x, y)
        return loss

    @torch.no_grad()
    def _closed_form(self) -> None:
        for weights, constant, mu, rides in self.pulls:
            grads = kernels.gradients(weights)
            if rides:
                kernels.subtract_(grads, constant)
            else:
                kernels.add_pull_(grads, weights, constant, mu)
        for penalty in self.penalties:
            penalty.add(self.m)
        for coupling in self.couplings:
            coupling.add()
        if self.support is not None:
            weights, mask = self.support
            kernels.restrict_(kernels.gradients(weights), mask)
        for _, hand_over in self.latents:
            hand_over()

    def end_epoch(self) -> None:
        """Read the mean loss of the epoch (the one wait of an epoch) and stop if it is not a number or explodes."""
        mean = float(self.total) / max(1, self.count)
        self.m.last_loss = mean
        stage = f"epoch {int(self.m.clocks['epoch'])}"
        if not math.isfinite(mean):
            raise NumericalFailure("the loss is not finite", stage)
        if self.first is None:
            self.first = mean
        if mean > DIVERGED * (1.0 + abs(self.first)):
            raise NumericalFailure(f"the loss diverged: {mean:.3g} after {self.first:.3g}", stage)
        require_finite(self.m, stage)

    def close(self) -> None:
        """Take the pull off the weight decay again, for optimisers that are kept."""
        for group in self.optimizer.param_groups:
            group["weight_decay"] = group.pop("own_decay", group["weight_decay"])
        self.m.cores.clear()  # the graph of the last step


class Relaxed:
    """A penalty of the descent with the room that its gradient needs."""

    def __init__(self, m: Machine, penalty: Penalty) -> None:
        self.penalty = penalty
        self.weights = m.values[penalty.of]
        self.signs = [torch.empty_like(w.detach()) for w in self.weights]
        self.decays = [torch.empty_like(s) for s in self.signs] if penalty.function == "drr" else []
        schedule = penalty.schedule
        self.moves = schedule is not None and bool(clock.clocks_of(schedule) & {"step", "p"})
        self.alpha = 0.0

    def weigh(self, m: Machine) -> None:
        """The weight now: that of the level, or of the clocks."""
        weight = self.penalty.weight
        self.alpha = m.levels[weight] if isinstance(weight, str) else m.value(weight)

    def add(self, m: Machine) -> None:
        """Its gradient, onto those of the data terms."""
        if self.moves:
            self.weigh(m)
        grads = kernels.gradients(self.weights)
        if self.penalty.function == "drr":
            kernels.add_drr_(grads, self.weights, self.signs, self.decays, self.alpha, self.penalty.beta)
        else:
            kernels.add_norm1_(grads, self.weights, self.signs, self.alpha)


def require_finite(m: Machine, where: str) -> None:
    """Raise `NumericalFailure` unless every stored number is finite."""
    name = first_not_finite(m.tensors.items())
    if name is not None:
        raise NumericalFailure(f"tensor `{name}` holds a number that is not finite", where)


def _latent(m: Machine, name: str) -> tuple[list[Tensor], Callable[[], None]]:
    """The weights that a latent or factors write, and what hands their gradient over."""
    node = m.nodes[name]
    if isinstance(node, Factors):
        return m.view(node.of, node.tensors), cores(name, m).hand_over_
    assert isinstance(node, Latent)
    return m.values[node.of], handover(name, m)


def _moves_composed(m: Machine, head: Descend) -> bool:
    """Whether tensors that are made of factors are moved as they are."""
    made = {t for s in m.graph.state if isinstance(s, Factors) for t in s.tensors}
    return any(made & set(m.names(s)) for s in head.of if isinstance(m.nodes[s], Weights))
