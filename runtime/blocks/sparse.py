"""The block of a count of non-zeros: an exact projection of several tensors together."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

from prunelang.runtime.prox.select import project_topk_


def sparse_block(
    W: Sequence[Tensor], S: Sequence[Tensor], kappa: int, *, tau: Sequence[float], alpha: Sequence[float]
) -> list[Tensor]:
    """``argmin_{‖S'‖₀ ≤ κ} Σ_j (τ_j/2)‖W_j − S'_j‖² + (α_j/2)‖S'_j − S_j‖²``, one κ for all tensors, globally.

    Completing the square, ``Σ_j ((τ_j + α_j)/2)‖S'_j − M_j‖²`` with ``M_j = (τ_j W_j + α_j S_j)/(τ_j + α_j)``: the κ
    largest ``√(τ_j + α_j)|M_j|`` are kept (ties: lowest index). L falls by at least ``Σ_j (α_j/2)‖S'_j − S_j‖²``: the
    set is not convex.
    """
    weights = [t + a for t, a in zip(tau, alpha, strict=True)]
    means = [torch.lerp(w.detach(), s, a / t) for w, s, a, t in zip(W, S, alpha, weights, strict=True)]
    if len(set(weights)) == 1:
        project_topk_(means, kappa)
        return means
    keys = [m * sqrt(t) for m, t in zip(means, weights, strict=True)]
    project_topk_(keys, kappa)
    return [m.mul_(k != 0) for m, k in zip(means, keys, strict=True)]
