"""The nuclear norm ‖W‖_* = Σ_i σ_i(W) of matrices: singular value thresholding and the projection onto a ball of it.

Of a tensor the matrix is ``shape[0] × ∏ shape[1:]``; a vector is one row. Singular values are taken in float64.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from prunelang.runtime.prox.low_rank import spectrum
from prunelang.runtime.prox.scan import check_finite

MARGIN = 2.0**-40  # relative: singular values in float64, by whatever routine, agree to far better than this


@torch.no_grad()
def nuclear_norm(w: Tensor) -> float:
    """‖W‖_*. Raises `NonFinite` for NaN or ±∞."""
    check_finite([w])
    return float(torch.linalg.svdvals(as_matrix(w.detach()).double()).sum())


def as_matrix(w: Tensor) -> Tensor:
    """``shape[0] × ∏ shape[1:]``; a vector or a scalar is one row."""
    return w.reshape(1, -1) if w.ndim < 2 else w.reshape(w.shape[0], prod(w.shape[1:]))


@torch.no_grad()
def soft_singular_(w: Tensor, t: float) -> None:
    """``W ← U (Σ − t)₊ Vᵀ``, in place."""
    found = spectrum(as_matrix(w))
    short, long, sigma = found.triples(len(found.energies))
    share = torch.where(sigma > t, 1 - t / torch.where(sigma > t, sigma, 1.0), 0.0)
    shrunk = (short * share) @ long.T
    w.copy_((shrunk if found.wide else shrunk.T).reshape(w.shape))


@torch.no_grad()
def project_nuclear_(w: Tensor, radius: float) -> None:
    """``W ← Π(W)`` onto ``{‖W‖_* ≤ radius}``, in place; afterwards the norm of the rounded entries is at most that.

    The singular values are projected onto the ℓ1 ball. Where rounding to the dtype lifts the norm again, the result is
    scaled inward, by a margin more than it must, so that any routine for singular values finds it inside.
    """
    if nuclear_norm(w) <= radius:
        return
    sigma = torch.linalg.svdvals(as_matrix(w).double())
    sums = (sigma.cumsum(0) - radius) / torch.arange(1, len(sigma) + 1, device=sigma.device)
    active = int((sigma > sums).sum())  # ρ = max {j : σ_j > (Σ_{i ≤ j} σ_i − κ)/j}: these j are the first ρ
    soft_singular_(w, float(sums[max(active, 1) - 1]))
    inward = max(MARGIN, torch.finfo(w.dtype).eps / 8)
    while (norm := nuclear_norm(w)) > radius * (1 - MARGIN):
        w.mul_(max(0.0, radius / norm - inward))
        inward *= 2
