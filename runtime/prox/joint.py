"""Projection onto several structural constraints at once: Π onto their intersection, in place.

`JointProjection` is built once from bounds (plain data, `prunelang.compiler.joint`) and shapes, and then applied to
the tensors at every C step. The result is always feasible, as a recount in int64 that shares no code with the
projection asserts each time; `gap` bounds its distance from the best one, 0.0 where the projection is exact.

The order of work: pins; n of m inside rows; groups; then one integer per tensor (`laminar`, `priced`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from prunelang.compiler.joint import (
    BlockBound,
    Bound,
    GroupBound,
    NofMBound,
    check_laminar,
    exactness,
    weighted_counts,
)
from prunelang.runtime.prox.grouped import best_groups, least_group_dual
from prunelang.runtime.prox.laminar import allocate
from prunelang.runtime.prox.nested import NestedProjection
from prunelang.runtime.prox.priced import Priced
from prunelang.runtime.prox.profile import Profile
from prunelang.runtime.prox.structure import block_energies, block_mask, kept_energy, n_of_m_mask

ROUNDS = 8  # alternations between groups and counts


class JointProjection(NestedProjection):
    """The projection onto the intersection of `constraints` over the named tensors of `shapes`, in that order.

    Raises `CrossingSets` where the constraints do not nest, `ValueError` where one names an unknown tensor, and
    `InfeasibleBounds` (here, or when projecting) where nothing satisfies them. The state kept between calls
    changes the time that a projection takes, never its result.
    """

    def __init__(self, constraints: Sequence[Bound], shapes: Mapping[str, tuple[int, ...]]) -> None:
        check_laminar(constraints)
        super().__init__(constraints, shapes)
        self.weighted = weighted_counts(constraints)
        self.groups = [b for b in constraints if isinstance(b, GroupBound)]
        self.blocks = {t: b for b in constraints if isinstance(b, BlockBound) for t in b.tensors}
        self.cells = {t: b for b in constraints if isinstance(b, NofMBound) for t in b.tensors}
        self.counted |= {t for b in self.weighted for t in b.tensors}
        self.exactness = exactness(constraints)
        grouped = {t for g in self.groups for t in g.tensors}
        self._selects &= not self.weighted and not self.counted & (grouped | self.blocks.keys())

    def _alive(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {t: n_of_m_mask(values[t], b.n, b.m) for t, b in self.cells.items()}

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

    def _count(
        self, values: Mapping[str, Tensor], alive: Mapping[str, Tensor], price: bool = False
    ) -> tuple[dict[str, Tensor], float, Priced | None]:
        """Counts over tensors reduced to their live entries: exactly, or by prices where there is anything to price."""
        profiles, counts = self._profiles(values, alive), self._ordered()
        priced = None
        if not price and not self.weighted and not self.blocks.keys() & self.counted:
            items, gap = allocate(profiles, counts, pinned=self.pinned).items, 0.0
        else:
            priced = Priced(profiles, counts, self.weighted, self.pinned)
            items = priced.solve()
            gap = priced.gap(items)
        return self._kept(values, alive, profiles, items), gap, priced

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
