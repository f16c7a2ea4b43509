"""Projection onto budgets of channels together with the other bounds on the same tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from prunelang.compiler.joint import Bound, ChannelBound, only_counts
from prunelang.runtime.prox.channels import best_channels
from prunelang.runtime.prox.joint import JointProjection
from prunelang.runtime.prox.nested import NestedProjection
from prunelang.runtime.prox.structure import kept_energy


class StructuredProjection(JointProjection):
    """Whole channels first, then the rest inside what they leave: feasible, with a certified gap.

    The gap is what the better of two relaxations leaves: channels alone, and the other bounds alone.
    """

    def __init__(self, constraints: Sequence[Bound], shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(constraints, shapes)
        self.channels = [b for b in constraints if isinstance(b, ChannelBound)]
        self._selects = False  # selection works in place, and the values are needed twice

    def _masks(self, values: Mapping[str, Tensor], alive: dict[str, Tensor]) -> tuple[dict[str, Tensor], float]:
        kept = best_channels(self.channels, values, alive)
        live = {**alive, **{t: m & alive[t] if t in alive else m for t, m in kept.masks.items()}}
        masks, _ = super()._masks(values, live)
        others = self.counted or self.groups
        if not others and kept.bound == kept.energy:
            return masks, 0.0
        rest = sum(kept_energy(v, alive.get(t)) for t, v in values.items() if t not in kept.masks)
        bounds = [kept.bound + rest]
        if others:
            free, gap = super()._masks(values, dict(alive))
            bounds.append(sum(kept_energy(v, free[t]) for t, v in values.items()) + gap)
        return masks, max(0.0, min(bounds) - sum(kept_energy(v, masks[t]) for t, v in values.items()))


def projection(constraints: Sequence[Bound], shapes: Mapping[str, tuple[int, ...]]) -> NestedProjection:
    """The projection for these bounds: with channels, of counts alone, or of anything else."""
    if any(isinstance(b, ChannelBound) for b in constraints):
        return StructuredProjection(constraints, shapes)
    return NestedProjection(constraints, shapes) if only_counts(constraints) else JointProjection(constraints, shapes)
