"""The value of L in float64, chunk by chunk, and the pre-activations that the next iteration starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prunelang.runtime.blocks.decrease import Penalties
from prunelang.runtime.blocks.layers import Layer

Weights = Sequence[tuple[Tensor, Tensor]]


def chunk_value(
    layers: Sequence[Layer],
    weights: Weights,
    X: Tensor,
    Y: Tensor,
    U: Sequence[Tensor],
    V: Sequence[Tensor],
    p: Penalties,
) -> tuple[Tensor, list[Tensor]]:
    """``½‖V_N − Y‖² + Σ_i (γ_i/2)‖V_i − σ_i(U_i)‖² + (ρ_i/2)‖U_i − Z_i‖²`` of some samples, and ``Z_i = A_i(V_{i−1})``.

    The value: a float64 scalar on the device, not divided by n. Everything is computed in float64 from what is stored.
    Z comes in U's type: the next iteration needs these very products, so that the check costs no product of its own.
    """
    total, Z = torch.zeros((), dtype=torch.float64, device=X.device), []
    before = X.double()
    for i, (layer, (W, b)) in enumerate(zip(layers, weights, strict=True)):
        u, v = U[i].double(), V[i].double()
        z = layer.apply(W, b, before)
        Z.append(z.to(U[i].dtype))
        activated = u if i == len(layers) - 1 else u.relu()
        total += distance(v, activated) * (p.gamma[i] / 2) + distance(u, z) * (p.rho[i] / 2)
        before = v
    return total + distance(before, Y.double()) / 2, Z


def distance(x: Tensor, y: Tensor) -> Tensor:
    """``‖x − y‖²`` in float64, as a scalar on the device."""
    difference = (x.double() - y).flatten()
    return difference.dot(difference)
