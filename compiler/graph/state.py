"""State nodes, and the small records that steps are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prunelang.compiler.graph.base import State
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
class Latent(State):
    """A reparametrisation ``of = map(name, level)``. The optimizer holds the latent; `of` is written from it.

    `backward` identity hands the gradient with respect to `of` to the latent as it is.
    """

    of: str
    level: str
    map: Literal["soft"] = "soft"
    backward: Literal["identity"] = "identity"

    def line(self) -> str:
        return f"latent  {self.name}: {self.of} = {self.map}({self.name}, {self.level}), backward {self.backward}"

    def reads(self) -> tuple[str, ...]:
        return (self.of, self.level)


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
    """A multiplier of the shape of `like`."""

    like: str
    sign: Literal["free", "non-negative"] = "free"

    def line(self) -> str:
        return f"dual    {self.name} like {self.like}" + (" ≥ 0" if self.sign == "non-negative" else "")

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
class Part:
    """One independent piece of a feasible set: constraints that share tensors, projected together.

    `bounds` are count constraints as data (`prunelang.compiler.joint`), `balls` norm balls ``(name, radius)``.
    """

    tensors: tuple[str, ...]
    labels: tuple[str, ...]
    text: str
    bounds: tuple[Mapping[str, Any], ...] = ()
    balls: tuple[tuple[str, float], ...] = ()  # ("norm1" | "norm2" | "norminf", radius)
    exactness: Literal["exact", "gap"] = "exact"
    keeps: Literal["support", "project each step"] = "support"  # how finetune keeps it


@dataclass(frozen=True)
class Feasible:
    """The product of its parts: the set that structural constraints leave."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return "{" + ", ".join(p.text for p in self.parts) + "}"
