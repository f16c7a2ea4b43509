"""What a solver is: options, the (function, set) pairs that it takes, and a lowering to the graph.

A solver holds no training loop. Adding one is one file here, found by the folder.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal

from prunelang.compiler.options import Options
from prunelang.compiler.problem import (
    Affine,
    Blocks,
    Choice,
    Constraint,
    Count,
    Entries,
    Function,
    GroupCount,
    Interval,
    Kept,
    MatrixFunction,
    Measured,
    Named,
    NofM,
    Problem,
    Relative,
    Structural,
    Term,
    VectorNorm,
)

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering
    from prunelang.compiler.plan import StagePlan
    from prunelang.dsl.diagnostics import Diagnostic

Where = Literal["constraint", "penalty"]


def family(function: Function) -> str:
    """The name under which solvers declare what they take: ``count`` for all weighted counts, else the function's."""
    match function:
        case Count() | Choice():
            return "count"
        case GroupCount():
            return "group count"
        case Structural(name=name) | VectorNorm(name=name) | MatrixFunction(name=name) | Measured(name=name):
            return name
        case Entries():
            return "entries"
        case Affine():
            return "combination"


def set_family(constraint: Constraint) -> str:
    match constraint.set:
        case Interval(lower, upper):
            return "both" if lower is not None and upper is not None else "upper" if upper is not None else "lower"
        case Relative():
            return "relative"
        case Kept():
            return "dense"
        case NofM():
            return "n_of_m"
        case Blocks():
            return "blocks"
        case Named(name=name):
            return name


@dataclass(frozen=True)
class Refusal:
    """Why a solver does not take a constraint or a term: names the component and the missing capability."""

    subject: Constraint | Term | None
    reason: str


class Solver(Options, ABC):
    """Base of the option models of solvers."""

    kind: ClassVar[Literal["solver", "optimizer"]] = "solver"
    outer: ClassVar[bool] = False  # has outer iterations, hence the clock k
    sparsifies: ClassVar[bool] = False  # ends sparse without any constraint or penalty
    constraints: ClassVar[frozenset[tuple[str, str]]]  # (family, set family) that it takes
    penalties: ClassVar[frozenset[str]]  # functions that it takes in the objective beside data terms

    def refusals(self, problem: Problem) -> Iterator[Refusal]:
        """Everything in the problem that this solver does not take."""
        for constraint in problem.constraints:
            pair = (family(constraint.function), set_family(constraint))
            if pair not in self.constraints:
                yield Refusal(constraint, f"`{self.word}` does not take {pair[0]} constraints of kind `{pair[1]}`")
        for term in problem.objective.terms:
            if not isinstance(term.function, Measured) and family(term.function) not in self.penalties:
                yield Refusal(term, f"`{self.word}` does not take `{family(term.function)}` in the objective")

    def conditions(self, stage: StagePlan) -> Iterator[Diagnostic]:
        """What the stage's own numbers break: step sizes that cannot be stable, schedules that leave their range."""
        return iter(())

    @abstractmethod
    def lower(self, lowering: Lowering) -> None:
        """Append this solver's state and steps to the graph under construction."""


@cache
def solvers() -> dict[str, type[Solver]]:
    """All solvers by their word in the language; a duplicate is an error."""
    found: dict[str, type[Solver]] = {}
    package = importlib.import_module("prunelang.compiler.solvers")
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"prunelang.compiler.solvers.{info.name}")
        for item in vars(module).values():
            if isinstance(item, type) and issubclass(item, Solver) and "word" in vars(item):
                if found.setdefault(item.word, item) is not item:
                    raise RuntimeError(f"two solvers are named `{item.word}`")
    return found
