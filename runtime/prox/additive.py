"""Projection onto sums of forms by alternation: ``Θ_k ← Π_k(v − Σ_{i≠k} Δ_i)`` until no progress.

Idelbayev and Carreira-Perpiñán, More General and Effective Model Compression via an Additive Combination of
Compressions, ECML 2021. Every step keeps the loss or lowers it: a fit that is only nearly the best, as of a train, is
taken where it helps. Beside a sparse part an entrywise part (codebook, fixed values) is fitted to the other positions
alone, since the sparse part makes up for whatever it makes at its own: both then move in one step.

The result is a local optimum, no further from v than the best of its parts alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, permutations

import torch
from torch import Tensor

from prunelang.compiler.forms import Codebook, Composition, Fixed, Sparse
from prunelang.runtime.prox.fitting import Factors, Fitted, Sizes, expand, fit, positions

ROUNDS = 40
TRIAL = 3  # rounds of each order at the start
ORDERS = 6
PROGRESS = 1e-4  # of the loss, in a round, below which it ends


@dataclass(frozen=True)
class Parts:
    """Every form's fit, and ``‖v − Σ_i Δ_i‖²``."""

    fitted: tuple[Fitted, ...]
    loss: float

    @property
    def gap(self) -> float:
        """How far the loss may lie above the least one; nan for a sum."""
        return self.fitted[0].gap if len(self.fitted) == 1 else float("nan")

    @property
    def factors(self) -> Factors:
        return {name: f for part in self.fitted for name, f in part.factors.items()}


@dataclass(frozen=True)
class Alternation:
    """The targets v (float64) of one composition, and the sizes of its parts."""

    composition: Composition
    targets: Sequence[Tensor]
    dtype: torch.dtype
    sizes: Sizes = field(default_factory=dict)

    @classmethod
    def of(cls, composition: Composition, tensors: Mapping[str, Tensor]) -> Alternation:
        """With the composition's tensors as they are for targets."""
        own = [tensors[t].detach() for t in composition.tensors]
        return cls(composition, [t.to(torch.float64, copy=True) for t in own], own[0].dtype)

    def solve(self, old: Mapping[str, Tensor], order: Sequence[int] = ()) -> tuple[Parts, Sequence[int]]:
        """The better of alternating from the `old` factors and from nothing in the given order of parts; without an
        order, in the one that starts best. With it."""
        count = len(self.composition.forms)
        if count == 1:
            return self.step(self.given(old) if old else self.nothing(), 0), (0,)
        orders = [tuple(order)] if order else list(islice(permutations(range(count)), ORDERS))
        if not order:
            orders += [(k, *(i for i in range(count) if i != k)) for k in range(count)]  # every part goes first once
        trials = [(self.rounds(self.nothing(), o, TRIAL), o) for o in dict.fromkeys(orders)]
        if old:
            trials.append((self.rounds(self.given(old), orders[0], TRIAL), orders[0]))
        parts, best = min(trials, key=lambda trial: trial[0].loss)
        return self.rounds(parts, best, ROUNDS), best

    def nothing(self) -> Parts:
        empty = Fitted({}, [torch.zeros_like(t) for t in self.targets])
        return self.measured((empty,) * len(self.composition.forms))

    def given(self, factors: Mapping[str, Tensor]) -> Parts:
        """The parts that factors make. Sizes are those of the factors until each part has been fitted again."""
        fitted = []
        for i in range(len(self.composition.forms)):
            own = {n: f for n, f in factors.items() if n.rpartition(":")[2].startswith(f"{i}.")}
            fitted.append(Fitted(own, expand(self.composition, i, own, torch.float64)))
        return self.measured(tuple(fitted))

    def rounds(self, parts: Parts, order: Sequence[int], most: int) -> Parts:
        """At most so many rounds, each part once in the given order. In the first each is fitted to its size."""
        for r in range(most):
            before = parts.loss
            for k in order:
                new = self.step(parts, k)
                parts = new if r == 0 or new.loss <= parts.loss else parts
            if r > 0 and parts.loss >= before * (1 - PROGRESS):
                break
        return parts

    def step(self, parts: Parts, k: int) -> Parts:
        """Part k fitted to what the others leave."""
        fitted = list(parts.fitted)
        held = self.held(parts) if isinstance(self.composition.forms[k], Codebook | Fixed) else None
        fitted[k] = self.fit(parts, k, held)
        if held is not None:
            for s in (i for i, f in enumerate(self.composition.forms) if isinstance(f, Sparse)):
                fitted[s] = self.fit(self.measured(tuple(fitted)), s, None)
        return self.measured(tuple(fitted))

    def fit(self, parts: Parts, k: int, held: Tensor | None) -> Fitted:
        warm = parts.fitted[k].factors
        return fit(self.composition, k, self.rest(parts, k, held), self.dtype, self.sizes, warm, held)

    def rest(self, parts: Parts, k: int, held: Tensor | None = None) -> list[Tensor]:
        """What the parts but k leave of the targets; with `held` positions, sparse parts are left out as well."""
        rest = [t.clone() for t in self.targets]
        for i, part in enumerate(parts.fitted):
            if i != k and not (held is not None and isinstance(self.composition.forms[i], Sparse)):
                for r, m in zip(rest, part.made, strict=True):
                    r -= m
        return rest

    def held(self, parts: Parts) -> Tensor | None:
        """The positions of the sparse parts, once they have been fitted."""
        return positions(self.composition, parts.factors)

    def measured(self, fitted: tuple[Fitted, ...]) -> Parts:
        loss = sum(float((t - sum(part.made[j] for part in fitted)).square().sum()) for j, t in enumerate(self.targets))
        return Parts(fitted, loss)
