"""`Price`: by how much the objective falls per unit of a budget, and how that is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

PriceKind: TypeAlias = Literal["multiplier", "surrogate", "probe"]


@dataclass(frozen=True)
class Price:
    """−∂L/∂B, loss per unit of budget: a Lagrange multiplier, that of a surrogate, or a finite difference (probe)."""

    value: float
    kind: PriceKind
    spread: float | None = None  # of a probe, over seeds
