"""What a solver is: options, the (function, set) pairs that it takes, and a lowering to the graph.

A solver holds no training loop. Adding one is one file here, found by the folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal

from prunelang.compiler.bridges import bridge
from prunelang.compiler.description import is_coded
from prunelang.compiler.discovery import discovered
from prunelang.compiler.measured import is_measured, is_surrogate
from prunelang.compiler.options import Options, option
from prunelang.compiler.pairs import Pair, asked, family, pair_of, spoken
from prunelang.compiler.problem import Constraint, Kept, Measured, Problem, Term, tensors_of
from prunelang.compiler.schedule import Schedule

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering
    from prunelang.compiler.plan import StagePlan
    from prunelang.dsl.diagnostics import Diagnostic


@dataclass(frozen=True)
class Refusal:
    """Why a solver does not take a constraint or a term: names the component and the missing capability."""

    subject: Constraint | Term | None
    reason: str


@dataclass(frozen=True)
class Stopping:
    """`until` on a solve: epochs before p = `since` are on the way and do not count.

    `keeps`: the states from there on are equally sparse, or compared by a loss that holds the penalty, so that the best
    of them may be restored. Otherwise the loop ends early, and its last state stays.
    """

    since: float = 0.0
    keeps: bool = False


class Solver(Options, ABC):
    """Base of the option models of solvers."""

    kind: ClassVar[Literal["solver", "optimizer"]] = "solver"
    outer: ClassVar[bool] = False  # has outer iterations, hence the clock k
    sparsifies: ClassVar[bool] = False  # ends sparse without any constraint or penalty
    descends: ClassVar[bool] = True  # trains batch by batch with an optimizer, for a length of time
    drives: ClassVar[bool] = False  # follows a budget of what is measured, by a count with numbers that change
    shrinks: ClassVar[bool] = False  # a penalty makes weights small and removes none: that is for a later `prune`
    constraints: ClassVar[frozenset[Pair]]  # (function, set) pairs that it takes natively; bridges add to them
    penalties: ClassVar[frozenset[str]]  # functions that it takes in the objective beside data terms

    probes: int | None = option(
        "of a search for the smallest bound: solves at most; left out: 12", None, ge=1, le=1000, last=True
    )
    tolerance: Schedule | None = option(
        "of a search: how far the bound handed back may lie above the smallest; left out: 5 %",
        None,
        gt=0,
        le=10,
        last=True,
    )

    def refusals(self, problem: Problem) -> Iterator[Refusal]:
        """Everything in the problem that this solver does not take, bridges included."""
        seen = bridge(problem, self.constraints).problem
        for constraint in seen.constraints:
            if is_measured(constraint) or is_coded(constraint) or is_surrogate(constraint):
                continue  # checked at the end, whatever the solver
            if pair_of(constraint) not in self.constraints:
                yield Refusal(constraint, f"`{self.word}` does not take {asked(constraint)}")
        for term in seen.objective.terms:
            if not isinstance(term.function, Measured) and family(term.function) not in self.penalties:
                yield Refusal(term, f"`{self.word}` does not take {spoken(term.function)} in the objective")
        yield from self.beyond_pairs(seen)

    def beyond_pairs(self, problem: Problem) -> Iterator[Refusal]:
        """What pairs cannot say: conditions on several constraints together."""
        return iter(())

    def one_role_a_tensor(self, problem: Problem) -> Iterator[Refusal]:
        """For solvers that take a tensor under constraints or under one penalty. Data terms speak of no tensor."""
        held = {t for c in problem.constraints if c.structural for t in tensors_of(c.function)}
        penalised: set[str] = set()
        for term in problem.objective.terms:
            tensors = set(tensors_of(term.function))
            if not tensors.isdisjoint(penalised):
                yield Refusal(term, f"`{self.word}` takes one penalty a tensor")
            penalised |= tensors
            if not held.isdisjoint(tensors):
                yield Refusal(
                    term, f"`{self.word}` takes a tensor either under constraints or under a penalty, not both"
                )

    def conditions(self, stage: StagePlan) -> Iterator[Diagnostic]:
        """What the stage's own numbers break: step sizes that cannot be stable, schedules that leave their range."""
        return iter(())

    def conflicts(self, stage: StagePlan, problem: Problem) -> Iterator[Diagnostic]:
        """What the stage's clauses and the problem rule out together."""
        return iter(())

    def implied(self, stage: StagePlan, problem: Problem, batches: int) -> Iterator[str]:
        """Lines for `explain`: what this stage solves in effect, with `batches` optimizer steps an epoch."""
        return iter(())

    def stopping(self, problem: Problem) -> Stopping | str:
        """What `until` means for a stage of this solver, or why it cannot end one. `problem` is after bridges."""
        if self.outer:
            return "its penalty coefficient grows towards the last outer iteration; give fewer `steps`"
        return Stopping()

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
    return discovered("prunelang.compiler.solvers", Solver)  # type: ignore[type-abstract]  # makes none
