"""The block of a layer's weights and bias together: a ridge regression whose Gram matrices are summed over chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from prunelang.runtime.blocks.layers import Layer


class Gram:
    """``V̄ᵀV̄`` and ``RᵀV̄`` for ``V̄ = [rows(V) 1]``, in float64, summed over chunks of samples.

    `known` is the ``V̄ᵀV̄`` of an earlier pass over the same V (the data never change): then `add` leaves it alone.
    Products of one chunk are taken in the chunk's type.
    """

    def __init__(self, layer: Layer, device: torch.device | str, known: Tensor | None = None) -> None:
        size = layer.features + 1
        self.layer, self.known = layer, known is not None
        self.gram = torch.zeros(size, size, dtype=torch.float64, device=device) if known is None else known
        self.cross = torch.zeros(layer.weight_shape[0], size, dtype=torch.float64, device=device)

    def add(self, V: Tensor, R: Tensor) -> None:
        """Adds a chunk: V the layer's inputs, R of its outputs' shape."""
        rows, R = self.layer.rows(V), self.layer.columns(R)
        self.cross[:, :-1] += R.T @ rows
        self.cross[:, -1] += R.sum(0, dtype=torch.float64)
        if not self.known:
            self.add_rows(rows)

    def add_rows(self, rows: Tensor) -> None:
        """Adds to ``V̄ᵀV̄`` alone."""
        self.gram[:-1, :-1] += rows.T @ rows
        sums = rows.sum(0, dtype=torch.float64)
        self.gram[:-1, -1] += sums
        self.gram[-1, :-1] += sums
        self.gram[-1, -1] += len(rows)


def w_block(
    W: Tensor,
    b: Tensor,
    sums: Gram,
    samples: int,
    *,
    rho: float,
    alpha: float,
    tau: float = 0.0,
    target: Tensor | None = None,
    omega: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """``argmin_{W', b'} (ρ/2n)‖U − W'V − b'‖² + (ω/2)‖W'‖² + (τ/2)‖W' − target‖² + (α/2)(‖W' − W‖² + ‖b' − b‖²)``.

    `sums` holds the residuals ``R = U − W V − b`` of the W and b given. The bias is an extended column:

        [ΔW Δb] ((ρ/n) V̄ᵀV̄ + diag(ω + τ + α, …, ω + τ + α, α)) = (ρ/n) RᵀV̄ + [τ(target − W) − ωW 0]

    solved by Cholesky in float64. L falls by at least ``((ω + τ)/2 + α)‖ΔW‖² + α‖Δb‖²``; without target, τ = 0.
    """
    tau = tau if target is not None else 0.0
    return Ridge.of(W, b, sums, samples, rho=rho, alpha=alpha, tau=tau, omega=omega).solved(target)


@dataclass(frozen=True, eq=False)
class Ridge:
    """`w_block` for one target after another: what does not depend on the target is factored once."""

    W: Tensor
    b: Tensor
    rhs: Tensor
    factor: Tensor
    tau: float

    @classmethod
    def of(
        cls, W: Tensor, b: Tensor, sums: Gram, samples: int, *, rho: float, alpha: float, tau: float, omega: float
    ) -> Self:
        W, b = W.double(), b.double()
        A = sums.gram * (rho / samples)
        A.diagonal().add_(alpha)
        A.diagonal()[:-1].add_(tau + omega)
        rhs = sums.cross * (rho / samples)
        rhs[:, :-1].sub_(W.flatten(1), alpha=tau + omega)
        return cls(W, b, rhs, torch.linalg.cholesky(A), tau)

    def solved(self, target: Tensor | None) -> tuple[Tensor, Tensor]:
        rhs = self.rhs
        if target is not None:
            rhs = rhs.clone()
            rhs[:, :-1].add_(target.double().flatten(1), alpha=self.tau)
        change = torch.cholesky_solve(rhs.T, self.factor).T
        return self.W + change[:, :-1].view(self.W.shape), self.b + change[:, -1]
