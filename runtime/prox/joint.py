"""Projection onto several structural constraints at once: Π onto their intersection, in place.

`JointProjection` is built once from bounds (plain data, `prunelang.compiler.joint`) and shapes, and then applied to
the tensors at every C step. The result is always feasible, as a recount in int64 that shares no code with the
projection asserts each time; `gap` bounds its distance from the best one, 0.0 where the projection is exact.

The order of work: pins; n of m inside rows; groups; then one integer per tensor (`laminar`, `priced`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prunelang.compiler.joint import (
    BlockBound,
    Bound,
    GroupBound,
    NofMBound,
    Pinned,
    check_laminar,
    exactness,
    plain_counts,
    weighted_counts,
)
from prunelang.runtime.prox.feasibility import assert_feasible
from prunelang.runtime.prox.grouped import best_groups, least_group_dual
from prunelang.runtime.prox.laminar import InfeasibleBounds, allocate
from prunelang.runtime.prox.priced import Priced
from prunelang.runtime.prox.profile import Profile
from prunelang.runtime.prox.scan import check_finite
from prunelang.runtime.prox.select import Selector
from prunelang.runtime.prox.structure import block_energies, block_mask, kept_energy, n_of_m_mask

ROUNDS = 8  # alternations between groups and counts


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


class JointProjection:
    """The projection onto the intersection of `constraints` over the named tensors of `shapes`, in that order.

    Raises `CrossingSets` where the constraints do not nest, `ValueError` where one names an unknown tensor, and
    `InfeasibleBounds` (here, or when projecting) where nothing satisfies them. The state kept between calls
    changes the time that a projection takes, never its result.
    """

    def __init__(self, constraints: Sequence[Bound], shapes: Mapping[str, tuple[int, ...]]) -> None:
        check_laminar(constraints)
        self.constraints = tuple(constraints)
        self.shapes = dict(shapes)
        for b in constraints:
            missing = [t for t in b.tensors if t not in shapes]
            if missing:
                raise ValueError(f"{b.name} speaks of {missing[0]}, which is not among the tensors")
        if len({b.name for b in constraints}) < len(constraints):
            raise ValueError("two constraints of a joint projection share a name")
        self.counts = [c for c in plain_counts(constraints) if c.coefficients]
        self.weighted = weighted_counts(constraints)
        self.pinned = frozenset(t for b in constraints if isinstance(b, Pinned) for t in b.tensors)
        self.groups = [b for b in constraints if isinstance(b, GroupBound)]
        self.blocks = {t: b for b in constraints if isinstance(b, BlockBound) for t in b.tensors}
        self.cells = {t: b for b in constraints if isinstance(b, NofMBound) for t in b.tensors}
        self.counted = {t for b in (*self.counts, *self.weighted) for t in b.tensors}
        self.exactness = exactness(constraints)
        grouped = {t for g in self.groups for t in g.tensors}
        self._selects = not self.weighted and not self.counted & (grouped | self.blocks.keys())
        self._selects &= all(c.least == 0 for c in self.counts)  # nested upper bounds only: no sort needed
        self._selectors = {c.name: Selector() for c in self.counts}

    @torch.no_grad()
    def project_(self, tensors: Sequence[Tensor]) -> Outcome:
        """v ← Π(v) in place. Raises `NonFinite` naming the first tensor that holds a NaN or infinity."""
        check_finite(tensors)
        if [tuple(t.shape) for t in tensors] != list(self.shapes.values()):
            raise ValueError("the tensors do not have the shapes that the projection was built for")
        values = dict(zip(self.shapes, tensors, strict=True))
        before = [kept_energy(v) for v in tensors]
        alive = {t: n_of_m_mask(values[t], b.n, b.m) for t, b in self.cells.items()}
        masks, gap = self._masks(values, alive)
        if not self._selects:
            for t, v in values.items():
                v.detach().masked_fill_(~masks[t], 0)
        loss = sum(b - kept_energy(v) for b, v in zip(before, tensors, strict=True))
        assert_feasible(self.constraints, masks)
        return Outcome([masks[t] for t in self.shapes], loss, gap, gap == 0.0)

    def _masks(self, values: Mapping[str, Tensor], alive: dict[str, Tensor]) -> tuple[dict[str, Tensor], float]:
        grouped = {t for g in self.groups for t in g.tensors}
        if grouped & self.counted:
            return self._alternate(values, alive)
        for g in self.groups:
            alive |= best_groups(g, values, alive, {})
        if self._selects:
            return self._truncate_(values, alive), 0.0
        masks, gap, _ = self._count(values, alive)
        return masks, gap

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

    def _count(
        self, values: Mapping[str, Tensor], alive: Mapping[str, Tensor], price: bool = False
    ) -> tuple[dict[str, Tensor], float, Priced | None]:
        """Counts over tensors reduced to their live entries: exactly, or by prices where there is anything to price."""
        profiles = {t: self._profile(t, values[t], alive.get(t)) for t in self.shapes if t in self.counted}
        order = {t: i for i, t in enumerate(self.shapes)}
        counts = [  # ties go to the lowest index: tensors in the order of the shapes
            replace(c, coefficients={t: c.coefficients[t] for t in sorted(c.tensors, key=order.__getitem__)})
            for c in self.counts
        ]
        priced = None
        if not price and not self.weighted and not self.blocks.keys() & self.counted:
            items, gap = allocate(profiles, counts, pinned=self.pinned).items, 0.0
        else:
            priced = Priced(profiles, counts, self.weighted, self.pinned)
            items = priced.solve()
            gap = priced.gap(items)
        masks = {}
        for t, v in values.items():
            if t in profiles:
                masks[t] = self._expand(t, profiles[t].mask(items[t]))
            else:
                masks[t] = alive[t] if t in alive else torch.ones_like(v, dtype=torch.bool)
        return masks, gap, priced

    def _profile(self, t: str, value: Tensor, alive: Tensor | None) -> Profile:
        block = self.blocks.get(t)
        if block is None:
            return Profile(value, alive)
        energies, sizes = block_energies(value, block.rows, block.columns)
        return Profile((energies / sizes).sqrt(), None, sizes)

    def _expand(self, t: str, mask: Tensor) -> Tensor:
        block = self.blocks.get(t)
        if block is None:
            return mask.view(self.shapes[t])
        return block_mask(mask, self.shapes[t], block.rows, block.columns)

    def _alternate(self, values: Mapping[str, Tensor], alive: dict[str, Tensor]) -> tuple[dict[str, Tensor], float]:
        """Groups at given prices, then counts within those groups; the best of a few rounds, under the least bound."""
        prices: dict[str, float] = {}
        most, best, masks = float("inf"), -1.0, dict[str, Tensor]()
        for _ in range(ROUNDS):
            live = dict(alive)
            for g in self.groups:
                live |= best_groups(g, values, alive, prices)
            found, _, priced = self._count(values, live, price=True)
            assert priced is not None
            energy = sum(kept_energy(v, found[t]) for t, v in values.items())
            bound, scale = least_group_dual(self.groups, priced, values, alive)
            done = energy <= best and bound >= most
            if energy > best:
                best, masks = energy, found
            most = min(most, bound)
            if done or most <= best:
                break
            prices = priced.thresholds(scale)
        return masks, max(0.0, most - best)
