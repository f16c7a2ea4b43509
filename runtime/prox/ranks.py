"""Ranks under budgets: the multiple-choice knapsack, exact where its states fit, else with a certified gap.

Every layer l offers choices j with a loss e_lj (float64) and costs c_lj (exact integers, one a budget). One is picked:

    min Σ_l e_{l j_l}   subject to   Σ_l c_{l j_l} ≤ B

For any prices λ ≥ 0, ``D(λ) = Σ_l min_j (e_lj + λᵀc_lj) − λᵀB`` is at most that minimum. The greatest D, found by
cutting planes, and a feasible pick bound the loss from both sides; a dynamic program over (layer, choice) then keeps
the states that may still lie between, and with one budget those that no other undercuts in both cost and loss
(Pisinger, A Minimal Algorithm for the Multiple-Choice Knapsack Problem, Eur. J. Oper. Res. 83, 1995).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from prunelang.compiler.forms import Modes

Losses: TypeAlias = NDArray[np.float64]
Costs: TypeAlias = NDArray[np.int64]
Picks: TypeAlias = tuple[int, ...]

STATES = 1 << 22  # of a layer of the dynamic program; beyond them the least promising are dropped, and bound the gap
STATES_OF_SEVERAL = 1 << 17  # with several budgets few states undercut each other, so that more would not buy much
CUTS = 200  # cutting planes of the dual, at most: any number of them gives a valid bound
ROUNDING = 1e-12  # relative; a state is dropped only if it is worse by more than sums of losses are rounded


class Infeasible(ValueError):
    """No pick keeps the budgets. `budget` is the place of the first that is exceeded, `excess` by how much at least."""

    def __init__(self, budget: int, excess: int) -> None:
        super().__init__(f"the cheapest choices exceed budget {budget} by {excess}")
        self.budget, self.excess = budget, excess


@dataclass(frozen=True)
class Chosen:
    """One choice a layer, keeping every budget. No other pick that does has a loss below ``loss − gap``."""

    picks: Picks
    loss: float
    gap: float


def choose(losses: Sequence[Losses], costs: Sequence[Costs], budget: int, states: int | None = None) -> Chosen:
    """The pick of least loss under one budget. `losses[l]` and `costs[l]` list the choices of layer l."""
    return choose_many(losses, [np.asarray(c, np.int64)[:, None] for c in costs], (budget,), states)


def choose_many(
    losses: Sequence[Losses], costs: Sequence[Costs], budgets: Sequence[int], states: int | None = None
) -> Chosen:
    """The pick of least loss under several budgets. `costs[l]` has a row for each choice, a column for each budget.

    Raises `Infeasible` if a budget cannot be kept, or if no pick that keeps all of them is found; where every layer has
    one choice that is cheapest in all columns, as ranks have, that means that there is none.
    """
    knapsack = Knapsack([np.asarray(e, np.float64) for e in losses], [np.asarray(c, np.int64) for c in costs], budgets)
    knapsack.check()
    prices, bound, start = knapsack.dual()
    picks = knapsack.fill(start)
    loss = knapsack.loss(picks)
    better, lowest = knapsack.program(prices, loss, states or (STATES if len(budgets) == 1 else STATES_OF_SEVERAL))
    if better is not None and knapsack.loss(better) < loss:
        picks, loss = better, knapsack.loss(better)
    return Chosen(picks, loss, max(0.0, loss - max(bound, lowest)) if lowest < loss else 0.0)


def penalised(losses: Losses, costs: Costs, price: float) -> int:
    """``argmin_j e_j + price · c_j``, by enumeration; of equals the cheapest."""
    priced = np.asarray(losses, np.float64) + price * np.asarray(costs, np.float64)
    return min(range(len(priced)), key=lambda j: (priced[j], costs[j]))


class RankFamily(NamedTuple):
    """Rank vectors of one train, most accurate last: ``low ≤ min ‖W − TT‖² ≤ ‖W − TT-SVD‖² ≤ high ≤ (d − 1) low``.

    For every train there is one in the family that costs no more, whatever cost rises with all ranks, and whose `low`
    is at most the train's loss. A pick over several layers by `high` is hence within the factor d − 1 of the least
    total loss, and the total of a pick by `low` bounds that from below.
    """

    ranks: Costs  # n × (d − 1)
    low: Losses  # n: max_k tails_k
    high: Losses  # n: Σ_k tails_k


def train_ranks(tails: Sequence[Losses], modes: Modes) -> RankFamily:
    """The rank vectors ``r_k(δ) = min {r : tails_k(r) ≤ δ}`` for all thresholds δ, cut to what a train can have.

    `tails[k][r]` are the discarded energies of unfolding k + 1 at rank r = 0 … q_k, as `unfolding_tails` gives them.
    """
    thresholds = np.unique(np.concatenate([np.asarray(t, np.float64) for t in tails]))[::-1]
    wanted = [len(t) - np.searchsorted(t[::-1], thresholds, side="right") for t in tails]
    low = np.max([t[r] for t, r in zip(tails, wanted, strict=True)], axis=0)
    ranks = _capped(np.stack(wanted, axis=1).astype(np.int64), modes)
    high = np.sum([t[r] for t, r in zip(tails, ranks.T, strict=True)], axis=0)
    return RankFamily(ranks, low, high)


def _capped(ranks: Costs, modes: Modes) -> Costs:
    """``r_k ≤ r_{k−1} s_k`` and ``r_{k−1} ≤ s_k r_k``, for all rows at once."""
    sizes, found = [m * n for m, n in modes], ranks.copy()
    for k in range(1, found.shape[1]):
        found[:, k] = np.minimum(found[:, k], found[:, k - 1] * sizes[k])
    for k in range(found.shape[1] - 1, 0, -1):
        found[:, k - 1] = np.minimum(found[:, k - 1], found[:, k] * sizes[k])
    return found


@dataclass
class Knapsack:
    """The problem, one array of losses and one of costs a layer."""

    losses: Sequence[Losses]
    costs: Sequence[Costs]
    budgets: Sequence[int]

    def __post_init__(self) -> None:
        self.limits = np.array(self.budgets, np.int64)

    def check(self) -> None:
        """Raises `Infeasible` for the first budget that the cheapest choices exceed, `OverflowError` beyond 2⁶²."""
        if sum(int(np.abs(c).max(initial=0)) for c in self.costs) >= 1 << 62:
            raise OverflowError("costs of 2⁶² and more cannot be added up exactly")
        for p, limit in enumerate(self.budgets):
            least = sum(int(c[:, p].min()) for c in self.costs)
            if least > limit:
                raise Infeasible(p, least - limit)

    def loss(self, picks: Picks) -> float:
        return float(sum(e[j] for e, j in zip(self.losses, picks, strict=True)))

    def spent(self, picks: Picks) -> Costs:
        total = np.zeros_like(self.limits)
        for c, j in zip(self.costs, picks, strict=True):
            total += c[j]
        return total

    # ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────────

    def respond(self, prices: Losses) -> Picks:
        """Of every layer the choice with the least ``e + λᵀc``, of equals the first cheapest one."""
        picks = []
        for e, c in zip(self.losses, self.costs, strict=True):
            priced = e + c @ prices
            ties = np.flatnonzero(priced <= priced.min())
            picks.append(int(ties[np.argmin((c[ties] / np.maximum(self.limits, 1)).sum(1))]))
        return tuple(picks)

    def dual(self) -> tuple[Losses, float, Picks]:
        """Prices near the greatest D(λ), that bound, and the best feasible pick on the way (Kelley's cutting planes).

        Prices are in units of loss per share of a budget inside, so that all are alike.
        """
        unit, cheapest = np.maximum(self.limits, 1).astype(np.float64), self.cheapest()
        slack = np.maximum((self.limits - self.spent(cheapest)) / unit, 1e-9)
        highest = np.maximum(self.loss(cheapest), 1e-300) / slack  # where D cannot rise any more
        best, prices, found = -np.inf, np.zeros(len(unit)), cheapest
        cuts: list[Any] = []
        at = prices
        for _ in range(CUTS):
            picks = self.respond(at / unit)
            over = (self.spent(picks) - self.limits) / unit
            loss = self.loss(picks)
            if loss + over @ at > best:
                best, prices = float(loss + over @ at), at
            if (over <= 0).all() and loss < self.loss(found):
                found = picks
            cuts.append((over, loss))
            # max θ over 0 ≤ λ ≤ highest with θ ≤ loss + overᵀλ for every pick met
            rows = np.array([[*(-g), 1.0] for g, _ in cuts])
            limits = [(0.0, float(h)) for h in highest]
            step = linprog([*[0.0] * len(unit), -1.0], rows, [e for _, e in cuts], bounds=[*limits, (None, None)])
            if not step.success or -step.fun <= best + 1e-9 * max(abs(best), 1e-300):
                break
            at = step.x[:-1]
        return prices / unit, best, found

    def cheapest(self) -> Picks:
        """A pick that keeps the budgets, each layer at its least share of them. Raises `Infeasible` if it does not."""
        shares = [c / np.maximum(self.limits, 1) for c in self.costs]
        picks = tuple(
            int(np.lexsort((e, s.sum(axis=1), s.max(axis=1)))[0]) for s, e in zip(shares, self.losses, strict=True)
        )
        over = self.spent(picks) - self.limits
        if (over > 0).any():
            p = int(np.argmax(over > 0))
            raise Infeasible(p, int(over[p]))
        return picks

    def fill(self, picks: Picks) -> Picks:
        """Takes, while there is one that fits, the single change that lowers the loss most."""
        now = list(picks)
        while True:
            room = self.limits - self.spent(tuple(now))
            gains = [self._best_change(layer, now[layer], room) for layer in range(len(now))]
            layer = max(range(len(now)), key=lambda i: gains[i][0])
            if gains[layer][0] <= 0:
                return tuple(now)
            now[layer] = gains[layer][1]

    def _best_change(self, layer: int, j: int, room: Costs) -> tuple[float, int]:
        e, c = self.losses[layer], self.costs[layer]
        fits = (c - c[j] <= room).all(axis=1)
        to = int(np.argmin(np.where(fits, e, np.inf)))
        return float(e[j] - e[to]), to

    # ── dynamic program ──────────────────────────────────────────────────────────────────────────────────────────

    def program(self, prices: Losses, upper: float, states: int) -> tuple[Picks | None, float]:
        """The best pick that may undercut `upper`, None if none can, and the least bound of the states dropped.

        That is +∞ if every state was kept: then what is found, or else `upper`, is the least loss.
        """
        layers = self._candidates(prices, upper)
        least = np.array([[c[:, p].min() for p in range(len(self.limits))] for _, c, _ in layers])
        floor = [float((e + c @ prices).min()) for e, c, _ in layers]
        cost, loss = np.zeros((1, len(self.limits)), np.int64), np.zeros(1)
        trail: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        dropped = np.inf
        for i, (e, c, _) in enumerate(layers):
            keep = self._most_promising(loss + cost @ prices, states // len(e))
            if len(keep) < len(loss):
                lost = np.delete(loss + cost @ prices, keep).min() + sum(floor[i:]) - float(prices @ self.limits)
                dropped = min(dropped, float(lost))
            wide = (cost[keep][:, None] + c[None]).reshape(-1, c.shape[1])
            sums = (loss[keep][:, None] + e[None]).ravel()
            rest = least[i + 1 :].sum(axis=0) if i + 1 < len(layers) else 0
            bound = sums + wide @ prices + sum(floor[i + 1 :]) - float(prices @ self.limits)
            alive = np.flatnonzero((wide + rest <= self.limits).all(axis=1) & (bound <= upper + self._rounding(upper)))
            alive = alive[_undominated(wide[alive], sums[alive])]
            if not len(alive):
                return None, dropped
            cost, loss = wide[alive], sums[alive]
            trail.append((keep[alive // len(e)], alive % len(e)))
        at, picks = int(np.argmin(loss)), list[int]()
        for (parents, choices), (_, _, places) in zip(reversed(trail), reversed(layers), strict=True):
            picks.append(int(places[choices[at]]))
            at = int(parents[at])
        return tuple(reversed(picks)), dropped

    def _candidates(self, prices: Losses, upper: float) -> list[tuple[Losses, Costs, NDArray[np.int64]]]:
        """Losses, costs and places of the choices that a pick better than `upper` may make: small reduced cost."""
        priced = [e + c @ prices for e, c in zip(self.losses, self.costs, strict=True)]
        best = sum(float(p.min()) for p in priced) - float(prices @ self.limits)
        room = max(0.0, upper - best) + self._rounding(upper)
        found = []
        for e, c, p in zip(self.losses, self.costs, priced, strict=True):
            places = np.flatnonzero(p - p.min() <= room)
            places = places[_undominated(c[places], e[places])]
            found.append((e[places], c[places], places))
        return found

    def _rounding(self, upper: float) -> float:
        total = sum(float(np.abs(e).max()) for e in self.losses)
        return ROUNDING * max(total, abs(upper))

    @staticmethod
    def _most_promising(bounds: Losses, states: int) -> NDArray[np.int64]:
        """Places of the `states` lowest bounds, in order of place."""
        if len(bounds) <= max(states, 1):
            return np.arange(len(bounds))
        return np.sort(np.argpartition(bounds, max(states, 1))[: max(states, 1)])


def _undominated(costs: Costs, losses: Losses) -> NDArray[np.int64]:
    """Places of the states that no other undercuts or equals in every cost and in loss.

    For one budget by sorting; for several only states of equal costs are compared.
    """
    if not len(losses):
        return np.arange(0)
    order = np.lexsort((losses, *costs.T[::-1]))
    if costs.shape[1] == 1:
        sums = losses[order]
        lowest = np.minimum.accumulate(sums)
        first = np.ones(len(order), bool)
        first[1:] = sums[1:] < lowest[:-1]
    else:
        ranked = costs[order]
        first = np.ones(len(order), bool)
        first[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    return np.sort(order[first])
