"""Block coordinate descent over a network split into its layers: activations of the whole data set are variables.

L = (1/n) [ ½‖V_N − Y‖² + Σ_i (γ_i/2)‖V_i − σ_i(U_i)‖² + (ρ_i/2)‖U_i − W_i V_{i−1} − b_i‖² ]
    + Σ_i (ω_i/2)‖W_i‖² + Σ_{i compressed} (τ_i/2)‖W_i − Δ_i(Θ_i)‖²,
V_0 = X,  σ_i = ReLU for i < N,  σ_N = identity
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from prunelang.compiler.graph.base import State, Step, Sync
from prunelang.compiler.graph.state import Feasible

Store = Literal["device", "host", "disk"]
Variable = Literal["V", "U", "W", "Θ"]

RULES: dict[Variable, str] = {
    "V": "V_N ← argmin ½‖· − Y‖² + γ/2 ‖· − U_N‖²;  "
    "V_i ← argmin γ/2 ‖· − σ(U_i)‖² + ρ/2 ‖U_{i+1} − W_{i+1}· − b_{i+1}‖²",
    "U": "U_i ← argmin γ/2 ‖V_i − σ_i(·)‖² + ρ/2 ‖· − W_i V_{i−1} − b_i‖²",
    "W": "W_i, b_i ← argmin ρ/2 ‖U_i − ·V_{i−1} − ·‖² + ω/2 ‖·‖² + τ/2 ‖· − Δ_i(Θ_i)‖²",
    "Θ": "Θ ← argmin Σ_i τ/2 ‖W_i − Δ_i(·)‖²",
}


@dataclass(frozen=True)
class Activations(State):
    """``U_i, V_i`` of every layer and training sample, in chunks of samples where `store` says, with the weights that
    the splitting has of its own, in float64."""

    data: str
    tensors: tuple[str, ...]  # kernels and biases of the chain
    store: Store = "device"
    chunk: int | None = None  # samples at a time; None: as many as a fixed share of memory holds

    def line(self) -> str:
        chunk = "chunks" if self.chunk is None else f"chunks of {self.chunk}"
        of = ", ".join(self.tensors)
        return f"activations {self.name} = U_i, V_i, W_i, b_i of {of} over {self.data}   [{chunk} on {self.store}]"

    def reads(self) -> tuple[str, ...]:
        return (self.data,)


@dataclass(frozen=True)
class Split(Step):
    """Start: W from the samples or the network's own, ``Θ ← Π_C(W)``, the last layer by least squares where it is not
    compressed, ``U_i ← W_i V_{i−1} + b_i, V_i ← σ_i(U_i)``.

    γ, ρ, ω are numbers in units of what is measured here: the mean square of an entry of V_i and of the singular values
    of the next W make them the same whatever the scale of the data and the width of a layer. α likewise; it is a level,
    since refusals raise it.
    """

    activations: str
    of: tuple[str, ...]
    onto: Feasible
    gamma: float
    rho: float
    omega: float
    alpha: float
    level: str
    start: Literal["samples", "weights"] = "samples"
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        drawn = "W ← differences of samples; " if self.start == "samples" else ""
        theta = f"Θ ← Π{self.onto}(W); " if self.onto.parts else ""
        numbers = f"γ = {self.gamma:g}, ρ = {self.rho:g}, ω = {self.omega:g}, {self.level} = {self.alpha:g}"
        return f"{drawn}{theta}W_N by least squares; U_i ← W_i V_(i−1) + b_i, V_i ← σ_i(U_i);  {numbers}"

    def reads(self) -> tuple[str, ...]:
        return self.of

    def writes(self) -> tuple[str, ...]:
        return (self.activations, self.level)


@dataclass(frozen=True)
class Block(Step):
    """One block of variables set to the minimiser of ``L + (α/2)‖· − old‖²``, all others being held."""

    activations: str
    variable: Variable
    tensors: tuple[str, ...] = ()  # of Θ: the compressed ones
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        at = f"   [{', '.join(self.tensors)}]" if self.tensors else ""
        return RULES[self.variable] + "  + α/2 ‖· − old‖²" + at

    def reads(self) -> tuple[str, ...]:
        return (self.activations,)

    def writes(self) -> tuple[str, ...]:
        return (self.activations,)


@dataclass(frozen=True)
class Layers(Step):
    """``for i = N … 1``: the blocks of one layer, last layer first."""

    body: tuple[Block, ...]

    def line(self) -> str:
        return "for layer i = N … 1:"

    def bodies(self) -> tuple[tuple[str, tuple[Step, ...]], ...]:
        return (("", self.body),)


@dataclass(frozen=True)
class Sweep(Step):
    """One iteration: every block once, then the verdict on the decrease of L, which is evaluated in float64.

    Without ``L(P⁺) ≤ L(P) − λ‖P⁺ − P‖² + 64 ε L(P)`` everything stays as it was and α is raised.
    """

    activations: str
    of: tuple[str, ...]  # the network, which follows the weights of the splitting
    level: str
    tau: str
    inner: int
    body: tuple[Layers | Block, ...]
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        turns = f" [{self.inner} turns of W_i and Θ_i]" if self.inner > 1 and "W" in self.of else ""
        return f"accept if L falls by λ‖ΔP‖², else keep P and raise {self.level}{turns}:"

    def reads(self) -> tuple[str, ...]:
        return (self.activations, self.level, self.tau)

    def writes(self) -> tuple[str, ...]:
        return (self.activations, self.level, *self.of)

    def bodies(self) -> tuple[tuple[str, tuple[Step, ...]], ...]:
        return (("", self.body),)


@dataclass(frozen=True)
class Join(Step):
    """The network from the splitting: ``W_i ← Δ_i(Θ_i)`` where a layer is compressed, else its own W_i and b_i.

    Kept positions go to `support`, factors to `factors`; the mean squared error before and after goes to the history.
    """

    activations: str
    of: tuple[str, ...]
    onto: Feasible
    support: str | None = None
    factors: str | None = None
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        return f"{', '.join(self.of)} ← W, b" + (", Δ(Θ) of compressed layers" if self.onto.parts else "")

    def reads(self) -> tuple[str, ...]:
        return (self.activations,)

    def writes(self) -> tuple[str, ...]:
        return (*self.of, *(n for n in (self.support, self.factors) if n))
