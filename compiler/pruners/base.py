"""What a pruner is: options, the split that it reads, and a lowering to the graph.

A pruner removes weights from a network as it is and descends on nothing. Adding one is one file here, found by the
folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal

from prunelang.compiler.discovery import discovered
from prunelang.compiler.options import Options
from prunelang.compiler.problem import (
    Choice,
    Constraint,
    Count,
    GroupCount,
    Interval,
    Named,
    NofM,
    Problem,
    Structural,
    VectorNorm,
    tensors_of,
)

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering
    from prunelang.compiler.plan import StagePlan
    from prunelang.dsl.diagnostics import Diagnostic


class Pruner(Options, ABC):
    """Base of the option models of pruners."""

    kind: ClassVar[Literal["solver", "optimizer", "pruner"]] = "pruner"

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the data that the pruner reads, as the language names them."""
        return ()

    @property
    def exact(self) -> bool:
        """Whether the network computes the same after it, so that no statistics have to be taken anew."""
        return False

    def conditions(self, stage: StagePlan) -> Iterator[Diagnostic]:
        """What is wrong with the stage's own options."""
        return iter(())

    @abstractmethod
    def lower(self, lowering: Lowering) -> None:
        """Append this pruner's state and steps to the graph under construction."""


def removable(problem: Problem, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tensors of `names` that may lose positions under every structural constraint, and the others."""
    held = {t for c in problem.constraints if c.structural and not _shrinks(c) for t in tensors_of(c.function)}
    return tuple(n for n in names if n not in held), tuple(n for n in names if n in held)


def _shrinks(c: Constraint) -> bool:
    """Whether a weight that becomes 0 leaves the constraint satisfied: upper bounds, but no `dense`, floor or block."""
    match c.set:
        case Interval(lower, _):
            return not lower and isinstance(c.function, Count | Choice | GroupCount | Structural | VectorNorm)
        case Named(name="box", arguments=ends):
            return bool(dict(ends)["lo"] <= 0 <= dict(ends)["hi"])
    return isinstance(c.set, NofM)


@cache
def pruners() -> dict[str, type[Pruner]]:
    """All pruners by their word in the language; a duplicate is an error."""
    return discovered("prunelang.compiler.pruners", Pruner)  # type: ignore[type-abstract]  # makes none
