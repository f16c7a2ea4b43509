"""Tensor trains against index loops, numpy's singular values and tensorly, with their bounds as properties."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prunelang.compiler.forms import Modes
from prunelang.compiler.trains import balanced, capped, full_ranks, matrix_of
from prunelang.runtime.prox.scan import NonFinite
from prunelang.runtime.prox.tensor_train import (
    Train,
    compose,
    from_tensor,
    interfaces,
    modes_of,
    orthogonalise,
    refine,
    round_train,
    squared_distance,
    to_tensor,
    tt_svd,
    unfolding_tails,
)

MODES = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=5).map(tuple)
CUTS: list[Modes] = [
    ((2, 3), (3, 2)),
    ((2, 2), (3, 2), (2, 3)),
    ((2, 3), (2, 2), (3, 1), (2, 2)),
    ((4, 1), (1, 5), (2, 2)),
    ((2, 2), (2, 2), (2, 2), (2, 2), (2, 2)),
]
every_cut = pytest.mark.parametrize("modes", CUTS, ids=str)


def drawn(modes: Modes, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A matrix whose unfoldings have falling singular values: a random one, passed through a smooth kernel."""
    rows, columns = matrix_of(modes)
    w = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    i, j = torch.arange(rows).double(), torch.arange(columns).double()
    return (w * 0.2 + torch.cos(i[:, None] * 0.3 + 0.1 * j[None]) / (1 + 0.05 * i[:, None] * j)).to(dtype)


def random_cores(modes: Modes, ranks: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    g, r = torch.Generator().manual_seed(seed), (1, *ranks, 1)
    return [torch.randn(r[k], m, n, r[k + 1], generator=g, dtype=torch.float64) for k, (m, n) in enumerate(modes)]


def naive_compose(cores: list[Tensor]) -> Tensor:
    """Entry by entry: ``W[(i₁ … i_d), (j₁ … j_d)] = G₁[i₁, j₁] ⋯ G_d[i_d, j_d]``, row-major in both groups."""
    modes = modes_of(cores)
    w = torch.empty(matrix_of(modes), dtype=torch.float64)
    rows = list(product(*[range(m) for m, _ in modes]))
    columns = list(product(*[range(n) for _, n in modes]))
    for a, i in enumerate(rows):
        for b, j in enumerate(columns):
            made = torch.eye(1, dtype=torch.float64)
            for core, x, y in zip(cores, i, j, strict=True):
                made = made @ core[:, x, y]
            w[a, b] = made[0, 0]
    return w


def naive_tails(w: Tensor, modes: Modes) -> list[np.ndarray]:
    """Discarded energies of every unfolding, by numpy."""
    tensor = to_tensor(w.double(), modes).numpy()
    found = []
    for k in range(1, len(modes)):
        sigma = np.linalg.svd(tensor.reshape(prod(tensor.shape[:k]), -1), compute_uv=False)
        found.append(np.array([np.square(sigma[r:]).sum() for r in range(len(sigma) + 1)]))
    return found


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────────────────────


@every_cut
def test_composition_against_index_loops(modes: Modes) -> None:
    cores = random_cores(modes, capped(modes, 3))
    assert torch.allclose(compose(cores), naive_compose(cores), atol=1e-12)


@given(MODES)
def test_reshaping_is_undone(modes: Modes) -> None:
    rows, columns = matrix_of(modes)
    w = torch.arange(rows * columns).view(rows, columns)
    tensor = to_tensor(w, modes)
    assert tensor.shape == tuple(m * n for m, n in modes)
    assert torch.equal(from_tensor(tensor, modes), w)


def test_kernels_are_matrices_of_their_rows() -> None:
    kernel = torch.arange(4 * 3 * 2 * 2.0).view(4, 3, 2, 2)
    modes = ((2, 3), (2, 4))
    assert torch.equal(to_tensor(kernel, modes), to_tensor(kernel.view(4, 12), modes))


@every_cut
def test_composition_has_exact_gradients(modes: Modes) -> None:
    cores = [c.requires_grad_() for c in random_cores(modes, capped(modes, 2))]
    assert torch.autograd.gradcheck(lambda *g: compose(g), cores)


@every_cut
def test_interfaces_make_the_matrix_linear_in_a_core(modes: Modes) -> None:
    cores = random_cores(modes, capped(modes, 3))
    whole = to_tensor(compose(cores), modes)
    for k, core in enumerate(cores):
        left, right = interfaces(cores, k)
        made = torch.einsum("ap,pmnq,qb->amnb", left, core, right)
        assert torch.allclose(made.reshape(whole.shape), whole)
        front = whole.movedim(k, 0).reshape(whole.shape[k], -1)
        matrix = core.permute(1, 2, 0, 3).reshape(whole.shape[k], -1)
        assert torch.allclose(matrix @ torch.kron(left.T.contiguous(), right), front)


# ── decomposition ────────────────────────────────────────────────────────────────────────────────────────────────


@given(MODES, st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=40)
def test_tt_svd_is_quasi_optimal(modes: Modes, rank: int, seed: int) -> None:
    """max_k tails_k ≤ least loss ≤ loss of TT-SVD ≤ Σ_k tails_k, and any other train of the ranks shows the first."""
    w, ranks = drawn(modes, seed), capped(modes, rank)
    found = tt_svd(w, modes, ranks)
    tails = [t[r] for t, r in zip(naive_tails(w, modes), ranks, strict=True)]
    slack = 1e-12 * float(w.square().sum())
    assert found.ranks == ranks
    assert found.loss == pytest.approx(float((w - naive_compose(list(found.cores))).square().sum()), abs=slack)
    assert max(tails, default=0.0) - slack <= found.loss <= sum(tails) + slack
    best = refine(found, w, sweeps=8, tolerance=0.0)
    assert max(tails, default=0.0) - slack <= best.loss <= found.loss
    assert found.loss <= max(1, len(modes) - 1) * best.loss + slack  # √(d−1) in the distance


@every_cut
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_full_ranks_lose_nothing(modes: Modes, dtype: torch.dtype) -> None:
    w = drawn(modes, 1, dtype)
    for ranks in (None, full_ranks(modes), 10**6):
        found = tt_svd(w, modes, ranks)
        assert found.ranks == full_ranks(modes)
        near = 8 * torch.finfo(dtype).eps * float(w.norm())
        assert torch.allclose(compose(found.cores).to(dtype), w, rtol=0, atol=near)


@every_cut
@pytest.mark.parametrize("share", [0.5, 0.1, 1e-3, 1e-10])
def test_the_error_asked_for_is_kept_with_few_ranks(modes: Modes, share: float) -> None:
    w = drawn(modes, 2)
    error = share * float(w.norm())
    found = tt_svd(w, modes, error=error)
    assert found.loss <= error**2 * (1 + 1e-9)
    tails = naive_tails(w, modes)
    least = [int((t > error**2 * (1 + 1e-9)).sum()) for t in tails]  # no train with this error has smaller ranks …
    most = [int((t > error**2 / (len(modes) - 1) * (1 - 1e-9)).sum()) for t in tails]  # … and the cuts allow these
    assert all(a <= r <= b for a, r, b in zip(least, found.ranks, most, strict=True))
    assert tt_svd(w, modes, 1, error).ranks == capped(modes, 1)


@every_cut
def test_a_train_is_found_again_from_its_matrix(modes: Modes) -> None:
    ranks = capped(modes, 2)
    w = naive_compose(random_cores(modes, ranks, 3))
    found = tt_svd(w, modes, error=1e-9 * float(w.norm()))
    assert found.ranks == ranks
    assert found.loss <= 1e-18 * float(w.square().sum())


@every_cut
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_against_tensorly(modes: Modes, rank: int) -> None:
    tensorly = pytest.importorskip("tensorly")
    from tensorly.decomposition import tensor_train

    w, ranks = drawn(modes, 4), capped(modes, rank)
    tensor = to_tensor(w, modes).numpy()
    theirs = tensorly.tt_to_tensor(tensor_train(tensor, rank=[1, *ranks, 1]))
    ours = to_tensor(compose(tt_svd(w, modes, ranks).cores), modes).numpy()
    assert np.allclose(ours, theirs, atol=1e-10)


@every_cut
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_tails_of_unfoldings_against_numpy(modes: Modes, dtype: torch.dtype) -> None:
    w = drawn(modes, 5, dtype)
    for ours, theirs in zip(unfolding_tails(w, modes), naive_tails(w, modes), strict=True):
        assert np.allclose(ours.numpy(), theirs, rtol=1e-8, atol=1e-13 * float(w.square().sum()))


def test_degenerate_matrices() -> None:
    modes = ((2, 2), (2, 2), (2, 2))
    zero = tt_svd(torch.zeros(8, 8), modes, 2)
    assert zero.loss == 0.0
    assert bool(compose(zero.cores).eq(0).all())
    assert refine(zero, torch.zeros(8, 8)) is zero
    alone = tt_svd(torch.ones(3, 4), ((3, 4),))
    assert alone.ranks == ()
    assert torch.equal(compose(alone.cores), torch.ones(3, 4).double())
    with pytest.raises(NonFinite):
        tt_svd(torch.full((8, 8), float("inf")), modes, 2)
    assert tt_svd(zero.cores[0].new_ones(8, 8), modes, error=1e-6).ranks == (1, 1)


# ── orthogonalisation, rounding, refinement ──────────────────────────────────────────────────────────────────────


@every_cut
def test_orthogonal_neighbours_leave_the_norm_to_the_centre(modes: Modes) -> None:
    cores = random_cores(modes, (7,) * (len(modes) - 1), 6)  # above what the shape permits
    w = compose(cores)
    for centre in range(len(modes)):
        found = orthogonalise(cores, centre)
        assert torch.allclose(compose(found), w, atol=1e-10 * float(w.abs().max()))
        assert float(found[centre].norm()) == pytest.approx(float(w.norm()))
        for core in found[:centre]:
            columns = core.reshape(-1, core.shape[3])
            assert torch.allclose(columns.T @ columns, torch.eye(core.shape[3]).double(), atol=1e-12)
        for core in found[centre + 1 :]:
            rows = core.reshape(core.shape[0], -1)
            assert torch.allclose(rows @ rows.T, torch.eye(core.shape[0]).double(), atol=1e-12)


@every_cut
def test_rounding_a_train_is_tt_svd_of_its_matrix(modes: Modes) -> None:
    cores = random_cores(modes, capped(modes, 4), 7)
    w = compose(cores)
    for ranks in (1, 2, capped(modes, 4), None):
        ours, theirs = round_train(cores, ranks), tt_svd(w, modes, ranks)
        assert torch.allclose(compose(ours.cores), compose(theirs.cores), atol=1e-9 * float(w.norm()))
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-9, abs=1e-18 * float(w.square().sum()))
    error = 0.3 * float(w.norm())
    assert float((compose(round_train(cores, error=error).cores) - w).norm()) <= error


def test_rounding_finds_the_ranks_of_a_padded_train() -> None:
    modes = CUTS[2]
    cores = random_cores(modes, capped(modes, 2), 8)
    padded = [torch.nn.functional.pad(c, (0, 3 * (k < 3), 0, 0, 0, 0, 0, 3 * (k > 0))) for k, c in enumerate(cores)]
    found = round_train(padded, error=1e-9 * float(compose(cores).norm()))
    assert found.ranks == capped(modes, 2)
    assert torch.allclose(compose(found.cores), compose(cores), atol=1e-9)


@given(MODES, st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=40)
def test_refinement_never_loses(modes: Modes, rank: int, seed: int) -> None:
    w, ranks = drawn(modes, seed), capped(modes, rank)
    start = tt_svd(w, modes, ranks)
    last = start.loss
    for sweeps in (1, 2, 4):
        found = refine(start, w, sweeps, tolerance=0.0)
        assert found.loss <= last
        assert found.ranks == ranks
        last = found.loss
    poor = random_cores(modes, ranks, seed)
    started = squared_distance(poor, to_tensor(w, modes))
    assert refine(Train(tuple(poor), started), w, 1).loss <= started


def test_a_refined_train_is_a_stationary_point() -> None:
    """No core alone can be bettered: the gradient in every core vanishes."""
    modes = CUTS[3]
    w = drawn(modes, 9)
    start = tt_svd(w, modes, 2)
    found = refine(start, w, sweeps=500, tolerance=0.0)
    assert found.loss < start.loss
    cores = [c.clone().requires_grad_() for c in found.cores]
    (compose(cores) - w).square().sum().backward()  # type: ignore[no-untyped-call]
    assert max(float(c.grad.abs().max()) for c in cores if c.grad is not None) < 1e-5


def test_layers_of_ordinary_size_in_single_precision() -> None:
    w = torch.randn(300, 784, generator=torch.Generator().manual_seed(0))
    modes = balanced(300, 784, 4)
    found = tt_svd(w, modes, 8)
    tails = [float(t[r]) for t, r in zip(unfolding_tails(w, modes), found.ranks, strict=True)]
    assert max(tails) <= refine(found, w).loss < found.loss <= sum(tails)
