"""`factors`: descent on what tensors are made of, ``min_G L(Δ(G))``.

    G ← Π_C(W)
    for each batch:
        descend G:  L(Δ(G)),  the gradient with respect to W by autograd, then through Δ
        W ← Δ(G)

Ranks and counts that budgets leave open, codes and positions are chosen once, by the projection at the start.

Novikov, Podoprikhin, Osokin & Vetrov, Tensorizing Neural Networks, NIPS 2015.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from prunelang.compiler.graph import Combination, Factor, Finish, Record
from prunelang.compiler.options import option
from prunelang.compiler.problem import Problem
from prunelang.compiler.solvers.base import Refusal, Solver, Stopping
from prunelang.compiler.solvers.lc import FACTORED

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering


class FactorsSolver(Solver):
    word: ClassVar[str] = "factors"
    doc: ClassVar[str] = "Trains the factors of low-rank tensors, tensor trains, codebooks and sums of them."
    reference: ClassVar[str] = "Novikov, Podoprikhin, Osokin & Vetrov, NIPS 2015"
    constraints: ClassVar[frozenset[tuple[str, str]]] = FACTORED - {
        ("nuclear", "upper"),
        ("entries", "box"),
    } | {("entries", "dense")}
    penalties: ClassVar[frozenset[str]] = frozenset()

    start: Literal["projection", "random"] = option(
        "factors to start from: the projection of the weights, or random cores of its ranks and spread", "projection"
    )

    def beyond_pairs(self, problem: Problem) -> Iterator[Refusal]:
        yield from self.one_role_a_tensor(problem)

    def stopping(self, problem: Problem) -> Stopping | str:
        """Every epoch ends in the feasible set, so the best of them may be restored."""
        return Stopping(keeps=True)

    def lower(self, lowering: Lowering) -> None:
        low = lowering
        feasible, factors = low.feasible(), low.factors()
        m = low.support("m", "W")
        made_of = factors.name if factors else None
        if made_of is not None:
            low.steps.append(Factor(made_of, "W", feasible, m, self.start))
        low.steps += [
            low.descend_made(factors, support=None),
            Finish("W", Combination(((1, "W", None),)), feasible, m, made_of),
            Record("stage", "solve", "W"),
        ]
