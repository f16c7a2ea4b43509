"""`ista`: soft-threshold pruning, in the variants of its papers.

    latent θ: W = S_d(θ) = sign(θ)(|θ| − d)₊, backward identity         [str: backward exact, d = σ(s) trained by layer]
    for each batch:
        descend θ: L(W)
        d ← d(clock)

For weights that stay non-zero this is the proximal gradient step for L + μ‖W‖₁ with μ = Δd/η; under momentum β and
decay wd the coefficient is (1 − β)Δd/η + wd·d. How d rises is the schedule of μ (`prunelang.compiler.thresholds`).

With ``‖w‖₀ ≤ κ`` a controller steers d to the threshold that leaves κ weights, and holds it. Without a count d rises to
the `D` given, or to μ·Σ η/(1 − β), and how many weights are left is an outcome.

A Unified Framework for Soft Threshold Pruning, ICLR 2023; STR: Kusupati et al., ICML 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from prunelang.compiler import implied
from prunelang.compiler.graph import (
    Aim,
    Assign,
    Combination,
    Feasible,
    Fill,
    Finish,
    Hit,
    Latent,
    Materialize,
    Offset,
    Part,
    Record,
    Retain,
    Rise,
    Steer,
    Step,
    Sums,
    Tabulate,
    TrainedLevel,
)
from prunelang.compiler.graph.thresholds import RiseName
from prunelang.compiler.optimizers import Optimizer, Sgd
from prunelang.compiler.options import number, option
from prunelang.compiler.problem import Constraint, Count, Interval, Measured, Problem, tensors_of
from prunelang.compiler.schedule import Apply, Schedule, constant, evaluate
from prunelang.compiler.solvers.base import Refusal, Solver, Stopping
from prunelang.compiler.thresholds import between, shape_of
from prunelang.dsl.diagnostics import Diagnostic
from prunelang.dsl.names import to_unicode

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering
    from prunelang.compiler.plan import StagePlan

Threshold = Literal["s_lats", "lats", "stds_sine", "stds_linear", "pgh", "str", "fixed"]
RISING = ("s_lats", "lats", "stds_sine", "stds_linear", "pgh")
# Which options belong to which thresholds; `reach` has a meaning of its own.
BELONGS: dict[str, tuple[str, ...]] = {"D": (*RISING, "fixed"), "mu": RISING, "beta": ("pgh",), "s": ("str",)}
DEFAULT_BETA = 0.1
DEFAULT_REACH = 0.5


@dataclass(frozen=True)
class Piece:
    """Tensors under thresholds of their own: a count to meet, or how far the threshold goes, or both."""

    tensors: tuple[str, ...]
    part: Part | None = None
    kappa: int | None = None
    mu: Schedule | None = None  # coefficient of ‖w‖₁
    end: float | None = None  # final threshold


class Ista(Solver):
    word: ClassVar[str] = "ista"
    doc: ClassVar[str] = (
        "Soft-threshold pruning: a rising threshold, steered to the count, or to a coefficient of ‖w‖₁."
    )
    reference: ClassVar[str] = "A Unified Framework for Soft Threshold Pruning, ICLR 2023; STR, ICML 2020"
    constraints: ClassVar[frozenset[tuple[str, str]]] = frozenset({("count", "upper"), ("entries", "dense")})
    penalties: ClassVar[frozenset[str]] = frozenset({"norm1"})

    threshold: Threshold | None = option(
        "how the threshold d rises; left out: lats under μ or α‖w‖₁, which keeps Δd/η constant, else s_lats", None
    )
    reach: Schedule | None = option(
        "share of the stage at which the rise ends; left out: 0.5 with a count, which is then held, else 1",
        None,
        gt=0,
        le=1,
    )
    D: Schedule | None = option("final threshold; then the number of weights is an outcome", None, ge=0)
    mu: Schedule | None = option(
        "μ, coefficient of ‖w‖₁ (its mean, weighted by the step size, unless the threshold is lats)", None, ge=0
    )
    beta: Schedule | None = option("β of pgh: μ falls as β^p under a cosine; left out: 0.1", None, gt=0, le=1)
    s: Schedule | None = option("s of str without a count: thresholds start at σ(s), and follow s in training", None)

    # ── what it takes ──

    def _name(self, penalised: bool) -> Threshold:
        """The threshold, or what stands for it where it is left out."""
        return self.threshold or ("lats" if penalised else "s_lats")

    def _reach(self, aimed: bool) -> float:
        return evaluate(self.reach, {}) if self.reach is not None else 1.0 if aimed else DEFAULT_REACH

    def _beta(self) -> float:
        return DEFAULT_BETA if self.beta is None else evaluate(self.beta, {})

    @property
    def sparsifies(self) -> bool:  # type: ignore[override]  # it depends on the options
        """Whether the options alone say how far to go."""
        return self.D is not None or self.mu is not None or (self.threshold == "str" and self.s is not None)

    def beyond_pairs(self, problem: Problem) -> Iterator[Refusal]:
        """One threshold serves one count or one penalty, over tensors of its own."""
        owner: dict[str, Constraint] = {}
        for c in problem.constraints:
            shared = next((t for t in tensors_of(c.function) if owner.setdefault(t, c) is not c), None)
            if c.structural and shared is not None:
                reason = (
                    f"`{self.word}` takes one constraint a tensor; `{shared}` is also under `{owner[shared].label}`"
                )
                yield Refusal(c, reason)
        yield from self._penalty_conflicts(problem, owner)
        counted = next((c for c in problem.constraints if c.structural and isinstance(c.set, Interval)), None)
        if counted is not None and self.s is not None:
            yield Refusal(counted, f"`{self.word}` finds the level of `s` from a count; leave `s` out")

    def _penalty_conflicts(self, problem: Problem, owner: dict[str, Constraint]) -> Iterator[Refusal]:
        penalised: set[str] = set()
        for term in problem.objective.terms:
            tensors = set(tensors_of(term.function))
            if isinstance(term.function, Measured):
                continue
            if self.threshold in ("str", "fixed"):
                yield Refusal(term, f"`threshold = {self.threshold}` minimises no penalty; lats does")
            elif self.D is not None or self.mu is not None:
                yield Refusal(term, "the coefficient of ‖w‖₁ is in the objective: leave out `D` and `μ`")
            if not tensors.isdisjoint(penalised):
                yield Refusal(term, f"`{self.word}` takes one penalty a tensor")
            if not tensors.isdisjoint(owner):
                yield Refusal(
                    term, f"`{self.word}` takes a tensor either under constraints or under a penalty, not both"
                )
            penalised |= tensors

    def conditions(self, stage: StagePlan) -> Iterator[Diagnostic]:
        """Options that the threshold has no use for, and μ under an optimizer that rescales gradients."""
        chosen = self._name(self.mu is not None)
        for name, owners in BELONGS.items():
            if getattr(self, name) is not None and chosen not in owners:
                message = f"`{to_unicode(name)}` has no meaning for `threshold = {chosen}`"
                whose = f"it is an option of {', '.join(owners)}"
                yield Diagnostic("P431", "error", message, stage.span, hint=whose)
        alone = chosen == "fixed" or (chosen == "str" and self.s is not None)
        if alone and self.reach is not None:
            message = "nothing rises over a share of the stage here: `reach` has no meaning"
            yield Diagnostic("P431", "error", message, stage.span, hint="leave it out")
        if self.D is not None and self.mu is not None:
            message = "`D` and `μ` both say how far the threshold goes"
            yield Diagnostic("P431", "error", message, stage.span, hint="give one of them")
        if self.mu is not None and not isinstance(stage.optimizer, Sgd):
            yield _no_coefficient(stage, "`μ`", "use sgd, or give the final threshold `D`")

    def conflicts(self, stage: StagePlan, problem: Problem) -> Iterator[Diagnostic]:
        """α‖w‖₁ has its coefficient only under sgd."""
        penalised = any(not isinstance(t.function, Measured) for t in problem.objective.terms)
        if penalised and not isinstance(stage.optimizer, Sgd):
            yield _no_coefficient(stage, "the coefficient of ‖w‖₁", "use sgd")

    def stopping(self, problem: Problem) -> Stopping | str:
        """A rise has to end first. Only a count makes states equally sparse; under D or μ the last one stays."""
        counted = any(c.structural and isinstance(c.set, Interval) for c in problem.constraints)
        penalised = any(not isinstance(t.function, Measured) for t in problem.objective.terms)
        aimed = self.D is not None or self.mu is not None or penalised
        held = counted and not aimed
        if self.threshold == "fixed" or (self.threshold == "str" and not counted):
            return Stopping(0.0, held)
        since = self._reach(aimed and self.threshold != "str")
        if since >= 1.0:
            return "the threshold rises until the stage ends; give `reach` below 1"
        return Stopping(since, held)

    def implied(self, stage: StagePlan, problem: Problem, batches: int) -> Iterator[str]:
        """The ℓ1 problem that is solved in effect, and μ at some moments."""
        from prunelang.compiler.lowering import weight_of  # lowering knows solvers, so they cannot import it before

        if self.threshold == "str":
            yield "each layer trains its threshold with the loss; no coefficient of ‖w‖₁ stands for that"
            return
        if self.threshold == "fixed":
            yield "μ = 0: the threshold is there from the start" + ("" if self.D else ", and then moves only to hold κ")
            return
        if not isinstance(stage.optimizer, Sgd):
            yield f"`{stage.optimizer.word}` rescales each weight's step: no one coefficient of ‖w‖₁ stands for d"
            return
        penalties = [weight_of(t) for t in problem.objective.terms if not isinstance(t.function, Measured)]
        length = max(1, round(evaluate(stage.duration.value, {})))
        total = length * batches if stage.duration.unit == "epochs" else length
        sums = implied.table(stage.optimizer.lr, total, batches)
        coefficients: list[Schedule | None] = [*penalties] if penalties else [self.mu]
        for mu in coefficients:
            name, reach = self._name(mu is not None), self._reach(self.D is not None or mu is not None)
            end = None if self.D is None else evaluate(self.D, {})
            if mu is not None:
                end = between(implied.table(_effective(mu, stage.optimizer), total, batches), reach)
            shape = shape_of(name, reach, self._beta(), sums)
            yield from implied.lines(stage.optimizer, sums, shape, reach, end)

    # ── the graph ──

    def lower(self, lowering: Lowering) -> None:
        low = lowering
        feasible = low.feasible()
        low.support("m", "W")
        pieces = self._pieces(feasible, low)
        built = [self._build(piece, f"_{i + 1}" if len(pieces) > 1 else "", low) for i, piece in enumerate(pieces)]
        latents = tuple(b.latent for b in built)
        trained = tuple(b.trained for b in built if b.trained)
        low.steps += [
            *(step for b in built for step in b.before),
            low.descend(
                (*latents, *trained, "rest"),
                latents=latents,
                after=tuple(step for b in built for step in b.each_step),
                each_epoch=tuple(step for b in built for step in b.each_epoch),
                counted="W",
            ),
            *(step for b in built for step in b.after),
            Finish("W", Combination(((1, "W", None),)), feasible, "m"),
            Record("stage", "solve", "W"),
        ]

    def _pieces(self, feasible: Feasible, low: Lowering) -> list[Piece]:
        from prunelang.compiler.lowering import weight_of  # lowering knows solvers, so they cannot import it before

        end = None if self.D is None else evaluate(self.D, {})
        budget = {c.label: c for c in low.problem.constraints}
        found = [Piece(p.tensors, p, _kappa(budget[p.labels[0]]), self.mu, end) for p in feasible.parts]
        found += [Piece(tensors_of(t.function), mu=weight_of(t)) for t in low.penalties]
        return found or [Piece(low.constrained, None, None, self.mu, end)]

    def _build(self, piece: Piece, suffix: str, low: Lowering) -> Built:
        w = low.weights(f"W{suffix}", piece.tensors)
        if self.threshold == "str":
            return _with_own_thresholds(self, piece, w, suffix, low)
        d = low.level(f"d{suffix}")
        latent = low.declare(Latent(f"θ{suffix}", w, d))
        rise, tables = self._rise(piece, suffix, low)
        start: list[Step] = [Assign(latent.name, Combination(((1, w, None),))), Assign(d, Combination(()))]
        if self.threshold == "fixed":
            start = [Offset(latent.name, w, d, piece.end, None if piece.end is not None else piece.kappa)]
        course: Step
        steered: tuple[Step, ...] = ()
        if piece.end is not None or piece.mu is not None:
            course = Aim(d, rise, piece.end, f"μΣη{suffix}" if piece.end is None else None)
        else:
            assert piece.kappa is not None and piece.part is not None
            course = Steer(d, latent.name, piece.kappa, rise, piece.part.labels[0])
            steered = (course,)
        return Built(
            latent.name,
            (*start, *tables, course),
            (Materialize(latent.name, w, d, rise, latent.threshold),),
            steered,
            (_end(latent, w, d, piece, aimed=not steered),),
        )

    def _rise(self, piece: Piece, suffix: str, low: Lowering) -> tuple[Rise, tuple[Step, ...]]:
        """The shape, and the tables that it or its end needs."""
        aimed = piece.end is not None or piece.mu is not None
        reach = self._reach(aimed)
        chosen = self._name(piece.mu is not None)
        if chosen == "fixed":
            return Rise("at_once", 1.0 if aimed else 0.0), ()
        table = None
        if piece.mu is not None and piece.end is None:
            table = self._table(f"μΣη{suffix}", _effective(piece.mu, low.stage.optimizer), low)
        elif chosen == "lats":
            table = self._table(f"Ση{suffix}", low.stage.optimizer.lr, low)
        steps = (Tabulate(table),) if table else ()
        beta = self._beta() if chosen == "pgh" else None
        shape: RiseName = chosen  # type: ignore[assignment]  # str never comes here
        return Rise(shape, reach, beta, table if chosen == "lats" else None), steps

    def _table(self, name: str, rate: Schedule, low: Lowering) -> str:
        duration = low.stage.duration
        return low.declare(Sums(name, rate, duration.value, duration.unit)).name


@dataclass(frozen=True)
class Built:
    """The steps of one piece, by where they go."""

    latent: str
    before: tuple[Step, ...]
    each_step: tuple[Step, ...]
    each_epoch: tuple[Step, ...]
    after: tuple[Step, ...]
    trained: str = ""


def _with_own_thresholds(solver: Ista, piece: Piece, w: str, suffix: str, low: Lowering) -> Built:
    """STR: a trained s for each tensor, d = σ(s). With a count d = ω·eˢ, s from 0, and ω is steered."""
    s = low.declare(TrainedLevel(f"s{suffix}", w)).name
    omega = low.level(f"ω{suffix}")
    latent = low.declare(Latent(f"θ{suffix}", w, omega, s, budget=piece.kappa is not None))
    theta = latent.name
    rise = Rise("s_lats", solver._reach(aimed=False)) if piece.kappa is not None else Rise("at_once")
    start = 0.0 if solver.s is None else evaluate(solver.s, {})
    before: list[Step] = [Assign(theta, Combination(((1, w, None),))), Fill(s, start), Assign(omega, Combination(()))]
    write = Materialize(theta, w, omega, rise, latent.threshold)
    steered: tuple[Step, ...] = ()
    if piece.kappa is not None and piece.part is not None:
        steered = (Steer(omega, theta, piece.kappa, rise, piece.part.labels[0]),)
        before += steered
    else:
        before += [Aim(omega, rise, 1.0), write]
    return Built(theta, tuple(before), (write,), steered, (_end(latent, w, omega, piece, aimed=False),), s)


def _end(latent: Latent, w: str, level: str, piece: Piece, *, aimed: bool) -> Step:
    if piece.part is None:
        return Retain("m", w)
    return Hit(latent.name, w, level, Feasible((piece.part,)), "m", aimed, latent.threshold)


def _effective(mu: Schedule, optimizer: Optimizer) -> Schedule:
    """μη/(1 − β): how far the threshold goes in a step for the coefficient to be μ under momentum β."""
    rate: Schedule = Apply("*", (mu, optimizer.lr))
    momentum = getattr(optimizer, "momentum", None)
    if momentum is None or momentum == number("0"):
        return rate
    return Apply("/", (rate, Apply("-", (constant(1), momentum))))


def _kappa(constraint: Constraint) -> int:
    """The largest number of kept positions that the count allows."""
    function, bound = constraint.function, constraint.set
    assert isinstance(function, Count) and isinstance(bound, Interval) and bound.upper is not None
    return int(bound.upper)


def _no_coefficient(stage: StagePlan, what: str, hint: str) -> Diagnostic:
    return Diagnostic(
        "P432",
        "error",
        f"{what} sets the threshold by the step size, which `{stage.optimizer.word}` rescales for each weight",
        stage.span,
        hint=hint,
    )
