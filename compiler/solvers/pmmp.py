"""`pmmp`: probabilistic minimax pruning. Every weight is gated by a Bernoulli variable whose probability is trained.

    w ← W;  γ ← 1;  u ← 0                [10⁻³ where α is steered]
    for each batch:
        jointly:
            descend W, w, γ:  L(W) + αΣγ + ⟨u, (W − wγ)² + w²γ(1 − γ)⟩
            ascend u
        clip γ to [0, 1], u to [0, cap]
    W ← Π_C(W)                           [penalty form: W as it is]

The bracket is E(W − wz)² for z ~ Bernoulli(γ): the constraint W = wz in the mean square, with a multiplier u for each
weight, or, since no term of a sum of squares can be negative, with one for their sum over a tensor. For W and u held,
its least value in w is at w = W, where it is W²(1 − γ), and that in γ is at γ = 1[u W² > α]: what is descended on is
L + Σ min(u W², α), a capped square that becomes α‖W‖₀ as u → ∞. α is the coefficient in units of loss per weight.

Under a fixed α the number of weights depends on how far u has risen: √(α/u) is the magnitude below which weights are
pulled to 0. Under a count α is therefore steered, by the ranks of u W².

Efficient compression of neural networks and datasets, arXiv 2505.17469, Corollary 2.4.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Literal

from prunelang.compiler.checking.numbers import times
from prunelang.compiler.graph import (
    Assign,
    Combination,
    Copy,
    Coupling,
    Dual,
    Feasible,
    Fill,
    Finish,
    Gates,
    Optimizer,
    Project,
    Record,
    SteerGates,
    Step,
)
from prunelang.compiler.optimizers import Adam
from prunelang.compiler.options import option
from prunelang.compiler.problem import Problem
from prunelang.compiler.schedule import Schedule, constant, evaluate
from prunelang.compiler.solvers.base import Stopping
from prunelang.compiler.solvers.lc import weighed
from prunelang.compiler.solvers.relaxed import ALPHA_CLOCKS, AbstractWeighed, thinned, view

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering

REACH, RESIDUE = 0.5, 0.05  # of the closed loop
FIRST = 1e-3  # u where α is steered by it
WAY = 4.0  # that a gate, or u, could go in the stage at Adam's pace


class Pmmp(AbstractWeighed):
    word: ClassVar[str] = "pmmp"
    doc: ClassVar[str] = "Minimax over weights, gates in [0, 1] and multipliers that tie each weight to its gate."
    reference: ClassVar[str] = "Efficient compression of neural networks and datasets, arXiv 2505.17469"
    penalties: ClassVar[frozenset[str]] = frozenset({"count"})

    alpha: Schedule | None = option(
        "α, loss per weight; left out under a count: steered, so that the gates close on all but the count",
        None,
        ge=0,
        clocks=ALPHA_CLOCKS,
    )
    update: Literal["simultaneous", "optimistic"] = option(
        "how u ascends: along its gradient r, or along 2r − r₋ with r₋ of the step before", "optimistic"
    )
    granularity: Literal["elementwise", "layerwise"] = option(
        "one u for each weight, or one for each layer's", "elementwise"
    )
    rate: Schedule | None = option(
        "Adam's step size of w and γ; left out: 4 over the number of steps, so that a gate has time to close",
        None,
        gt=0,
        clocks=ALPHA_CLOCKS,
    )
    dual_rate: Schedule | None = option(
        "Adam's step size of u; left out: 4 over the number of steps", None, gt=0, clocks=ALPHA_CLOCKS
    )
    cap: Schedule | None = option("largest u; left out: none", None, gt=0)
    reach: Schedule | None = option(
        "share of the stage at which a steered α arrives at the count; left out: 0.5", None, gt=0, le=1
    )
    residue: Schedule | None = option("‖W − Π(W)‖/‖W‖ aimed at from there on; left out: 0.05", None, gt=0, lt=1)

    @property
    def arrival(self) -> float:
        return REACH if self.reach is None else evaluate(self.reach, {})

    def stopping(self, problem: Problem) -> Stopping | str:
        """Under a count the gates have arrived at `reach`. Under a given α they take the stage that they are given."""
        rule = super().stopping(problem)
        if isinstance(rule, Stopping) and not rule.since:
            return "its gates close over the whole stage; leave α to a count"
        return rule

    def lower(self, lowering: Lowering) -> None:
        low = lowering
        feasible = low.feasible()
        m = low.support("m", "W")
        couplings: list[Coupling] = []
        before: list[Step] = []
        each_epoch: list[Step] = []

        def couple(tensors: tuple[str, ...], name: str, suffix: str, weight: Schedule | str) -> Coupling:
            coupling = self._coupling(view(f"{name}{suffix}", tensors, low), suffix, weight, low)
            couplings.append(coupling)
            before.extend(_start(coupling, FIRST if isinstance(weight, str) else 0.0))
            return coupling

        under = [p for p in feasible.parts if thinned(p)]
        for i, part in enumerate(under):
            suffix = f"_{i + 1}" if len(under) > 1 else ""
            if self.alpha is not None:
                couple(thinned(part), "W", suffix, self.alpha)
                continue
            alpha, share, cut = (low.level(f"{name}{suffix}") for name in ("α", "share", "cut"))
            coupling = couple(thinned(part), "W", suffix, alpha)
            whole = view(f"V{suffix}", part.tensors, low)
            theta = low.declare(Copy(f"θ{suffix}", whole)).name
            residue = RESIDUE if self.residue is None else evaluate(self.residue, {})
            steer = SteerGates(alpha, share, cut, coupling.of, theta, coupling.dual, self.arrival, residue)
            each = (Project(theta, Combination(((1, whole, None),)), Feasible((part,))), steer)
            before += [Assign(share, Combination(())), Assign(cut, Combination(())), *each]
            each_epoch += each
        for i, (tensors, weight) in enumerate(_terms(low)):
            couple(tensors, "P", f"_{len(under) + i + 1}", weight)
        w = Combination(((1, "W", None),))
        low.steps += [
            *before,
            low.descend(("W", "rest"), couplings=tuple(couplings), each_epoch=tuple(each_epoch), counted="W"),
            *((Project("W", w, feasible, m, final=True),) if feasible.parts else ()),
            Finish("W", w, feasible, m),
            Record("stage", "solve", "W"),
        ]

    def _coupling(self, of: str, suffix: str, weight: Schedule | str, low: Lowering) -> Coupling:
        each: Literal["entry", "tensor"] = "entry" if self.granularity == "elementwise" else "tensor"
        w = low.declare(Copy(f"w{suffix}", of)).name
        gamma = low.declare(Gates(f"γ{suffix}", of)).name
        u = low.declare(Dual(f"u{suffix}", of, "non-negative", each)).name
        past = low.declare(Dual(f"r{suffix}", of, "non-negative", each)).name if self.update == "optimistic" else None
        own = constant(Fraction(f"{WAY / _length(low):.3g}"))
        by = low.declare(_adam(f"O_γ{suffix}", (w, gamma), self.rate or own)).name
        ascent = low.declare(_adam(f"O_u{suffix}", (u,), self.dual_rate or own)).name
        cap = None if self.cap is None else evaluate(self.cap, {})
        return Coupling(of, w, gamma, u, weight, by, ascent, past, cap)


def _start(c: Coupling, u: float) -> list[Step]:
    """``w ← W;  γ ← 1``, where the bracket is 0, and u. At u = 0 a steered α is 0 too, and nothing would move."""
    past = [Fill(c.past, 0.0)] if c.past else []
    return [Assign(c.copy, Combination(((1, c.of, None),))), Fill(c.gates, 1.0), Fill(c.dual, u), *past]


def _length(low: Lowering) -> float:
    """Optimizer steps of the stage."""
    length = evaluate(low.stage.duration.value, {})
    return max(1.0, length * low.batches if low.stage.duration.unit == "epochs" else length)


def _adam(name: str, of: tuple[str, ...], lr: Schedule) -> Optimizer:
    options = Adam(lr=lr)
    return Optimizer(name, of, options.word, {k: getattr(options, k) for k in Adam.model_fields})


def _terms(low: Lowering) -> list[tuple[tuple[str, ...], Schedule]]:
    """The penalties of the objective: tensors with the weight of one kept position in them."""
    from prunelang.compiler.lowering import weight_of  # lowering knows solvers, so they cannot import it before

    return [
        (tensors, times(constant(factor), weight_of(term)))
        for term in low.penalties
        for factor, tensors in weighed(term)
    ]
