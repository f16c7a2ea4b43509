"""Group bounds together with counts: which groups to keep at given prices, and what no choice can exceed.

At multipliers (τ, λ) a kept entry of tensor t must be worth its price P_t, so that a group gains ``Σ_i (v_i² − P_t)₊``
and the best choice is the groups with the largest gains. Their sum completes the Lagrangian bound of `priced`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prunelang.compiler.joint import GroupBound
from prunelang.runtime.prox.priced import Affine, Priced, dot
from prunelang.runtime.prox.select import topk_mask_
from prunelang.runtime.prox.structure import group_sums, kept_energy, spread_groups, surplus

WIDEST, HALVINGS = 16.0, 24  # the multipliers are scaled by a factor in [1/16, 16], found by golden section


def best_groups(
    bound: GroupBound, values: Mapping[str, Tensor], alive: Mapping[str, Tensor], prices: Mapping[str, float]
) -> dict[str, Tensor]:
    """Live entries of the groups that gain most; ties to the lowest index."""
    gains = [group_sums(surplus(values[t], alive.get(t), prices.get(t, 0.0)), bound.by) for t in bound.tensors]
    chosen = [torch.zeros_like(g, dtype=torch.bool) for g in gains]
    topk_mask_(gains, bound.upper, chosen)
    found = {}
    for t, groups in zip(bound.tensors, chosen, strict=True):
        spread = spread_groups(groups, values[t].shape, bound.by)
        found[t] = spread & alive[t] if t in alive else spread
    return found


def least_group_dual(
    groups: Sequence[GroupBound], priced: Priced, values: Mapping[str, Tensor], alive: Mapping[str, Tensor]
) -> tuple[float, float]:
    """The least bound over a common factor of all multipliers, and that factor. The bound is convex in it."""
    ratio = (5**0.5 - 1) / 2
    low, high = 1 / WIDEST, WIDEST
    tried = {s: group_dual(groups, priced, values, alive, s) for s in (0.0, 1.0)}
    if not any(priced.tau) and not any(priced.multipliers.values()):
        return tried[1.0], 1.0
    for _ in range(HALVINGS):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        for s in (a, b):
            tried[s] = group_dual(groups, priced, values, alive, s)
        low, high = (low, b) if tried[a] < tried[b] else (a, high)
    best = min(tried, key=tried.__getitem__)
    return tried[best], best


def group_dual(
    groups: Sequence[GroupBound],
    priced: Priced,
    values: Mapping[str, Tensor],
    alive: Mapping[str, Tensor],
    scale: float,
) -> float:
    """The Lagrangian bound on the energy kept at `scale` times the multipliers, the groups chosen at those prices."""
    tau, nothing = [scale * z for z in priced.tau], Affine((0,) * len(priced.tau), (0,) * len(priced.tau))
    total = scale * priced.budgets(priced.tau)
    grouped = {t for g in groups for t in g.tensors}
    for t, v in values.items():
        if t not in grouped:
            known = t in priced.profiles
            total += priced.best_way(t, tau, scale)[0] if known else kept_energy(v, alive.get(t))
    for g in groups:
        gains = []
        for t in g.tensors:
            ways, extra = priced.ways.get(t, [nothing]), scale * priced.extra.get(t, 0.0)
            sums = [group_sums(surplus(values[t], alive.get(t), dot(tau, w.slopes) + extra), g.by) for w in ways]
            gains.append(torch.stack(sums).amax(0))
            total -= min(dot(tau, w.fixed) for w in ways)
        every = torch.cat(gains)
        total += float(every.topk(min(g.upper, every.numel())).values.sum())
    return total
