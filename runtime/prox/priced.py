"""Weighted counts under nested counts: Lagrange multipliers, a feasible point, and a certified gap.

Maximise the energy kept subject to a laminar family of counts and ``cost_r ≤ B_r``, r = 1…R, where the cost of a
tensor is an affine function of its kept positions or the least of several. For multipliers τ ≥ 0 the rest is solved
exactly (`laminar.allocate`) at the price ``P_t = Σ_r τ_r a_rt`` a position, and

    D(τ, λ) = Σ_t max_o [Σ_i (v_i² − P_to − Λ_t)₊ − Σ_r τ_r c_rto] + Σ_S (λ_S⁺ U_S − λ_S⁻ L_S) + Σ_r τ_r (B_r − const_r)

bounds the optimum from above whatever τ and λ are. The gap reported is the least D seen minus the energy kept.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from prunelang.compiler.joint import ChoiceBound, CountBound
from prunelang.runtime.prox.laminar import Allocation, InfeasibleBounds, allocate, held, root
from prunelang.runtime.prox.profile import Profile

SWEEPS = 6  # rounds of coordinate descent on the dual, at most; one where there is one multiplier
HALVINGS = 50  # of the bracket of a multiplier, in its logarithm
FILLS = 5_000  # steps of the final fill


@dataclass(frozen=True)
class Affine:
    """One way to store a tensor: what a position and the tensor itself cost, for each weighted bound."""

    slopes: tuple[int, ...]
    fixed: tuple[int, ...]


@dataclass
class Priced:
    """The problem; `solve` does the work. It starts afresh each time, so that a resumed run repeats it to the bit."""

    profiles: Mapping[str, Profile]
    counts: Sequence[CountBound]
    weighted: Sequence[CountBound | ChoiceBound]
    pinned: frozenset[str]

    def __post_init__(self) -> None:
        self.tau = [0.0] * len(self.weighted)
        self.ways = {t: ways_of(t, self.weighted) for t in self.profiles}
        self.around = {t: [c.name for c in self.counts if t in c.tensors] for t in self.profiles}
        self.multipliers = {c.name: 0.0 for c in self.counts}  # λ_S of the last allocation
        self.extra = dict.fromkeys(self.profiles, 0.0)  # Λ_t = Σ_{S ∋ t} λ_S
        self.bound = float("inf")

    def solve(self) -> dict[str, int]:
        """Items kept per tensor: feasible, and within `gap` of the best."""
        for sweep in range(SWEEPS if len(self.weighted) > 1 else 1):
            before = list(self.tau)
            for r in range(len(self.weighted)):
                self.settle(r)
            if sweep and all(abs(a - b) <= 1e-9 * max(a, b) for a, b in zip(self.tau, before, strict=True)):
                break
        items = self.repair()
        self.fill(items)
        return items

    def gap(self, items: Mapping[str, int]) -> float:
        """How much more energy any feasible choice could keep, at most."""
        return max(0.0, self.bound - sum(p.energy(items[t]) for t, p in self.profiles.items()))

    def respond(self, tau: Sequence[float]) -> Allocation:
        """The exact answer at the prices that τ makes; improves the bound."""
        prices = {t: dot(tau, self.best_way(t, tau)[1].slopes) for t in self.profiles}
        found = allocate(self.profiles, self.counts, prices if any(prices.values()) else None, self.pinned)
        self.multipliers = found.multipliers
        self.extra = {t: sum(found.multipliers[c] for c in names) for t, names in self.around.items()}
        self.bound = min(self.bound, self.dual(tau))
        return found

    def best_way(self, t: str, tau: Sequence[float], scale: float = 1.0) -> tuple[float, Affine]:
        """The way to store tensor t that gains most at multipliers τ and `scale` · λ, and that gain."""
        extra = scale * self.extra[t]
        return max(((self.gain(t, tau, extra, way), way) for way in self.ways[t]), key=lambda found: found[0])

    def gain(self, t: str, tau: Sequence[float], extra: float, way: Affine) -> float:
        profile, price = self.profiles[t], dot(tau, way.slopes) + extra
        j = profile.items if t in self.pinned else profile.above(root(price))
        return profile.energy(j) - profile.positions(j) * price - dot(tau, way.fixed)

    def dual(self, tau: Sequence[float]) -> float:
        """D(τ, λ) at the multipliers of the last allocation."""
        return sum(self.best_way(t, tau)[0] for t in self.profiles) + self.budgets(tau)

    def budgets(self, tau: Sequence[float]) -> float:
        """Σ_S (λ_S⁺ U_S − λ_S⁻ L_S) + Σ_r τ_r (B_r − const_r)."""
        weighted = sum(z * ((b.upper or 0) - b.constant) for z, b in zip(tau, self.weighted, strict=True))
        counted = ((self.multipliers[c.name], c) for c in self.counts)
        return weighted + sum(z * ((c.most or 0) if z > 0 else c.least) for z, c in counted)

    def thresholds(self, scale: float = 1.0) -> dict[str, float]:
        """Price of a position of each tensor, all multipliers included: what a kept entry's square must exceed."""
        prices = {t: dot(self.tau, self.best_way(t, self.tau)[1].slopes) + self.extra[t] for t in self.profiles}
        return {t: scale * p for t, p in prices.items()}

    def excess(self, r: int, items: Mapping[str, int]) -> int:
        """By how much weighted bound r is exceeded, ≤ 0 when it holds."""
        bound = self.weighted[r]
        spent = sum(cost(bound, t, p.positions(items[t])) for t, p in self.profiles.items() if t in bound.tensors)
        return spent + bound.constant - (bound.upper or 0)

    def settle(self, r: int) -> None:
        """τ_r ← the least multiplier at which bound r holds, the others fixed."""

        def holds(value: float) -> bool:
            self.tau[r] = value
            return self.excess(r, self.respond(self.tau).items) <= 0

        start = self.tau[r] or self.scale(r)
        if holds(0.0):
            return
        self.tau[r] = least_where(holds, start)
        self.respond(self.tau)

    def scale(self, r: int) -> float:
        """A first guess: the mean square per unit of cost."""
        bound = self.weighted[r]
        energy = sum(self.profiles[t].energy(self.profiles[t].items) for t in bound.tensors if t in self.profiles)
        return max(energy / max((bound.upper or 0), 1), 1e-30)

    def repair(self) -> dict[str, int]:
        """The first feasible answer when all multipliers grow together."""
        tau, found = list(self.tau), self.respond(self.tau).items

        def holds(factor: float) -> bool:
            nonlocal found
            grown = [factor * (z or self.scale(r)) if factor > 1 else z for r, z in enumerate(tau)]
            items = self.respond(grown).items
            if any(self.excess(r, items) > 0 for r in range(len(tau))):
                return False
            found, self.tau[:] = items, grown
            return True

        if not holds(1.0):
            holds(least_where(holds, 2.0))
        over = [b.name for r, b in enumerate(self.weighted) if self.excess(r, found) > 0]
        if over:
            raise InfeasibleBounds(over[0], "what must be kept costs more than it allows")
        return dict(found)

    def fill(self, items: dict[str, int]) -> None:
        """Adds items, by merit over threshold, while every bound has room."""
        thresholds = self.thresholds()
        spent = {c.name: held({t: self.profiles[t] for t in c.tensors}, items) for c in self.counts}
        room = [-self.excess(r, items) for r in range(len(self.weighted))]
        worths = {t: self.worth(t, items[t], thresholds) for t in self.profiles}
        queue = [(-worth, t) for t, worth in worths.items() if worth]
        heapq.heapify(queue)
        for _ in range(FILLS):
            if not queue:
                return
            _, t = heapq.heappop(queue)
            profile, j = self.profiles[t], items[t]
            rival = -queue[0][0] * max(thresholds[t], 1e-300) if queue else 0.0
            wanted = max(j + 1, profile.above(root(rival)))
            to = self.furthest(t, j, wanted, spent, room)
            if to == j:
                continue
            for c in self.around[t]:
                spent[c] += profile.positions(to) - profile.positions(j)
            room = [left - self.rise(r, t, j, to) for r, left in enumerate(room)]
            items[t] = to
            worth = self.worth(t, items[t], thresholds)
            if worth:
                heapq.heappush(queue, (-worth, t))

    def worth(self, t: str, j: int, thresholds: Mapping[str, float]) -> float:
        """Squared merit of the next item over its threshold; 0 when there is none to gain."""
        profile = self.profiles[t]
        return profile.merit(j) ** 2 / max(thresholds[t], 1e-300) if j < profile.items else 0.0

    def rise(self, r: int, t: str, j: int, to: int) -> int:
        bound, profile = self.weighted[r], self.profiles[t]
        if t not in bound.tensors:
            return 0
        return cost(bound, t, profile.positions(to)) - cost(bound, t, profile.positions(j))

    def furthest(self, t: str, j: int, wanted: int, spent: Mapping[str, int], room: Sequence[int]) -> int:
        """The most items of tensor t, up to `wanted`, for which every bound has room."""
        low, high = j, wanted
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.fits(t, j, middle, spent, room) else (low, middle - 1)
        return low

    def fits(self, t: str, j: int, to: int, spent: Mapping[str, int], room: Sequence[int]) -> bool:
        more = self.profiles[t].positions(to) - self.profiles[t].positions(j)
        for c in self.counts:
            if t in c.tensors and c.most is not None and spent[c.name] + more > c.most:
                return False
        return all(self.rise(r, t, j, to) <= left for r, left in enumerate(room))


def ways_of(t: str, weighted: Sequence[CountBound | ChoiceBound]) -> list[Affine]:
    """Every combination of formats of tensor t over all bounds."""
    choices: list[list[tuple[int, int]]] = []
    for b in weighted:
        if isinstance(b, ChoiceBound):
            choices.append([(a, c) for _, a, c in b.alternatives.get(t, (("", 0, 0),))])
        else:
            choices.append([(b.coefficients.get(t, 0), 0)])
    return [Affine(tuple(a for a, _ in way), tuple(c for _, c in way)) for way in product(*choices)]


def cost(bound: CountBound | ChoiceBound, t: str, positions: int) -> int:
    """What tensor t costs with so many positions kept."""
    if isinstance(bound, ChoiceBound):
        return min(a * positions + c for _, a, c in bound.alternatives[t])
    return bound.coefficients[t] * positions


def dot(a: Sequence[float], b: Sequence[int]) -> float:
    return float(sum(x * y for x, y in zip(a, b, strict=True)))


def least_where(holds: Callable[[float], bool], start: float) -> float:
    """A point at which `holds`, next to one at which it does not (to a relative 1e-12), found around `start` > 0."""
    step, high = 2.0, start
    while not holds(high):
        if high > 1e200:
            return high
        high, step = high * step, step * step
    low, step = high / 2, 2.0
    while low > 1e-200 and holds(low):
        high, low, step = low, low / step, step * step
    for _ in range(HALVINGS):
        if high <= low * (1 + 1e-12):
            break
        middle = (low * high) ** 0.5 if high > 4 * low else (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
