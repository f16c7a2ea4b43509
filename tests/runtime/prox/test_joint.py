"""Joint projections against brute force over every set of kept positions, on hundreds of small random cases."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor

from prunelang.compiler.joint import (
    BlockBound,
    Bound,
    ChoiceBound,
    CountBound,
    CrossingSets,
    GroupBound,
    NofMBound,
    Pinned,
    exactness,
)
from prunelang.runtime.prox.joint import JointProjection
from prunelang.runtime.prox.laminar import InfeasibleBounds
from prunelang.runtime.prox.scan import NonFinite

Shapes = dict[str, tuple[int, ...]]


@cache
def every_subset(n: int) -> np.ndarray:
    """All 2ⁿ masks of n positions, one a row."""
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(bool)


def allowed(bound: Bound, masks: dict[str, np.ndarray]) -> np.ndarray:
    """Which rows satisfy the bound, from its definition; `masks[t]` is subsets × shape."""
    nnz = {t: m.reshape(len(m), -1).sum(1) for t, m in masks.items()}
    matrix = {t: m.reshape(len(m), m.shape[1], -1) if m.ndim > 2 else m[:, :, None] for t, m in masks.items()}
    ok = np.ones(len(next(iter(masks.values()))), bool)
    if isinstance(bound, CountBound):
        cost = sum(a * nnz[t] for t, a in bound.coefficients.items()) + bound.constant
        return ok & (cost <= (np.inf if bound.upper is None else bound.upper)) & (cost >= (bound.lower or 0))
    if isinstance(bound, ChoiceBound):
        costs = [np.min([a * nnz[t] + c for _, a, c in ways], 0) for t, ways in bound.alternatives.items()]
        return np.sum(costs, 0) + bound.constant <= bound.upper
    for t in bound.tensors:
        grid = matrix[t]
        if isinstance(bound, NofMBound):
            for start in range(0, grid.shape[2], bound.m):
                ok &= (grid[:, :, start : start + bound.m].sum(2) <= bound.n).all(1)
        if isinstance(bound, BlockBound):
            for i in range(0, grid.shape[1], bound.rows):
                for j in range(0, grid.shape[2], bound.columns):
                    block = grid[:, i : i + bound.rows, j : j + bound.columns].reshape(len(ok), -1)
                    ok &= block.all(1) | ~block.any(1)
        if isinstance(bound, Pinned):
            ok &= grid.all((1, 2))
    if isinstance(bound, GroupBound):
        groups = np.zeros(len(ok), int)
        for t in bound.tensors:
            m = masks[t] if bound.by == "channel" and masks[t].ndim > 2 else matrix[t]
            slices = np.moveaxis(m, 2 if bound.by in ("column", "channel") else 1, 1)
            groups += slices.reshape(len(ok), slices.shape[1], -1).any(2).sum(1)
        ok &= groups <= bound.upper
    return ok


def best_energy(bounds: Sequence[Bound], values: dict[str, Tensor]) -> float | None:
    """The most energy that any allowed set of positions keeps; None if there is none."""
    subsets = every_subset(sum(v.numel() for v in values.values()))
    parts = np.split(subsets, np.cumsum([v.numel() for v in values.values()])[:-1], axis=1)
    masks = {t: p.reshape(len(p), *v.shape) for p, (t, v) in zip(parts, values.items(), strict=True)}
    ok = np.logical_and.reduce([allowed(b, masks) for b in bounds])
    if not ok.any():
        return None
    energies = np.concatenate([v.flatten().double().numpy() ** 2 for v in values.values()])
    return float((subsets[ok] @ energies).max())


def random_values(rng: np.random.Generator, shapes: Shapes) -> dict[str, Tensor]:
    """Small integers half of the time, so that ties and zeros abound and energies are exact."""
    make = (lambda s: rng.integers(-3, 4, s)) if rng.random() < 0.5 else (lambda s: rng.integers(-99, 100, s))
    return {t: torch.from_numpy(make(s).astype(np.float32)) for t, s in shapes.items()}


SHAPES: list[Shapes] = [
    {"a": (4,), "b": (2, 3), "c": (3,)},
    {"a": (2, 4), "b": (4,)},
    {"a": (2, 2, 2), "b": (3,), "c": (1, 2)},
    {"a": (12,)},
]


def laminar_counts(rng: np.random.Generator, shapes: Shapes) -> list[Bound]:
    """All tensors, some pairs, some single ones; each with an upper bound, a lower bound, or both."""
    names = list(shapes)
    families = [names] + ([names[:2]] if len(names) > 2 and rng.random() < 0.6 else []) + [[t] for t in names]
    found: list[Bound] = []
    for i, family in enumerate(families):
        n = sum(prod(shapes[t]) for t in family)
        low, high = sorted(int(x) for x in rng.integers(0, n + 1, 2))
        a = int(rng.integers(1, 4))
        kind = rng.integers(0, 4)
        upper = None if kind == 3 else a * high + int(rng.integers(0, a)) + 5
        lower = a * low + 5 if kind >= 2 else None
        if kind > 0:
            found.append(CountBound(f"count{i}", dict.fromkeys(family, a), 5, lower, upper))
    return found


def check(bounds: Sequence[Bound], values: dict[str, Tensor]) -> tuple[float, float, bool] | None:
    """(distance to the best, gap, exact) of one case; feasibility is asserted by the projection and by brute force."""
    best = best_energy(bounds, values)
    projection = JointProjection(bounds, {t: tuple(v.shape) for t, v in values.items()})
    tensors = [v.clone() for v in values.values()]
    try:
        outcome = projection.project_(tensors)
    except InfeasibleBounds:
        return None if best is None else pytest.fail(f"feasible, but refused: {bounds}")
    assert best is not None
    masks = {t: m.numpy()[None] for t, m in zip(values, outcome.masks, strict=True)}
    assert all(allowed(b, masks)[0] for b in bounds)
    for x, v, m in zip(tensors, values.values(), outcome.masks, strict=True):
        assert torch.equal(x, v * m)
    total = sum(float(v.double().square().sum()) for v in values.values())
    return outcome.loss - (total - best), outcome.gap, outcome.exact


def test_laminar_families_are_exact() -> None:
    rng = np.random.default_rng(0)
    solved = 0
    while solved < 300:
        shapes = SHAPES[rng.integers(len(SHAPES))]
        bounds = laminar_counts(rng, shapes)
        matrices = tuple(t for t in shapes if rng.random() < 0.5)
        if matrices and rng.random() < 0.4:
            bounds.append(NofMBound("cells", matrices, int(rng.integers(0, 3)), int(rng.integers(2, 4))))
        elif rng.random() < 0.3:
            bounds.append(Pinned("pin", (list(shapes)[rng.integers(len(shapes))],)))
        elif matrices and rng.random() < 0.3:
            bounds = [GroupBound("groups", matrices, "row", int(rng.integers(0, 3)))]
        if not bounds:
            continue
        found = check(bounds, random_values(rng, shapes))
        if found is None:
            continue
        assert exactness(bounds) == "exact"
        assert found == (0.0, 0.0, True), bounds
        solved += 1


def weighted(rng: np.random.Generator, shapes: Shapes, name: str) -> Bound:
    if rng.random() < 0.5:
        a = {t: int(rng.integers(1, 9)) for t in shapes}
        dense = sum(a[t] * prod(s) for t, s in shapes.items())
        return CountBound(name, a, 3, None, 3 + int(rng.integers(0, 1 + dense)))
    ways = {t: (("dense", 0, 4 * prod(s)), ("bitmask", 4, prod(s) // 2), ("csr", 6, 1)) for t, s in shapes.items()}
    least = sum(min(c for _, _, c in w) for w in ways.values())
    return ChoiceBound(name, ways, 7 + int(rng.integers(least, 1 + 4 * sum(prod(s) for s in shapes.values()))), 7)


def test_weighted_counts_are_feasible_within_their_gap() -> None:
    rng = np.random.default_rng(1)
    solved = optimal = 0
    while solved < 200:
        shapes = SHAPES[rng.integers(len(SHAPES) - 1)]
        bounds: list[Bound] = [weighted(rng, shapes, f"cost{i}") for i in range(int(rng.integers(1, 3)))]
        if rng.random() < 0.6:
            bounds += [b for b in laminar_counts(rng, shapes) if isinstance(b, CountBound) and b.lower is None]
        if rng.random() < 0.3:
            bounds.append(NofMBound("cells", (next(iter(shapes)),), 1, 2))
        found = check(bounds, random_values(rng, shapes))
        if found is None:
            continue
        distance, gap, exact = found
        assert -1e-6 <= distance <= gap + 1e-6 * max(gap, 1.0), bounds
        assert not exact or distance <= 1e-6
        solved += 1
        optimal += distance <= 1e-6
    assert optimal >= 120  # what is lost is lost to rounding of the last item


def test_groups_and_blocks_with_counts_are_feasible_within_their_gap() -> None:
    rng = np.random.default_rng(2)
    optimal = 0
    for _ in range(150):
        shapes = SHAPES[rng.integers(2)]
        tensors = tuple(t for t, s in shapes.items() if len(s) > 1)
        n = sum(prod(s) for s in shapes.values())
        bounds: list[Bound] = [CountBound("all", dict.fromkeys(shapes, 1), 0, None, int(rng.integers(1, n)))]
        if rng.random() < 0.3:
            bounds.append(weighted(rng, shapes, "cost"))
        if rng.random() < 0.5:
            by = ("row", "column", "filter", "channel")[rng.integers(4)]
            bounds.append(GroupBound("groups", tensors, by, int(rng.integers(1, 4))))
        else:
            bounds.append(BlockBound("blocks", tensors, int(rng.integers(1, 3)), int(rng.integers(1, 4))))
        assert exactness(bounds) == "gap"
        found = check(bounds, random_values(rng, shapes))
        if found is None:
            continue
        distance, gap, _ = found
        assert -1e-6 <= distance <= gap + 1e-6 * max(gap, 1.0), bounds
        optimal += distance <= 1e-6
    assert optimal >= 75


def test_two_laminar_examples_by_hand() -> None:
    """Global 3 with 2 from `a` reserved, and 2:4 inside `a`: the reserve holds against larger entries of `b`."""
    bounds = [
        CountBound("all", {"a": 1, "b": 1}, upper=3),
        CountBound("some", {"a": 1}, lower=2),
        NofMBound("cells", ("a",), 2, 4),
    ]
    a, b = torch.tensor([[1.0, -2.0, 3.0, 0.5]]), torch.tensor([9.0, -8.0, 7.0])
    outcome = JointProjection(bounds, {"a": (1, 4), "b": (3,)}).project_([a, b])
    assert a.tolist() == [[0.0, -2.0, 3.0, 0.0]]
    assert b.tolist() == [9.0, 0.0, 0.0]
    assert (outcome.loss, outcome.gap, outcome.exact) == (1 + 0.25 + 64 + 49, 0.0, True)


def test_a_kept_zero_counts_towards_a_lower_bound() -> None:
    x = torch.tensor([0.0, 5.0, 0.0])
    outcome = JointProjection([CountBound("some", {"x": 1}, lower=2, upper=2)], {"x": (3,)}).project_([x])
    assert outcome.masks[0].tolist() == [True, True, False]


def test_ties_go_to_the_lowest_global_index() -> None:
    tensors = [torch.ones(3), torch.ones(2, 2), torch.ones(3)]
    shapes = {"b": (3,), "c": (2, 2), "a": (3,)}
    for lower in (None, 1):  # by selection, and by allocation
        outcome = JointProjection([CountBound("n", {"a": 2, "c": 2, "b": 2}, 0, lower, 11)], shapes).project_(
            [t.clone() for t in tensors]
        )
        assert [int(m.sum()) for m in outcome.masks] == [3, 2, 0]
        assert outcome.masks[1].tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_thousands_of_entries_in_every_dtype(dtype: torch.dtype) -> None:
    """One plain count is the ℓ0 ball; a price for all tensors alike gives the same; the gap of a real one is small."""
    g = torch.Generator().manual_seed(0)
    v = {"a": torch.randn(40, 50, generator=g).to(dtype), "b": 2 * torch.randn(3000, generator=g).to(dtype)}
    shapes = {t: tuple(x.shape) for t, x in v.items()}
    plain = CountBound("plain", {"a": 1, "b": 1}, upper=700)
    one = JointProjection([plain], shapes).project_([x.clone() for x in v.values()])
    two = JointProjection([plain, CountBound("floor", {"b": 1}, lower=1)], shapes).project_(
        [x.clone() for x in v.values()]
    )
    assert all(torch.equal(p, q) for p, q in zip(one.masks, two.masks, strict=True))
    costly = CountBound("macs", {"a": 100, "b": 7}, upper=30_000)
    found = JointProjection([plain, costly], shapes).project_([x.clone() for x in v.values()])
    assert sum(int(m.sum()) for m in found.masks) <= 700
    assert found.loss >= one.loss
    assert 0 <= found.gap <= 1e-3 * found.loss


def test_repeated_projections_agree_to_the_bit() -> None:
    g = torch.Generator().manual_seed(0)
    shapes = {"a": (30, 20), "b": (500,)}
    bounds = [
        CountBound("plain", {"a": 1, "b": 1}, upper=300),
        CountBound("macs", {"a": 9, "b": 2}, upper=1500),
        ChoiceBound("bytes", {"a": (("csr", 6, 31), ("dense", 0, 2400)), "b": (("bitmask", 4, 63),)}, 1700),
    ]
    kept = JointProjection(bounds, shapes)
    for _ in range(3):
        v = [torch.randn(s, generator=g) for s in shapes.values()]
        first = kept.project_([x.clone() for x in v])
        second = JointProjection(bounds, shapes).project_([x.clone() for x in v])
        assert all(torch.equal(p, q) for p, q in zip(first.masks, second.masks, strict=True))
        assert (first.loss, first.gap) == (second.loss, second.gap)


def test_idempotent_where_exact() -> None:
    rng = np.random.default_rng(5)
    bounds = [CountBound("all", {"a": 1, "b": 1}, upper=6), CountBound("a", {"a": 1}, lower=1, upper=3)]
    projection = JointProjection(bounds, {"a": (8,), "b": (3, 3)})
    for _ in range(20):
        once = [torch.from_numpy(rng.integers(-4, 5, s).astype(np.float32)) for s in ((8,), (3, 3))]
        projection.project_(once)
        twice = [t.clone() for t in once]
        assert projection.project_(twice).loss == 0.0
        assert all(torch.equal(p, q) for p, q in zip(once, twice, strict=True))


def test_crossing_sets_are_refused_by_name() -> None:
    shapes = {"a": (4, 4), "b": (4,), "c": (4,)}
    crossing: list[tuple[Bound, Bound]] = [
        (CountBound("left", {"a": 1, "b": 1}, upper=3), CountBound("right", {"b": 2, "c": 2}, upper=3)),
        (NofMBound("left", ("a",), 1, 2), GroupBound("right", ("a",), "column", 2)),
        (BlockBound("left", ("a",), 2, 2), NofMBound("right", ("a",), 2, 4)),
        (Pinned("left", ("a",)), NofMBound("right", ("a",), 2, 4)),
    ]
    for pair in crossing:
        with pytest.raises(CrossingSets, match=r"left.*right|right.*left") as caught:
            JointProjection(pair, shapes)
        assert set(caught.value.names) == {"left", "right"}
    assert exactness([Pinned("p", ("a",)), CountBound("n", {"a": 1, "b": 1}, upper=20)]) == "exact"


def test_infeasible_bounds_are_named() -> None:
    shapes = {"a": (4,), "b": (4,)}
    for bounds in (
        [CountBound("low", {"a": 1}, lower=5)],
        [CountBound("low", {"a": 1}, lower=3), CountBound("high", {"a": 1, "b": 1}, upper=2)],
        [Pinned("pin", ("a",)), CountBound("high", {"a": 1}, upper=3)],
        [Pinned("pin", ("a",)), CountBound("macs", {"a": 3, "b": 1}, upper=11)],
        [ChoiceBound("bytes", {"a": (("csr", 4, 9), ("dense", 0, 16))}, 8)],
    ):
        with pytest.raises(InfeasibleBounds) as caught:
            JointProjection(bounds, shapes).project_([torch.ones(4), torch.ones(4)])
        assert caught.value.name == bounds[-1].name


def test_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match="fc9"):
        JointProjection([Pinned("pin", ("fc9",))], {"a": (4,)})
    with pytest.raises(ValueError, match="share a name"):
        JointProjection([Pinned("p", ("a",)), Pinned("p", ("a",))], {"a": (4,)})
    projection = JointProjection([CountBound("n", {"b": 1}, upper=1)], {"a": (4,), "b": (2,)})
    with pytest.raises(ValueError, match="shapes"):
        projection.project_([torch.ones(4), torch.ones(3)])
    with pytest.raises(NonFinite) as caught:
        projection.project_([torch.ones(4), torch.tensor([1.0, float("nan")])])
    assert caught.value.index == 1


def test_empty_tensors() -> None:
    shapes = {"a": (0, 3), "b": (5,)}
    bounds = [CountBound("n", {"a": 1, "b": 3}, upper=7), NofMBound("cells", ("a",), 1, 2)]
    outcome = JointProjection(bounds, shapes).project_([torch.empty(0, 3), torch.arange(5.0)])
    assert outcome.masks[1].tolist() == [False, False, False, True, True]
    assert outcome.masks[0].shape == (0, 3)
