"""Budgets of channels: every choice of members is tried, on small networks of every kind of coupling."""

from __future__ import annotations

import random
from itertools import combinations, product

import pytest
import torch
from torch import Tensor

from prunelang.compiler.channels import polynomial, structural
from prunelang.compiler.joint import (
    BlockBound,
    Bound,
    ChannelBound,
    ChannelGroup,
    CountBound,
    CrossingSets,
    GroupBound,
    NofMBound,
    check_laminar,
    exactness,
    from_json,
    to_json,
)
from prunelang.compiler.shapes import ShapeTable
from prunelang.runtime.prox.channels import best_channels
from prunelang.runtime.prox.feasibility import channel_cost, holds, members_kept
from prunelang.runtime.prox.laminar import InfeasibleBounds
from prunelang.runtime.prox.structured import projection
from tests.channel_tables import lenet_5, random_table

SEEDS = 60


def bound_of(name: str, table: ShapeTable, share: float) -> ChannelBound:
    """A budget between the cost of one member a group (share 0) and that of all."""
    counted = [t for t in table.tensors if t.role == "weight" or (name == "params" and t.role != "buffer")]
    costs = {t.name: 1 if name == "params" else table.uses[t.name] for t in counted}
    dense = sum(costs[t.name] * t.size for t in counted)
    f = polynomial(structural(name, tuple(table.layer), dense, "", costs, table), table)
    least = f.value([1] * len(f.groups))
    groups = tuple(
        ChannelGroup(
            g.name,
            g.size,
            tuple((s.tensor, s.dim, s.start, s.repeat) for s in g.slices if table.tensor[s.tensor].role != "buffer"),
        )
        for g in f.groups
    )
    return ChannelBound(name, groups, f.terms, least + int(share * (dense - least)), f.constant)


def masks_of(kept: dict[str, tuple[int, ...]], table: ShapeTable) -> dict[str, Tensor]:
    masks = {t.name: torch.ones(t.shape, dtype=torch.bool) for t in table.tensors if t.role != "buffer"}
    for g in table.channels:
        for s in (s for s in g.slices if s.tensor in masks):
            for i in set(range(g.size)) - set(kept[g.name]):
                for index in s.indices(i):
                    masks[s.tensor].select(s.dim, index).fill_(False)
    return masks


def choices(table: ShapeTable) -> list[dict[str, Tensor]]:
    """Every choice with a member in each group."""
    subsets = [[c for n in range(1, g.size + 1) for c in combinations(range(g.size), n)] for g in table.channels]
    names = [g.name for g in table.channels]
    return [masks_of(dict(zip(names, chosen, strict=True)), table) for chosen in product(*subsets)]


def energy(values: dict[str, Tensor], masks: dict[str, Tensor]) -> float:
    kept = (v[masks[t]] if t in masks else v for t, v in values.items())
    return sum(float(v.double().square().sum()) for v in kept)


def instance(seed: int) -> tuple[ShapeTable, list[ChannelBound], dict[str, Tensor]]:
    rng = random.Random(seed)
    table = random_table(rng, members=8)
    bounds = [bound_of("macs", table, rng.random())]
    if rng.random() < 0.4:
        bounds.append(bound_of("params", table, rng.uniform(0.2, 1)))
    torch.manual_seed(seed)
    values = {t.name: torch.randn(t.shape) * 10 ** -torch.rand(t.shape) for t in table.tensors if t.role != "buffer"}
    return table, bounds, values


def test_against_every_choice() -> None:
    """Always feasible, never above the bound, and nearly always the best choice there is."""
    best, worst = 0, 0.0
    for seed in range(SEEDS):
        table, bounds, values = instance(seed)
        kept = best_channels(bounds, values, {})
        assert all(channel_cost(b, kept.masks) <= b.upper for b in bounds)
        assert all(bool(members_kept(g, kept.masks).any()) for b in bounds for g in b.groups)
        found = energy(values, kept.masks)
        untouched = sum(float(v.double().square().sum()) for t, v in values.items() if t not in kept.masks)
        assert kept.energy == pytest.approx(found - untouched)
        most = max(energy(values, m) for m in choices(table) if all(holds(b, m, {}) for b in bounds))
        assert found <= most * (1 + 1e-9)
        assert kept.bound + untouched >= most * (1 - 1e-9)
        best += found >= most * (1 - 1e-9)
        worst = max(worst, 1 - found / most)
    assert best >= 0.95 * SEEDS, best
    assert worst < 0.1, worst


def test_one_group_alone_is_exact() -> None:
    """Members that cost the same: the largest energies stay, and the gap is 0."""
    torch.manual_seed(0)
    group = ChannelGroup("fc1", 6, (("a", 0, 0, 1), ("b", 1, 2, 2)))
    bound = ChannelBound("macs", (group,), ((10, (0,)),), 45, 12)
    a, b = torch.randn(6, 3), torch.randn(4, 14)
    energies = a.double().square().sum(1) + b[:, 2:].double().square().view(4, 6, 2).sum((0, 2))
    stay = energies.topk(3).indices
    outcome = projection([bound], {"a": (6, 3), "b": (4, 14)}).project_([a, b])
    assert (outcome.gap, exactness([bound])) == (0.0, "exact")
    assert set(a.abs().sum(1).nonzero().flatten().tolist()) == set(stay.tolist())
    assert b[:, :2].ne(0).all()  # indices that no member owns
    assert set(b[:, 2::2].abs().sum(0).nonzero().flatten().tolist()) == set(stay.tolist())


def test_a_budget_that_allows_it_changes_nothing_and_a_small_one_empties_groups() -> None:
    _, bounds, values = instance(3)
    whole = [ChannelBound(b.name, b.groups, b.terms, 10**9, b.constant) for b in bounds]
    assert all(m.all() for m in best_channels(whole, values, {}).masks.values())
    least = [ChannelBound(b.name, b.groups, b.terms, b.constant, b.constant) for b in bounds[:1]]
    kept = best_channels(least, values, {})
    assert channel_cost(least[0], kept.masks) == least[0].constant
    none = [ChannelBound(b.name, b.groups, b.terms, b.constant - 1, b.constant) for b in bounds[:1]]
    with pytest.raises(InfeasibleBounds, match="without any channel"):
        best_channels(none, values, {})


def test_counts_and_patterns_inside_the_channels_that_stay() -> None:
    """Feasible for every bound at once, and within the gap of the best choice of channels with the best count."""
    for seed in range(25):
        rng = random.Random(seed)
        table, bounds, values = instance(seed)
        kernels = [t.name for t in table.tensors if t.role == "weight"]
        counted = dict.fromkeys(kernels, 1)
        size = sum(values[t].numel() for t in kernels)
        others: list[Bound] = [CountBound("nonzeros", counted, upper=rng.randint(1, size))]
        if rng.random() < 0.3:
            others.append(GroupBound("rows", (kernels[0],), "filter", 2))
        shapes = {t: tuple(v.shape) for t, v in values.items()}
        v = {t: x.clone() for t, x in values.items()}
        outcome = projection([*bounds, *others], shapes).project_(list(v.values()))
        masks = dict(zip(v, outcome.masks, strict=True))
        kept = {t: int(m.sum()) for t, m in masks.items()}
        assert all(holds(b, masks, kept) for b in (*bounds, *others))
        if len(others) > 1:
            continue
        feasible = [m for m in choices(table) if all(holds(b, m, {}) for b in bounds)]
        best = max(best_count(values, m, kernels, others[0].upper) for m in feasible)  # type: ignore[union-attr]  # counts
        found = energy(values, masks)
        assert best - outcome.gap * (1 + 1e-9) - 1e-9 <= found <= best * (1 + 1e-9)


def best_count(values: dict[str, Tensor], masks: dict[str, Tensor], kernels: list[str], upper: int | None) -> float:
    """The most energy of `upper` kernel entries among those of a choice, and of all other tensors there."""
    entries = torch.cat([values[t][masks[t]].double().square() for t in kernels])
    rest = {t: v for t, v in values.items() if t not in kernels}
    return float(entries.sort(descending=True).values[:upper].sum()) + energy(rest, masks)


def test_what_is_no_joint_projection_is_refused() -> None:
    bound = bound_of("macs", lenet_5(), 0.5)
    with pytest.raises(CrossingSets, match="keeps positions"):
        check_laminar([bound, CountBound("floor", {"fc1.weight": 1}, lower=1)])
    with pytest.raises(CrossingSets, match="keeps positions"):
        check_laminar([bound, BlockBound("blocks", ("fc2.weight",), 2, 2)])
    check_laminar([bound, NofMBound("cells", ("fc1.weight",), 2, 4), CountBound("all", {"fc1.weight": 1}, upper=9)])
    assert exactness([bound]) == "gap"


def test_bounds_go_through_json() -> None:
    bounds = (bound_of("macs", lenet_5(), 0.5), bound_of("params", lenet_5(), 0.5))
    assert from_json(to_json(bounds)) == bounds


def test_a_larger_network_takes_little_time_and_its_gap_says_something() -> None:
    """LeNet-5: 570 members in three groups."""
    torch.manual_seed(0)
    table = lenet_5()
    values = {t.name: torch.randn(t.shape) / t.shape[-1] ** 0.5 for t in table.tensors}
    bound = bound_of("macs", table, 0.5)
    kept = best_channels([bound], values, {})
    assert bound.upper * 0.999 <= channel_cost(bound, kept.masks) <= bound.upper
    assert kept.energy <= kept.bound <= 1.5 * kept.energy
