"""The last layer's blocks: squared loss, identity activation, every entry on its own."""

from __future__ import annotations

from torch import Tensor


def v_last(Y: Tensor, U: Tensor, V: Tensor, *, gamma: float, alpha: float) -> Tensor:
    """``argmin_v ½‖v − Y‖² + (γ/2)‖v − U‖² + (α/2)‖v − V‖² = (Y + γU + αV)/(1 + γ + α)``.

    L falls by at least ``((1 + γ)/2 + α)‖V⁺ − V‖²/n``.
    """
    return Y.to(U.dtype).add(U, alpha=gamma).add_(V, alpha=alpha).mul_(1 / (1 + gamma + alpha))


def u_last(V: Tensor, Z: Tensor, U: Tensor, *, gamma: float, rho: float, alpha: float) -> Tensor:
    """``argmin_u (γ/2)‖V − u‖² + (ρ/2)‖u − Z‖² + (α/2)‖u − U‖² = (γV + ρZ + αU)/(γ + ρ + α)``.

    L falls by at least ``((γ + ρ)/2 + α)‖U⁺ − U‖²/n``.
    """
    return V.mul(gamma).add_(Z, alpha=rho).add_(U, alpha=alpha).mul_(1 / (gamma + rho + alpha))
