"""Projection onto nested counts: each of two sets of tensors holds the other or they share none. Exact, in place.

This is all that `JointProjection` needs for counts alone, and the part of it that an emitted script then has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prunelang.compiler.joint import Bound, CountBound, Pinned, check_counts, plain_counts
from prunelang.runtime.prox.feasibility import assert_feasible
from prunelang.runtime.prox.laminar import InfeasibleBounds, allocate
from prunelang.runtime.prox.profile import Profile
from prunelang.runtime.prox.scan import check_finite
from prunelang.runtime.prox.select import Selector
from prunelang.runtime.prox.structure import kept_energy


@dataclass(frozen=True)
class Outcome:
    """What a joint projection did.

    `masks` are the kept positions (a kept zero is stored); `loss` is ‖v − Π(v)‖₂²; no feasible point has a loss below
    ``loss − gap``, up to rounding; `exact` says that the gap is zero.
    """

    masks: list[Tensor]
    loss: float
    gap: float
    exact: bool


class NestedProjection:
    """The projection onto plain counts, with floors and pinned tensors, over the named tensors of `shapes`.

    Raises `CrossingSets` where the counts do not nest, `ValueError` where one names an unknown tensor, and
    `InfeasibleBounds` (here, or when projecting) where nothing satisfies them. The state kept between calls changes the
    time that a projection takes, never its result.
    """

    def __init__(self, constraints: Sequence[Bound], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.constraints = tuple(constraints)
        self.shapes = dict(shapes)
        for b in constraints:
            missing = [t for t in b.tensors if t not in shapes]
            if missing:
                raise ValueError(f"{b.name} speaks of {missing[0]}, which is not among the tensors")
        if len({b.name for b in constraints}) < len(constraints):
            raise ValueError("two constraints of a joint projection share a name")
        self.counts = [c for c in plain_counts(constraints) if c.coefficients]
        check_counts(self.counts)
        self.pinned = frozenset(t for b in constraints if isinstance(b, Pinned) for t in b.tensors)
        self.counted = {t for b in self.counts for t in b.tensors}
        self._selects = all(c.least == 0 for c in self.counts)  # upper bounds only: no sort needed
        self._selectors = {c.name: Selector() for c in self.counts}

    @torch.no_grad()
    def project_(self, tensors: Sequence[Tensor]) -> Outcome:
        """v ← Π(v) in place. Raises `NonFinite` naming the first tensor that holds a NaN or infinity."""
        check_finite(tensors)
        if [tuple(t.shape) for t in tensors] != list(self.shapes.values()):
            raise ValueError("the tensors do not have the shapes that the projection was built for")
        values = dict(zip(self.shapes, tensors, strict=True))
        before = [kept_energy(v) for v in tensors]
        masks, gap = self._masks(values, self._alive(values))
        if not self._selects:
            for t, v in values.items():
                v.detach().masked_fill_(~masks[t], 0)
        loss = sum(b - kept_energy(v) for b, v in zip(before, tensors, strict=True))
        assert_feasible(self.constraints, masks)
        return Outcome([masks[t] for t in self.shapes], loss, gap, gap == 0.0)

    def _alive(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Positions that may be kept at all, of tensors where not all may."""
        return {}

    def _masks(self, values: Mapping[str, Tensor], alive: dict[str, Tensor]) -> tuple[dict[str, Tensor], float]:
        if self._selects:
            return self._truncate_(values, alive), 0.0
        profiles = self._profiles(values, alive)
        return self._kept(values, alive, profiles, allocate(profiles, self._ordered(), pinned=self.pinned).items), 0.0

    def _truncate_(self, values: Mapping[str, Tensor], alive: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Nested upper bounds by selection alone, from the inside out, in place, with no sort."""
        kept = {t: int(alive[t].sum()) if t in alive else v.numel() for t, v in values.items()}
        for c in self.counts:
            held = sum(kept[t] for t in c.tensors if t in self.pinned)
            if c.most is not None and held > c.most:
                raise InfeasibleBounds(c.name, f"{held} must be kept, {c.most} may be")
        masks = dict(alive)
        for t, m in alive.items():
            values[t].detach().masked_fill_(~m, 0)
        for c in self.counts:
            if c.most is None or sum(kept[t] for t in c.tensors) <= c.most:
                continue
            free = [t for t in self.shapes if t in c.coefficients and t not in self.pinned]
            room = c.most - sum(kept[t] for t in c.tensors if t in self.pinned)
            fresh = [torch.empty(self.shapes[t], dtype=torch.bool, device=values[t].device) for t in free]
            self._selectors[c.name].project_([values[t] for t in free], room, fresh)
            for t, keep in zip(free, fresh, strict=True):
                masks[t] = masks[t] & keep if t in masks else keep  # a zero dropped before stays dropped
                kept[t] = int(masks[t].sum())
        return {t: masks[t] if t in masks else torch.ones_like(v, dtype=torch.bool) for t, v in values.items()}

    def _ordered(self) -> list[CountBound]:
        """Ties go to the lowest index: tensors in the order of the shapes."""
        order = {t: i for i, t in enumerate(self.shapes)}
        return [
            replace(c, coefficients={t: c.coefficients[t] for t in sorted(c.tensors, key=order.__getitem__)})
            for c in self.counts
        ]

    def _profiles(self, values: Mapping[str, Tensor], alive: Mapping[str, Tensor]) -> dict[str, Profile]:
        return {t: self._profile(t, values[t], alive.get(t)) for t in self.shapes if t in self.counted}

    def _kept(
        self,
        values: Mapping[str, Tensor],
        alive: Mapping[str, Tensor],
        profiles: Mapping[str, Profile],
        items: Mapping[str, int],
    ) -> dict[str, Tensor]:
        """The positions of that many items of each profile; of tensors without one, all that may be kept."""
        masks = {}
        for t, v in values.items():
            if t in profiles:
                masks[t] = self._expand(t, profiles[t].mask(items[t]))
            else:
                masks[t] = alive[t] if t in alive else torch.ones_like(v, dtype=torch.bool)
        return masks

    def _profile(self, t: str, value: Tensor, alive: Tensor | None) -> Profile:
        return Profile(value, alive)

    def _expand(self, t: str, mask: Tensor) -> Tensor:
        return mask.view(self.shapes[t])
