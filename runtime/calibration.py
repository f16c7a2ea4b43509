"""Budgets of synaptic operations while a network is trained: measuring rates, and less until the bound holds.

    c_t = synops_t / nnz(t)          B = factor · base + offset − reach          Σ_t c_t · nnz(t) ≤ B

synops_t is what spikes cost in kernel t, a mean over the samples of the calibration, and reach how far the confidence
bound on the samples of the certificate will lie above their mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunelang.compiler.graph import Calibrate, Calibration, Project, Tighten
from prunelang.compiler.graph.calibration import SPLIT
from prunelang.compiler.graph.state import Combination
from prunelang.runtime import standalone
from prunelang.runtime.compress import project, project_part
from prunelang.runtime.floors import Verdict
from prunelang.runtime.machine import Machine, NumericalFailure
from prunelang.runtime.minimax import recalibrated
from prunelang.runtime.search import verdict
from prunelang.runtime.statistics import AGAIN, bernstein_reach
from prunelang.runtime.surrogates import Surrogate
from prunelang.runtime.synops import Activity

MOST: Final = 2.0  # factor by which a rate moves in one calibration, at most
LEAST: Final = 0.05  # of a bound that is left where its confidence reach takes more
DEEPER: Final = 0.97  # factor on B from one round of tightening to the next


@torch.no_grad()
def calibrate(step: Calibrate, m: Machine) -> None:
    """The numbers of a budget, from the network with the weights of `step.of` in place."""
    for _ in range(step.rounds):
        measure(step, m, moved)


def measure(step: Calibrate, m: Machine, rate: Callable[[float, float], float]) -> None:
    """One measurement; `rate` makes of an old rate and a measured one what is believed from now on."""
    node = m.nodes[step.bound]
    assert isinstance(node, Calibration)
    known = m.calibrations.get(node.name)
    weights = _weights(step, m, known is not None)
    found = _activity(weights, m)
    kept = {t: int(torch.count_nonzero(weights[t])) for t in node.tensors}
    made = renewed(node, known, found, kept, m.samples(node.certified), rate)
    m.calibrations[node.name] = made
    for key in [k for k, held in m.cache.items() if _holds(held, node.name)]:
        del m.cache[key]  # a projection holds the bounds that it was made with
    recalibrated(m, node.name)
    m.observe(
        {"event": "calibrated", "bound": node.name, "label": node.floor.label, "value": float(found.synops.mean()),
         "limit": made.limit, "k": m.clocks["k"], "epoch": m.clocks["epoch"]}
    )  # fmt: skip


def renewed(
    node: Calibration,
    known: Surrogate | None,
    found: Activity,
    kept: Mapping[str, int],
    samples: int,
    rate: Callable[[float, float], float],
) -> Surrogate:
    """The numbers of a budget from what was `found` on the calibration, with `kept` weights in each kernel.

    `samples` are those that the constraint will be decided on, `known` is what was believed before.
    """
    fresh = {t: found.by_tensor[t] / max(1, kept[t]) for t in node.tensors if t in found.by_tensor}
    rates = fresh if known is None else {t: rate(known.rates.get(t, 0.0), r) for t, r in fresh.items()}
    start, high = (found.synops, found.most_synops) if known is None else (known.start, known.high)
    if known is None:
        require_confirmable(node, start, high, samples)
    limit = allowance(node, found, start, high, samples)
    limit -= sum(cost for name, cost in found.by_tensor.items() if name not in node.tensors)  # of frozen kernels
    return Surrogate(rates, limit, start, high)


def allowance(node: Calibration, found: Activity, start: NDArray[np.float64], high: float, samples: int) -> float:
    """B: the bound on synaptic operations, less the reach of its confidence bound on that many samples. A network that
    costs more than the bound is taken to have so many weights less: each sample then costs in proportion."""
    floor = node.floor
    factor = float(Fraction(floor.factor))
    limit = floor.bound(float(start.mean()))
    if node.certified == "train":  # all there is of it: its value decides
        return limit
    share = min(1.0, limit / max(float(found.synops.mean()), 1e-12))
    spread = share * found.synops - factor * start
    variance = float(spread.var(ddof=1)) if len(spread) > 1 else 0.0
    reach = bernstein_reach(variance, share * found.most_synops + factor * high, samples)
    reach += AGAIN * math.sqrt(2.0 * variance / samples)
    return max(limit - reach, LEAST * limit)


def require_confirmable(node: Calibration, start: NDArray[np.float64], high: float, samples: int) -> None:
    """Raises `NumericalFailure` where the confidence bound exceeds the budget whatever the weights: against `base`,
    even that of a network which does nothing at all. Training would be in vain."""
    factor = float(Fraction(node.floor.factor))
    limit = node.floor.bound(float(start.mean()))
    if not factor or node.certified == "train" or bernstein_reach(0.0, factor * high, samples) <= limit:
        return
    needed = math.ceil(bernstein_reach(0.0, factor * high, 2) / max(limit, 1e-300)) + 1
    message = f"`{node.floor.label}` cannot be confirmed on {samples} samples, whatever the weights: it takes {needed}"
    raise NumericalFailure(f"{message}; give `data` a larger `validation`", "calibration")


def _weights(step: Calibrate, m: Machine, known: bool) -> Mapping[str, Tensor]:
    """The tensors to measure with: those of the state, or what the projection would make of them."""
    names, own = m.names(step.of), m.values[step.of]
    if not known or step.onto is None:
        return dict(zip(names, own, strict=True))
    copies = dict(zip(names, (t.detach().clone() for t in own), strict=True))
    for i, part in enumerate(step.onto.parts):
        project_part(part, [copies[t] for t in part.tensors], None, m, (id(step), i))
    return copies


def _activity(weights: Mapping[str, Tensor], m: Machine) -> Activity:
    """What the network does on the calibration with these tensors in the place of its own."""
    with standing_in([m.tensors[name] for name in weights], list(weights.values())):
        return m.activity(SPLIT)


@contextmanager
def standing_in(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> Iterator[None]:
    """Other values in the place of the network's own, which come back at the end."""
    own = [t.detach().clone() for t in tensors]
    with torch.no_grad():
        for t, other in zip(tensors, others, strict=True):
            t.copy_(other)
    try:
        yield
    finally:
        with torch.no_grad():
            for t, value in zip(tensors, own, strict=True):
                t.copy_(value)


def _holds(made: object, name: str) -> bool:
    return any(getattr(b, "measured", "") == name for b in getattr(made, "constraints", ()))


def moved(old: float, new: float) -> float:
    """Half of the way on a logarithmic scale, by no more than the factor `MOST`."""
    if old == 0.0:
        return new
    return min(max(math.sqrt(old * new), old / MOST), old * MOST)


def as_measured(old: float, new: float) -> float:
    """The measured rate, whatever was believed before."""
    return new


# ── the end of a solve ───────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def tighten(step: Tighten, m: Machine) -> None:
    """Rounds of measuring and projecting, each a little deeper than the last, until every floor is likely to hold."""
    rounds, depth = 0, 1.0
    found = _verdicts(step, m)
    while not all(v.met for v in found) and rounds < step.rounds:
        for name in step.bounds:
            measure(Calibrate(name, step.of), m, as_measured)
            m.calibrations[name] = replace(m.calibrations[name], limit=m.calibrations[name].limit * depth)
        rounds, depth = rounds + 1, depth * DEEPER
        w = Combination(((1, step.of, None),))
        project(Project(step.of, w, step.onto, step.support, final=True), m)
        forget_(m.optimizers.values(), zip(m.values[step.of], m.values[step.support], strict=True))
        if step.recalibrate:
            standalone.recalibrate(m.model, m.feed.epoch(m.epochs), step.recalibrate)
        found = _verdicts(step, m)
    values = [{"label": v.label, "value": v.value, "limit": v.limit, "met": v.met} for v in found]
    m.observe({"event": "tightened", "rounds": rounds, "floors": values, "epoch": m.clocks["epoch"]})


def forget_(optimizers: Iterable[torch.optim.Optimizer], weights: Iterable[tuple[Tensor, Tensor]]) -> None:
    """What optimizers remember of positions that are gone would bring them back: `weights` go with kept positions."""
    pairs = list(weights)
    for optimizer in optimizers:
        for w, kept in pairs:
            for moment in optimizer.state.get(w, {}).values():
                if isinstance(moment, Tensor) and moment.shape == kept.shape:
                    moment.mul_(kept)


def _verdicts(step: Tighten, m: Machine) -> list[Verdict]:
    return [verdict(floor, m, again=True) for floor in step.floors]
