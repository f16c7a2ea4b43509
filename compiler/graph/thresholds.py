"""Nodes of soft thresholds: the latent variable, how its threshold rises, is steered to a count, and ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from prunelang.compiler.graph.base import State, Step, Sync
from prunelang.compiler.graph.state import Feasible, Kappa, shown
from prunelang.compiler.schedule import Schedule

RiseName = Literal["s_lats", "lats", "stds_sine", "stds_linear", "pgh", "at_once"]

# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Latent(State):
    """A reparametrisation ``of = soft(name, d)``. The optimizer holds the latent; `of` is written from it.

    Without `trained` one threshold d = `level` serves all tensors, and the gradient with respect to `of` is handed to
    the latent as it is (identity). With `trained`, a vector s with an entry for each tensor, d = level·σ(s), and the
    gradient is the exact one, of s too. Where a `budget` sets the level, d = level·eˢ, which no weight outgrows, and
    the gradient of s is the one along the budget: what one tensor gains others pay.
    """

    of: str
    level: str
    trained: str | None = None
    budget: bool = False

    @property
    def threshold(self) -> str:
        if self.trained is None:
            return self.level
        return f"{self.level}·exp({self.trained})" if self.budget else f"{self.level}·σ({self.trained})"

    def line(self) -> str:
        backward = "identity" if self.trained is None else "exact, along the budget" if self.budget else "exact"
        return f"latent  {self.name}: {self.of} = soft({self.name}, {self.threshold}), backward {backward}"

    def reads(self) -> tuple[str, ...]:
        return (self.of, self.level, *((self.trained,) if self.trained else ()))


@dataclass(frozen=True)
class TrainedLevel(State):
    """Trained numbers that are no weights: one for each tensor of `of`, in the optimizer, with its decay."""

    of: str

    def line(self) -> str:
        return f"level   {self.name} ∈ ℝ, one for each tensor of {self.of}, trained"

    def reads(self) -> tuple[str, ...]:
        return (self.of,)


@dataclass(frozen=True)
class Sums(State):
    """``Σ_{i<t} rate`` at every step t of a loop of that length: the learning rates really used, added up."""

    rate: Schedule
    duration: Schedule
    unit: Literal["epochs", "steps"]

    def line(self) -> str:
        return f"sums    {self.name}(t) = Σ_(i<t) {self.rate}   [over {self.duration} {self.unit}]"


# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Rise:
    """The shape of a threshold's rise (`prunelang.compiler.thresholds`), from the start of the stage to p = `reach`."""

    shape: RiseName = "s_lats"
    reach: float = 1.0
    beta: float | None = None  # of pgh
    sums: str | None = None  # of lats

    def __str__(self) -> str:
        return self.shape + (f", β = {self.beta:g}" if self.beta is not None else "")


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Fill(Step):
    """``target ← value``, every entry."""

    target: str
    value: float

    def line(self) -> str:
        return f"{self.target} ← {self.value:g}"

    def writes(self) -> tuple[str, ...]:
        return (self.target,)


@dataclass(frozen=True)
class Tabulate(Step):
    """Fills a table of sums from the schedules, once, before the loop that they are of."""

    sums: str
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        return f"{self.sums} ← the sums of its rates"

    def writes(self) -> tuple[str, ...]:
        return (self.sums,)


@dataclass(frozen=True)
class Aim(Step):
    """The course of a threshold whose end is known: ``value``, or the table `sums` at p = reach."""

    level: str
    rise: Rise
    value: float | None = None
    sums: str | None = None
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        end = f"{self.sums} there" if self.value is None else f"{self.value:g}"
        return f"aim {self.level} → {end} at p = {self.rise.reach:g}   [{self.rise}]"

    def reads(self) -> tuple[str, ...]:
        return (self.level, *((self.sums,) if self.sums else ()))

    def writes(self) -> tuple[str, ...]:
        return (self.level,)


@dataclass(frozen=True)
class Offset(Step):
    """``θ ← sign(W)(|W| + d)`` where ``|W| > above``, W elsewhere: the weights start at their values under d.

    With `value` d is that number, and above = 0. With `kappa` d is the (κ+1)-th largest |W|, and above = d: the κ
    largest keep their values, the others are pruned before the first step.
    """

    latent: str
    of: str
    level: str
    value: float | None = None
    kappa: Kappa | None = None
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        d = f"{self.value:g}" if self.kappa is None else f"|{self.of}|₍{shown(self.kappa, 1)}₎"
        where = "" if self.kappa is None else f" where |{self.of}| > {self.level}"
        w, x = self.of, self.latent
        return f"{self.level} ← {d};  {x} ← sign({w})(|{w}| + {self.level}){where};  {w} ← soft({x}, {self.level})"

    def reads(self) -> tuple[str, ...]:
        return (self.of,)

    def writes(self) -> tuple[str, ...]:
        return (self.latent, self.level, self.of)


@dataclass(frozen=True)
class Materialize(Step):
    """``d ← d(p)`` on the course that `Steer` or `Aim` set, then ``W ← soft(θ, d)``: after every optimizer step."""

    latent: str
    of: str
    level: str
    rise: Rise
    threshold: str  # as the listing shows it

    def line(self) -> str:
        return f"{self.level} ← {self.level}(p);  {self.of} ← soft({self.latent}, {self.threshold})"

    def reads(self) -> tuple[str, ...]:
        return (self.latent, self.level, *((self.rise.sums,) if self.rise.sums else ()))

    def writes(self) -> tuple[str, ...]:
        return (self.of, self.level)


@dataclass(frozen=True)
class Steer(Step):
    """The controller of a threshold, once an epoch: sets the course that `Materialize` follows until the next.

    With q the level that would leave κ weights now and f the shape of the rise, the course meets q at p = reach:
    ``d(p) = d + (q − d)(f(p/r) − f(p₀/r))/(1 − f(p₀/r))``; from there on it follows q, one epoch ahead.
    """

    level: str
    latent: str
    kappa: Kappa
    rise: Rise = Rise()
    label: str = ""
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        return (
            f"steer {self.level}: ‖{self.latent}‖₀ above it → {shown(self.kappa)} at p = {self.rise.reach:g}"
            f"   [{self.rise}]"
        )

    def reads(self) -> tuple[str, ...]:
        return (self.latent, self.level)

    def writes(self) -> tuple[str, ...]:
        return (self.level,)


@dataclass(frozen=True)
class Hit(Step):
    """``W ← soft(θ, d)`` on the support of the projection of θ; d is the first magnitude outside it, ties by index.

    With `floor` d is never below the level that was aimed at: then fewer positions than the projection's may stay.
    """

    latent: str
    of: str
    level: str
    onto: Feasible
    support: str
    floor: bool = False
    threshold: str = ""  # as the listing shows it; the level itself when empty
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        floor = f", {self.level} not lowered" if self.floor else ""
        return f"hit {self.onto}: {self.of} ← soft({self.latent}, {self.threshold or self.level}){floor}"

    def reads(self) -> tuple[str, ...]:
        return (self.latent, self.level)

    def writes(self) -> tuple[str, ...]:
        return (self.of, self.level, self.support)


@dataclass(frozen=True)
class Retain(Step):
    """``m ← W ≠ 0``: the support is what the method left; how many, is an outcome."""

    support: str
    of: str

    def line(self) -> str:
        return f"{self.support} ← {self.of} ≠ 0"

    def reads(self) -> tuple[str, ...]:
        return (self.of,)

    def writes(self) -> tuple[str, ...]:
        return (self.support,)
