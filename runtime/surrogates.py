"""The numbers of a budget that data decides, while a network is trained under it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prunelang.compiler.graph import Items, Resource
from prunelang.compiler.graph.calibration import SCALE
from prunelang.compiler.joint import CountBound


@dataclass(frozen=True)
class Surrogate:
    """``Σ_t rates[t] · nnz(t) ≤ limit``, in synaptic operations of a sample."""

    rates: Mapping[str, float]  # spikes that a kept weight of each kernel reads in a sample; none of analog inputs
    limit: float
    start: NDArray[np.float64]  # synaptic operations of each sample of the calibration, the first time
    high: float  # the greatest value of a sample, the first time

    @property
    def upper(self) -> int:
        """The limit in the unit of `coefficients`: thousandths."""
        return math.floor(SCALE * self.limit)

    @property
    def coefficients(self) -> dict[str, int]:
        """Thousandths of a spike, at least one each, and no two the same: a budget stays a weighted one."""
        costs: dict[str, int] = {}
        taken: set[int] = set()
        for name, rate in self.rates.items():
            cost = max(1, round(SCALE * rate))
            while cost in taken:
                cost += 1
            taken.add(cost)
            costs[name] = cost
        return costs


def current(
    resources: tuple[Resource, ...],
    levels: Sequence[Items],
    known: Mapping[str, Surrogate],
    sizes: Mapping[str, int],
) -> tuple[Resource, ...]:
    """The resources with the numbers of their calibrations, as functions of the kept items of `levels`."""
    return tuple(_priced(r, levels, known[r.measured], sizes) if r.measured in known else r for r in resources)


def _priced(resource: Resource, levels: Sequence[Items], surrogate: Surrogate, sizes: Mapping[str, int]) -> Resource:
    """Tensors of a measured budget share no level, since no two of them cost the same; those without one stay whole."""
    costs = dict(surrogate.coefficients)
    dense = sum(cost * sizes[t] for t, cost in costs.items())
    named = ((i, level.tensors[0]) for i, level in enumerate(levels) if not level.pieces)
    terms = tuple((costs.pop(t), (i,)) for i, t in named if t in costs)
    constant = sum(cost * sizes[t] for t, cost in costs.items())
    return replace(resource, terms=terms, constant=constant, bound=surrogate.upper, dense=dense)


def resolved(bound: CountBound, surrogate: Surrogate) -> CountBound:
    """The bound with the numbers of its calibration; a count of nothing where spikes reach none of its tensors."""
    return replace(bound, coefficients=surrogate.coefficients, upper=surrogate.upper)
