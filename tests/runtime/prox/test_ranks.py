"""Ranks under budgets against the enumeration of all choices."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunelang.compiler.forms import Modes
from prunelang.compiler.trains import capped, parameters
from prunelang.runtime.prox.ranks import Infeasible, choose, choose_many, penalised, train_ranks

Layers = tuple[list[np.ndarray], list[np.ndarray]]


def naive(losses: list[np.ndarray], costs: list[np.ndarray], budgets: tuple[int, ...]) -> float:
    """The least loss, by trying everything; ∞ where nothing fits."""
    best = np.inf
    for picks in product(*[range(len(e)) for e in losses]):
        spent = sum(c[j] for c, j in zip(costs, picks, strict=True))
        if (np.asarray(spent) <= budgets).all():
            best = min(best, sum(e[j] for e, j in zip(losses, picks, strict=True)))
    return best


def layers(rng: np.random.Generator, budgets: int, nested: bool) -> Layers:
    """Up to four layers of up to six choices; nested ones cost more in every budget the less they lose, as ranks do."""
    losses, costs = [], []
    for _ in range(rng.integers(1, 5)):
        n = int(rng.integers(1, 7))
        e, c = np.round(rng.random(n), int(rng.integers(1, 9))), rng.integers(0, 12, (n, budgets))
        losses.append(np.sort(e)[::-1].copy() if nested else e)
        costs.append(np.sort(c, axis=0) if nested else c)
    return losses, costs


@given(st.integers(0, 10**6), st.integers(1, 3), st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_choice_is_the_best_of_all(seed: int, budgets: int, nested: bool) -> None:
    rng = np.random.default_rng(seed)
    nested = nested or budgets > 1
    losses, costs = layers(rng, budgets, nested)
    least, most = sum(c.min(axis=0) for c in costs), sum(c.max(axis=0) for c in costs)
    limits = tuple(int(b) for b in rng.integers(least, most + 1))
    found = choose_many(losses, costs, limits)
    assert (sum(c[j] for c, j in zip(costs, found.picks, strict=True)) <= np.array(limits)).all()
    assert found.loss == pytest.approx(sum(e[j] for e, j in zip(losses, found.picks, strict=True)), abs=1e-12)
    assert found.loss == pytest.approx(naive(losses, costs, limits), abs=1e-12)
    assert found.gap == 0.0
    if budgets == 1:
        assert choose(losses, [c[:, 0] for c in costs], limits[0]) == found


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=80, deadline=None)
def test_gaps_are_certified_however_few_states_are_kept(seed: int, budgets: int, states: int) -> None:
    rng = np.random.default_rng(seed)
    losses, costs = layers(rng, budgets, nested=True)
    least, most = sum(c.min(axis=0) for c in costs), sum(c.max(axis=0) for c in costs)
    limits = tuple(int(b) for b in rng.integers(least, most + 1))
    found = choose_many(losses, costs, limits, states)
    best = naive(losses, costs, limits)
    assert best - 1e-12 <= found.loss
    assert found.loss - found.gap <= best + 1e-12


def test_a_thinned_program_reports_a_gap() -> None:
    """Sums of odd sizes that must fill a budget exactly: the bound is not reached, and few states do not prove it."""
    rng = np.random.default_rng(5)
    losses = [np.array([float(c), 0.0]) for c in rng.integers(10**6, 10**7, 16)]
    costs = [np.array([0, int(e[0])]) for e in losses]
    budget = sum(int(c[1]) for c in costs) // 2
    thin = choose(losses, costs, budget, states=4)
    whole = choose(losses, costs, budget)
    assert thin.gap > 0.0
    assert thin.loss - thin.gap <= whole.loss <= thin.loss


def test_budgets_that_cannot_be_kept_say_by_how_much() -> None:
    with pytest.raises(Infeasible, match="budget 0 by 3") as e:
        choose([np.array([1.0, 0.0])] * 2, [np.array([4, 9])] * 2, 5)
    assert (e.value.budget, e.value.excess) == (0, 3)
    with pytest.raises(Infeasible, match="budget 1 by 1"):
        choose_many([np.zeros(1)], [np.array([[0, 1]])], (5, 0))
    with pytest.raises(OverflowError):
        choose([np.zeros(1)] * 2, [np.array([1 << 61])] * 2, 1 << 62)


def test_a_real_network_is_solved_exactly() -> None:
    """Ranks of 40 layers under 10 % of their parameters: exact, and no single exchange of ranks betters them."""
    rng = np.random.default_rng(0)
    losses, costs = [], []
    for _ in range(40):
        q = int(rng.integers(20, 300))
        energy = np.sort(rng.exponential(size=q) * np.exp(-np.arange(q) / rng.uniform(10, 100)))
        losses.append(np.append(np.cumsum(energy)[::-1], 0.0))
        costs.append(np.arange(q + 1, dtype=np.int64) * int(rng.integers(50, 2000)))
    budget = sum(int(c[-1]) for c in costs) // 10
    found = choose(losses, costs, budget)
    assert found.gap == 0.0
    room = budget - sum(int(c[j]) for c, j in zip(costs, found.picks, strict=True))
    assert room >= 0
    for a in range(40):
        for b in range(a):
            now = losses[a][found.picks[a]] + losses[b][found.picks[b]]
            paid = costs[a][found.picks[a]] + costs[b][found.picks[b]] + room
            fits = costs[a][:, None] + costs[b][None] <= paid
            assert np.where(fits, losses[a][:, None] + losses[b][None], np.inf).min() >= now - 1e-9


@given(st.integers(0, 10**6), st.floats(0, 10))
def test_a_price_is_settled_by_enumeration(seed: int, price: float) -> None:
    rng = np.random.default_rng(seed)
    losses, costs = rng.random(9), rng.integers(0, 9, 9)
    found = penalised(losses, costs, price)
    assert losses[found] + price * costs[found] == min(e + price * c for e, c in zip(losses, costs, strict=True))
    assert penalised(np.zeros(3), np.array([2, 1, 1]), 0.0) == 1


@pytest.mark.parametrize(
    "modes", [((2, 2), (2, 2)), ((2, 2), (2, 1), (1, 3)), ((2, 1), (2, 2), (1, 2), (2, 2))], ids=str
)
@pytest.mark.parametrize("seed", range(5))
def test_some_rank_vector_of_the_family_beats_every_train(modes: Modes, seed: int) -> None:
    """For every rank vector one of the family costs no more, and its `low` is no larger than that of the vector."""
    rng = np.random.default_rng(seed)
    rows, columns = np.prod([m for m, _ in modes]), np.prod([n for _, n in modes])
    tensor = rng.standard_normal((rows, columns)).reshape([m for m, _ in modes] + [n for _, n in modes])
    d = len(modes)
    tensor = tensor.transpose([a for k in range(d) for a in (k, d + k)]).reshape([m * n for m, n in modes])
    tails = []
    for k in range(1, d):
        s = np.linalg.svd(tensor.reshape(int(np.prod(tensor.shape[:k])), -1), compute_uv=False)
        tails.append(np.append(np.cumsum((s**2)[::-1])[::-1], 0.0))
    family = train_ranks(tails, modes)
    assert (family.low <= family.high).all()
    assert (family.high <= (d - 1) * family.low + 1e-12).all()
    assert (np.diff(family.ranks, axis=0) >= 0).all()
    costs = [parameters(modes, [int(r) for r in ranks]) for ranks in family.ranks]
    for ranks in product(*[range(len(t)) for t in tails]):
        if capped(modes, ranks) == ranks:
            low = max(t[r] for t, r in zip(tails, ranks, strict=True))
            cheaper = [x for x, c in zip(family.low, costs, strict=True) if c <= parameters(modes, ranks)]
            assert min(cheaper) <= low + 1e-12
