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
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Literal

from prunelang.compiler.checking.numbers import NoValue, exactly, times
from prunelang.compiler.composed import folded
from prunelang.compiler.graph import (
    Ascend,
    Assign,
    Combination,
    Copy,
    Dual,
    Finish,
    Outer,
    Priced,
    Project,
    Prox,
    Quadratic,
    Record,
    Step,
)
from prunelang.compiler.optimizers import Sgd
from prunelang.compiler.options import option
from prunelang.compiler.problem import Choice, Count, FactorCost, Problem, Term, VectorNorm, tensors_of
from prunelang.compiler.schedule import Apply, Clock, Clocks, Schedule, constant, evaluate
from prunelang.compiler.solvers.base import Refusal, Solver
from prunelang.dsl.diagnostics import Diagnostic

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering
    from prunelang.compiler.plan import StagePlan

# What tensors may be made of: sets of factored tensors, and costs that their ranks and counts decide.
FACTORED = frozenset(
    {
        ("rank", "upper"),
        ("tt_rank", "upper"),
        ("nuclear", "upper"),
        ("entries", "low_rank"),
        ("entries", "tt"),
        ("entries", "codebook"),
        ("entries", "values"),
        ("entries", "scaled"),
        ("entries", "box"),
        ("entries", "sum"),
        ("entries", "sparse"),
        ("factor cost", "upper"),
    }
)
TAKES = frozenset(
    {
        ("count", "upper"),
        ("count", "lower"),
        ("count", "both"),
        ("weighted count", "upper"),
        ("weighted count", "lower"),
        ("weighted count", "both"),
        ("group count", "upper"),
        ("params", "upper"),
        ("macs", "upper"),
        ("flops", "upper"),
        ("norm1", "upper"),
        ("norm2", "upper"),
        ("norminf", "upper"),
        ("entries", "dense"),
        ("entries", "n_of_m"),
        ("entries", "blocks"),
    }
    | FACTORED
)
# The pull of the penalty over one inner loop of N steps is about r = μ·N·lr/(1−β): the automatic schedule takes it from
# a nudge to a weld. The caps keep the penalty alone well inside its stable range.
FIRST_PULL, LAST_PULL, STABLE_SHARE = 0.05, 5.0, 0.25
# Adaptive methods rescale the pull with the gradient, so no such rule exists; this range was found on small networks.
ADAPTIVE = (0.01, 1.0)


class AbstractSplitting(Solver):
    """W trained under a quadratic pull towards a copy θ that is projected: `lc` and `admm` differ in their defaults."""

    outer: ClassVar[bool] = True
    drives: ClassVar[bool] = True
    constraints: ClassVar[frozenset[tuple[str, str]]] = TAKES
    penalties: ClassVar[frozenset[str]] = frozenset(
        {"count", "weighted count", "norm1", "norm2", "group_norm1", "factor cost"}
    )

    steps: int
    method: Literal["augmented", "penalty"]

    @property
    @abstractmethod
    def given(self) -> Schedule | None:
        """The penalty coefficient μ as the spec gives it."""

    @abstractmethod
    def automatic(self, first: float, last: float) -> Schedule:
        """The penalty coefficient between a nudge and a weld, for `steps` outer iterations."""

    def beyond_pairs(self, problem: Problem) -> Iterator[Refusal]:
        for term in problem.objective.terms:
            if isinstance(term.function, Choice):
                yield Refusal(term, "the penalty of a cheapest format has no proximal operator; name the format")
        objective = problem.objective  # a price on ranks belongs to the sets that leave them free
        terms = tuple(t for t in objective.terms if not isinstance(t.function, FactorCost))
        yield from self.one_role_a_tensor(replace(problem, objective=replace(objective, terms=terms)))
        for term in [t for t in objective.terms if isinstance(t.function, FactorCost)][1:]:
            yield Refusal(term, f"`{self.word}` takes one cost of ranks in the objective")

    def coefficient(self, stage: StagePlan, batches: int) -> Schedule:
        """μ as given, or the automatic schedule for this optimizer and length."""
        if self.given is not None:
            return self.given
        if not isinstance(stage.optimizer, Sgd):
            return self.automatic(*ADAPTIVE)
        lr, beta, limit = _step_size(stage.optimizer, _moments(stage, self.steps, batches))
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
        beta, nesterov = exactly(stage.optimizer.momentum, {}), stage.optimizer.nesterov
        limit = stable_limit(beta, nesterov)
        for k in sorted({0, self.steps - 1, *range(0, self.steps, max(1, self.steps // 64))}):
            clocks = {"k": float(k), "p": k / self.steps, "epoch": 0.0, "step": 0.0}
            try:
                lr, mu = exactly(stage.optimizer.lr, clocks), exactly(self.given, clocks)
            except NoValue as error:
                message = f"the step size or the penalty coefficient has no value at k = {k}: {error}"
                yield Diagnostic("P227", "error", message, stage.span)
                return
            if lr * mu >= limit:
                formula = "2(1 + β)/(1 + 2β)" if nesterov else "2(1 + β)"
                shown, bound = float(lr * mu), float(limit)
                yield Diagnostic(
                    code="P430",
                    severity="error",
                    message="the step size is too large for this penalty coefficient: the descent cannot be stable",
                    span=stage.span,
                    notes=(
                        f"lr · μ = {float(lr):.4g} · {float(mu):.4g} = {shown:.4g} at k = {k}",
                        f"it must stay below {formula} = {bound:.4g} with momentum β = {float(beta):g}",
                    ),
                    hint=f"at k = {k} either lr < {float(limit / mu):.4g} or μ < {float(limit / lr):.4g}",
                )
                return

    def lower(self, lowering: Lowering) -> None:
        from prunelang.compiler.lowering import weight_of  # lowering knows solvers, so they cannot import it before

        low = lowering
        feasible, made = low.feasible(), low.factors()
        penalties = tuple(t for t in low.penalties if not isinstance(t.function, FactorCost))
        costs = [(t.function, weight_of(t)) for t in low.penalties if isinstance(t.function, FactorCost)]
        prices = [Priced(folded(cost, (), low.plan.table), weight) for cost, weight in costs]
        price = prices[0] if prices else None
        factors = made.name if made else None
        augmented = self.method == "augmented"
        theta, t = low.declare(Copy("θ", "W")).name, low.declare(Copy("t", "W")).name
        mu, m = low.level("μ", self.coefficient(low.stage, low.batches)), low.support("m", "W")
        dual = low.declare(Dual("λ", "W")).name if augmented else ""

        def compress(source: Combination, priced: Priced | None = None) -> tuple[Step, ...]:
            steps: list[Step] = []
            if feasible.parts:
                steps.append(Project(theta, source, feasible, m, mu, factors=factors, priced=priced))
            for term in penalties:
                function, by = penalty_function(term)
                for factor, tensors in weighed(term):
                    weight = times(constant(factor), weight_of(term))
                    steps.append(Prox(theta, source, function, weight, mu, by, tensors, m))
            return tuple(steps)

        w = Combination(((1, "W", None),))
        shifted = Combination(((1, "W", None), (-1, dual, mu))) if augmented else w
        target = Combination(((1, theta, None), (1, dual, mu))) if augmented else Combination(((1, theta, None),))
        # The penalty form has no θ before μ is known: it starts from W itself (at μ = 0 its prox would be 0).
        start: tuple[Step, ...] = (Assign(theta, w), *compress(w)[: 1 if feasible.parts else 0])
        body: list[Step] = [
            Assign(t, target),
            low.descend(("W", "rest"), quadratic=(Quadratic("W", t, mu),)),
            *compress(shifted, price),
        ]
        if augmented:
            start = (*start, Assign(dual, Combination(())))
            body.append(Ascend(dual, mu, Combination(((1, "W", None), (-1, theta, None)))))
        body.append(Record("outer", "solve", theta, theta, "W"))
        low.steps += [
            *start,
            Outer(self.steps, tuple(body), (mu,)),
            Finish("W", Combination(((1, theta, None),)), feasible, m, factors),
            Record("stage", "solve", "W"),
        ]


def stable_limit(beta: Fraction, nesterov: bool) -> Fraction:
    """The bound that lr·μ must stay below for the quadratic penalty alone to be stable under momentum β."""
    return 2 * (1 + beta) / (1 + 2 * beta) if nesterov else 2 * (1 + beta)


def _step_size(sgd: Sgd, moments: Iterable[Clocks]) -> tuple[float, float, float]:
    """The largest lr, β, and the stability limit of lr·μ."""
    beta = exactly(sgd.momentum, {})
    return max(evaluate(sgd.lr, m) for m in moments), float(beta), float(stable_limit(beta, sgd.nesterov))


def _moments(stage: StagePlan, steps: int, batches: int) -> Iterator[Clocks]:
    """The clocks at the ends of up to 65 inner loops and at seven points inside each."""
    for k in sorted({0, steps - 1, *range(0, steps, max(1, steps // 64))}):
        length = evaluate(stage.duration.value, {"k": float(k), "p": k / steps})
        total = length * batches if stage.duration.unit == "epochs" else length
        for u in range(9):
            step = min(total * u // 8, max(total - 1, 0.0))
            yield {"k": float(k), "p": (k + u / 8) / steps, "epoch": step // batches, "step": step}


def _rounded(value: float) -> Schedule:
    return constant(Fraction(f"{value:.3g}"))


def _geometric(first: float, last: float, steps: int) -> Schedule:
    """``first · a^k`` that arrives at `last` with the last iteration, in numbers short enough to read."""
    if steps == 1:
        return _rounded(last)
    a = constant(Fraction(f"{(last / first) ** (1 / (steps - 1)):.5g}"))
    return Apply("*", (_rounded(first), Apply("^", (a, Clock("k")))))


PenaltyFunction = Literal["norm0", "norm1", "norm2", "norm2_squared", "group_norm1"]


def weighed(term: Term) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The tensors of a penalty by what one kept position costs; only counts make a difference between tensors."""
    costs = term.function.coefficients if isinstance(term.function, Count) else {}
    groups: dict[int, list[str]] = {}
    for name in tensors_of(term.function):
        groups.setdefault(costs.get(name, 1), []).append(name)
    return ((cost, tuple(names)) for cost, names in groups.items())


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
        "μ, penalty coefficient; left out: grows from a nudge to a weld, from the step size",
        None,
        gt=0,
        clocks=("k", "p"),
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
