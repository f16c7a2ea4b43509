"""Projection onto compositions of one form each, at sizes that are given: neither sums nor budgets.

`composer` picks it where it is enough, for the executor as for an emitted script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prunelang.compiler.forms import Box, Composition, Nuclear
from prunelang.compiler.problem import Budget, FactorCost
from prunelang.runtime.prox.compositions import Composer, Outcome, compose, write_
from prunelang.runtime.prox.fitting import Factors, fit_single, project_whole_
from prunelang.runtime.prox.scan import check_finite


class Single:
    """`factors` are those of the last projection: trains start from them. All others depend on v alone."""

    def __init__(self, compositions: Sequence[Composition]) -> None:
        if any(len(c.forms) > 1 for c in compositions):
            raise ValueError("a sum needs the alternation of `Composer`")
        self.compositions = compositions
        self.factors: Factors = {}

    @torch.no_grad()
    def project_(self, tensors: Mapping[str, Tensor]) -> Outcome:
        """v ← Π(v) in place; the factors of what has factors. Raises `NonFinite`."""
        check_finite([tensors[t] for c in self.compositions for t in c.tensors])
        loss, gap, factors = 0.0, 0.0, Factors()
        for c in self.compositions:
            if isinstance(c.forms[0], Box | Nuclear):
                loss += project_whole_(c, [tensors[t] for t in c.tensors])
                continue
            fitted = fit_single(c, tensors, self.factors)
            factors |= fitted.factors
            gap += fitted.gap
            loss += sum(write_(tensors[t], w) for t, w in compose(c, fitted.factors, torch.float64).items())
        self.factors = factors
        return Outcome(dict(factors), loss, gap)


def composer(
    compositions: Sequence[Composition], budgets: Sequence[Budget] = (), priced: FactorCost | None = None
) -> Single | Composer:
    """The projection onto compositions under budgets, with no more than it needs."""
    if budgets or priced is not None or any(len(c.forms) > 1 for c in compositions):
        return Composer(compositions, budgets, priced)
    return Single(compositions)
