"""Modes, parameters and contraction orders of trains, against enumeration and an independent contraction planner."""

from __future__ import annotations

from itertools import permutations, product
from math import log, prod

import numpy as np
import opt_einsum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunelang.compiler.forms import Modes
from prunelang.compiler.trains import (
    ALL_ORDERS,
    CORES,
    alternatives,
    balanced,
    break_even,
    capped,
    choose_modes,
    contraction,
    entry_counts,
    equal_factors,
    evaluate,
    full_ranks,
    low_rank_modes,
    macs,
    matrix_of,
    nearest_factors,
    nearest_modes,
    parameters,
    storage,
)

MODES = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=5).map(tuple)
LENETS = [(300, 784), (100, 300), (10, 100), (1024, 5408), (64, 288), (7, 13), (1, 1), (512, 512)]


def naive_macs(modes: Modes, ranks: tuple[int, ...], order: tuple[int, ...]) -> int:
    """Multiply-adds as opt_einsum counts them, of the path that absorbs one core after another into the sample."""
    d, r = len(modes), (1, *ranks, 1)
    symbols = iter(map(opt_einsum.get_symbol, range(1000)))
    m, n, bond = ([next(symbols) for _ in range(d + 1)] for _ in range(3))
    inputs = ["".join(n[:d])] + [bond[k] + m[k] + n[k] + bond[k + 1] for k in range(d)]
    equation = ",".join(inputs) + "->" + bond[0] + "".join(m[:d]) + bond[d]
    shapes = [tuple(b for _, b in modes)] + [(r[k], *modes[k], r[k + 1]) for k in range(d)]
    left, path = list(range(1, d + 1)), []
    for i, k in enumerate(order):  # contracted operands go, the result comes last: the sample is first only at first
        at, sample = left.index(k + 1), len(left)
        path.append((0, at + 1) if i == 0 else (at, sample))
        left.pop(at)
    arrays = [np.broadcast_to(0.0, s) for s in shapes]
    _, info = opt_einsum.contract_path(equation, *arrays, optimize=path)
    return int(info.opt_cost) // 2  # a product and a sum each


@pytest.mark.parametrize(("rows", "columns"), LENETS)
def test_chosen_modes_multiply_to_the_matrix(rows: int, columns: int) -> None:
    found = alternatives(rows, columns, 4)
    for a in found:
        assert matrix_of(a.modes) == (rows, columns)
        assert a.parameters == sum(entry_counts(a.modes, a.ranks)) == parameters(a.modes, 4)
        assert all(r <= min(4, full) for r, full in zip(a.ranks, full_ranks(a.modes), strict=True))
    assert [len(a.modes) for a in found] == sorted({len(a.modes) for a in found})
    chosen = choose_modes(rows, columns, 4)
    assert parameters(chosen, 4) == min(a.parameters for a in found)
    assert choose_modes(rows, columns) in {a.modes for a in alternatives(rows, columns)}


def test_ties_go_to_fewer_cores_and_lists_of_ranks_fix_their_number() -> None:
    found = alternatives(10, 100, 4)
    assert [(len(a.modes), a.parameters) for a in found] == [(2, 280), (3, 200), (4, 204), (5, 216), (6, 216)]
    assert len(choose_modes(10, 100, 4)) == 3
    assert [len(choose_modes(300, 784, [3] * k)) for k in range(1, 6)] == list(CORES)
    with pytest.raises(ValueError, match="7 × 13 cannot be cut into 3 modes"):
        choose_modes(7, 13, (2, 2))
    assert choose_modes(1, 1, 3) == low_rank_modes(1, 1)


@given(st.integers(1, 60), st.integers(1, 4))
def test_equal_factors_have_the_least_sum(n: int, d: int) -> None:
    every = [f for f in product(range(1, n + 1), repeat=d - 1) if n % prod(f) == 0] if n <= 24 or d <= 2 else []
    found = equal_factors(n, d)
    assert prod(found) == n
    assert list(found) == sorted(found)
    for f in every:
        assert sum(found) <= sum(f) + n // prod(f)


def test_balanced_modes_are_alike_and_largest_at_the_ends() -> None:
    assert balanced(300, 784, 4) == ((4, 7), (5, 4), (5, 4), (3, 7))
    assert balanced(1024, 1024, 5) == ((4, 4),) * 5


@given(MODES, st.data())
def test_capped_ranks_are_those_that_a_train_can_have(modes: Modes, data: st.DataObject) -> None:
    d = len(modes)
    wanted = tuple(data.draw(st.integers(0, 20)) for _ in range(d - 1))
    found, sizes = capped(modes, wanted), [m * n for m, n in modes]
    every = product(*[range(w + 1) for w in wanted])
    able = [r for r in every if _able((1, *r, 1), sizes)] if prod(w + 1 for w in wanted) <= 3000 else []
    assert _able((1, *found, 1), sizes)
    if able:
        assert found == tuple(max(column) for column in zip(*able, strict=True))
    assert capped(modes, 10**6) == full_ranks(modes)


def _able(r: tuple[int, ...], sizes: list[int]) -> bool:
    if len(r) > 2 and not any(r[1:-1]):
        return True  # the train of the zero matrix
    return all(r[k + 1] <= r[k] * s and r[k] <= s * r[k + 1] for k, s in enumerate(sizes))


def test_a_list_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="3 cores have 2 inner ranks, not 1"):
        capped(((2, 2),) * 3, [4])


@given(MODES, st.integers(1, 6))
def test_every_order_costs_what_an_independent_planner_counts(modes: Modes, rank: int) -> None:
    ranks = capped(modes, rank)
    best = contraction(modes, rank)
    costs = {}
    for order in permutations(range(len(modes))) if len(modes) <= 4 else [best.order, tuple(range(len(modes)))]:
        costs[order] = evaluate(macs(modes, order), ranks)
        if len(costs) <= 6:
            assert costs[order] == naive_macs(modes, ranks, order)
    assert best.macs(ranks) == costs[best.order] == min(costs.values())
    assert best.order == min(o for o, c in costs.items() if c == best.macs(ranks)) or len(modes) > 4


def test_low_rank_is_a_train_of_two() -> None:
    modes = low_rank_modes(30, 50)
    assert parameters(modes, 4) == contraction(modes, 4).macs((4,)) == 4 * 80
    assert contraction(modes, 4).order == (1, 0)  # V first, then U
    assert break_even(modes).parameters == break_even(modes).macs == 30 * 50 // 80
    assert storage(modes) == ((30, (1,)), (50, (1,)))


@pytest.mark.parametrize(("rows", "columns"), LENETS[:5])
def test_break_even_is_where_the_train_stops_to_pay(rows: int, columns: int) -> None:
    for a in alternatives(rows, columns, 4):
        found, dense = break_even(a.modes), rows * columns
        cost = {r: contraction(a.modes, r).macs(capped(a.modes, r)) for r in (found.macs, found.macs + 1)}
        assert parameters(a.modes, found.parameters) <= dense < parameters(a.modes, found.parameters + 1)
        assert cost[found.macs] <= dense < cost[found.macs + 1]


def test_many_cores_are_absorbed_side_by_side() -> None:
    modes = ((2, 2),) * (ALL_ORDERS + 2)
    order = contraction(modes, 3).order
    assert sorted(order) == list(range(len(modes)))
    for i in range(1, len(order)):
        assert max(order[: i + 1]) - min(order[: i + 1]) == i


@given(st.lists(st.integers(1, 12), min_size=1, max_size=3), st.integers(1, 36))
def test_nearest_factors_against_enumeration(wanted: list[int], n: int) -> None:
    def distance(f: tuple[int, ...]) -> float:
        return sum(abs(log(a / b)) for a, b in zip(f, wanted, strict=True))

    every = [f for f in product(range(1, n + 1), repeat=len(wanted)) if prod(f) == n]
    found = nearest_factors(wanted, n)
    assert prod(found) == n
    assert distance(found) == pytest.approx(min(map(distance, every)))


def test_modes_that_miss_the_shape_have_nearest_ones() -> None:
    assert nearest_modes(((4, 28), (5, 4), (20, 7)), 300, 784) == ((3, 28), (5, 4), (20, 7))
    assert matrix_of(nearest_modes(((5, 28), (5, 28), (4, 3)), 300, 784)) == (300, 784)
