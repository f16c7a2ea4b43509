"""The block of a factored layer: cores of a tensor train, or two low-rank factors, one exact proximal sweep.

``W[(i₁ … i_d), (j₁ … j_d)] = G₁[i₁, j₁] ⋯ G_d[i_d, j_d]``, cores r_{k−1} × m_k × n_k × r_k, r_0 = r_d = 1. In one core
the composed tensor is linear: with the interfaces L (all cores to the left, ∏_{j<k} s_j × r_{k−1}) and R (to the right,
r_k × ∏_{j>k} s_j) and ``s = mn``, its unfolding is ``W_(k) = (L ⊗ Rᵀ) G``. Hence ``PPᵀ = LᵀL ⊗ RRᵀ``: two small
eigendecompositions solve a core exactly, and no matrix of side ``r_{k−1} r_k`` is formed.

Low rank ``W = U V`` is the train of the two cores 1 × m × r and r × n × 1, rows not interleaved with columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from prunelang.compiler.forms import Modes


def sweep_cores(W: Tensor, cores: Sequence[Tensor], modes: Modes, *, tau: float, alpha: float) -> list[Tensor]:
    """For k = 1 … d: ``G_k ← argmin_G (τ/2)‖W − TT(…, G, …)‖² + (α/2)‖G − G_k‖²``, the cores before k being new.

    ``G = (τ W_(k) Pᵀ + αG_old)(τ PPᵀ + αI)^{-1}``. `W` is any tensor of ``∏m × ∏n`` entries, rows first. In float64.
    L falls by at least ``α‖G⁺ − G‖²`` for every core: quadratic with curvature at least α. α > 0.
    """
    flat = [g.reshape(g.shape[0], -1, g.shape[3]) for g in cores]
    new = _sweep(interleaved(W, modes), flat, tau, alpha)
    return [g.view(c.shape) for g, c in zip(new, cores, strict=True)]


def sweep_factors(W: Tensor, U: Tensor, V: Tensor, *, tau: float, alpha: float) -> tuple[Tensor, Tensor]:
    """``U ← (τWVᵀ + αU)(τVVᵀ + αI)^{-1}``, then ``V ← (τUᵀU + αI)^{-1}(τUᵀW + αV)``: `sweep_cores` of low rank."""
    U, V = _sweep(W.reshape(len(U), -1), [U[None], V[:, :, None]], tau, alpha)
    return U[0], V[:, :, 0]


def _sweep(T: Tensor, cores: list[Tensor], tau: float, alpha: float) -> list[Tensor]:
    rest = T.double()  # r_{k−1} × (s_k ⋯ s_d): Lᵀ T
    left = rest.new_ones(1, 1)  # LᵀL
    rights, new = _rights(cores), []
    for core, R in zip(cores, rights, strict=True):
        r, s, q = core.shape
        rest = rest.reshape(r * s, -1)
        rhs = (rest @ R.T).view(r, s, q).mul_(tau).add_(core, alpha=alpha)
        G = _solve(left, rhs, R @ R.T, tau, alpha)
        left = torch.einsum("psq,pr,rst->qt", G, left, G)
        rest = G.view(r * s, q).T @ rest
        new.append(G)
    return new


def _rights(cores: list[Tensor]) -> list[Tensor]:
    """R of every core."""
    found = [cores[-1].new_ones(1, 1, dtype=torch.float64)]
    for core in reversed(cores[1:]):
        r, s, q = core.shape
        found.append((core.double().reshape(r * s, q) @ found[-1]).view(r, -1))
    return found[::-1]


def _solve(left: Tensor, rhs: Tensor, right: Tensor, tau: float, alpha: float) -> Tensor:
    """G with ``τ left·G[:, s]·right + αG[:, s] = rhs[:, s]`` for every s; left and right positive semidefinite."""
    a, P = torch.linalg.eigh(left)
    b, Q = torch.linalg.eigh(right)
    G = P.T @ rhs.flatten(1)
    G = (G.view_as(rhs) @ Q).div_((a.clamp(min=0)[:, None, None] * b.clamp(min=0) * tau).add_(alpha))
    solved: Tensor = P @ (G @ Q.T).flatten(1)
    return solved.view_as(rhs)


def interleaved(W: Tensor, modes: Modes) -> Tensor:
    """The tensor ``m_1n_1 × … × m_dn_d`` of a matrix ``∏m × ∏n`` (or anything that reshapes to it), in float64."""
    d = len(modes)
    W = W.double().reshape(*(m for m, _ in modes), *(n for _, n in modes))
    return W.permute([axis for k in range(d) for axis in (k, d + k)]).reshape([m * n for m, n in modes])


def compose_cores(cores: Sequence[Tensor], modes: Modes) -> Tensor:
    """The matrix ``∏m × ∏n`` of a train."""
    d = len(modes)
    T = cores[0].reshape(-1, cores[0].shape[3])
    for core in cores[1:]:
        T = (T @ core.flatten(1)).view(-1, core.shape[3])
    T = T.view([x for pair in modes for x in pair])
    return T.permute([*range(0, 2 * d, 2), *range(1, 2 * d, 2)]).reshape(prod(m for m, _ in modes), -1)


def balanced(factors: Sequence[Tensor]) -> list[Tensor]:
    """The same product with factors of equal Frobenius norm, so that α holds them back alike; all 0 where one is."""
    logs = torch.stack([torch.linalg.vector_norm(g.double()) for g in factors]).log()
    scales = torch.where(logs.isfinite().all(), (logs.mean() - logs).exp(), 1.0)
    return [g.double() * s for g, s in zip(factors, scales, strict=True)]
