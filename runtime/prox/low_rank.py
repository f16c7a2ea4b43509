"""Nearest matrices of low rank, for all ranks at once.

By Eckart and Young (1936) a nearest matrix of rank r keeps the r largest singular triples, ``U_r Σ_r V_rᵀ``, and

    min_{rank X ≤ r} ‖W − X‖_F² = tails_r = Σ_{i > r} σ_i²

Only the basis B (q × q, q = min(m, n)) of the *shorter* side is computed: ``B_r B_rᵀ W`` where that is the rows,
``W B_r B_rᵀ`` where it is the columns. For float32 and narrower it comes from the Gram matrix in float64: the rounding
error of ε₆₄ σ₁² in σ² is far below what entries of W resolve. For float64 it comes from the decomposition of W itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunelang.runtime.prox.scan import check_finite


@dataclass(frozen=True)
class Spectrum:
    """A matrix W (m × n), a basis of singular vectors of its shorter side, and its energies. All in float64."""

    matrix: Tensor  # m × n
    basis: Tensor  # q × q, orthonormal columns, largest singular value first
    energies: Tensor  # σ_1² ≥ … ≥ σ_q² ≥ 0

    @property
    def tails(self) -> Tensor:
        """``tails_r = Σ_{i > r} σ_i²`` for r = 0 … q: the least squared distances to the matrices of rank r."""
        return tails_of(self.energies)

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """``U_r Σ_r^½`` (m × r) and ``Σ_r^½ V_rᵀ`` (r × n): a nearest matrix of rank r in balanced factors.

        Column i of the one and row i of the other are σ_i^½ long. A rank above q counts as q.
        """
        short, long, sigma = self.triples(rank)
        root = sigma.sqrt()
        near, far = short * root, long / torch.where(root > 0, root, 1.0)
        left, right = (near, far) if self.wide else (far, near)
        return left.contiguous(), right.T.contiguous()

    def triples(self, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """B_r (q × r), its image ``Wᵀ B_r`` or ``W B_r`` with columns σ_i long, and σ_1 … σ_r."""
        short = self.basis[:, :rank]
        long = (self.matrix.T if self.wide else self.matrix) @ short
        return short, long, torch.linalg.vector_norm(long, dim=0)

    @property
    def wide(self) -> bool:
        """Whether the rows are the shorter side."""
        return self.matrix.shape[0] <= self.matrix.shape[1]


def spectrum(matrix: Tensor) -> Spectrum:
    """The singular structure of one matrix."""
    return spectra([matrix])[0]


@torch.no_grad()
def spectra(matrices: Sequence[Tensor]) -> list[Spectrum]:
    """The singular structures of several matrices of any shapes; those with equally long shorter sides in one batch.

    Raises `NonFinite` with the place of the first matrix that holds NaN or ±∞.
    """
    check_finite(matrices)
    found: dict[int, Spectrum] = {}
    batches: dict[tuple[int, bool, torch.device], list[int]] = defaultdict(list)
    for i, w in enumerate(matrices):
        batches[min(w.shape), w.dtype == torch.float64, w.device].append(i)
    for (_, double, _), places in batches.items():
        wide = [matrices[i].detach().double() for i in places]
        bases = [_decomposed(w) for w in wide] if double else _gram_bases(wide)
        found |= {i: Spectrum(w, *pair) for i, w, pair in zip(places, wide, bases, strict=True)}
    return [found[i] for i in range(len(matrices))]


def factor(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U (m × r) and V (r × n) in the matrix's dtype with U V a nearest matrix of rank ≤ `rank`, up to rounding."""
    u, v = spectrum(matrix).factors(rank)
    return u.to(matrix.dtype), v.to(matrix.dtype)


def tails_of(energies: Tensor) -> Tensor:
    """``tails_r = Σ_{i > r} energies_i`` for r = 0 … q, summed from the smallest on: falling, and 0 at q."""
    tails = energies.new_zeros(len(energies) + 1)
    tails[:-1] = energies.flip(0).cumsum(0).flip(0)
    return tails


def left_basis(matrix: Tensor, exact: bool) -> tuple[Tensor, Tensor]:
    """Left singular vectors (m × min(m, n)) and energies of a float64 matrix, largest first.

    With `exact` by singular value decomposition, else by the Gram matrix of the shorter side: a taller matrix is first
    replaced by the R of its QR decomposition, so that the basis is orthonormal to rounding in either case.
    """
    if matrix.shape[0] > matrix.shape[1]:
        q, r = torch.linalg.qr(matrix)
        basis, energies = left_basis(r, exact)
        return q @ basis, energies
    return _decomposed(matrix) if exact else _gram_bases([matrix])[0]


def _gram_bases(matrices: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Eigenvectors and eigenvalues of the Gram matrices of the shorter sides, as one batch."""
    gram = torch.stack([w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w for w in matrices])
    energies, vectors = torch.linalg.eigh(gram)
    bases = zip(vectors.flip(-1), energies.flip(-1).clamp_min(0.0), strict=True)
    return [(b, e) for b, e in bases]


def _decomposed(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The shorter side's singular vectors, all q of them, and energies, by singular value decomposition."""
    u, sigma, vh = torch.linalg.svd(matrix, full_matrices=False)
    return (u if matrix.shape[0] <= matrix.shape[1] else vh.T), sigma.square()
