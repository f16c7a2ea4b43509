"""Compressed layers: what ``Δ_i(Θ_i)`` is, and one update of Θ. Values are frozen, so that an update can be refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor

from prunelang.compiler.forms import Modes
from prunelang.runtime.blocks.cores import compose_cores, sweep_cores, sweep_factors
from prunelang.runtime.blocks.decrease import Penalties
from prunelang.runtime.blocks.objective import distance
from prunelang.runtime.blocks.sparse import sparse_block

ByLayer = Mapping[int, Tensor]


class Compression(Protocol):
    """Θ of one or several layers (numbered from 0)."""

    convex: ClassVar[bool]  # each update minimises a convex function: L falls by α‖ΔΘ‖², and else by half of it

    @property
    def layers(self) -> tuple[int, ...]: ...

    def targets(self) -> dict[int, Tensor]:
        """``Δ_i(Θ_i)`` of every layer, of any shape that reshapes to W_i."""
        ...

    def updated(self, W: ByLayer, p: Penalties) -> tuple[Self, Tensor]:
        """``argmin_Θ Σ_i (τ_i/2)‖W_i − Δ_i(Θ)‖² + (α_i/2)‖Θ − Θ_old‖²``, and ``‖ΔΘ‖²`` on the device."""
        ...

    def distance(self, other: Self) -> Tensor:
        """``‖Θ − Θ'‖²``."""
        ...


@dataclass(frozen=True, eq=False)
class Train:
    """Cores r_{k−1} × m_k × n_k × r_k; see `prunelang.runtime.blocks.cores`."""

    convex: ClassVar[bool] = True

    layer: int
    modes: Modes
    cores: tuple[Tensor, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.layer,)

    def targets(self) -> dict[int, Tensor]:
        return {self.layer: compose_cores(self.cores, self.modes)}

    def updated(self, W: ByLayer, p: Penalties) -> tuple[Self, Tensor]:
        i = self.layer
        new = tuple(sweep_cores(W[i], self.cores, self.modes, tau=p.tau[i], alpha=p.factors[i]))
        return replace(self, cores=new), _moved(new, self.cores)

    def distance(self, other: Self) -> Tensor:
        return _moved(other.cores, self.cores)


@dataclass(frozen=True, eq=False)
class LowRank:
    """``W = U V``, U m × r and V r × n."""

    convex: ClassVar[bool] = True

    layer: int
    U: Tensor
    V: Tensor

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.layer,)

    def targets(self) -> dict[int, Tensor]:
        return {self.layer: self.U @ self.V}

    def updated(self, W: ByLayer, p: Penalties) -> tuple[Self, Tensor]:
        i = self.layer
        U, V = sweep_factors(W[i], self.U, self.V, tau=p.tau[i], alpha=p.factors[i])
        return replace(self, U=U, V=V), _moved((U, V), (self.U, self.V))

    def distance(self, other: Self) -> Tensor:
        return _moved((other.U, other.V), (self.U, self.V))


@dataclass(frozen=True, eq=False)
class Sparse:
    """At most `count` non-zero entries over all layers of `tensors`."""

    convex: ClassVar[bool] = False

    count: int
    tensors: Mapping[int, Tensor]

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.tensors)

    def targets(self) -> dict[int, Tensor]:
        return dict(self.tensors)

    def updated(self, W: ByLayer, p: Penalties) -> tuple[Self, Tensor]:
        old = list(self.tensors.values())
        taus, alphas = ([of[i] for i in self.tensors] for of in (p.tau, p.factors))
        new = sparse_block([W[i].double() for i in self.tensors], old, self.count, tau=taus, alpha=alphas)
        return replace(self, tensors=dict(zip(self.tensors, new, strict=True))), _moved(new, old)

    def distance(self, other: Self) -> Tensor:
        return _moved(list(other.tensors.values()), list(self.tensors.values()))


def _moved(new: tuple[Tensor, ...] | list[Tensor], old: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    return torch.stack([distance(a, b) for a, b in zip(new, old, strict=True)]).sum()
