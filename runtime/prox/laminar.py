"""Nested counts, exactly: which integer number of items each tensor keeps.

Maximise ``Σ_t energy_t(j_t) − P_t · positions_t(j_t)`` subject to ``L_S ≤ Σ_{t ∈ S} positions_t(j_t) ≤ U_S`` for a
laminar family of sets S. From the inside out, each set first reserves its lower bound (the best items that its inner
sets allow), then drops all but its upper bound, never what is reserved: for a laminar family of matroids the greedy
choice is optimal. Ties go to the lowest global index.

The thresholds met on the way are the Lagrange multipliers of the bounds; with any non-negative multipliers the
Lagrangian bounds the optimum from above, so that a certificate needs no trust in how they were found.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import copysign, inf, sqrt

from prunelang.compiler.joint import CountBound
from prunelang.runtime.prox.profile import Profile


class InfeasibleBounds(ValueError):
    """No set of kept positions satisfies the bounds. `name` is the one that failed."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} cannot be met: {why}")
        self.name = name


@dataclass
class Allocation:
    """Items kept per tensor, and the multiplier of each count: > 0 its upper bound is tight, < 0 its lower."""

    items: dict[str, int]
    multipliers: dict[str, float] = field(default_factory=dict)


def allocate(
    profiles: Mapping[str, Profile],
    counts: Sequence[CountBound],
    prices: Mapping[str, float] | None = None,
    pinned: frozenset[str] = frozenset(),
) -> Allocation:
    """The maximiser. `counts` are plain and laminar, inner sets first; `prices` P_t default to 0.

    Raises `InfeasibleBounds` when the bounds contradict each other.
    """
    price = prices or {}
    floor = {t: p.items if t in pinned else 0 for t, p in profiles.items()}
    cap = {t: p.items for t, p in profiles.items()}
    cuts: list[tuple[float, float]] = []
    for bound in counts:
        inside = {t: profiles[t] for t in bound.tensors}
        reserve, drop = inf, -inf
        if held(inside, floor) < bound.least:
            reserve, floor_ = share_out(inside, bound.least, floor, cap, price, reach=True)
            floor.update(floor_)
            if held(inside, floor) < bound.least:
                raise InfeasibleBounds(bound.name, f"at most {held(inside, floor)} of {bound.least} can be kept")
        if bound.most is not None and held(inside, cap) > bound.most:
            if held(inside, floor) > bound.most:
                raise InfeasibleBounds(bound.name, f"{held(inside, floor)} must be kept, {bound.most} may be")
            drop, cap_ = share_out(inside, bound.most, floor, cap, price)
            cap.update(cap_)
        cuts.append((drop, reserve))
    items = {t: min(cap[t], max(floor[t], p.above(root(price.get(t, 0.0))))) for t, p in profiles.items()}
    if not price:  # nothing is gained by dropping more than the bounds ask for
        items = cap
    return Allocation(items, multipliers_of(counts, cuts))


def held(profiles: Mapping[str, Profile], items: Mapping[str, int]) -> int:
    """Positions held by the first `items` of each tensor."""
    return sum(p.positions(items[t]) for t, p in profiles.items())


def share_out(
    profiles: Mapping[str, Profile],
    budget: int,
    floor: Mapping[str, int],
    cap: Mapping[str, int],
    price: Mapping[str, float],
    reach: bool = False,
) -> tuple[float, dict[str, int]]:
    """The best items between `floor` and `cap` that hold at most `budget` positions, and their common threshold.

    With `reach` the last item may overshoot, so that at least `budget` positions are held where that is possible.
    """
    if len(profiles) == 1:
        return share_out_alone(*next(iter(profiles.items())), budget, floor, cap, price, reach)
    cut = threshold_where(lambda x: held(profiles, kept_above(profiles, x, floor, cap, price)) <= budget)
    found = kept_above(profiles, cut, floor, cap, price)
    tied = kept_above(profiles, below(cut), floor, cap, price)
    room = budget - held(profiles, found)
    for t, p in profiles.items():
        before = p.positions(found[t])
        found[t] = p.within(before + room, found[t], tied[t])
        room -= p.positions(found[t]) - before
        if reach and room > 0 and found[t] < tied[t]:
            found[t] += 1
            room = 0
    return copysign(cut * cut, cut), found


def share_out_alone(
    t: str,
    profile: Profile,
    budget: int,
    floor: Mapping[str, int],
    cap: Mapping[str, int],
    price: Mapping[str, float],
    reach: bool,
) -> tuple[float, dict[str, int]]:
    """`share_out` for a set of one tensor, which has no threshold to search for."""
    j = profile.within(budget, floor[t], cap[t])
    if reach and profile.positions(j) < budget and j < cap[t]:
        j += 1
    last = profile.merit(j) if j < profile.items else 0.0
    return last * last - price.get(t, 0.0), {t: j}


def kept_above(
    profiles: Mapping[str, Profile],
    cut: float,
    floor: Mapping[str, int],
    cap: Mapping[str, int],
    price: Mapping[str, float],
) -> dict[str, int]:
    """Items with ``merit² − P_t > cut·|cut|``, between `floor` and `cap`."""
    found = {}
    for t, p in profiles.items():
        cost = price.get(t, 0.0)
        found[t] = min(cap[t], max(floor[t], p.above(cut if cost == 0 else root(cost + copysign(cut * cut, cut)))))
    return found


def root(energy: float) -> float:
    """√e, with its sign."""
    return copysign(sqrt(abs(energy)), energy)


def threshold_where(holds: Callable[[float], bool]) -> float:
    """The least float64 at which `holds`, which is false below some point and true from there on."""
    low, high = _rank(-1.7e154), _rank(1.7e154)  # their squares are finite
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(_float(middle)) else (middle + 1, high)
    return _float(low)


def below(value: float) -> float:
    """The float64 just below."""
    return _float(_rank(value) - 1)


def _rank(value: float) -> int:
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits if bits >= 0 else -(bits & 0x7FFF_FFFF_FFFF_FFFF)


def _float(rank: int) -> float:
    value: float = struct.unpack("<d", struct.pack("<q", abs(rank)))[0]
    return value if rank >= 0 else -value


def multipliers_of(counts: Sequence[CountBound], cuts: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Multiplier of each bound: by how much its set's threshold exceeds that of the next larger set."""
    level: dict[int, float] = {}
    found: dict[str, float] = {}
    for i in reversed(range(len(counts))):
        inside = set(counts[i].tensors)
        outer = next((j for j in range(i + 1, len(counts)) if inside <= set(counts[j].tensors)), None)
        around = level[outer] if outer is not None else 0.0
        drop, reserve = cuts[i]
        level[i] = min(max(around, drop), max(reserve, drop))
        found[counts[i].name] = level[i] - around
    return found
