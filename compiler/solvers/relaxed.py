"""`drr` and `rl1`: descent on a relaxation of ‖·‖₀, then a cut that removes next to nothing.

    for each batch:
        descend W:  L(W) + α·R(W)        R = Σ(1 − e^(−β|w|))  or  ‖w‖₁
    W ← Π_C(W)                           [penalty form: W as it is]

α is the coefficient in the stationarity condition ∇L + α∇R = 0, in units of the loss per unit of R. Optimisers that
rescale gradients change the speed of the descent and not its stationary points; adamw's decay, which is decoupled, adds
a term of its own.

With ``‖w‖₀ ≤ κ`` and no α a closed loop raises α until what the projection would still remove is next to nothing.

Efficient compression of neural networks and datasets, arXiv 2505.17469.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, TypeGuard

from prunelang.compiler.graph import (
    Assign,
    Combination,
    Copy,
    Feasible,
    Finish,
    Part,
    Penalty,
    Project,
    Record,
    Retain,
    SteerPenalty,
    Step,
)
from prunelang.compiler.joint import Pinned, from_json
from prunelang.compiler.options import option
from prunelang.compiler.problem import Function, Measured, Problem, Term, VectorNorm, tensors_of
from prunelang.compiler.schedule import SCHEDULES, Schedule, clocks_of, evaluate
from prunelang.compiler.solvers.base import Refusal, Solver, Stopping
from prunelang.compiler.solvers.lc import FACTORED, TAKES
from prunelang.dsl.diagnostics import Diagnostic

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering
    from prunelang.compiler.plan import StagePlan

BALLS = ("norm1", "norm2", "norminf")
ALPHA_CLOCKS = ("epoch", "step", "p")
REACH = 0.7  # of the closed loop


class AbstractWeighed(Solver):
    """Descent on the loss and α times a stand-in for ‖·‖₀: α as given, of the objective, or steered to a count."""

    shrinks: ClassVar[bool] = True
    constraints: ClassVar[frozenset[tuple[str, str]]] = frozenset(
        pair for pair in TAKES - FACTORED if pair[0] not in BALLS
    )

    usual_residue: ClassVar[float] = 0.05

    alpha: Schedule | None
    reach: Schedule | None
    residue: Schedule | None

    @property
    def arrival(self) -> float:
        """The share of the stage at which a steered α arrives."""
        return REACH if self.reach is None else evaluate(self.reach, {})

    @property
    def aim(self) -> float:
        """The relative cut that a steered α aims at."""
        return self.usual_residue if self.residue is None else evaluate(self.residue, {})

    def beyond_pairs(self, problem: Problem) -> Iterator[Refusal]:
        yield from self.one_role_a_tensor(problem)

    def conflicts(self, stage: StagePlan, problem: Problem) -> Iterator[Diagnostic]:
        """An α said twice, or a closed loop's options without one."""
        penalised = [t for t in problem.objective.terms if not isinstance(t.function, Measured)]
        steered = self.alpha is None and any(c.structural for c in problem.constraints)
        if penalised and self.alpha is not None:
            message = "α is the coefficient of the penalty in the objective: as an option it would be said twice"
            yield Diagnostic("P435", "error", message, penalised[0].span, hint="leave the option out")
        if self.alpha is not None and not penalised and not any(c.structural for c in problem.constraints):
            message = "α has nothing to weigh: no count is constrained, and the objective holds no penalty"
            hint = "write it into the objective, for example `minimize L + α * ‖net.weights‖₀`"
            yield Diagnostic("P435", "error", message, stage.span, hint=hint)
        for name in ("reach", "residue"):
            if getattr(self, name) is not None and not steered:
                message = f"`{name}` belongs to the search for α under a count, and none is made here"
                hint = f"leave `{name}` out; α is sought where a count is constrained and no α given"
                yield Diagnostic("P435", "error", message, stage.span, hint=hint)

    def stopping(self, problem: Problem) -> Stopping | str:
        """Under a fixed α the loss with its penalty compares states; while α moves nothing does, and the last stays."""
        counted = any(c.structural for c in problem.constraints)
        if counted and self.alpha is None:
            since = self.arrival
            return Stopping(since) if since < 1.0 else "α is sought until the stage ends; give `reach` below 1"
        weights = [t.weight for t in problem.objective.terms if not isinstance(t.function, Measured)]
        weights += [] if self.alpha is None else [self.alpha]
        return Stopping(keeps=not any(clocks_of(w) for w in weights if isinstance(w, SCHEDULES)))


class AbstractRelaxed(AbstractWeighed):
    """A stand-in R for ‖·‖₀ whose gradient is added to that of the loss: `drr` and `rl1` differ in R."""

    function: ClassVar[Literal["drr", "norm1"]]

    def implied(self, stage: StagePlan, problem: Problem, batches: int) -> Iterator[str]:
        """What the stage descends on, where its α comes from, and what decoupled decay adds."""
        r = "‖w‖₁" if self.function == "norm1" else f"Σ(1 − e^(−{self.steepness:g}|w|))"
        if any(_is_drr(t.function) for t in problem.objective.terms):
            r = "Σ(1 − e^(−β|w|))"
        penalised = any(not isinstance(t.function, Measured) for t in problem.objective.terms)
        if self.alpha is not None:
            yield f"adds α {r} with α = {self.alpha}; what the constraints do not allow is cut off at the end"
        elif not penalised:
            goal = f"‖W − Π(W)‖/‖W‖ = {self.aim:g} at p = {self.arrival:g}"
            yield f"adds α {r}; α starts after the first epoch, and is steered to {goal}"
        else:
            yield f"adds α {r} with α of the objective; small weights stay until a `prune`"
        decay = getattr(stage.optimizer, "weight_decay", None)
        if stage.optimizer.word == "adamw" and decay is not None and evaluate(decay, {}) > 0:
            yield f"adamw's own decay of {decay} is decoupled: where the descent settles it adds a term to ∇L + α∇R"

    @property
    @abstractmethod
    def steepness(self) -> float:
        """β, for terms that do not state it; 1 where there is none. It is the slope of R at 0."""

    def lower(self, lowering: Lowering) -> None:
        low = lowering
        feasible = low.feasible()
        penalties = [self._of_term(t, low) for t in low.penalties]
        m = low.support("m", "W")
        left = [Retain(m, x.of) for x in penalties]
        under = [p for p in feasible.parts if thinned(p)]
        before: list[Step] = []
        each_epoch: list[Step] = []
        for i, part in enumerate(under):
            suffix = f"_{i + 1}" if len(under) > 1 else ""
            w = view(f"W{suffix}", thinned(part), low)
            if self.alpha is not None:
                penalties.append(Penalty(w, self.function, self.alpha, self.steepness))
                continue
            every = w if thinned(part) == part.tensors else view(f"V{suffix}", part.tensors, low)
            theta = low.declare(Copy(f"θ{suffix}", every)).name
            alpha, ago, cut = (low.level(f"{name}{suffix}") for name in ("α", "α_before", "cut"))
            penalties.append(Penalty(w, self.function, alpha, self.steepness))
            before += [Assign(level, Combination(())) for level in (alpha, ago, cut)]
            each_epoch += [
                Project(theta, Combination(((1, every, None),)), Feasible((part,))),
                self._steer((alpha, ago, cut), every, theta, low),
            ]
        whole = Combination(((1, "W", None),))
        low.steps += [
            *before,
            low.descend(("W", "rest"), penalties=tuple(penalties), each_epoch=tuple(each_epoch), counted="W"),
            *left,
            *((Project("W", whole, feasible, m, final=True),) if feasible.parts else ()),
            Finish("W", whole, feasible, m),
            Record("stage", "solve", "W"),
        ]

    def _steer(self, levels: tuple[str, str, str], of: str, copy: str, low: Lowering) -> SteerPenalty:
        optimizer = low.optimizer(("W", "rest"))
        aim = self.aim
        return SteerPenalty(*levels, of, copy, optimizer, self.arrival, aim, self.steepness, low.batches)

    def _of_term(self, term: Term, low: Lowering) -> Penalty:
        from prunelang.compiler.lowering import weight_of  # lowering knows solvers, so they cannot import it before

        taken = tensors_of(term.function)
        w = view(f"P_{low.penalties.index(term) + 1}", tuple(t for t in low.constrained if t in taken), low)
        beta = self.steepness
        if _is_drr(term.function):
            beta = float(dict(term.function.options)["beta"])
        return Penalty(w, self.function, weight_of(term), beta)


def _is_drr(function: Function) -> TypeGuard[VectorNorm]:
    return isinstance(function, VectorNorm) and function.name == "drr"


def view(name: str, tensors: tuple[str, ...], low: Lowering) -> str:
    """The weights of that name, or W itself if it is all of them."""
    return low.weights("W" if tensors == low.constrained else name, tensors)


def thinned(part: Part) -> tuple[str, ...]:
    """The tensors of a part that may lose weights: all but those that are pinned."""
    pinned = {t for b in from_json(part.bounds) if isinstance(b, Pinned) for t in b.tensors}
    return tuple(t for t in part.tensors if t not in pinned)


class Drr(AbstractRelaxed):
    word: ClassVar[str] = "drr"
    doc: ClassVar[str] = "Descent on the loss plus α·Σ(1 − e^(−β|w|)), a smooth stand-in for the number of weights."
    reference: ClassVar[str] = "Efficient compression of neural networks and datasets, arXiv 2505.17469"
    penalties: ClassVar[frozenset[str]] = frozenset({"count", "drr"})
    function: ClassVar[Literal["drr", "norm1"]] = "drr"

    alpha: Schedule | None = option(
        "α, loss per weight; left out under a count: raised until the count costs next to nothing",
        None,
        ge=0,
        clocks=ALPHA_CLOCKS,
    )
    beta: Schedule | None = option("β, steepness: weights well above 1/β are left alone; left out: 5", None, gt=0)
    reach: Schedule | None = option("share of the stage at which α is found; left out: 0.7", None, gt=0, le=1)
    residue: Schedule | None = option("‖W − Π(W)‖/‖W‖ aimed at there; left out: 0.05", None, gt=0, lt=1)

    def conflicts(self, stage: StagePlan, problem: Problem) -> Iterator[Diagnostic]:
        yield from super().conflicts(stage, problem)
        stated = next((t for t in problem.objective.terms if _is_drr(t.function)), None)
        if stated is not None and self.beta is not None:
            message = "β is stated by drr(w, β) in the objective: as an option it would be said twice"
            yield Diagnostic("P435", "error", message, stated.span, hint="leave the option out")

    @property
    def steepness(self) -> float:
        return 5.0 if self.beta is None else evaluate(self.beta, {})


class Rl1(AbstractRelaxed):
    word: ClassVar[str] = "rl1"
    doc: ClassVar[str] = "Descent on the loss plus α·‖w‖₁ by its subgradient; what is left is freed by `finetune`."
    reference: ClassVar[str] = "Efficient compression of neural networks and datasets, arXiv 2505.17469"
    penalties: ClassVar[frozenset[str]] = frozenset({"count", "norm1"})
    function: ClassVar[Literal["drr", "norm1"]] = "norm1"
    usual_residue: ClassVar[float] = 0.1  # below it ℓ1 takes too much from the weights that stay

    alpha: Schedule | None = option(
        "α, loss per unit of ‖w‖₁; left out under a count: raised until the count costs next to nothing",
        None,
        ge=0,
        clocks=ALPHA_CLOCKS,
    )
    reach: Schedule | None = option("share of the stage at which α is found; left out: 0.7", None, gt=0, le=1)
    residue: Schedule | None = option("‖W − Π(W)‖/‖W‖ aimed at there; left out: 0.1", None, gt=0, lt=1)

    @property
    def steepness(self) -> float:
        return 1.0
