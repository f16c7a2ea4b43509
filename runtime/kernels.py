"""What the steps of a graph do, as plain functions of torch tensors.

The executor calls these, and an emitted script holds their source: one text, hence the same bits. None of them makes
the host wait for the device, branches on data or allocates more than its result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def gradients(weights: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of the weights; 0 for a tensor that the loss does not reach, so that a pull still moves it."""
    for w in weights:
        if w.grad is None:
            w.grad = torch.zeros_like(w)
    return [w.grad for w in weights if w.grad is not None]


def add_pull_(grads: list[Tensor], weights: list[Tensor], constant: list[Tensor], mu: float) -> None:
    """``g ← g + μW − c`` with ``c = μt``: the gradient of μ/2‖W − t‖², for optimisers without coupled decay."""
    torch._foreach_add_(grads, weights, alpha=mu)
    torch._foreach_sub_(grads, constant)


def subtract_(grads: list[Tensor], constant: list[Tensor]) -> None:
    """``g ← g − c``: the same when μW rides on the optimiser's coupled weight decay."""
    torch._foreach_sub_(grads, constant)


def restrict_(grads: list[Tensor], support: list[Tensor]) -> None:
    """``g ← g ⊙ m``: with fresh moments, weights outside the support stay exactly 0."""
    torch._foreach_mul_(grads, support)


def soft_(out: Sequence[Tensor], theta: Sequence[Tensor], d: float) -> None:
    """``out ← sign(θ)(|θ| − d)₊`` in one pass; exactly 0 where ``|θ| ≤ d``."""
    for w, t in zip(out, theta, strict=True):
        torch.ops.aten.softshrink.out(t, d, out=w)


def not_finite(loss: Tensor) -> Tensor:
    """1 where the loss is NaN or infinite, else 0, as a device flag that masks the optimizer's update."""
    return (~torch.isfinite(loss)).to(torch.float32)


def combine_(out: Sequence[Tensor], terms: Sequence[tuple[float, Sequence[Tensor]]]) -> None:
    """``out ← Σ c·x`` in the order given; `out` may be one of the x only as the first."""
    if not terms:
        for o in out:
            o.zero_()
        return
    (c0, first), *others = terms
    for i, o in enumerate(out):
        if o is not first[i]:
            o.copy_(first[i])
        if c0 != 1.0:
            o.mul_(c0)
        for c, x in others:
            o.add_(x[i], alpha=c)


def s_lats(x: float) -> float:
    """The shape f(x) = x + sin(πx)/π on [0, 1], constant outside: Δf ∝ 1 + cos πx, as a cosine step size falls."""
    x = min(1.0, max(0.0, x))
    return x + math.sin(math.pi * x) / math.pi


def steered(p: float, d: float, q: float, last: tuple[float, float], reach: float) -> tuple[float, float, float, float]:
    """The course of a threshold until the next steer, ``(p₀, d₀, target, span)`` for `anchored`.

    `q` is the threshold that would leave κ weights now, `last` = (p, q) at the last steer. Up to `reach` the target is
    q; from there on d follows q, which moves as the kept weights grow: the target is where q will be one span later.
    """
    p_last, q_last = last
    if p < reach:
        return (p, d, max(d, q), 1.0)
    return (p, d, q + max(0.0, q - q_last), max(p - p_last, 1e-12))


def anchored(p: float, course: tuple[float, float, float, float], reach: float) -> float:
    """The threshold at p: ``d₀ + (q − d₀)(f(p/r) − f(p₀/r))/(1 − f(p₀/r))`` before reach, then linear over the span."""
    p0, d0, q, span = course
    if p0 >= reach:
        return d0 + (q - d0) * min(1.0, (p - p0) / span)
    f, f0 = s_lats(p / reach), s_lats(p0 / reach)
    return d0 + (q - d0) * (f - f0) / (1.0 - f0) if f0 < 1.0 else q  # f reaches 1 a few roundings before p = r


NEWTON_STEPS = 8  # of the threshold of an ℓ1 ball; what they leave over is met by a factor


def shrink_(x: Sequence[Tensor], norm: str, bound: float) -> None:
    """Moves x into the ball {f ≤ bound}, f one of norm1, norm2, norm2_squared, norminf, without the host waiting.

    Up to rounding it is the projection: ‖·‖₂ a factor, ‖·‖∞ a clamp, ‖·‖₁ soft thresholding at the t that Newton's
    method finds, then a factor. The target lies 16 roundings inside, so that the exact norm of the result is at most
    the bound.
    """
    inside = 1.0 - 16.0 * max(torch.finfo(t.dtype).eps for t in x)
    if norm == "norminf":
        for t in x:
            t.clamp_(-bound * inside, bound * inside)
        return
    radius = bound**0.5 if norm == "norm2_squared" else bound
    if norm == "norm1":
        t = _soft_threshold(x, radius * inside)
        for v in x:
            v.copy_(torch.sign(v) * torch.clamp_min(v.abs() - t.to(v.dtype), 0.0))
    length = _length(x, 1 if norm == "norm1" else 2)
    torch._foreach_mul_(list(x), torch.clamp_max(radius * inside / length, 1.0))


def _length(x: Sequence[Tensor], order: int) -> Tensor:
    """‖x‖ in float64, at least the smallest positive number."""
    norms = [torch.linalg.vector_norm(v, order, dtype=torch.float64) for v in x]
    length: Tensor = torch.linalg.vector_norm(torch.stack(norms), order)
    return length.clamp_min(torch.finfo(torch.float64).tiny)


def _soft_threshold(x: Sequence[Tensor], radius: float) -> Tensor:
    """t ≥ 0 with Σ (|x| − t)₊ ≥ radius, equal once Newton's method has settled; 0 inside the ball."""
    t = torch.zeros((), dtype=torch.float64, device=x[0].device)
    for _ in range(NEWTON_STEPS):
        over = [v.abs() > t for v in x]
        count = torch.stack([o.sum() for o in over]).sum().clamp_min(1)
        total = torch.stack([(v.abs() * o).sum(dtype=torch.float64) for v, o in zip(x, over, strict=True)]).sum()
        t = torch.maximum(t, (total - radius) / count)
    return t
