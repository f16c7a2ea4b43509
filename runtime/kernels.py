"""What the steps of a graph do, as plain functions of torch tensors.

The executor calls these, and an emitted script holds their source: one text, hence the same bits. None of them makes
the host wait for the device, branches on data or allocates more than its result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from prunelang.compiler.thresholds import Shape, s_lats


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


def add_norm1_(grads: list[Tensor], weights: list[Tensor], signs: list[Tensor], alpha: float) -> None:
    """``g ← g + α·sign(w)``, the gradient of α‖w‖₁ with 0 at 0; `signs` is room of the shape of the weights."""
    torch._foreach_copy_(signs, weights)
    torch._foreach_sign_(signs)
    torch._foreach_add_(grads, signs, alpha=alpha)


def add_drr_(
    grads: list[Tensor],
    weights: list[Tensor],
    signs: list[Tensor],
    decays: list[Tensor],
    alpha: float,
    beta: float,
) -> None:
    """``g ← g + αβ·sign(w)·e^(−β|w|)``, the gradient of α·Σ(1 − e^(−β|w|)) with 0 at 0; `signs`, `decays` are room."""
    torch._foreach_copy_(signs, weights)
    torch._foreach_copy_(decays, weights)
    torch._foreach_abs_(decays)
    torch._foreach_mul_(decays, -beta)
    torch._foreach_exp_(decays)
    torch._foreach_sign_(signs)
    torch._foreach_addcmul_(grads, signs, decays, value=alpha * beta)


def restrict_(grads: list[Tensor], support: list[Tensor]) -> None:
    """``g ← g ⊙ m``: with fresh moments, weights outside the support stay exactly 0."""
    torch._foreach_mul_(grads, support)


def soft_(out: Sequence[Tensor], theta: Sequence[Tensor], d: float) -> None:
    """``out ← sign(θ)(|θ| − d)₊`` in one pass; exactly 0 where ``|θ| ≤ d``."""
    for w, t in zip(out, theta, strict=True):
        torch.ops.aten.softshrink.out(t, d, out=w)


def soft_by_(out: Sequence[Tensor], theta: Sequence[Tensor], d: Tensor) -> None:
    """The same with a threshold for each tensor, known to the device alone."""
    for w, t, own in zip(out, theta, d.unbind(), strict=True):
        torch.clamp(t, -own, own, out=w)
        torch.sub(t, w, out=w)


def own_thresholds(s: Tensor, level: float, budget: bool) -> Tensor:
    """``d = level·σ(s)``, one for each tensor; ``level·eˢ`` where a budget sets the level."""
    shares: Tensor = (torch.exp if budget else torch.sigmoid)(s.detach())
    return shares * level


def hand_over_(theta: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
    """Identity backward: the gradient with respect to W is the latent's."""
    for t, w in zip(theta, weights, strict=True):
        t.grad = w.grad


def differentiate_(theta: Sequence[Tensor], s: Tensor, weights: Sequence[Tensor], d: Tensor, budget: bool) -> None:
    """Exact backward of ``W_l = sign(θ_l)(|θ_l| − d_l)₊`` with d = σ(s), g the gradient with respect to W.

    ``∂L/∂θ = g ⊙ 1[W ≠ 0]`` and ``∂L/∂s_l = −σ′ Σ_(W_l ≠ 0) sign(θ) g`` with σ′ = d(1 − d). Along a `budget`, d ∝ eˢ
    has slope d, and the sum of ∂L/∂s comes off in proportion to how many weights each tensor keeps.
    """
    signs = [w.detach().sign() for w in weights]
    kept = torch._foreach_mul(gradients(weights), signs)
    slope = -(d if budget else d * (1.0 - d)) * torch.stack([k.sum() for k in kept])
    if budget:
        share = torch.stack([sign.abs().sum() for sign in signs])
        slope -= slope.sum() * share / share.sum().clamp_min(1.0)
    s.grad = slope
    torch._foreach_mul_(kept, signs)
    for t, k in zip(theta, kept, strict=True):
        t.grad = k


def relative(theta: Sequence[Tensor], s: Tensor) -> list[Tensor]:
    """``|θ_l|·e^(−s_l)``: an entry stays under d = level·eˢ if and only if this is not above the level."""
    shares = torch.exp(-s.detach()).unbind()
    return [t.detach().abs() * r for t, r in zip(theta, shares, strict=True)]


def offset_(theta: Sequence[Tensor], weights: Sequence[Tensor], d: float, above: float) -> None:
    """``θ ← sign(W)(|W| + d)`` where |W| > above, W elsewhere; d ≤ above keeps what is elsewhere under d."""
    for t, w in zip(theta, weights, strict=True):
        t.copy_(torch.where(w.abs() > above, w + d * w.sign(), w))


def relative_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """``‖after − before‖/‖before‖``, 0 of nothing; read once, at the end of a stage."""
    pairs = list(zip(before, after, strict=True))
    moved = math.fsum(float((a.detach() - b).double().square().sum()) for b, a in pairs)
    length = math.fsum(float(b.double().square().sum()) for b, _ in pairs)
    return math.sqrt(moved / length) if length else 0.0


def largest_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """``max |after − before|``; of a projection onto counts, the largest magnitude that it removes."""
    pairs = ((b.detach(), a) for b, a in zip(before, after, strict=True) if b.numel())
    return max((float((a - b).abs().max()) for b, a in pairs), default=0.0)


def pace(optimizer: torch.optim.Optimizer, weights: Sequence[Tensor]) -> float:
    """How far a weight goes in a step per unit of a constant gradient: ``lr/(1 − momentum)``, under Adam's methods
    ``lr/(rms of √v̂ + ε)`` over the weights."""
    group = next(g for g in optimizer.param_groups if any(w is weights[0] for w in g["params"]))
    if "momentum" in group:
        return float(group["lr"] / (1.0 - group["momentum"]))
    moments = [optimizer.state[w] for w in weights]
    total = math.fsum(float(s["exp_avg_sq"].double().sum()) for s in moments)
    steps = float(moments[0]["step"])
    mean = total / sum(w.numel() for w in weights) / (1.0 - group["betas"][1] ** steps)
    return float(group["lr"] / (math.sqrt(mean) + group["eps"]))


MOST_RISE, MOST_FALL = math.log(3.0), math.log(2.0)  # of the weight of a penalty, in an epoch


NEAR = 4.0  # times the residue: from here on a cut that grows with α is trembling around 0


def raised(alpha: float, before: float, cut: float, last: float, residue: float, epochs: float) -> float:
    """``α·exp(clip(ln(c/c₋) − ln(r/c)/n))``: more while the cut c falls too slowly to be r in n epochs, else less.

    Back to `before`, the α of an epoch ago, where c is near r and did not fall although α rose.
    """
    if alpha > before and last <= cut and last < NEAR * residue:
        return before
    least = 1e-12
    now, before, target = (math.log(max(x, least)) for x in (cut, last, residue))
    missing = (now - before) - (target - now) / max(epochs, 1.0)
    return alpha * math.exp(min(MOST_RISE, max(-MOST_FALL, missing)))


def first_weight(change: float, slope: float, pace: float, steps: float) -> float:
    """The α whose gradient, `slope` per unit at 0, moves a weight by `change` in so many steps; 0 at a pace of 0."""
    way = slope * pace * steps
    return change / way if way > 0.0 else 0.0


def epochs_left(p: float, epoch: int, reach: float) -> float:
    """Epochs from the end of this one, at p, until p = reach; 1 at least."""
    return max(1.0, (reach - p) * (epoch + 1) / p)


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


def steered(p: float, d: float, q: float, last: tuple[float, float], reach: float) -> tuple[float, float, float, float]:
    """The course of a threshold until the next steer, ``(p₀, d₀, target, span)`` for `anchored`.

    `q` is the threshold that would leave κ weights now, `last` = (p, q) at the last steer. Up to `reach` the target is
    q; from there on d follows q, which moves as the kept weights grow: the target is where q will be one span later.
    """
    p_last, q_last = last
    if p < reach:
        return (p, d, max(d, q), 1.0)
    return (p, d, q + max(0.0, q - q_last), max(p - p_last, 1e-12))


def anchored(p: float, course: tuple[float, float, float, float], reach: float, shape: Shape = s_lats) -> float:
    """The threshold at p: ``d₀ + (q − d₀)(f(p/r) − f(p₀/r))/(1 − f(p₀/r))`` before reach, then linear over the span."""
    p0, d0, q, span = course
    if p0 >= reach:
        return d0 + (q - d0) * min(1.0, (p - p0) / span)
    f, f0 = shape(p / reach), shape(p0 / reach)
    return d0 + (q - d0) * (f - f0) / (1.0 - f0) if f0 < 1.0 else q  # f reaches 1 a few roundings before p = r


def saturated(history: Sequence[float], window: int) -> bool:
    """Whether a loss has stopped to fall: over the last `window` values, ``mean₁ − mean₂ ≤ min(std₁, std₂) + 1e-10``.

    1 and 2 are the two halves (the second has the odd one), smoothed with an Epanechnikov kernel; std is that of what
    smoothing takes away. False while there are fewer values.
    Efficient compression of neural networks and datasets, arXiv 2505.17469.
    """
    last = history[len(history) - window :]
    if len(history) < window:
        return False
    (mean_1, std_1), (mean_2, std_2) = smoothed(last[: window // 2]), smoothed(last[window // 2 :])
    return mean_1 - mean_2 <= min(std_1, std_2) + 1e-10


def smoothed(values: Sequence[float]) -> tuple[float, float]:
    """The mean of the values after smoothing, and the standard deviation of what smoothing takes away.

    The smooth value at i is the average of the neighbours j with weights ``1 − ((i − j)/h)²`` where that is positive,
    with the bandwidth ``h = 1 + n/2``.
    """
    n = len(values)
    h = 1.0 + n / 2.0
    smooth = []
    for i in range(n):
        weights = [max(0.0, 1.0 - ((i - j) / h) ** 2) for j in range(n)]
        smooth.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    rough = [v - s for v, s in zip(values, smooth, strict=True)]
    center = sum(rough) / n
    return sum(smooth) / n, math.sqrt(sum((r - center) ** 2 for r in rough) / n)


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
