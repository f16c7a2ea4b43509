"""`gda`: a minimax over weights, sparsity levels and multipliers under one or several budgets.

    min over W, s  max over y, z ≥ 0   L(W) + Σ_l y_l ‖W_l‖²_{⌈s_l⌉,2} + Σ_r z_r (R_r(k) − B_r)/D_r,   k = n − ⌈s⌉

    for each batch:
        descend W:  L(W)
        select I, τ′, Σ                       the one order statistic of a step
        prox W:  η y ‖·‖²  on I
        descend s:  y τ′ + Σ z ∂R/∂s / D;  clip
        ascend y:  Σ/(1 + 2ηy)²
        ascend z:  (R(k) − B)/D
    W ← Π_C(W)

‖W‖²_{⌈s⌉,2}, the sum of the ⌈s⌉ smallest squares, is 0 if and only if ⌈s⌉ entries are 0: ‖W‖₀ ≤ k as a difference of
two convex functions. Its derivative in s, straight through the rounding, is the next square. Every residual is free of
units, every move of s, y and z is relative, and their rates are those that fit into the stage. The size of the
network is in none of them.

Resource Constrained Model Compression via Minimax Optimization for Spiking Neural Networks, arXiv 2308.04672.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from prunelang.compiler.graph import (
    Allocate,
    AscendBudgets,
    AscendResidual,
    Combination,
    Confine,
    Dual,
    Finish,
    Items,
    Multipliers,
    Project,
    Record,
    Resource,
    Retain,
    Saddle,
    Select,
    Selection,
    Shrink,
    Sparsity,
    Start,
    Step,
)
from prunelang.compiler.levels import Granularity, budgets, levels, told_apart
from prunelang.compiler.options import option
from prunelang.compiler.problem import Constraint, Interval, Measured, Problem, Term
from prunelang.compiler.resources import resource
from prunelang.compiler.schedule import Schedule, evaluate
from prunelang.compiler.solvers.base import Refusal, Solver, Stopping
from prunelang.compiler.solvers.lc import FACTORED, TAKES
from prunelang.compiler.solvers.relaxed import view
from prunelang.dsl.diagnostics import Diagnostic

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering
    from prunelang.compiler.plan import StagePlan

# ── the rule ─────────────────────────────────────────────────────────────────────────────────────────────────────

REACH = 0.8  # share of the stage in which the budgets come down to their bounds
SHARE = 0.05  # of each level's items, where s starts: the smallest are as good as 0
GAIN = {"alternating": 1.0, "simultaneous": 0.2, "extragradient": 0.5, "nupi": 0.2}  # of z: less where s answers late
STRIDE = 0.5  # share of the way to its price that a level goes in a step
PACE, SPARE = 4.0, 0.1  # of what stays a stage, and of the least budget: the least moves of a level
FIRST_PULL, LAST_PULL = 0.1, 1.0  # 2ηy of a step: between them y rises
RISE = 0.8  # share of the stage in which y could rise from the first to the last
RESIDUE = 1e-3  # share of ‖W‖² in the selection at which y rises at half its rate
BALLS = ("norm1", "norm2", "norminf")
OF_THE_GAME = frozenset({"granularity", "update", "hard", "reach", "s_rate", "y_rate", "z_rate"})


class Gda(Solver):
    word: ClassVar[str] = "gda"
    doc: ClassVar[str] = "Minimax over weights, sparsity levels and multipliers, under one or several budgets."
    reference: ClassVar[str] = (
        "Resource Constrained Model Compression via Minimax Optimization for Spiking Neural Networks, arXiv 2308.04672"
    )
    drives: ClassVar[bool] = True
    constraints: ClassVar[frozenset[tuple[str, str]]] = frozenset(
        pair for pair in TAKES - FACTORED if pair[0] not in BALLS
    )
    penalties: ClassVar[frozenset[str]] = frozenset({"count", "weighted count"})

    granularity: Granularity = option(
        "what shares a sparsity level: `global`, all tensors with one threshold; else each tensor has its own",
        "auto",
    )
    mode: Literal["joint", "sequential"] = option(
        "weights, levels and multipliers together; or first levels and projection, then training on the support",
        "joint",
    )
    update: Literal["alternating", "simultaneous", "extragradient", "nupi"] = option(
        "the order in which s, y and z move", "alternating"
    )
    hard: bool = option("project the weights and their moments in every step", False)
    reach: Schedule | None = option(
        "share of the stage in which the budgets come down to their bounds; left out: 0.8", None, gt=0, le=1
    )
    s_rate: Schedule | None = option("factor of the rate of s; left out: 1", None, gt=0)
    y_rate: Schedule | None = option("factor of the rate of y; left out: 1", None, gt=0)
    z_rate: Schedule | None = option("factor of the rate of z; left out: 1", None, gt=0)

    @property
    def arrival(self) -> float:
        return REACH if self.reach is None else evaluate(self.reach, {})

    def beyond_pairs(self, problem: Problem) -> Iterator[Refusal]:
        yield from self.one_role_a_tensor(problem)

    def conflicts(self, stage: StagePlan, problem: Problem) -> Iterator[Diagnostic]:
        """A game that cannot be played as it is asked for, and options of one that is not played."""
        bounded = budgets(problem)
        priced = [t for t in problem.objective.terms if not isinstance(t.function, Measured)]
        if self.mode == "sequential" and priced:
            message = "a penalty has no sequential form: with the weights held still it would take them all"
            hint = "leave `mode` out, or state a bound instead"
            yield Diagnostic("P460", "error", message, priced[0].span, hint=hint)
        costs = (*(c.function for c in bounded), *(t.function for t in priced))
        apart = told_apart(costs)
        if self.granularity == "global" and apart is not None:
            message = f"one level cannot count `{apart[0]}` and `{apart[1]}` together: they cost differently"
            hint = "leave `granularity` out; tensors that cost the same in every budget share a level then"
            yield Diagnostic("P461", "error", message, stage.span, hint=hint)
        if self.mode == "joint" and (bounded or priced):
            return
        why = "the projection takes the place of the game" if self.mode == "sequential" else "there are no levels here"
        for name in sorted(self.model_fields_set & OF_THE_GAME):
            message = f"`{name}` belongs to the game of levels and multipliers, and none is played: {why}"
            yield Diagnostic("P462", "error", message, stage.span, hint=f"leave `{name}` out")

    def stopping(self, problem: Problem) -> Stopping | str:
        """From `reach` on the levels have arrived; what remains is that the selected weights go to 0."""
        since = self.arrival
        return Stopping(since) if since < 1.0 else "the levels move until the stage ends; give `reach` below 1"

    def lower(self, lowering: Lowering) -> None:
        low = lowering
        feasible = low.feasible()
        m = low.support("m", "W")
        w = Combination(((1, "W", None),))
        project = (Project("W", w, feasible, m, final=True),) if feasible.parts else ()
        end: tuple[Step, ...] = (Finish("W", w, feasible, m), Record("stage", "solve", "W"))
        if self.mode == "sequential":
            low.steps += [*project, low.descend(("W", "rest"), support=m, counted="W"), *end]
            return
        bounded, priced = budgets(low.problem), tuple(map(_priced, low.penalties))
        costs = tuple(c.function for c in (*bounded, *priced))
        items = levels(low.problem, low.plan.table, costs, self.granularity)
        if not items:
            low.steps += [low.descend(("W", "rest"), counted="W"), *project, *end]
            return
        found = tuple(resource(c, low.problem, low.plan.table, items) for c in (*bounded, *priced))
        weights = (*(None for _ in bounded), *map(_weight, low.penalties)) if priced else ()
        s = low.declare(Sparsity("s", "W", items)).name
        y = low.declare(Dual("y", s, "non-negative")).name
        z = low.declare(Multipliers("z", s, found, weights)).name
        chosen = low.declare(Selection("I", s)).name
        past = self._past(y, z, low)
        by = low.optimizer(("W", "rest"))
        saddle = self._saddle(s, y, z, chosen, by, past, found[: len(bounded)], low)
        move = Confine("W", chosen, by) if self.hard else Shrink("W", chosen, y, by)
        loop = low.descend(("W", "rest"), after=(Select(chosen, s, "W"), move, saddle), counted="W")
        cut = _cut(items, found[len(bounded) :], s, chosen, m, low) if priced else ()
        low.steps += [Start(s, y, z, SHARE, past), loop, *cut, *project, *end]

    def _past(self, y: str, z: str, low: Lowering) -> tuple[str, ...]:
        if self.update != "nupi":
            return ()
        return tuple(low.declare(Dual(f"ξ_{name}", name)).name for name in (y, z))

    def _saddle(
        self,
        s: str,
        y: str,
        z: str,
        chosen: str,
        by: str,
        past: tuple[str, ...],
        bounds: tuple[Resource, ...],
        low: Lowering,
    ) -> Saddle:
        n = _length(low)
        rates = [1.0 if f is None else evaluate(f, {}) for f in (self.s_rate, self.y_rate, self.z_rate)]
        rise = math.log(LAST_PULL / FIRST_PULL) / (RISE * n)
        least = min((r.bound / max(r.dense, 1) for r in bounds), default=1.0)
        return Saddle(
            Allocate(s, y, z, chosen, rates[0] * STRIDE, PACE / (self.arrival * n), SPARE * max(0.0, min(1.0, least))),
            AscendResidual(y, chosen, by, rates[1] * rise, RESIDUE, FIRST_PULL, LAST_PULL),
            AscendBudgets(z, s, y, rates[2] * GAIN[self.update] / max(1, len(bounds)), self.arrival),
            self.update,
            past,
        )


def _length(low: Lowering) -> float:
    """Optimizer steps of the stage."""
    length = evaluate(low.stage.duration.value, {})
    return max(1.0, length * low.batches if low.stage.duration.unit == "epochs" else length)


def _priced(term: Term) -> Constraint:
    """A penalty as a budget of nothing, whose multiplier the objective gives."""
    return Constraint(term.text, term.function, Interval(upper=0), term.span, term.text)


def _weight(term: Term) -> Schedule:
    from prunelang.compiler.lowering import weight_of  # lowering knows solvers, so they cannot import it before

    return weight_of(term)


def _cut(
    items: tuple[Items, ...], priced: tuple[Resource, ...], s: str, chosen: str, m: str, low: Lowering
) -> tuple[Step, ...]:
    """What the selection of priced levels holds goes at the end: it has been pulled to next to nothing."""
    only = tuple(sorted({i for r in priced for i in r.levels()}))
    named = {t for i in only for t in items[i].tensors}
    of = view("P", tuple(t for t in low.constrained if t in named), low)
    return (Select(chosen, s, "W"), Confine("W", chosen, None, only), Retain(m, of))
