"""State nodes, and the small records that steps are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prunelang.compiler.forms import Composition
from prunelang.compiler.graph.base import State
from prunelang.compiler.problem import Budget, FactorCost
from prunelang.compiler.schedule import Schedule
from prunelang.dsl.numbers import grouped

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Weights(State):
    """A view of trained tensors of the network; the network's own storage."""

    tensors: tuple[str, ...]
    entries: int
    view: Literal["flat", "layers"] = "flat"

    def line(self) -> str:
        return f"weights {self.name} = {', '.join(self.tensors)}   [{grouped(self.entries)} as {self.view}]"


@dataclass(frozen=True)
class Rest(State):
    """Other trained parameters: biases, normalisation, tensors without constraint."""

    tensors: tuple[str, ...]

    def line(self) -> str:
        return f"rest    {self.name} = {', '.join(self.tensors) or '∅'}"


@dataclass(frozen=True)
class Buffers(State):
    """Stored but not trained: statistics of batch normalisation, neuron states."""

    tensors: tuple[str, ...]

    def line(self) -> str:
        return f"buffers {self.name} = {', '.join(self.tensors) or '∅'}"


@dataclass(frozen=True)
class Copy(State):
    """A splitting variable or target of the shape of `of`; never shares its storage."""

    of: str

    def line(self) -> str:
        return f"copy    {self.name} of {self.of}"

    def reads(self) -> tuple[str, ...]:
        return (self.of,)


@dataclass(frozen=True)
class Support(State):
    """Kept positions of `of`, as booleans; a kept zero is stored."""

    of: str

    def line(self) -> str:
        return f"support {self.name} of {self.of}"

    def reads(self) -> tuple[str, ...]:
        return (self.of,)


@dataclass(frozen=True)
class Dual(State):
    """A multiplier of the shape of `like`, or one number for each of its tensors."""

    like: str
    sign: Literal["free", "non-negative"] = "free"
    each: Literal["entry", "tensor"] = "entry"

    def line(self) -> str:
        sign = " ≥ 0" if self.sign == "non-negative" else ""
        each = ", one for each tensor" if self.each == "tensor" else ""
        return f"dual    {self.name} like {self.like}{sign}{each}"

    def reads(self) -> tuple[str, ...]:
        return (self.like,)


@dataclass(frozen=True)
class Level(State):
    """A scalar. With a schedule it is that expression of the clocks; without one, steps set it."""

    schedule: Schedule | None = None

    def line(self) -> str:
        return f"level   {self.name}" + ("" if self.schedule is None else f" = {self.schedule}")


@dataclass(frozen=True)
class Optimizer(State):
    """torch's optimizer `algorithm` over `of`; `policy` says whether each entry of its loop starts it afresh."""

    of: tuple[str, ...]
    algorithm: str
    options: Mapping[str, Schedule | bool]
    policy: Literal["fresh", "kept"] = "fresh"

    def line(self) -> str:
        shown = ", ".join(f"{k} = {str(v).lower() if isinstance(v, bool) else v}" for k, v in self.options.items())
        return f"optimizer {self.name} of {', '.join(self.of)} = {self.algorithm}({shown})  {self.policy}"

    def reads(self) -> tuple[str, ...]:
        return self.of


@dataclass(frozen=True)
class Data(State):
    """The training samples: batch size, batches per epoch, seed of the split. The order follows the run's seed."""

    text: str
    batch: int
    batches: int
    seed: int

    def line(self) -> str:
        return f"data    {self.name} = {self.text}   [{self.batches} batches of {self.batch}, seed {self.seed}]"


# A κ in a step is a number or, inside a search, the name of the level that it is searched over.
Kappa = int | str


def shown(kappa: Kappa, more: int = 0) -> str:
    """A κ, or κ + more, as the listing shows it."""
    return grouped(kappa + more) if isinstance(kappa, int) else f"{kappa}+{more}" if more else kappa


def known(kappa: Kappa) -> int:
    """A κ that is executed: a search has put a number in the place of its level's name."""
    assert isinstance(kappa, int), f"`{kappa}` is the level of a search, and no number yet"
    return kappa


# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Combination:
    """A sum of state: ``±tensor`` or ``±tensor/level`` each."""

    terms: tuple[tuple[int, str, str | None], ...]

    def __str__(self) -> str:
        parts = []
        for i, (sign, name, level) in enumerate(self.terms):
            joint = ("" if i == 0 else " + ") if sign > 0 else ("−" if i == 0 else " − ")
            parts.append(f"{joint}{name}" + (f"/{level}" if level else ""))
        return "".join(parts) or "0"

    def names(self) -> tuple[str, ...]:
        return tuple(n for _, name, level in self.terms for n in (name, level) if n)


@dataclass(frozen=True)
class Loss:
    """A data term of the descent: ``weight · name(net, …)`` on the train split."""

    name: str
    weight: Schedule
    arguments: tuple[tuple[str, Any], ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Quadratic:
    """``μ/2 ‖of − target‖²``; its gradient μ(of − target) is added in closed form."""

    of: str
    target: str
    level: str

    def __str__(self) -> str:
        return f"{self.level}/2 ‖{self.of} − {self.target}‖²"


@dataclass(frozen=True)
class Penalty:
    """``weight · Σ f(w)`` over the entries of `of`; its gradient is added in closed form, before the optimizer.

    drr: f = 1 − e^(−β|w|), f′ = β·sign(w)·e^(−β|w|); norm1: f = |w|, f′ = sign(w); 0 at 0.
    """

    of: str
    function: Literal["drr", "norm1"]
    weight: Schedule | str  # of the clocks, or the level that holds it
    beta: float = 0.0

    def __str__(self) -> str:
        function = f"‖{self.of}‖₁" if self.function == "norm1" else f"Σ(1 − e^(−{self.beta:g}|{self.of}|))"
        return f"{self.weight} {function}"

    @property
    def level(self) -> tuple[str, ...]:
        return (self.weight,) if isinstance(self.weight, str) else ()

    @property
    def schedule(self) -> Schedule | None:
        return None if isinstance(self.weight, str) else self.weight


@dataclass(frozen=True)
class Priced:
    """``weight · cost`` of what tensors are made of, in the objective of a projection."""

    cost: FactorCost
    weight: Schedule

    def on(self, part: Part) -> FactorCost | None:
        """The cost of the tensors of a part alone; None where it counts none of them."""
        own = self.cost.within(part.tensors)
        return own if own.entries else None

    def __str__(self) -> str:
        return f"{self.weight} {self.cost.name}"


@dataclass(frozen=True)
class Part:
    """One independent piece of a feasible set: constraints that share tensors, projected together.

    `bounds` are count constraints as data (`prunelang.compiler.joint`), `balls` norm balls ``(name, radius)``. A part
    has those or `compositions`, of disjoint tensors, whose free ranks and counts are chosen together under `budgets`.
    """

    tensors: tuple[str, ...]
    labels: tuple[str, ...]
    text: str
    bounds: tuple[Mapping[str, Any], ...] = ()
    balls: tuple[tuple[str, float], ...] = ()  # ("norm1" | "norm2" | "norminf", radius)
    exactness: Literal["exact", "gap", "approximate"] = "exact"  # approximate: feasible, the distance has no bound
    keeps: Literal["support", "project each step", "factors"] = "support"  # how finetune keeps it
    compositions: tuple[Composition, ...] = ()
    budgets: tuple[Budget, ...] = ()


@dataclass(frozen=True)
class Feasible:
    """The product of its parts: the set that structural constraints leave."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return "{" + ", ".join(p.text for p in self.parts) + "}"
