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

from prunelang.compiler.bridges import bridge
from prunelang.compiler.options import Options
from prunelang.compiler.pairs import Pair, family, pair_of
from prunelang.compiler.problem import Constraint, Kept, Measured, Problem, Term, tensors_of

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering
    from prunelang.compiler.plan import StagePlan
    from prunelang.dsl.diagnostics import Diagnostic


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
    constraints: ClassVar[frozenset[Pair]]  # (function, set) pairs that it takes natively; bridges add to them
    penalties: ClassVar[frozenset[str]]  # functions that it takes in the objective beside data terms

    def refusals(self, problem: Problem) -> Iterator[Refusal]:
        """Everything in the problem that this solver does not take, bridges included."""
        seen = bridge(problem, self.constraints).problem
        for constraint in seen.constraints:
            pair = pair_of(constraint)
            if pair not in self.constraints:
                yield Refusal(constraint, f"`{self.word}` does not take {pair[0]} constraints of kind `{pair[1]}`")
        for term in seen.objective.terms:
            if not isinstance(term.function, Measured) and family(term.function) not in self.penalties:
                yield Refusal(term, f"`{self.word}` does not take `{family(term.function)}` in the objective")
        yield from self.beyond_pairs(seen)

    def beyond_pairs(self, problem: Problem) -> Iterator[Refusal]:
        """What pairs cannot say: conditions on several constraints together."""
        return iter(())

    def conditions(self, stage: StagePlan) -> Iterator[Diagnostic]:
        """What the stage's own numbers break: step sizes that cannot be stable, schedules that leave their range."""
        return iter(())

    @abstractmethod
    def lower(self, lowering: Lowering) -> None:
        """Append this solver's state and steps to the graph under construction."""


def compressed(problem: Problem) -> frozenset[str]:
    """The trained tensors that a structural constraint or a penalty speaks of. `dense` alone asks for nothing."""
    asking = [c.function for c in problem.constraints if c.structural and not isinstance(c.set, Kept)]
    asking += [t.function for t in problem.objective.terms]
    return frozenset(name for f in asking for name in tensors_of(f)) - problem.frozen


@cache
def solvers() -> dict[str, type[Solver]]:
    """All solvers by their word in the language; a duplicate is an error."""
    found: dict[str, type[Solver]] = {}
    package = importlib.import_module("prunelang.compiler.solvers")
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"prunelang.compiler.solvers.{info.name}")
        for item in vars(module).values():
            concrete = isinstance(item, type) and issubclass(item, Solver) and "word" in vars(item)
            if concrete and found.setdefault(item.word, item) is not item:
                raise RuntimeError(f"two solvers are named `{item.word}`")
    return found
