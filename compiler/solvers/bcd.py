"""`bcd`: block coordinate descent over a network split into its layers. No gradient of the network is ever taken.

    W ← drawn from the samples, or as it is;  Θ ← Π_C(W);  U_i ← W_i V_(i−1) + b_i;  V_i ← σ_i(U_i)
    for k in 0 … K−1:
        for i = N … 1:   V_i, U_i, (W_i, b_i), Θ_i  ← argmin of L + (α/2)‖· − old‖², one by one, in closed form
        accept if L falls by λ‖ΔP‖², else keep P and raise α
    W_i ← Δ_i(Θ_i)

Zeng, Lau, Lin & Yao, Global Convergence of Block Coordinate Descent in Deep Learning, ICML 2019; Li et al., On Model
Compression for Neural Networks: Framework, Algorithm, and Convergence Guarantee, arXiv 2303.06815.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from prunelang.compiler.graph import (
    Activations,
    Block,
    Combination,
    Feasible,
    Finish,
    Join,
    Layers,
    Outer,
    Record,
    Split,
    Sweep,
)
from prunelang.compiler.graph.blocks import Store, Variable
from prunelang.compiler.options import number, option
from prunelang.compiler.problem import Constraint, Count, Measured, Named, Problem, Term
from prunelang.compiler.schedule import SCHEDULES, Apply, Clock, Schedule, evaluate, is_constant
from prunelang.compiler.solvers.base import Refusal, Solver
from prunelang.dsl.diagnostics import Diagnostic, FixIt
from prunelang.dsl.spans import NOWHERE

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering
    from prunelang.compiler.plan import StagePlan

LAYERWISE: tuple[Variable, ...] = ("V", "U", "W")
GROWING: Schedule = Apply("*", (number("0.001"), Apply("^", (number("10000"), Clock("p")))))  # W learns, then Δ(Θ)


class Bcd(Solver):
    word: ClassVar[str] = "bcd"
    doc: ClassVar[str] = "Block coordinate descent over layers: closed forms, no gradients, a certified decrease."
    reference: ClassVar[str] = "Zeng, Lau, Lin & Yao, ICML 2019; Li et al., arXiv 2303.06815"
    outer: ClassVar[bool] = True
    descends: ClassVar[bool] = False
    constraints: ClassVar[frozenset[tuple[str, str]]] = frozenset(
        {
            ("count", "upper"),
            ("rank", "upper"),
            ("tt_rank", "upper"),
            ("entries", "low_rank"),
            ("entries", "tt"),
            ("entries", "dense"),
        }
    )
    penalties: ClassVar[frozenset[str]] = frozenset()

    steps: int = option("iterations: passes over the training samples and all blocks", 100, ge=1, le=100_000)
    gamma: Schedule = option("weight of ‖V − σ(U)‖²; of hidden layers in units of the layers behind", number("1"), gt=0)
    rho: Schedule = option("weight of ‖U − W V − b‖²; in the same units", number("1"), gt=0)
    tau: Schedule | None = option(
        "weight of ‖W − Δ(Θ)‖², times ρ and the mean square of an input; left out: 0.001 · 10 000^p",
        None,
        gt=0,
        clocks=("k", "p"),
    )
    omega: Schedule = option("weight of ‖W‖², times ρ and the mean square of an input", number("0.001"), ge=0)
    alpha: Schedule = option("proximal weight: of activations times γ, of W and Θ a thousandth", number("0.1"), gt=0)
    inner: int = option("turns of W and Θ of a compressed layer in one iteration", 5, ge=1, le=1000)
    start: Literal["samples", "weights"] | None = option(
        "W drawn from the samples, or as it is; left out: as it is after another stage or from a file, else drawn",
        None,
    )
    store: Store = option("where the activations of all samples lie", "device")
    chunk: int | None = option("samples at a time; left out: what 128 MiB hold", None, ge=1)

    def beyond_pairs(self, problem: Problem) -> Iterator[Refusal]:
        terms = problem.objective.terms
        for term in terms:
            if not _is_squared_error(term):
                yield Refusal(term, "its blocks have closed forms for `mse(net)` alone")
            elif isinstance(term.weight, SCHEDULES) and not is_constant(term.weight):
                yield Refusal(term, "`bcd` takes no coefficient that follows the clocks")
        for extra in terms[1:] if all(map(_is_squared_error, terms)) else ():
            yield Refusal(extra, "`bcd` takes one data term")
        if not terms:
            yield Refusal(None, "its blocks have closed forms for `mse(net)` alone, and there is nothing to minimise")
        for c in problem.constraints:
            if _has_free_ranks(c):
                yield Refusal(c, "`bcd` takes ranks that are given, and none that budgets choose")
            if isinstance(c.function, Count) and problem.frozen & set(c.function.coefficients):
                yield Refusal(c, "`bcd` counts entries of tensors that it trains alone")

    def conflicts(self, stage: StagePlan, problem: Problem) -> Iterator[Diagnostic]:
        """An objective that has no closed form, with what to write; frozen tensors."""
        for term in problem.objective.terms:
            f = term.function
            if isinstance(f, Measured) and f.name in ("cross_entropy", "nll", "distill") and term.span != NOWHERE:
                message = f"`bcd` splits ½‖V_N − Y‖², and `{f.name}` is no such square"
                hint = "classes are one-hot encoded: the largest output still is the prediction"
                fix = FixIt(term.span, "mse(net)") if term.text.startswith(f.name) and f.name != "distill" else None
                yield Diagnostic("P491", "error", message, term.span, hint=hint, fixit=fix)
        if problem.frozen:
            names = ", ".join(f"`{n}`" for n in sorted(problem.frozen))
            message = f"`bcd` moves every kernel and bias of the network, and {names} may not move"
            yield Diagnostic("P492", "error", message, stage.span, hint="leave `freeze` out, or take another solver")

    def implied(self, stage: StagePlan, problem: Problem, batches: int) -> Iterator[str]:
        yield "minimises ½‖V_N − Y‖² + Σ γ/2 ‖V_i − σ(U_i)‖² + ρ/2 ‖U_i − W_i V_(i−1) − b_i‖² per sample"
        yield f"{self.steps} iterations, each over all training samples; no gradients, and no optimizer"

    def lower(self, lowering: Lowering) -> None:
        low = lowering
        feasible = low.feasible() if low.constrained else Feasible(())
        of = ("W", "rest") if low.constrained else ("rest",)
        tensors = tuple(t.name for t in low.plan.table.tensors if t.role in ("weight", "bias"))
        p = low.declare(Activations("P", "data", tensors, self.store, self.chunk)).name
        level, tau = low.level("α"), low.level("τ", self.tau or GROWING)
        gamma, rho, omega, alpha = (evaluate(s, {}) for s in (self.gamma, self.rho, self.omega, self.alpha))
        start = self.start or self._usual(low)
        blocks: list[Layers | Block] = [Layers(tuple(Block(p, v) for v in LAYERWISE))]
        if feasible.parts:
            blocks.append(Block(p, "Θ", tuple(t for part in feasible.parts for t in part.tensors)))
        sweep = Sweep(p, of, level, tau, self.inner, tuple(blocks))
        m = low.support("m", "W") if low.constrained else None
        factors = low.factors() if low.constrained else None
        made_of = factors.name if factors else None
        low.steps += [
            Split(p, of, feasible, gamma, rho, omega, alpha, level, start),
            Outer(self.steps, (sweep,), levels=(tau,)),
            Join(p, of, feasible, m, made_of),
        ]
        if m is not None:
            low.steps.append(Finish("W", Combination(((1, "W", None),)), feasible, m, made_of))
        low.steps.append(Record("stage", "solve", "W" if low.constrained else None))

    def _usual(self, low: Lowering) -> Literal["samples", "weights"]:
        stages = low.plan.stages
        first = next(i for i, s in enumerate(stages) if s is low.stage)
        return "weights" if first or low.plan.model.weights is not None else "samples"


def _is_squared_error(term: Term) -> bool:
    return isinstance(term.function, Measured) and term.function.name == "mse"


def _has_free_ranks(c: Constraint) -> bool:
    """A low rank or a train without a number: the budgets are to choose it."""
    free = isinstance(c.set, Named) and c.set.name in ("low_rank", "tt") and "r" not in dict(c.set.arguments)
    return free
