"""How much one iteration must lower L: ``L(P^k) ≤ L(P^{k−1}) − Σ_blocks λ_block ‖ΔP_block‖² ≤ L(P^{k−1}) − λ‖ΔP‖²``.

``‖ΔP‖² = Σ_{U, V} ‖Δ‖²/n + Σ_{W, b, Θ} ‖Δ‖²``: an activation counts as the mean over samples, as in L.

A block x with proximal weight α is the minimiser of ``φ(x) = L(x) + (α/2)‖x − x_old‖²``. If φ is strongly convex with
constant m + α, its minimiser has ``φ(x⁺) ≤ φ(x_old) − ((m + α)/2)‖Δ‖²``, so ``L(x⁺) ≤ L(x_old) − (m/2 + α)‖Δ‖²``. If
φ is not convex but x⁺ is a global minimiser, ``φ(x⁺) ≤ φ(x_old)`` gives ``L(x⁺) ≤ L(x_old) − (α/2)‖Δ‖²``.

    block           m                                λ_block
    V_N             1 + γ_N                          (1 + γ_N)/2 + α
    U_N             γ_N + ρ_N                        (γ_N + ρ_N)/2 + α
    V_i             γ_i (+ ρ σ_min(W_{i+1})²)         γ_i/2 + α
    U_i             global, not convex               α/2
    W_i             ω_i, + τ_i where compressed      (ω_i + τ_i)/2 + α
    b_i             0                                α
    cores, factors  0, one after the other           α
    S               global, not convex               α/2

V_i behind a convolution is solved by CG from the old V_i and may end early. Its iterate v minimises φ over V_i plus a
subspace that contains ``v − V_i``, so the gradient at v is orthogonal to it and ``φ(v) = φ(V_i) − ½⟨Δ, φ''Δ⟩`` exactly:
the same constant, whatever the residual. Each α is that of the block's kind and layer.

A compressed layer's W_i and Θ_i may take `inner` turns in one iteration, all W of them with the proximal term to the
W_i before, every Θ with one to the Θ before it. Then ``φ = L + (α/2)‖W − W_old‖²`` falls in every turn, by its constant
λ_Θ times ``‖ΔΘ‖²`` of the turn; since ``‖Σ_j Δ_j‖² ≤ inner·Σ_j‖Δ_j‖²``: λ = α/2 for W_i and b_i, λ_Θ/inner for Θ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeAlias


@dataclass(frozen=True)
class Penalties:
    """Weights of L and of the proximal terms, one for each layer, first layer first; all positive.

    `tau` counts where a layer is compressed; `omega` is of ``½‖W_i‖²``, may be 0 and is where left out. Proximal
    weights α: of `activations` (U and V), of `weights` (W and b), of `factors` (cores, low-rank factors, S).
    """

    gamma: tuple[float, ...]
    rho: tuple[float, ...]
    tau: tuple[float, ...]
    activations: tuple[float, ...]
    weights: tuple[float, ...]
    factors: tuple[float, ...]
    omega: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        fields = (self.gamma, self.rho, self.tau, self.activations, self.weights, self.factors)
        if not self.omega:
            object.__setattr__(self, "omega", (0.0,) * len(self.gamma))
        if len({len(f) for f in (*fields, self.omega)}) != 1:
            raise ValueError("every weight needs one number for each layer")
        if not all(0 <= x < float("inf") for x in self.omega):
            raise ValueError("ω must be finite and not negative")
        if not all(0 < x < float("inf") for f in fields for x in f):
            raise ValueError("γ, ρ, τ and α must be positive and finite: the decrease of L rests on them")

    @classmethod
    def uniform(cls, layers: int, gamma: float, rho: float, tau: float, alpha: float) -> Self:
        return cls(*((x,) * layers for x in (gamma, rho, tau, alpha, alpha, alpha)))

    def raised(self, factor: float) -> Self:
        """All proximal weights times `factor`: smaller steps, the same objective."""
        alphas = {name: tuple(a * factor for a in getattr(self, name)) for name in PROXIMAL}
        return replace(self, **alphas)


PROXIMAL = ("activations", "weights", "factors")


Held: TypeAlias = Sequence[tuple[tuple[int, ...], bool]]  # layers of every compression (from 0), and if it is convex


def constants(p: Penalties, held: Held, inner: int = 1) -> dict[str, float]:
    """λ of every block: ``V2``, ``U2``, ``W2``, ``b2`` of layer 2 (the first is 1), ``Θ2`` by its first layer."""
    last, compressed = len(p.gamma) - 1, {i for layers, _ in held for i in layers}
    turns = {layers[0] for layers, _ in held if len(layers) == 1 and inner > 1}
    found = {}
    for i, (gamma, rho, tau) in enumerate(zip(p.gamma, p.rho, p.tau, strict=True)):
        alpha = p.activations[i]
        found[f"V{i + 1}"] = (1 + gamma) / 2 + alpha if i == last else gamma / 2 + alpha
        found[f"U{i + 1}"] = (gamma + rho) / 2 + alpha if i == last else alpha / 2
        found[f"W{i + 1}"] = p.weights[i] + (p.omega[i] + (tau if i in compressed else 0)) / 2
        found[f"b{i + 1}"] = p.weights[i]
        if i in turns:
            found[f"W{i + 1}"] = found[f"b{i + 1}"] = p.weights[i] / 2
    for layers, convex in held:
        one = min(p.factors[i] for i in layers) * (1.0 if convex else 0.5)
        found[f"Θ{layers[0] + 1}"] = one / (inner if len(layers) == 1 else 1)
    return found


def least(p: Penalties, held: Held, inner: int = 1) -> float:
    """λ: the least constant of any block."""
    return min(constants(p, held, inner).values())
