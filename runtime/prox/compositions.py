"""Projection onto compositions, ``w = Σ_i Δ_i(Θ_i)``: low rank, trains, codebooks, fixed values, sparse parts, sums.

`Composer` is built once from compositions and budgets (plain data, `prunelang.compiler.forms`) and applied at every C
step. It returns the factors Θ; `compose` gives the tensors back from them. Names of factors, with i the place of the
form in its composition and t one of its tensors (t₁ the first):

    low rank       t₁:i.U (m × r)   t₁:i.V (r × n)           W = U V
    tensor train   t₁:i.G1 … Gd (r_{k−1} × m_k × n_k × r_k)
    codebook       t₁:i.centres (k)   t:i.codes              w = centres[codes]
    fixed values   t:i.codes   t₁:i.scale () if learned      w = (scale ·) values[codes]
    sparse         t:i.values   t:i.indices                  flat positions, int64, ascending
    box, nuclear   none: the tensor itself
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prunelang.compiler.forms import Box, Composition, Nuclear
from prunelang.compiler.problem import Budget, FactorCost
from prunelang.runtime.prox.additive import PROGRESS, ROUNDS, Alternation, Parts
from prunelang.runtime.prox.fitting import Factors, Sizes, expand, project_whole_, sizes_of
from prunelang.runtime.prox.scan import check_finite
from prunelang.runtime.prox.sizes import Costs, Key, Options, options

SEARCHES = 6  # rounds of choosing sizes anew for what the other parts of a sum leave


@dataclass(frozen=True)
class Outcome:
    """What a projection onto compositions did.

    `loss` is ``Σ‖v − Π(v)‖₂²`` (and the price of its sizes, where there is one). No feasible point has a loss below
    ``loss − gap``, up to rounding; nan where no bound is known; `exact` says that the gap is zero.
    """

    factors: Factors
    loss: float
    gap: float

    @property
    def exact(self) -> bool:
        return self.gap == 0.0


@dataclass(frozen=True)
class _Round:
    """Parts fitted at chosen sizes; `total` is their loss and the price of the sizes."""

    parts: list[Parts]
    total: float
    gap: float


class Composer:
    """The projection onto `compositions` under `budgets`, ranks and counts chosen by them.

    `factors` are those of the last projection, or those that a caller puts there: trains and sums start from them.
    Projections onto single low-rank, sparse, codebook, fixed, box and nuclear sets are exact and depend on v alone.
    """

    def __init__(
        self,
        compositions: Sequence[Composition],
        budgets: Sequence[Budget] = (),
        priced: FactorCost | None = None,
    ) -> None:
        for c in compositions:
            if len(c.forms) > 1 and any(isinstance(f, Box | Nuclear) for f in c.forms):
                raise ValueError(f"a sum for {c.tensors[0]} holds a box or a nuclear ball, which have no factors")
        self.whole = [c for c in compositions if isinstance(c.forms[0], Box | Nuclear)]
        self.compositions = [c for c in compositions if c not in self.whole]
        self.costs = Costs(self.compositions, budgets, priced)
        self.factors: Factors = {}
        self._orders: dict[Composition, Sequence[int]] = {}

    @torch.no_grad()
    def project_(self, tensors: Mapping[str, Tensor], price: float = 0.0) -> Outcome:
        """v ← Π(v) in place, minimising ``Σ‖v − Π(v)‖² + price · cost``. Other tensors than those of the compositions
        are left alone. Raises `NonFinite`, and `Infeasible` where no sizes keep the budgets."""
        check_finite([tensors[t] for c in (*self.compositions, *self.whole) for t in c.tensors])
        targets = [Alternation.of(c, tensors) for c in self.compositions]
        loss, gap = 0.0, 0.0
        free = [a for a in targets if self.costs.chooses(a.composition)]
        solved = [(a, self._fitted(a, self.factors)) for a in targets if a not in free]
        gap += sum(parts.gap for _, parts in solved)
        if free:
            found = self._chosen(free, price)
            solved += zip(free, found.parts, strict=True)
            loss += found.total - sum(parts.loss for parts in found.parts)
            gap += found.gap
        self.factors = {name: f for _, parts in solved for name, f in parts.factors.items()}
        for a, _ in solved:
            made = compose(a.composition, self.factors, torch.float64)
            loss += sum(write_(tensors[t], w) for t, w in made.items())
        for c in self.whole:
            loss += project_whole_(c, [tensors[t] for t in c.tensors])
        return Outcome(dict(self.factors), loss, gap)

    def _fitted(self, at: Alternation, old: Factors) -> Parts:
        parts, self._orders[at.composition] = at.solve(old, self._orders.get(at.composition, ()))
        return parts

    def _chosen(self, free: Sequence[Alternation], price: float) -> _Round:
        """Sizes by one choice where no part of a sum is among them; else the best that searches end in."""
        nothing = [a.nothing() for a in free]
        forms = max(len(a.composition.forms) for a in free)
        if forms == 1:
            return self._round(free, nothing, price, None)
        if self.factors:
            old = [a.given(self.factors) for a in free]
            return self._search(self._at(free, old, self._sizes(free, old), price), free, price, SEARCHES)
        starts = (None, *range(forms))  # all parts at once, or one part of each sum alone
        trials = [self._search(self._round(free, nothing, price, k), free, price, 1) for k in starts]
        return self._search(min(trials, key=lambda found: found.total), free, price, SEARCHES)

    def _search(self, best: _Round, free: Sequence[Alternation], price: float, most: int) -> _Round:
        """Choose for what the other parts leave, fit, and again, until that does not help."""
        for _ in range(most):
            found = self._round(free, best.parts, price, None)
            if found.total >= best.total * (1 - PROGRESS):
                return found if found.total < best.total else best
            best = found
        return best

    def _round(self, free: Sequence[Alternation], seen: list[Parts], price: float, alone: int | None) -> _Round:
        """Sizes for what the parts `seen` leave to each other, and the parts at those sizes; of the parts of a sum only
        `alone` is given more than its smallest size, if it is not None."""
        offered: dict[Key, Options] = {}
        for a, parts in zip(free, seen, strict=True):
            for i in range(len(a.composition.forms)):
                least = alone is not None and len(a.composition.forms) > 1 and i != alone
                if self.costs.chooses(a.composition, i):
                    of_form = options(a.composition, i, a.rest(parts, i), a.dtype)
                    offered |= {key: o.least if least else o for key, o in of_form.items()}
        chosen = self.costs.choose(offered, price)
        found = self._at(free, seen, chosen.sizes, price)
        if any(len(a.composition.forms) > 1 for a in free):
            return found
        return replace(found, gap=0.0 if chosen.exact else max(0.0, found.total - chosen.bound))

    def _at(self, free: Sequence[Alternation], seen: list[Parts], sizes: Sizes, price: float) -> _Round:
        """The parts at given sizes: from those `seen` on, or from the start where there are none."""
        sized = [replace(a, sizes=sizes) for a in free]
        fitted = [
            a.rounds(parts, self._orders[a.composition], ROUNDS)
            if parts.factors and a.composition in self._orders
            else self._fitted(a, parts.factors or self.factors)
            for a, parts in zip(sized, seen, strict=True)
        ]
        taken = self._sizes(free, fitted)
        assert self.costs.met(taken), "the chosen sizes do not keep the budgets"
        return _Round(fitted, sum(p.loss for p in fitted) + price * self.costs.price(taken), float("nan"))

    @staticmethod
    def _sizes(free: Sequence[Alternation], parts: Sequence[Parts]) -> Sizes:
        return {k: x for a, p in zip(free, parts, strict=True) for k, x in sizes_of(a.composition, p.factors).items()}


def compose(
    composition: Composition, factors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """The tensors ``Σ_i Δ_i(Θ_i)``, differentiable in every floating factor; codes and positions are constants.

    In the type `dtype`, or that of the first floating factor. Empty for a box or a nuclear ball, which have none.
    """
    own = [f for n, f in factors.items() if n.rpartition(":")[0] in composition.tensors and f.is_floating_point()]
    dtype = dtype or (own[0].dtype if own else torch.get_default_dtype())
    made = [expand(composition, i, factors, dtype) for i in range(len(composition.forms))]
    return {t: sum(parts[1:], parts[0]) for t, *parts in zip(composition.tensors, *made, strict=False)}


def write_(tensor: Tensor, made: Tensor) -> float:
    """The tensor becomes what is made, rounded, with 0 for −0; the squared distance that it moved."""
    before = tensor.detach().to(torch.float64, copy=True)
    tensor.detach().copy_(made + 0.0)
    return float((before - tensor.detach().double()).square().sum())
