"""The ℓ1 problem that soft thresholding solves in effect, for `explain`.

With identity backward under sgd, weights that stay non-zero take heavy-ball steps on L + wd/2‖w‖² + μ_t‖w‖₁ with

    μ_t = Δd_t/η_t − β Δd_(t−1)/η_(t−1) + wd·d_t,

so (1 − β)Δd/η + wd·d where Δd/η is constant. "The coefficient" is the first part; the second is there with decay only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prunelang.compiler.optimizers import Sgd
from prunelang.compiler.schedule import Schedule, evaluate
from prunelang.compiler.thresholds import Shape, prefix_sums

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Coefficient:
    """μ at some moments of a stage: p, (1 − β)Δd/η, and wd·d."""

    p: float
    mu: float
    decay: float


def table(rate: Schedule, total: int, batches: int) -> list[float]:
    """The sums of a rate over a stage of `total` steps."""

    def at(epoch: float, step: float, p: float) -> float:
        return evaluate(rate, {"epoch": epoch, "step": step, "p": p, "k": 0.0})

    return prefix_sums(at, total, batches)


def coefficients(
    sgd: Sgd, sums: list[float], shape: Shape, reach: float, end: float, moments: tuple[float, ...] = SHARES
) -> Iterator[Coefficient]:
    """μ_t at shares of the rise, for a threshold that rises to `end`."""
    beta, decay = evaluate(sgd.momentum, {}), evaluate(sgd.weight_decay, {})
    total = len(sums) - 1
    last = max(0, int(reach * total + 1e-9) - 1)
    for share in moments:
        t = min(last, int(share * reach * total))
        d, after = (end * shape(i / total / reach) for i in (t, t + 1))
        eta = sums[t + 1] - sums[t]
        yield Coefficient(t / total, (1 - beta) * (after - d) / eta if eta else 0.0, decay * d)


def lines(sgd: Sgd, sums: list[float], shape: Shape, reach: float, end: float | None) -> Iterator[str]:
    """What `explain` prints; where a count decides the final threshold D, the coefficients are in units of D."""
    beta, decay = evaluate(sgd.momentum, {}), evaluate(sgd.weight_decay, {})
    formula = "Δd/η" if beta == 0 else f"(1 − {beta:g})·Δd/η"
    yield f"in effect minimises L + μ‖w‖₁ over the weights that are not zero, μ = {formula}"
    goal = "D, the threshold that leaves the count, and follows it from there" if end is None else f"D = {end:.6g}"
    yield f"d rises until p = {reach:g} to {goal}"
    found = list(coefficients(sgd, sums, shape, reach, 1.0 if end is None else end))
    unit = "·D" if end is None else ""
    yield "μ = " + ", ".join(f"{c.mu:.4g}{unit} (p = {c.p:.3g})" for c in found)
    if decay:
        shown = ", ".join(f"{c.decay:.4g}{unit}" for c in found)
        yield f"weight decay on θ adds {decay:g}·d to μ: {shown}"
