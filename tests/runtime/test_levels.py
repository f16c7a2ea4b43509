"""Levels, selections and proximal steps of the minimax, each against brute force."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from prunelang.compiler.graph import Piece
from prunelang.runtime.game import Chosen, DeviceEntries, Entries, Members, Pace, paces
from prunelang.runtime.minimax import HostEntries
from tests.conformance.test_solvers import NoWaiting

ENTRIES = pytest.mark.parametrize("kind", [HostEntries, Entries, DeviceEntries])

# ── selection: the DC identity and the derivative in s ───────────────────────────────────────────────────────────


def weights(seed: int, zeros: int = 0, levels: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Three tensors; some entries 0, or all of them on a lattice of few magnitudes."""
    g = torch.Generator().manual_seed(seed)
    found = [torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for shape in ((4, 5), (3,), (2, 2, 3))]
    if levels:
        found = [(w * levels).round() / levels for w in found]
    flat = torch.cat([w.view(-1) for w in found])
    flat[torch.randperm(flat.numel(), generator=g)[:zeros]] = 0.0
    ends = itertools.accumulate(w.numel() for w in found)
    return [flat[end - w.numel() : end].view(w.shape).clone() for w, end in zip(found, ends, strict=True)]


def record(device: str = "cpu") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Room for what a selection tells: τ′, Σ, ‖·‖², τ."""
    a, b, c, d = torch.zeros(4, dtype=torch.float64, device=device).unbind()
    return a, b, c, d


def selected(level: Chosen, s: float) -> tuple[float, float, float]:
    """τ′, Σ and ‖·‖²."""
    out = record()
    level.select(s if isinstance(level, Entries) else torch.tensor(s, dtype=torch.float64), out)
    return out[0].item(), out[1].item(), out[2].item()


def smallest(w: list[Tensor], count: int) -> tuple[float, float]:
    """The sum of so many smallest squares, and the next one, by sorting."""
    squares = sorted(x * x for t in w for x in t.double().flatten().tolist())
    return sum(squares[:count]), squares[count]


@ENTRIES
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("zeros", "levels"), [(0, 0), (9, 0), (0, 3), (5, 2)])
def test_a_selection_is_the_order_statistic(kind: Callable[..., Chosen], seed: int, zeros: int, levels: int) -> None:
    w = weights(seed, zeros, levels)
    level = kind(w)
    for s in (0.0, 0.2, 0.3, 7.0, 7.1, 7.5, 20.0, 33.9, 3.0):  # up to a quarter above a whole number counts as it
        tau, below, whole = selected(level, s)
        expected, following = smallest(w, max(0, int(np.ceil(s - 0.25))))
        assert tau == pytest.approx(following, rel=1e-6)
        assert below == pytest.approx(expected, rel=1e-5, abs=1e-12)
        assert whole == pytest.approx(smallest(w, 34)[0] + smallest(w, 34)[1], rel=1e-5)


@ENTRIES
def test_the_sum_of_the_smallest_is_zero_if_and_only_if_there_are_as_many_zeros(kind: Callable[..., Chosen]) -> None:
    for zeros in (0, 1, 6, 20):
        w = weights(3, zeros)
        assert [selected(kind(w), s)[1] == 0.0 for s in range(34)] == [s <= zeros for s in range(34)]


@ENTRIES
def test_the_derivative_in_s_is_the_difference_that_one_more_item_makes(kind: Callable[..., Chosen]) -> None:
    w = weights(1, dtype=torch.float64)
    for c in range(33):
        assert selected(kind(w), c)[0] == pytest.approx(selected(kind(w), c + 1)[1] - selected(kind(w), c)[1])


@ENTRIES
@pytest.mark.parametrize("levels", [0, 2])
def test_exactly_as_many_as_asked_shrink_and_of_equal_ones_the_last(kind: Callable[..., Chosen], levels: int) -> None:
    for s in (1, 11, 30):
        w = weights(2, 4, levels)
        before = torch.cat([t.flatten() for t in w])
        level = kind(w)
        selected(level, s)
        level.shrink(torch.tensor(0.5, dtype=torch.float64), 1.0)
        after = torch.cat([t.flatten() for t in w])
        order = sorted(range(35), key=lambda i: (abs(before[i].item()), -i))[:s]
        assert set((after != before).nonzero().flatten().tolist()) == {i for i in order if before[i] != 0}
        assert torch.allclose(after[order], before[order] / 2.0)


def test_a_warm_selection_follows_moving_weights() -> None:
    w = weights(5)
    level, g = HostEntries(w), torch.Generator().manual_seed(1)
    for turn in range(40):
        for t in w:
            t.add_(torch.randn(t.shape, generator=g), alpha=0.1)
        assert selected(level, turn % 30)[0] == pytest.approx(smallest(w, turn % 30)[1], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_selection_reads_any_floating_type(dtype: torch.dtype) -> None:
    w = weights(7, dtype=dtype)
    assert selected(HostEntries(w), 12)[0] == pytest.approx(smallest(w, 12)[1], rel=1e-6)


def test_on_a_device_nothing_waits() -> None:
    """On `meta` there is nothing to wait for: whatever asked for a number would raise."""
    pieces = (Piece("a", 0, 0), Piece("b", 1, 1, 2))
    w = [torch.empty(6, 4, device="meta"), torch.empty(3, 13, device="meta")]
    out = record("meta")
    s = torch.empty((), dtype=torch.float64, device="meta")
    for level in (DeviceEntries(w), Members(w, pieces, 6)):
        with NoWaiting():  # type: ignore[no-untyped-call]  # torch leaves it untyped
            level.select(s, out)
            level.shrink(s, 0.1)
            level.shrink(s, [torch.empty_like(t) for t in w])
            level.confine([[torch.empty_like(t) for t in w]])


# ── members of a coupling group ──────────────────────────────────────────────────────────────────────────────────


def group() -> tuple[list[Tensor], tuple[Piece, ...]]:
    """Four members: rows of a kernel, entries of a bias, and three columns each of what reads them, from column 2."""
    g = torch.Generator().manual_seed(0)
    tensors = [torch.randn(4, 3, 2, generator=g), torch.randn(4, generator=g), torch.randn(2, 15, generator=g)]
    return tensors, (Piece("k", 0, 0), Piece("b", 0, 0), Piece("next", 1, 2, 3))


def owned(tensors: list[Tensor], i: int) -> list[Tensor]:
    k, b, after = tensors
    return [k[i], b[i : i + 1], after[:, 2 + 3 * i : 5 + 3 * i]]


def test_the_energy_of_a_member_is_that_of_all_that_it_owns() -> None:
    tensors, pieces = group()
    energies = sorted(sum(float(x.double().square().sum()) for x in owned(tensors, i)) for i in range(4))
    for s in range(3):
        tau, below, whole = selected(Members(tensors, pieces, 4), s)
        assert (tau, below, whole) == pytest.approx((energies[s], sum(energies[:s]), sum(energies)))


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_selected_member_shrinks_in_everything_that_it_owns(adaptive: bool) -> None:
    tensors, pieces = group()
    before = [t.clone() for t in tensors]
    level = Members(tensors, pieces, 4)
    selected(level, 1)
    (gone,) = level.gone.nonzero().flatten().tolist()
    eta = [torch.full_like(t, 2.0) for t in tensors] if adaptive else 2.0
    level.shrink(torch.tensor(0.25, dtype=torch.float64), eta)
    for x in owned(before, gone):
        x.div_(2.0)
    assert all(torch.equal(t, b) for t, b in zip(tensors, before, strict=True))
    level.confine([])
    assert all(not x.any() for x in owned(tensors, gone))
    assert all(x.all() for i in range(4) if i != gone for x in owned(tensors, i))


# ── the proximal step ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_proximal_step_is_the_best_point() -> None:
    """``argmin ½‖x − w‖² + ηy‖x‖²_{c,2}``: the last term is the least over all sets of c entries."""
    g = torch.Generator().manual_seed(4)
    for count in range(1, 7):
        w = torch.randn(7, generator=g, dtype=torch.float64)
        x, strength = w.clone(), 0.7

        def value(x: Tensor, w: Tensor = w, count: int = count, strength: float = strength) -> float:
            return 0.5 * float((x - w).square().sum()) + strength * smallest([x, torch.ones(1)], count)[0]

        level = HostEntries([x])
        selected(level, count)
        level.shrink(torch.tensor(strength, dtype=torch.float64), 1.0)
        for chosen in itertools.combinations(range(7), count):
            other = w.clone()
            other[list(chosen)] /= 1.0 + 2.0 * strength
            assert value(x) <= value(other) + 1e-12
        for _ in range(50):
            assert value(x) <= value(x + 0.05 * torch.randn(7, generator=g, dtype=torch.float64))


def test_under_momentum_the_step_is_how_far_a_constant_gradient_goes() -> None:
    w = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.02, momentum=0.8)
    before = w.detach().clone()
    for _ in range(200):
        before = w.detach().clone()
        w.grad = torch.ones(3)
        optimizer.step()
    assert Pace(optimizer, [[w]]).of(0) == pytest.approx(float((before - w.detach())[0]), rel=1e-4)


@ENTRIES
def test_under_adam_the_step_is_that_of_each_entry(kind: Callable[..., Chosen]) -> None:
    """``argmin Σ (x − w)²/(2η_i) + y Σ_I x²``, with η_i = lr/(√v̂ + ε) as Adam has it after bias correction."""
    w = [t.requires_grad_() for t in weights(6)]
    optimizer = torch.optim.Adam(w, lr=0.01, betas=(0.9, 0.99), eps=1e-8)
    g = torch.Generator().manual_seed(0)
    for _ in range(3):
        for t in w:
            t.grad = torch.randn(t.shape, generator=g)
        optimizer.step()
    level, y = kind(w), 3.0
    selected(level, 12)
    before = torch.cat([t.detach().flatten() for t in w])
    chosen = sorted(range(35), key=lambda i: abs(before[i].item()))[:12]
    pace = Pace(optimizer, [w])
    eta = torch.cat([(0.01 / ((optimizer.state[t]["exp_avg_sq"] / (1 - 0.99**3)).sqrt() + 1e-8)).flatten() for t in w])
    level.shrink(torch.tensor(y, dtype=torch.float64), pace.of(0))
    expected = before.clone()
    expected[chosen] /= 1.0 + 2.0 * y * eta[chosen]
    assert torch.allclose(torch.cat([t.detach().flatten() for t in w]), expected, rtol=1e-5)


def test_before_any_step_adam_has_no_pace_that_is_not_a_number() -> None:
    assert all(t.isfinite().all() for t in paces([torch.zeros(3)], torch.zeros(()), 0.1, 0.999, 1e-8))


@ENTRIES
def test_a_hard_projection_takes_the_moments_with_it(kind: Callable[..., Chosen]) -> None:
    w = weights(8)
    moments = [[torch.ones_like(t) for t in w], [torch.full_like(t, 2.0) for t in w]]
    level = kind(w)
    selected(level, 20)
    level.confine(moments)
    kept = torch.cat([t.flatten() for t in w]) != 0
    assert int(kept.sum()) == 15
    for i, group in enumerate(moments, 1):
        assert torch.equal(torch.cat([t.flatten() for t in group]), i * kept.float())
