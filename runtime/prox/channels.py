"""Projection onto budgets of channels: which members of coupling groups stay, and how good that choice provably is.

For given k of one group and all others held, its best members are those with the largest energies; over several groups
the problem is bilinear in the objective and in the budgets. It is searched from the dense end, the member of least
energy per saved cost first, and from one member a group upwards; both are filled with what still fits and polished by
exchanges. Every answer is feasible. `bound` says what no choice can exceed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import torch
from torch import Tensor

from prunelang.compiler.joint import ChannelBound
from prunelang.runtime.prox.laminar import InfeasibleBounds
from prunelang.runtime.prox.members import NOBODY, Choice, Members, Vector

EXCHANGES = 64  # accepted exchanges, at most
NEAREST = 8  # members on either side that an exchange inside a group which meets itself looks at
LARGE = 4096  # units from which on only the dense end is searched, without exchanges
HALVINGS = 60  # of the bracket of a multiplier
ROUNDING = 1e-12  # a gap below this share of the energy is a sum taken in another order


@dataclass(frozen=True)
class Kept:
    """Positions that stay in each tensor that has members; `energy` is theirs, and none can exceed `bound`."""

    masks: dict[str, Tensor]
    energy: float
    bound: float


@torch.no_grad()
def best_channels(bounds: Sequence[ChannelBound], values: Mapping[str, Tensor], alive: Mapping[str, Tensor]) -> Kept:
    """The members that stay. Every group keeps one at least if the budgets allow that.

    Raises `InfeasibleBounds` where a budget is less than what is left without any member.
    """
    members = Members(bounds, values, alive)
    choice = choose(members)
    energy, most = choice.energy(), bound(members)
    most = energy if most - energy <= ROUNDING * most else most
    names = dict.fromkeys(t for g in members.groups for t, _, _, _ in g.slices)
    return Kept({t: _mask(members, choice, t, values[t]) for t in names}, energy, most)


def _mask(members: Members, choice: Choice, name: str, value: Tensor) -> Tensor:
    mask = torch.ones_like(value, dtype=torch.bool)
    for d, extent in enumerate(value.shape):
        units = members.owners(name, d, extent)
        stays = torch.from_numpy(np.where(units == NOBODY, True, choice.kept[units])).to(value.device)
        mask &= stays.view(-1, *(1,) * (value.dim() - d - 1))
    return mask


# ── the search ───────────────────────────────────────────────────────────────────────────────────────────────────


def choose(members: Members) -> Choice:
    """The best choice found."""
    for b, left in zip(members.bounds, members.excess([0] * len(members.groups)), strict=True):
        if left > 0:
            raise InfeasibleBounds(b.name, f"{left + b.upper} remains without any channel, {b.upper} may")
    dense = Choice(members, np.ones(members.units, dtype=np.bool_))
    down = shrunk(dense.copy())
    if members.units > LARGE:
        return filled(down)
    found = [improved(filled(down))]
    up = grown(dense)
    if up is not None:
        found.append(improved(filled(up)))
    return max(found, key=Choice.energy)


def shrunk(choice: Choice) -> Choice:
    """Units are removed until every bound holds, the least energy per saved cost first."""
    for floor in (1, 0):
        while not choice.feasible:
            over = choice.members.excess(choice.k)
            scores = {}
            for g in (g for g, k in enumerate(choice.k) if k > floor):
                saved = sum(s / x for s, x in zip(choice.members.step(choice.k, g), over, strict=True) if x > 0)
                if saved > 0:
                    scores[g] = max(0.0, float(choice.gains[choice.least(g)])) / saved
            if not scores:
                break
            choice.flip(choice.least(min(scores, key=scores.__getitem__)))
    return choice


def grown(dense: Choice) -> Choice | None:
    """One member of each group, the one with the most energy; None where even that is too much."""
    members = dense.members
    kept = np.zeros(members.units, dtype=np.bool_)
    for span in members.spans:
        kept[span.start + int(np.argmax(dense.gains[span.start : span.stop]))] = True
    choice = Choice(members, kept)
    return choice if choice.feasible else None


def filled(choice: Choice, barred: int = -1) -> Choice:
    """Units are added as long as one fits, the most energy per share of what is left first; empty groups before all.
    None of the group `barred`."""
    members = choice.members
    while True:
        room = [-x for x in members.excess(choice.k)]
        scores = {}
        for g in (g for g, k in enumerate(choice.k) if g != barred and k < members.groups[g].size):
            more = [*choice.k]
            more[g] += 1
            costs = members.step(more, g)
            if all(c <= r for c, r in zip(costs, room, strict=True)):
                share = sum(c / r for c, r in zip(costs, room, strict=True) if r)
                gain = max(0.0, float(choice.gains[choice.most(g)]))
                scores[g] = (choice.k[g] == 0, gain / share if share else np.inf)
        if not scores:
            return choice
        choice.flip(choice.most(max(scores, key=scores.__getitem__)))


def improved(choice: Choice) -> Choice:
    """Exchanges inside a group, and of one member against what then fits elsewhere, while they gain."""
    best, energy = settled(choice), choice.energy()
    for _ in range(EXCHANGES):
        tried = []
        for g in (g for g, k in enumerate(best.k) if k > 1):
            other = best.copy()
            other.flip(other.least(g))
            tried.append(settled(filled(filled(other, barred=g))))
        found = max(tried, key=Choice.energy, default=best)
        if found.energy() <= energy * (1 + ROUNDING):
            return best
        best, energy = found, found.energy()
    return best


def settled(choice: Choice) -> Choice:
    """In each group the members that add most, given those of the others."""
    for _ in range(choice.members.units):
        moved = [_swapped(choice, g) for g, k in enumerate(choice.k) if 0 < k < choice.members.groups[g].size]
        if not any(moved):
            break
    return choice


def _swapped(choice: Choice, group: int) -> bool:
    """Exchanges members of one group while that gains; whether any was."""
    moved = False
    while True:
        out, into = _exchange(choice, group)
        if choice.gains[into] - choice.shared(out, into) <= choice.gains[out] * (1 + ROUNDING):
            return moved
        choice.flip(out)
        choice.flip(into)
        moved = True


def _exchange(choice: Choice, group: int) -> tuple[int, int]:
    """The member to give up and the one to take instead. Where the two may meet in a kernel, the gain of the second is
    less by what they share, so that pairs of the nearest are looked at."""
    if group not in choice.members.meeting:
        return choice.least(group), choice.most(group)
    span = choice.members.spans[group]
    order = sorted(span, key=lambda u: choice.gains[u])
    least, most = ([u for u in order if choice.kept[u] == kept] for kept in (True, False))
    pairs = product(least[:NEAREST], most[-NEAREST:])
    return max(pairs, key=lambda p: choice.gains[p[1]] - choice.shared(*p) - choice.gains[p[0]])


# ── the bound ────────────────────────────────────────────────────────────────────────────────────────────────────


def bound(members: Members) -> float:
    """No choice keeps more energy than this.

    Of an entry between two groups each gets half: ``x_r x_c ≤ (x_r + x_c)/2``. No group keeps more members u_g than fit
    with the fewest of all others, and ``k_a k_b ≥ u_b k_a + u_a k_b − u_a u_b`` makes each budget linear, to be met by
    its Lagrangian dual; ``min over λ ≥ 0 of Σ_u (e_u − λ a_g)₊ + λ·room``.
    """
    shares, constant = _shares(members)
    most = [_most(members, g) for g in range(len(members.groups))]
    falling = [np.sort(shares[s.start : s.stop])[::-1][:u] for s, u in zip(members.spans, most, strict=True)]
    found = [sum(float(e.sum()) for e in falling)]
    for budget, terms in zip(members.bounds, members.terms, strict=True):
        slopes, room = [0] * len(most), budget.upper - budget.constant
        for c, at in terms:
            for i in at:
                slopes[i] += c * prod(most[j] for j in at) // most[i] if most[i] else 0
            room += c * (len(at) - 1) * prod(most[j] for j in at)
        found.append(_least_dual(falling, slopes, room))
    return constant + min(found)


def _shares(members: Members) -> tuple[Vector, float]:
    """What each unit gets of the energies, and what belongs to no group at all."""
    shares, constant = np.zeros(members.units), 0.0
    for b in members.blocks:
        half = np.full(b.energies.shape, 0.5)
        if b.own_rows.start:
            half[0] = 1.0
        if b.own_columns.start:
            half[:, 0] = 1.0
        parts = b.energies * half
        shares[b.rows[b.own_rows]] += parts.sum(1)[b.own_rows]
        shares[b.columns[b.own_columns]] += parts.sum(0)[b.own_columns]
        if b.own_rows.start and b.own_columns.start:
            constant += float(b.energies[0, 0])
    return shares, constant


def _most(members: Members, group: int) -> int:
    """The most members that a group can keep beside the fewest of all others."""
    few = 1 if max(members.excess([1] * len(members.groups)), default=0) <= 0 else 0
    low, high = few, members.groups[group].size
    while low < high:
        middle = (low + high + 1) // 2
        k = [few] * len(members.groups)
        k[group] = middle
        low, high = (middle, high) if max(members.excess(k), default=0) <= 0 else (low, middle - 1)
    return low


def _least_dual(falling: Sequence[Vector], slopes: Sequence[int], room: int) -> float:
    """``min over λ ≥ 0``: convex in λ, by golden section between 0 and the λ at which nothing is left."""
    ratios = [float(e[0]) / a for e, a in zip(falling, slopes, strict=True) if e.size and a]

    def dual(price: float) -> float:
        gains = (np.maximum(e - price * a, 0.0).sum() for e, a in zip(falling, slopes, strict=True))
        return float(sum(gains)) + price * room

    low, high = 0.0, max(ratios, default=0.0)
    ratio = (5**0.5 - 1) / 2
    best = min(dual(low), dual(high))
    for _ in range(HALVINGS):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        at_a, at_b = dual(a), dual(b)
        best = min(best, at_a, at_b)
        low, high = (low, b) if at_a < at_b else (a, high)
    return best
