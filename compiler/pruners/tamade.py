"""`tamade`: removal of the smallest weights, up to a rise of the loss.

    f(ε) = L(W ⊙ 1[|W| ≥ ε]) on the split, without penalties
    ε: f(ε) ≤ f(0) + δ|f(0)| < f(ε⁺)        ε⁺: one distinct magnitude further

f is not monotone in ε, so the pair is found by bisection over the distinct magnitudes and both sides are measured.
Efficient compression of neural networks and datasets, arXiv 2505.17469.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from prunelang.compiler.graph import Bracket
from prunelang.compiler.options import number, option
from prunelang.compiler.pruners.base import Pruner, removable
from prunelang.compiler.schedule import Schedule, evaluate

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering


class Tamade(Pruner):
    word: ClassVar[str] = "tamade"
    doc: ClassVar[str] = "Removes the smallest weights: as many as the loss of a split allows within a share δ."
    reference: ClassVar[str] = "Efficient compression of neural networks and datasets, arXiv 2505.17469"

    delta: Schedule = option("δ, share by which the loss may rise", number("0.01"), ge=0)
    on: Literal["validation", "train"] = option("split on which the loss is measured", "validation")

    @property
    def splits(self) -> tuple[str, ...]:
        return (self.on,)

    def lower(self, lowering: Lowering) -> None:
        low = lowering
        tensors, spared = removable(low.problem, low.constrained)
        if not tensors:
            return
        delta = evaluate(self.delta, {})
        m = low.support("m", "W")
        low.steps.append(Bracket("W", m, tensors, low.losses(), low.watched(self.on), delta, spared))
