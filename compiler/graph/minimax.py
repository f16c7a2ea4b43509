"""Nodes of the minimax under budgets: sparsity levels, their duals, the selection of a step, and the moves of the game.

    min over W, s  max over y, z ≥ 0   L(W) + Σ_l y_l ‖W_l‖²_{⌈s_l⌉,2} + Σ_r z_r (R_r(k) − B_r)/D_r,   k_l = n_l − ⌈s_l⌉

‖W_l‖²_{⌈s_l⌉,2} is the sum of the ⌈s_l⌉ smallest energies among the n_l *items* of level l: the squares of entries, or,
for the members of a coupling group, sums of squares over everything that goes with the member. It is 0 if and only if
⌈s_l⌉ items are 0. D_r is the cost of the dense shapes, so that a budget of 0 is as good as any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prunelang.compiler.graph.base import State, Step
from prunelang.compiler.graph.resource import Resource
from prunelang.compiler.schedule import Schedule
from prunelang.dsl.numbers import grouped

Order = Literal["simultaneous", "alternating", "extragradient", "nupi"]

# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Piece:
    """The part of a tensor that goes with the members of a group: member i owns the indices
    ``[start + i·repeat, start + (i + 1)·repeat)`` of dimension `dim`."""

    tensor: str
    dim: int
    start: int
    repeat: int = 1


@dataclass(frozen=True)
class Items:
    """What one level counts: all entries of `tensors` together, or with `pieces` the members of a coupling group.

    At least `least` of the `size` items stay.
    """

    name: str
    tensors: tuple[str, ...]
    size: int
    least: int = 0
    pieces: tuple[Piece, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} [0, {grouped(self.size - self.least)}]"


# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Sparsity(State):
    """s: how many items of each level go, one float64 number a level; ``0 ≤ s_l ≤ n_l − least_l``."""

    of: str
    items: tuple[Items, ...]

    def line(self) -> str:
        one = len(self.items) == 1
        return f"level   {self.name}{'' if one else '_l'} of {self.of}: {', '.join(map(str, self.items))}"

    def reads(self) -> tuple[str, ...]:
        return (self.of,)


@dataclass(frozen=True)
class Multipliers(State):
    """z ≥ 0, one float64 number a budget. A budget that is priced by the objective keeps its weight as multiplier."""

    of: str  # the levels that the budgets are functions of
    resources: tuple[Resource, ...]
    weights: tuple[Schedule | None, ...] = ()  # loss per unit of the resource, where the objective gives it

    def line(self) -> str:
        given = self.weights or (None,) * len(self.resources)
        shown = ", ".join(_shown(r, w) for r, w in zip(self.resources, given, strict=True))
        return f"dual    {self.name}{'' if len(self.resources) == 1 else '_r'} ≥ 0: {shown}"

    def reads(self) -> tuple[str, ...]:
        return (self.of,)


def _shown(resource: Resource, weight: Schedule | None) -> str:
    if weight is not None:
        return f"{resource.label} at {weight}"
    return f"{resource.label} ≤ {grouped(resource.bound)} of {grouped(resource.dense)}"


@dataclass(frozen=True)
class Selection(State):
    """What one order statistic a step gives for each level: the ⌈s⌉ smallest items I, the energy τ of the last of them
    and τ′ of the next, their sum Σ = ‖W‖²_{⌈s⌉,2}, and the whole ‖W‖²."""

    of: str

    def line(self) -> str:
        return f"selection {self.name} of {self.of}: τ, τ′, Σ, ‖·‖²"

    def reads(self) -> tuple[str, ...]:
        return (self.of,)


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Start(Step):
    """``s ← ⌊share · (n − least)⌋``, and ``y, z ← 0``, which take their least values in the first step."""

    levels: str
    dual: str
    multipliers: str
    share: float
    past: tuple[str, ...] = ()

    def line(self) -> str:
        zero = ", ".join((self.dual, self.multipliers, *self.past))
        return f"{self.levels} ← ⌊{self.share:g} (n − least)⌋;  {zero} ← 0"

    def writes(self) -> tuple[str, ...]:
        return (self.levels, self.dual, self.multipliers, *self.past)


@dataclass(frozen=True)
class Select(Step):
    """The one order statistic of a step: it serves the proximal step, the derivative in s, and the residual of y."""

    selection: str
    levels: str
    of: str

    def line(self) -> str:
        w, s = self.of, self.levels
        return f"select {self.selection}: the ⌈{s}⌉ smallest of {w}², τ′ = {w}²₍⌈{s}⌉₊₁₎, Σ = ‖{w}‖²_{{⌈{s}⌉,2}}"

    def reads(self) -> tuple[str, ...]:
        return (self.levels, self.of)

    def writes(self) -> tuple[str, ...]:
        return (self.selection,)


@dataclass(frozen=True)
class Shrink(Step):
    """``W_i ← W_i / (1 + 2 η y_l)`` for i ∈ I, the proximal step of ``η y ‖·‖²_{⌈s⌉,2}``.

    η is the way of a weight per unit of a constant gradient: lr/(1 − β) under momentum, lr/(√v̂ + ε) under Adam.
    """

    of: str
    selection: str
    dual: str
    by: str

    def line(self) -> str:
        return f"prox {self.of}: η {self.dual}‖·‖² on {self.selection}, η of {self.by}"

    def reads(self) -> tuple[str, ...]:
        return (self.of, self.selection, self.dual, self.by)

    def writes(self) -> tuple[str, ...]:
        return (self.of,)


@dataclass(frozen=True)
class Confine(Step):
    """``W_i ← 0`` for i ∈ I, and the moments of W_i in the optimizer ← 0: a hard projection in every step.

    At the end of a stage there is no optimizer to speak of, and `only` says which levels are cut.
    """

    of: str
    selection: str
    by: str | None
    only: tuple[int, ...] = ()  # levels, by their places; all of them where it is empty

    def line(self) -> str:
        at = f" of level {', '.join(map(str, self.only))}" if self.only else ""
        return f"project {', '.join(self.writes())}: ¬{self.selection}{at}"

    def reads(self) -> tuple[str, ...]:
        return (self.of, self.selection, *((self.by,) if self.by else ()))

    def writes(self) -> tuple[str, ...]:
        return (self.of, *((self.by,) if self.by else ()))


@dataclass(frozen=True)
class Allocate(Step):
    """Descent of s along ``φ y τ′ + Σ_r z_r ∂R_r/∂s / D_r``, straight through ⌈·⌉, in units of the sum of both parts:

    ``s_l ← clip(s_l + 2 rate · n_l d_l · (P_l − φ_l y_l τ′_l)/(P_l + φ_l y_l τ′_l), 0, n_l − least_l)`` with the price
    ``P_l = Σ_r z_r ∂R_r/∂k_l / D_r`` where that is above; with τ_l in place of τ′_l where P_l is below; no move between
    them. d_l is the share of the items that ln τ′_l passes by per unit, which the selection tells; at least `pace` of
    what stays, so that no level is stuck in a gap, where `spare` of the items counts as staying. Energies are compared
    as shares of what their level holds, φ_l = Σ_j K_j/(L·K_l) with K the energy of what is kept: the multiplier is φ y.
    """

    levels: str
    dual: str
    multipliers: str
    selection: str
    rate: float
    pace: float
    spare: float

    def line(self) -> str:
        s, y, z = self.levels, self.dual, self.multipliers
        return f"descend {s}: φ {y} τ′ + Σ {z} ∂R/∂{s} / D   [rate {self.rate:.3g}]; clip"

    def reads(self) -> tuple[str, ...]:
        return (self.levels, self.dual, self.multipliers, self.selection)

    def writes(self) -> tuple[str, ...]:
        return (self.levels,)


@dataclass(frozen=True)
class AscendResidual(Step):
    """Ascent of y along Σ of the shrunk weights, relative to itself: ``ln y_l += rate · c_l/(c_l + half)`` with
    ``c_l = Σ_l/(1 + 2ηy_l)²/‖W_l‖²``, between the pulls `first` and `last` of a step, where a pull is 2 η y."""

    dual: str
    selection: str
    by: str
    rate: float
    half: float
    first: float
    last: float

    def line(self) -> str:
        y = self.dual
        pulls = f"2η{y} ∈ [{self.first:g}, {self.last:g}]"
        return f"ascend {y}: Σ/(1 + 2η{y})²/‖·‖²   [rate {self.rate:.3g} {y}; {pulls}]"

    def reads(self) -> tuple[str, ...]:
        return (self.dual, self.selection, self.by)

    def writes(self) -> tuple[str, ...]:
        return (self.dual,)


@dataclass(frozen=True)
class AscendBudgets(Step):
    """Ascent of z along the residuals without units ``h_r = (R_r(n − s) − B_r(p))/D_r``, relative to itself and in
    units of what s answers: ``ln z_r += rate · clip(h_r/(−∂h_r/∂ln z_r), −1, 1)``. The budgets come down on a cubic
    course, ``B_r(p) = B_r + (R_r − B_r)(1 − p/reach)³`` from R_r at the start. What the objective prices keeps z."""

    multipliers: str
    levels: str
    dual: str
    rate: float
    reach: float

    def line(self) -> str:
        z = self.multipliers
        course = f"B(p) = B from p = {self.reach:g}"
        return f"ascend {z}: (R(n − {self.levels}) − B(p))/D   [rate {self.rate:.3g} {z}; {course}]"

    def reads(self) -> tuple[str, ...]:
        return (self.multipliers, self.levels, self.dual)

    def writes(self) -> tuple[str, ...]:
        return (self.multipliers,)


ORDERS: dict[str, str] = {
    "alternating": "in turn",
    "simultaneous": "jointly",
    "extragradient": "jointly, with a look ahead",
    "nupi": "jointly, with duals that answer to changes",
}


@dataclass(frozen=True)
class Saddle(Step):
    """The three moves of the game between levels and multipliers, in an order: see `prunelang.runtime.saddle`."""

    allocate: Allocate
    residual: AscendResidual
    budgets: AscendBudgets
    order: Order = "alternating"
    past: tuple[str, ...] = ()  # of y and z, where the order remembers
    nu: float = 0.0
    kappa: float = 1.0

    def line(self) -> str:
        return f"{ORDERS[self.order]}:"

    def reads(self) -> tuple[str, ...]:
        return self.past

    def writes(self) -> tuple[str, ...]:
        return self.past

    def bodies(self) -> tuple[tuple[str, tuple[Step, ...]], ...]:
        return (("", (self.allocate, self.residual, self.budgets)),)
