"""Tensors made of factors: the state `Factors`, its start from a projection, and the composed weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from prunelang.compiler.forms import Box, Composition, Fixed, Nuclear
from prunelang.compiler.graph.base import State, Step, Sync
from prunelang.compiler.graph.state import Feasible


def made(composition: Composition) -> bool:
    """Whether its tensors are made of factors; a box and a nuclear ball are sets of the tensor itself."""
    return not isinstance(composition.forms[0], Box | Nuclear)


def trained(composition: Composition) -> bool:
    """Whether some factor is a number that a descent can change: all but codes of fixed values without a scale."""
    return made(composition) and any(not isinstance(f, Fixed) or f.scaled for f in composition.forms)


@dataclass(frozen=True)
class Factors(State):
    """What tensors of `of` are made of: ``of = Δ(name)``, one composition for each group of tensors.

    Numbers with a point are trained where a descent holds the state; codes and positions stay what a projection chose.
    Ranks may follow from budgets, so that shapes are known once a projection has written them.
    """

    of: str
    compositions: tuple[Composition, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors that are made of factors."""
        return tuple(t for c in self.compositions for t in c.tensors)

    def line(self) -> str:
        return f"factors {self.name}: {self.of} = Δ({self.name}) at {', '.join(self.tensors)}"

    def reads(self) -> tuple[str, ...]:
        return (self.of,)


@dataclass(frozen=True)
class Factor(Step):
    """``factors ← Π_C(of)``, and `of` becomes the composition of them.

    A `random` start draws trained factors anew, with the ranks of the projection and the spread of what it composes.
    """

    factors: str
    of: str
    onto: Feasible
    support: str | None = None
    start: Literal["projection", "random"] = "projection"
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        drawn = ", drawn anew" if self.start == "random" else ""
        return f"{self.factors} ← Π{self.onto}({self.of}){drawn}; {self.of} ← Δ({self.factors})"

    def reads(self) -> tuple[str, ...]:
        return (self.of,)

    def writes(self) -> tuple[str, ...]:
        return (self.factors, self.of, *((self.support,) if self.support else ()))


@dataclass(frozen=True)
class Compose(Step):
    """``of ← Δ(factors)`` after a step of the descent, in the type of the weights, with the graph of its gradient.

    With `exact` in float64, rounded once: what an epoch ends with, and what is saved.
    """

    of: str
    factors: str
    exact: bool = False

    def line(self) -> str:
        return f"{self.of} ← Δ({self.factors})" + (", rounded once" if self.exact else "")

    def reads(self) -> tuple[str, ...]:
        return (self.factors,)

    def writes(self) -> tuple[str, ...]:
        return (self.of,)


@dataclass(frozen=True)
class Reproject(Step):
    """``of ← Π_C(of)`` at the end of an epoch: how finetune stays in sets whose projection is too dear for a step."""

    of: str
    onto: Feasible
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        return f"project {self.of}: {self.onto}"

    def reads(self) -> tuple[str, ...]:
        return (self.of,)

    def writes(self) -> tuple[str, ...]:
        return (self.of,)
