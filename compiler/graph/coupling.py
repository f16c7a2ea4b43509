"""Nodes of probabilistic gates: the coupling between weights, their copy, gates and duals, and how its α is steered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prunelang.compiler.graph.base import State, Step, Sync
from prunelang.compiler.schedule import Schedule

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Gates(State):
    """Probabilities, one for each entry of `of`: ``z ~ Bernoulli(γ)``, γ ∈ [0, 1]."""

    of: str

    def line(self) -> str:
        return f"gates   {self.name} of {self.of} ∈ [0, 1]"

    def reads(self) -> tuple[str, ...]:
        return (self.of,)


# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Coupling:
    """``α Σγ + ⟨u, r⟩`` with ``r = (W − wγ)² + w²γ(1 − γ)``, which is E(W − wz)² for z ~ Bernoulli(γ).

    All gradients are taken at one point, then everything moves: W with the descent, w and γ by `by`, u upwards by
    `ascent`; then γ is clipped to [0, 1] and u to [0, cap]. A dual with one number for each tensor has the sum of r
    over that tensor as its gradient. With `past`, which holds the last step's r, u ascends along 2r − past: optimistic.
    """

    of: str
    copy: str
    gates: str
    dual: str
    weight: Schedule | str  # α: of the clocks, or the level that holds it
    by: str
    ascent: str
    past: str | None = None
    cap: float | None = None

    def __str__(self) -> str:
        w, v, z = self.of, self.copy, self.gates
        alpha = self.weight if isinstance(self.weight, str) else f"({self.weight})"
        return f"{alpha} Σ{z} + ⟨{self.dual}, ({w} − {v}{z})² + {v}²{z}(1 − {z})⟩"

    def update(self) -> str:
        """What follows the descent, in the listing."""
        top = "∞)" if self.cap is None else f"{self.cap:g}]"
        along = f" along 2r − {self.past}₋" if self.past else ""
        moved = f"{self.copy}, {self.gates} by {self.by}"
        return f"{moved}; ascend {self.dual}{along} by {self.ascent}; clip {self.gates}: [0, 1], {self.dual}: [0, {top}"

    def names(self) -> tuple[str, ...]:
        level = (self.weight,) if isinstance(self.weight, str) else ()
        past = (self.past,) if self.past else ()
        return (self.of, self.copy, self.gates, self.dual, *level, self.by, self.ascent, *past)

    def moved(self) -> tuple[str, ...]:
        past = (self.past,) if self.past else ()
        return (self.copy, self.gates, self.dual, *past)


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class SteerGates(Step):
    """The controller of α, once an epoch. For given W and u, γ = 1[u W² > α] is where the gates want to be.

    With κ the entries that `copy` = Π_C(of) keeps and n all of them, α becomes the (n^(1−x) κ^x + 1)-th largest u W²
    for x = p/reach. From p = reach on it is the (rank' + 1)-th, rank' sinking below κ while the cut, ‖of − copy‖/‖of‖,
    falls too slowly to be at `residue` by the end, so that next to nothing is left for the projection there.
    """

    level: str
    share: str  # the level that holds rank'/κ
    cut: str  # the level that holds ‖of − copy‖/‖of‖
    of: str
    copy: str
    dual: str
    reach: float
    residue: float
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        aim = f"#{{{self.dual} {self.of}² > {self.level}}} → ‖{self.copy}‖₀ at p = {self.reach:g}"
        cut = f"{self.cut} ← ‖{self.of} − {self.copy}‖/‖{self.of}‖"
        return f"{cut};  steer {self.level}: {aim}, then {self.cut} → {self.residue:g}"

    def reads(self) -> tuple[str, ...]:
        return (self.of, self.copy, self.dual)

    def writes(self) -> tuple[str, ...]:
        return (self.level, self.share, self.cut)
