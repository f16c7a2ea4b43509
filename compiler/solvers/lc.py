"""`lc` and `admm`: splitting with an augmented Lagrangian or a quadratic penalty.

    θ ← Π_C(W);  λ ← 0
    for k in 0 … K−1:
        descend W:  L(W) + μ/2‖W − θ − λ/μ‖²
        θ ← Π_C(W − λ/μ)              [penalty form: prox]
        λ ← λ − μ(W − θ)              [augmented form only]
    finish W ← θ

Carreira-Perpiñán & Idelbayev, "Learning-Compression" Algorithms for Neural Net Pruning, CVPR 2018;
Boyd et al., Distributed Optimization and Statistical Learning via ADMM, 2011.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Literal

from prunelang.compiler.graph import (
    Ascend,
    Assign,
    Combination,
    Copy,
    Dual,
    Feasible,
    Finish,
    Outer,
    Project,
    Prox,
    Quadratic,
    Record,
    Step,
)
from prunelang.compiler.optimizers import Sgd
from prunelang.compiler.options import option
from prunelang.compiler.problem import Count, Problem, Term, VectorNorm, tensors_of
from prunelang.compiler.schedule import SCHEDULES, Apply, Clock, Schedule, constant, evaluate
from prunelang.compiler.solvers.base import Refusal, Solver
from prunelang.dsl.diagnostics import Diagnostic

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering
    from prunelang.compiler.plan import StagePlan

TAKES = frozenset(
    {
        ("count", "upper"),
        ("count", "lower"),
        ("count", "both"),
        ("group count", "upper"),
        ("norm1", "upper"),
        ("norm2", "upper"),
        ("norminf", "upper"),
        ("entries", "dense"),
        ("entries", "n_of_m"),
        ("entries", "blocks"),
        ("entries", "box"),
        ("entries", "sparse"),
    }
)
# The pull of the penalty over one inner loop of N steps is about r = μ·N·lr/(1−β): the automatic schedule takes it from
# a nudge to a weld. The caps keep the penalty alone well inside its stable range.
FIRST_PULL, LAST_PULL, STABLE_SHARE = 0.05, 5.0, 0.25
# Adaptive methods rescale the pull with the gradient, so no such rule exists; this range was found on small networks.
ADAPTIVE = (0.01, 1.0)


class AbstractSplitting(Solver):
    """W trained under a quadratic pull towards a copy θ that is projected: `lc` and `admm` differ in their defaults."""

    outer: ClassVar[bool] = True
    constraints: ClassVar[frozenset[tuple[str, str]]] = TAKES
    penalties: ClassVar[frozenset[str]] = frozenset({"count", "norm1", "norm2", "group_norm1"})

    steps: int
    method: Literal["augmented", "penalty"]

    @property
    @abstractmethod
    def given(self) -> Schedule | None:
        """The penalty coefficient μ as the spec gives it."""

    @abstractmethod
    def automatic(self, first: float, last: float) -> Schedule:
        """The penalty coefficient between a nudge and a weld, for `steps` outer iterations."""

    def refusals(self, problem: Problem) -> Iterator[Refusal]:
        yield from super().refusals(problem)
        held = {t for c in problem.constraints if c.structural for t in tensors_of(c.function)}
        for term in problem.objective.terms:
            if not held.isdisjoint(tensors_of(term.function)):
                yield Refusal(term, f"`{self.word}` takes a tensor either under constraints or under a penalty, not both")

    def coefficient(self, stage: StagePlan, batches: int) -> Schedule:
        """μ as given, or the automatic schedule for this optimizer and length."""
        if self.given is not None:
            return self.given
        if not isinstance(stage.optimizer, Sgd):
            return self.automatic(*ADAPTIVE)
        lr, beta, limit = _step_size(stage.optimizer)
        length = evaluate(stage.duration.value, {"k": 0.0, "p": 0.0})
        inner = max(1.0, length * batches if stage.duration.unit == "epochs" else length)
        cap = STABLE_SHARE * limit / lr
        last = min(LAST_PULL * (1 - beta) / (lr * inner), cap)
        first = min(FIRST_PULL * (1 - beta) / (lr * inner), last)
        return self.automatic(first, last)

    def conditions(self, stage: StagePlan) -> Iterator[Diagnostic]:
        """lr·μ < 2(1+β) with heavy-ball momentum, < 2(1+β)/(1+2β) with Nesterov's: necessary for stability."""
        if self.given is None or not isinstance(stage.optimizer, Sgd):
            return
        beta = evaluate(stage.optimizer.momentum, {})
        nesterov = stage.optimizer.nesterov
        limit = stable_limit(beta, nesterov)
        for k in sorted({0, self.steps - 1, *range(0, self.steps, max(1, self.steps // 64))}):
            clocks = {"k": float(k), "p": k / self.steps, "epoch": 0.0, "step": 0.0}
            lr, mu = evaluate(stage.optimizer.lr, clocks), evaluate(self.given, clocks)
            if lr * mu >= limit:
                formula = "2(1 + β)/(1 + 2β)" if nesterov else "2(1 + β)"
                yield Diagnostic(
                    code="P430",
                    severity="error",
                    message="the step size is too large for this penalty coefficient: the descent cannot be stable",
                    span=stage.span,
                    notes=(
                        f"lr · μ = {lr:.4g} · {mu:.4g} = {lr * mu:.4g} at k = {k}",
                        f"it must stay below {formula} = {limit:.4g} with momentum β = {beta:g}",
                    ),
                    hint=f"at k = {k} either lr < {limit / mu:.4g} or μ < {limit / lr:.4g}",
                )
                return

    def lower(self, lowering: Lowering) -> None:
        low = lowering
        feasible, penalties = low.feasible(), low.penalties
        augmented = self.method == "augmented"
        low.declare(Copy("θ", "W"))
        low.declare(Copy("t", "W"))
        low.level("μ", self.coefficient(low.stage, low.batches))
        low.support("m", "W")
        if augmented:
            low.declare(Dual("λ", "W"))

        def compress(source: Combination) -> tuple[Step, ...]:
            steps: list[Step] = []
            if feasible.parts:
                steps.append(Project("θ", source, feasible, "m", "μ"))
            for term in penalties:
                function, by = penalty_function(term)
                weight = term.weight if isinstance(term.weight, SCHEDULES) else constant(term.weight)
                steps.append(Prox("θ", source, function, weight, "μ", by, tensors_of(term.function), "m"))
            return tuple(steps)

        w = Combination(((1, "W", None),))
        shifted = Combination(((1, "W", None), (-1, "λ", "μ"))) if augmented else w
        target = Combination(((1, "θ", None), (1, "λ", "μ"))) if augmented else Combination(((1, "θ", None),))
        # The penalty form has no θ before μ is known: it starts from W itself (at μ = 0 its prox would be 0).
        start: tuple[Step, ...] = (Assign("θ", w), *compress(w)[: 1 if feasible.parts else 0])
        body: list[Step] = [
            Assign("t", target),
            low.descend(("W", "rest"), quadratic=(Quadratic("W", "t", "μ"),)),
            *compress(shifted),
        ]
        if augmented:
            start = (*start, Assign("λ", Combination(())))
            body.append(Ascend("λ", "μ", Combination(((1, "W", None), (-1, "θ", None)))))
        body.append(Record("outer", "solve", "θ", "θ", "W"))
        low.steps += [
            *start,
            Outer(self.steps, tuple(body), ("μ",)),
            Finish("W", Combination(((1, "θ", None),)), feasible, "m"),
            Record("stage", "solve", "W"),
        ]


def stable_limit(beta: float, nesterov: bool) -> float:
    """The bound that lr·μ must stay below for the quadratic penalty alone to be stable under momentum β."""
    return 2 * (1 + beta) / (1 + 2 * beta) if nesterov else 2 * (1 + beta)


def _step_size(sgd: Sgd) -> tuple[float, float, float]:
    """lr at the start, β, and the stability limit of lr·μ."""
    start = {"k": 0.0, "p": 0.0, "epoch": 0.0, "step": 0.0}
    beta = evaluate(sgd.momentum, start)
    return evaluate(sgd.lr, start), beta, stable_limit(beta, sgd.nesterov)


def _rounded(value: float) -> Schedule:
    return constant(Fraction(f"{value:.3g}"))


def _geometric(first: float, last: float, steps: int) -> Schedule:
    """``first · a^k`` that arrives at `last` with the last iteration, in numbers short enough to read."""
    if steps == 1:
        return _rounded(last)
    a = constant(Fraction(f"{(last / first) ** (1 / (steps - 1)):.5g}"))
    return Apply("*", (_rounded(first), Apply("^", (a, Clock("k")))))


PenaltyFunction = Literal["norm0", "norm1", "norm2", "norm2_squared", "group_norm1"]


def penalty_function(term: Term) -> tuple[PenaltyFunction, str]:
    """The operator of a penalty, and the grouping it needs."""
    match term.function:
        case Count():
            return "norm0", ""
        case VectorNorm(name="norm1"):
            return "norm1", ""
        case VectorNorm(name="norm2", power=power):
            return ("norm2_squared" if power == 2 else "norm2"), ""
        case VectorNorm(name="group_norm1", options=options):
            return "group_norm1", str(dict(options)["by"])
    raise ValueError(f"no proximal operator for {term.text}")


class Lc(AbstractSplitting):
    word: ClassVar[str] = "lc"
    doc: ClassVar[str] = "Learning-Compression: alternates training under a quadratic pull with exact projection."
    reference: ClassVar[str] = "Carreira-Perpiñán & Idelbayev, CVPR 2018"

    mu: Schedule | None = option(
        "μ, penalty coefficient; left out: grows from a nudge to a weld, from the step size", None, gt=0, clocks=("k", "p")
    )
    steps: int = option("K, outer iterations", 40, ge=1, le=100_000)
    method: Literal["augmented", "penalty"] = option("augmented Lagrangian, or quadratic penalty (λ ≡ 0)", "augmented")

    @property
    def given(self) -> Schedule | None:
        return self.mu

    def automatic(self, first: float, last: float) -> Schedule:
        return _geometric(first, last, self.steps)


class Admm(AbstractSplitting):
    word: ClassVar[str] = "admm"
    doc: ClassVar[str] = "Alternating direction method of multipliers: `lc` with short inner work and constant ρ."
    reference: ClassVar[str] = "Boyd et al., Foundations and Trends in Machine Learning 3(1), 2011"

    rho: Schedule | None = option(
        "ρ, penalty coefficient; left out: constant, from the step size", None, gt=0, clocks=("k", "p")
    )
    steps: int = option("K, outer iterations", 100, ge=1, le=100_000)
    method: Literal["augmented", "penalty"] = option("augmented Lagrangian, or quadratic penalty (λ ≡ 0)", "augmented")

    @property
    def given(self) -> Schedule | None:
        return self.rho

    def automatic(self, first: float, last: float) -> Schedule:
        return _rounded((first * last) ** 0.5)
