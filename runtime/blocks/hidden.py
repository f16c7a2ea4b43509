"""The block of a hidden layer's activations, behind a linear layer (one Cholesky factor) or a convolution (CG)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from prunelang.runtime.blocks.layers import Layer


def gain(W: Tensor, *, gamma: float, rho: float, alpha: float) -> Tensor:
    """``K = Wᵀ(WWᵀ + gI)^{-1} = (WᵀW + gI)^{-1}Wᵀ``, inputs × outputs, with ``g = (γ + α)/ρ``: `v_linear`'s solve.

    One Cholesky factor of the smaller of both sides, in float64; it serves all samples.
    """
    W = W.double()
    g = (gamma + alpha) / rho
    wide = W.shape[0] <= W.shape[1]
    A = W @ W.T if wide else W.T @ W
    A.diagonal().add_(g)
    factor = torch.linalg.cholesky(A)
    return torch.cholesky_solve(W, factor).T if wide else torch.cholesky_solve(W.T, factor)


def v_linear(
    U: Tensor, V: Tensor, U_next: Tensor, W: Tensor, b: Tensor, K: Tensor, *, gamma: float, alpha: float
) -> Tensor:
    """``argmin_v (γ/2)‖v − σ(U)‖² + (ρ/2)‖U_next − Wv − b‖² + (α/2)‖v − V‖²``, with K from `gain` of the same weights.

        s = (γσ(U) + αV)/(γ + α),   v = s + K (U_next − b − W s)

    equals ``(ρWᵀW + (γ + α)I)^{-1}(ρWᵀ(U_next − b) + (γ + α)s)``; its rounding error is that of the residual, not of v.
    L falls by at least ``(γ/2 + α)‖V⁺ − V‖²/n``.
    """
    s = _between(U, V, gamma, alpha).flatten(1)
    dtype = s.dtype
    residual = torch.addmm(U_next - b.to(dtype), s, W.to(dtype).T, alpha=-1)
    return s.addmm_(residual, K.to(dtype).T).view_as(V)


def _between(U: Tensor, V: Tensor, gamma: float, alpha: float) -> Tensor:
    """``(γσ(U) + αV)/(γ + α)``, in memory of its own, of V's shape."""
    return torch.relu(U).view_as(V).lerp_(V, alpha / (gamma + alpha))


class Solved(NamedTuple):
    """`residual`: the largest ``‖rhs − A v‖/‖rhs‖`` of any sample, on the device. `steps` of conjugate gradients."""

    V: Tensor
    residual: Tensor
    steps: int


def v_convolution(
    layer: Layer,
    U: Tensor,
    V: Tensor,
    U_next: Tensor,
    W: Tensor,
    b: Tensor,
    *,
    gamma: float,
    rho: float,
    alpha: float,
    tolerance: float = 1e-5,
    most: int = 100,
) -> Solved:
    """`v_linear`'s minimiser by conjugate gradients on ``(ρWᵀW + (γ + α)I) v = ρWᵀ(U_next − b) + γσ(U) + αV``.

    W acts as a convolution and is never a matrix. Every sample has its own system and its own step lengths. It starts
    at V and ends when the relative residual of every sample is at most `tolerance`, or after `most` steps. Iterates of
    CG minimise over V plus a subspace: ``⟨residual, v − V⟩ = 0``. So the decrease holds wherever it ends, with the same
    constant: L falls by at least ``(γ/2 + α)‖V⁺ − V‖²/n`` (up to rounding of that inner product).

    The residual returned is computed anew from v. To end it must be looked at: the host waits every eighth step.
    """
    rhs = layer.adjoint(W, U_next - b.to(V.dtype).view(-1, *(1,) * (U_next.dim() - 2))).mul_(rho).view_as(V)
    rhs.add_(torch.relu(U).view_as(V), alpha=gamma).add_(V, alpha=alpha)
    zero = torch.zeros_like(b)

    def normal(v: Tensor) -> Tensor:
        return layer.adjoint(W, layer.apply(W, zero, v)).view_as(v).mul_(rho).add_(v, alpha=gamma + alpha)

    v, r = V.clone(), rhs - normal(V)
    goal = _squares(rhs).mul_(tolerance**2)
    d, rr = r.clone(), _squares(r)
    step = 0
    while step < most and (step % 8 or bool((rr > goal).any())):
        q = normal(d)
        length = rr / _inner(d, q).clamp_(min=torch.finfo(d.dtype).tiny)  # d = 0 once solved: length 0, not NaN
        v.addcmul_(d, length)
        r.addcmul_(q, length, value=-1)
        rr, before = _squares(r), rr
        d.mul_(rr / before.clamp(min=torch.finfo(d.dtype).tiny)).add_(r)
        step += 1
    left = _squares(rhs - normal(v)) / goal.clamp_(min=torch.finfo(d.dtype).tiny)
    return Solved(v, left.max().sqrt().mul(tolerance), step)


def _inner(x: Tensor, y: Tensor) -> Tensor:
    """Of every sample, shaped to multiply with it."""
    products: Tensor = torch.linalg.vecdot(x.flatten(1), y.flatten(1))
    return products.view(-1, *(1,) * (x.dim() - 1))


def _squares(x: Tensor) -> Tensor:
    return _inner(x, x)
