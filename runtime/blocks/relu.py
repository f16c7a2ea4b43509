"""The block of a hidden layer's pre-activations: non-convex, solved globally, entry by entry."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor


def relu_prox(a: Tensor, b: Tensor, g: float) -> Tensor:
    """``argmin_u ½(u₊ − a)² + (g/2)(u − b)²`` for g > 0, a global minimiser of every entry.

        u = b                       if b ≤ −c a₊,   c = √(1 + 1/g) − 1
        u = max(0, (a + g b)/(1+g)) otherwise

    On each side of 0 the function is a parabola: candidates are ``u⁻ = min(b, 0)`` and ``u⁺ = max(0, (a+gb)/(1+g))``.
    For b ≥ 0, u⁻ = 0 is no better than u⁺. For b < 0 and a + gb ≤ 0, u⁺ = 0 is worse than b. For b < 0 < a + gb the
    values are ``g(a − b)²/(2(1+g))`` and ``a²/2``, and b is the better one when ``√g (a − b) ≥ √(1+g) a``.
    Zeng et al., ICML 2019, give the cases for the pair (V, U) without proximal term.
    """
    c = 1 / (g * (1 + sqrt(1 + 1 / g)))  # √(1 + 1/g) − 1 without cancellation
    left = b <= a.clamp(min=0).mul_(-c)
    return torch.where(left, b, torch.add(a, b, alpha=g).mul_(1 / (1 + g)).clamp_(min=0))


def u_hidden(V: Tensor, Z: Tensor, U: Tensor, *, gamma: float, rho: float, alpha: float) -> Tensor:
    """``argmin_u (γ/2)‖V − u₊‖² + (ρ/2)‖u − Z‖² + (α/2)‖u − U‖²``, Z = W V_{i−1} + b.

    L falls by at least ``(α/2n)‖U⁺ − U‖²``: the minimiser is global, the function may be concave in places.
    """
    b = torch.lerp(Z, U, alpha / (rho + alpha))
    return relu_prox(V, b, (rho + alpha) / gamma)
