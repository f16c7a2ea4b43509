"""Truncated decompositions against numpy's, and the theorem of Eckart and Young."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from prunelang.runtime.prox.low_rank import factor, left_basis, spectra, spectrum
from prunelang.runtime.prox.scan import NonFinite

SHAPES = [(5, 7), (7, 5), (6, 6), (1, 9), (9, 1), (30, 200), (200, 30)]


def naive(w: Tensor, rank: int) -> np.ndarray:
    u, s, vh = np.linalg.svd(w.double().numpy(), full_matrices=False)
    return np.asarray((u[:, :rank] * s[:rank]) @ vh[:rank])


def drawn(shape: tuple[int, int], dtype: torch.dtype = torch.float64, decay: float = 0.8) -> Tensor:
    """A matrix of falling singular values."""
    g = torch.Generator().manual_seed(shape[0] * 1000 + shape[1])
    q = min(shape)
    left, right = (torch.linalg.qr(torch.randn(n, q, generator=g, dtype=torch.float64))[0] for n in shape)
    return ((left * decay ** torch.arange(q)) @ right.T).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_factors_are_a_nearest_matrix(shape: tuple[int, int], dtype: torch.dtype) -> None:
    w = drawn(shape, dtype)
    found = spectrum(w)
    for rank in range(min(shape) + 1):
        u, v = found.factors(rank)
        assert u.shape == (shape[0], rank)
        assert v.shape == (rank, shape[1])
        tolerance = 1e-12 if dtype == torch.float64 else 1e-7
        assert np.allclose((u @ v).numpy(), naive(w, rank), atol=tolerance)
        assert torch.allclose(u.square().sum(0), v.square().sum(1), rtol=1e-9)
    assert u.is_contiguous()
    assert v.is_contiguous()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_tails_are_the_least_squared_distances(shape: tuple[int, int], dtype: torch.dtype) -> None:
    w = drawn(shape, dtype)
    found = spectrum(w)
    distances = [np.square(w.double().numpy() - naive(w, r)).sum() for r in range(min(shape) + 1)]
    assert np.allclose(found.tails.numpy(), distances, rtol=1e-9, atol=1e-15)
    assert float(found.tails[-1]) == 0.0
    assert bool((found.tails.diff() <= 0).all())


def test_the_gram_matrix_costs_nothing_that_float32_shows() -> None:
    """Singular values over eight decades: what float32 entries cannot hold, the product of the factors need not."""
    w = drawn((40, 60), torch.float32, decay=0.6)
    exact = np.array([np.square(w.double().numpy() - naive(w, r)).sum() for r in range(41)])
    for rank in range(41):
        u, v = spectrum(w).factors(rank)
        lost = float((w.double() - u @ v).square().sum())
        assert lost <= exact[rank] * (1 + 1e-9) + 40 * np.finfo(float).eps


def test_matrices_of_lower_rank_are_found_again() -> None:
    w = torch.outer(torch.arange(1.0, 6.0), torch.arange(1.0, 4.0))
    u, v = factor(w, 1)
    assert torch.allclose(u @ v, w)
    u, v = factor(w, 3)
    assert torch.allclose(u @ v, w, atol=1e-5)
    assert bool(u.isfinite().all() and v.isfinite().all())
    u, v = factor(torch.zeros(4, 6), 2)
    assert float(u.abs().sum() + v.abs().sum()) == 0.0


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    many = [drawn(s, t) for s in SHAPES for t in (torch.float32, torch.float64)] + [drawn((5, 40), torch.float32)]
    for w, found in zip(many, spectra(many), strict=True):
        alone = spectrum(w)
        assert torch.allclose(found.tails, alone.tails, rtol=1e-10, atol=1e-14)
        assert torch.equal(found.matrix, w.double())
    assert spectra([]) == []


def test_what_is_not_finite_is_named() -> None:
    with pytest.raises(NonFinite, match="tensor 1"):
        spectra([torch.ones(2, 2), torch.full((2, 3), float("nan"))])


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5), (3, 0), (0, 3)])
@pytest.mark.parametrize("exact", [True, False])
def test_left_bases_are_orthonormal(shape: tuple[int, int], exact: bool) -> None:
    w = drawn(shape) if min(shape) else torch.zeros(shape, dtype=torch.float64)
    basis, energies = left_basis(w, exact)
    q = min(shape)
    assert basis.shape == (shape[0], q)
    assert torch.allclose(basis.T @ basis, torch.eye(q, dtype=torch.float64), atol=1e-13)
    assert torch.allclose((basis.T @ w).square().sum(1), energies, atol=1e-14)
