"""What every proximal operator offers. Its vector is the concatenation of a list of tensors, never formed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor

Tensors = Sequence[Tensor]


class AbstractOperator(ABC):
    """A function f with ``prox_{γf}(x) = argmin_z f(z) + ‖z − x‖₂² / (2γ)``, γ > 0.

    Final classes are frozen dataclasses of f's parameters. `prox_` writes into the tensors, of any floating dtype and
    device; entries must be finite (`check_finite` says so by name before every step, NaN would otherwise spread).
    Where the minimiser is not unique (ties), the entries of lowest global index are kept.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    reference: ClassVar[str]
    convex: ClassVar[bool]
    indicator: ClassVar[bool] = False  # f is 0 on a set and +∞ outside: the prox is a projection, whatever γ
    separable: ClassVar[bool] = False  # f is a sum over entries: tensors and shards may be treated one by one
    exact: ClassVar[bool] = True  # the prox is a global minimiser (up to rounding), not an approximation

    @abstractmethod
    def value(self, x: Tensors) -> float:
        """f(x), accumulated in float64; +∞ outside the set of an indicator."""

    @abstractmethod
    def prox_(self, x: Tensors, gamma: float) -> None:
        """x ← prox_{γf}(x), in place."""

    @classmethod
    @abstractmethod
    def examples(cls) -> tuple[Self, ...]:
        """Instances that the conformance suite puts through the laws that the traits promise."""


class AbstractProjection(AbstractOperator):
    """The indicator of a closed set C: ``prox = Π_C``, a nearest point of C."""

    indicator = True

    @abstractmethod
    def contains(self, x: Tensors) -> bool:
        """Whether x ∈ C, exactly."""

    @abstractmethod
    def project_(self, x: Tensors) -> None:
        """x ← Π_C(x), in place; afterwards `contains` holds."""

    def value(self, x: Tensors) -> float:
        return 0.0 if self.contains(x) else float("inf")

    @torch.no_grad()
    def prox_(self, x: Tensors, gamma: float) -> None:
        self.project_(x)


def non_negative(name: str, value: float) -> None:
    """Raises `ValueError` unless 0 ≤ value < ∞."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number, at least 0, not {value}")
