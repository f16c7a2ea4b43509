"""`reachability`: removal of weights that cannot influence the output.

    structural:       W_i ← 0 where no path of non-zero weights runs input → W_i → output; the output stays the same
    random_gradient:  W_i ← 0 where ∂L/∂W_i = 0 on every one of `draws` random batches

A unit that no input reaches is a constant. It moves into the next bias where that changes nothing, then its weights go.
Random gradients: Efficient compression of neural networks and datasets, arXiv 2505.17469. They also remove units that
are merely inactive on the batches drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from prunelang.compiler.graph import Reach
from prunelang.compiler.options import option
from prunelang.compiler.pruners.base import Pruner, removable
from prunelang.dsl.diagnostics import Diagnostic

if TYPE_CHECKING:
    from prunelang.compiler.lowering import Lowering
    from prunelang.compiler.plan import StagePlan


class Reachability(Pruner):
    word: ClassVar[str] = "reachability"
    doc: ClassVar[str] = "Removes weights that cannot influence the output: exactly, or by random gradients."
    reference: ClassVar[str] = "random gradients: Efficient compression of neural networks and datasets, 2505.17469"

    method: Literal["structural", "random_gradient"] = option(
        "structural: by paths of non-zero weights, exact; random_gradient: by gradients that are 0 on random batches",
        "structural",
    )
    draws: int = option("random batches of random_gradient", 3, ge=1, le=1000)

    @property
    def exact(self) -> bool:
        return self.method == "structural"

    def conditions(self, stage: StagePlan) -> Iterator[Diagnostic]:
        if self.exact and "draws" in self.model_fields_set:
            message = "`draws` is of `method = random_gradient`: paths of non-zero weights are no matter of chance"
            yield Diagnostic("P446", "error", message, stage.span, hint="leave `draws` out, or name that method")

    def lower(self, lowering: Lowering) -> None:
        low = lowering
        tensors, spared = removable(low.problem, low.constrained)
        if not tensors:
            return
        m = low.support("m", "W")
        if self.exact:
            low.steps.append(Reach("W", m, tensors, "rest", "data", spared=spared))
        else:
            losses = low.losses()
            low.steps.append(Reach("W", m, tensors, "rest", "data", self.method, self.draws, losses, spared))
