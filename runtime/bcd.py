"""Steps of block coordinate descent in the executor: `blocks.descent` on the machine's network, and its history."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from prunelang.compiler.graph import Activations, Join, Part, Split, Sweep
from prunelang.compiler.joint import CountBound
from prunelang.runtime.blocks.descent import Composed, Counted, Descent
from prunelang.runtime.blocks.iteration import Step
from prunelang.runtime.chains import chain_of
from prunelang.runtime.composed import project_composed
from prunelang.runtime.compress import bounds_of
from prunelang.runtime.machine import Machine, NumericalFailure


def split(step: Split, m: Machine) -> None:
    node = m.nodes[step.activations]
    assert isinstance(node, Activations)
    X, Y = m.feed.split.inputs, m.feed.split.targets
    onto = [_onto(step, i, part, m) for i, part in enumerate(step.onto.parts)]
    with _reported("the start"):
        run = Descent.start(
            chain_of(m.model, tuple(X.shape[1:])), m.tensors, X, Y, onto,
            gamma=step.gamma, rho=step.rho, omega=step.omega, alpha=step.alpha,
            start=step.start, seed=m.feed.seed, store=node.store, chunk=node.chunk,
        )  # fmt: skip
    m.splittings[step.activations] = run
    m.levels[step.level] = run.alpha
    m.composed = False
    run.follow_(m.tensors)


def _onto(step: Split, number: int, part: Part, m: Machine) -> Counted | Composed:
    if not part.compositions:
        (bound,) = bounds_of(part, m)
        assert isinstance(bound, CountBound) and bound.upper is not None
        return Counted(part.tensors, bound.upper - bound.constant)

    def project(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return project_composed(part, [tensors[t] for t in part.tensors], None, m, (id(step), number))

    return Composed(part.compositions, project)


def sweep(step: Sweep, m: Machine) -> None:
    """One iteration, and its line in the history."""
    run: Descent = m.splittings[step.activations]
    alpha, tau = run.alpha, m.levels[step.tau]
    with _reported(f"iteration {m.clocks['k']:g}"):
        done = run.iterate(tau, step.inner)
    if done is None:
        return
    if done.accepted:
        run.follow_(m.tensors)
        m.last_loss = done.objective
        m.keep_good()
    m.levels[step.level] = run.alpha
    m.observe(_line(done, alpha, tau, m, run))


def _line(done: Step, alpha: float, tau: float, m: Machine, run: Descent) -> dict[str, object]:
    return {
        "event": "iteration",
        "stage": "solve",
        "k": m.clocks["k"],
        "p": m.clocks["p"],
        "before": done.before,
        "objective": done.objective,
        "moved": done.moved,
        "decrease": done.decrease,
        "promised": done.promised,
        "accepted": done.accepted,
        "refused": run.refused,
        "alpha": alpha,
        "tau": tau,
        "residual": done.residual,
    }


@torch.no_grad()
def join(step: Join, m: Machine) -> None:
    """``W_i ← Δ_i(Θ_i)``: kept positions, factors, and what the step costs."""
    run: Descent = m.splittings[step.activations]
    masks = zip(m.names(step.support), m.values[step.support], strict=True) if step.support else ()
    before, after = run.error(), run.error(composed=True)
    run.join_(m.tensors, dict(masks))
    if step.factors:
        m.install(run.factors(m.tensors[run.chain.weights[0]].dtype))
        m.composed = True
    found = {"event": "joined", "stage": "solve", "squares": before, "squares_composed": after}
    m.observe({**found, "refused": run.refused, "stalled": run.stalled})
    del m.splittings[step.activations]


@contextmanager
def _reported(where: str) -> Iterator[None]:
    try:
        yield
    except ArithmeticError as error:
        raise NumericalFailure(str(error), where) from error
