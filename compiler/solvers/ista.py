"""`ista`: soft-threshold reparametrisation with the identity gradient.

    latent θ: W = S_d(θ) = sign(θ)(|θ| − d)₊, backward identity
    for each batch:
        descend θ: L(W)
        d ← d(clock)

For weights that stay non-zero this is the proximal gradient step for μ‖W‖₁ with μ = Δd/η; S-LATS keeps μ constant
under a cosine step size: d(x) = D(x + sin(πx)/π).
A Unified Framework for Soft Threshold Pruning, ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from prunelang.compiler.graph import (
    Assign,
    Combination,
    Feasible,
    Finish,
    Hit,
    Latent,
    Materialize,
    Record,
    Steer,
    Step,
)
from prunelang.compiler.options import number, option
from prunelang.compiler.problem import Constraint, Count, Interval, Problem, tensors_of
from prunelang.compiler.schedule import Schedule, evaluate
from prunelang.compiler.solvers.base import Refusal, Solver

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering


class Ista(Solver):
    word: ClassVar[str] = "ista"
    doc: ClassVar[str] = "Soft-threshold pruning: the threshold grows until the requested count is reached exactly."
    reference: ClassVar[str] = "A Unified Framework for Soft Threshold Pruning, ICLR 2023"
    constraints: ClassVar[frozenset[tuple[str, str]]] = frozenset({("count", "upper"), ("entries", "dense")})
    penalties: ClassVar[frozenset[str]] = frozenset()

    threshold: Literal["s_lats"] = option(
        "how the threshold d grows: s_lats keeps the ℓ1 coefficient constant", "s_lats"
    )
    reach: Schedule = option(
        "share of the stage at which the count is reached; held from there", number("0.5"), gt=0, le=1
    )

    def beyond_pairs(self, problem: Problem) -> Iterator[Refusal]:
        """One threshold serves one count over tensors of its own."""
        owner: dict[str, Constraint] = {}
        for c in problem.constraints:
            shared = next((t for t in tensors_of(c.function) if owner.setdefault(t, c) is not c), None)
            if c.structural and shared is not None:
                reason = (
                    f"`{self.word}` takes one constraint a tensor; `{shared}` is also under `{owner[shared].label}`"
                )
                yield Refusal(c, reason)

    def lower(self, lowering: Lowering) -> None:
        low = lowering
        feasible = low.feasible()
        budget = {c.label: c for c in low.problem.constraints}
        low.support("m", "W")
        latents: list[str] = []
        before: list[Step] = []
        each_step: list[Step] = []
        steers: list[Step] = []
        after: list[Step] = []
        for i, part in enumerate(feasible.parts):
            suffix = "" if len(feasible.parts) == 1 else f"_{i + 1}"
            w = low.weights(f"W{suffix}", part.tensors)
            d = low.level(f"d{suffix}")
            theta = low.declare(Latent(f"θ{suffix}", w, d)).name
            latents.append(theta)
            kappa = _kappa(budget[part.labels[0]])
            reach = evaluate(self.reach, {})
            steer = Steer(d, theta, kappa, reach, self.threshold, part.labels[0])
            steers.append(steer)
            before += [Assign(theta, Combination(((1, w, None),))), Assign(d, Combination(())), steer]
            each_step.append(Materialize(theta, w, d, reach))
            after.append(Hit(theta, w, d, Feasible((part,)), "m"))
        low.steps += [
            *before,
            low.descend(
                (*latents, "rest"),
                latents=tuple(latents),
                after=tuple(each_step),
                each_epoch=tuple(steers),
                counted="W",
            ),
            *after,
            Finish("W", Combination(((1, "W", None),)), feasible, "m"),
            Record("stage", "solve", "W"),
        ]


def _kappa(constraint: Constraint) -> int:
    """The largest number of kept positions that the count allows."""
    function, bound = constraint.function, constraint.set
    assert isinstance(function, Count) and isinstance(bound, Interval) and bound.upper is not None
    return int(bound.upper)
