"""Steps that remove weights from the network as it is, and train nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from prunelang.compiler.graph.base import Step, Sync
from prunelang.compiler.graph.state import Loss


@dataclass(frozen=True)
class Bracket(Step):
    """``W ← W ⊙ 1[|W| ≥ ε]`` with f(ε) ≤ f(0) + δ|f(0)| < f(next), ε and next neighbouring magnitudes, both measured.

    f is the sum of `losses` on `split`. Only `tensors` take part; kept positions are narrowed to what stays.
    """

    of: str
    support: str
    tensors: tuple[str, ...]
    losses: tuple[Loss, ...]
    split: str
    delta: float
    spared: tuple[str, ...] = ()  # tensors of the same state that may not lose positions
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        f = " + ".join(x.text or x.name for x in self.losses)
        return (
            f"bracket {self.of} on {self.support}{_except(self.spared)}: largest ε with f(|{self.of}| ≥ ε) "
            f"≤ f + {self.delta:g}·|f|, f = {f} on {self.split}"
        )

    def reads(self) -> tuple[str, ...]:
        return (self.of,)

    def writes(self) -> tuple[str, ...]:
        return (self.of, self.support)


@dataclass(frozen=True)
class Reach(Step):
    """Removes positions of `tensors` that no path of non-zero weights joins to both the input and the output.

    `structural`: exactly. What a unit without a path from the input contributes is a constant; it moves into a bias
    among the tensors of `rest` where the network stays the same for every input.
    `random_gradient`: positions whose gradient of Σ `losses` is 0 in all of `draws` random batches.
    """

    of: str
    support: str
    tensors: tuple[str, ...]
    rest: str
    data: str
    method: Literal["structural", "random_gradient"] = "structural"
    draws: int = 0
    losses: tuple[Loss, ...] = ()
    spared: tuple[str, ...] = ()  # tensors of the same state that may not lose positions
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        head = f"reach {self.of} on {self.support}{_except(self.spared)}"
        if self.method == "structural":
            return f"{head}: remove what joins no input to the output, constants into {self.rest}"
        f = " + ".join(x.text or x.name for x in self.losses)
        return f"{head}: remove where ∇({f}) = 0 on {self.draws} random batches"

    def reads(self) -> tuple[str, ...]:
        return (self.of, self.rest, self.data)

    def writes(self) -> tuple[str, ...]:
        return (self.of, self.support, *((self.rest,) if self.method == "structural" else ()))


def _except(spared: tuple[str, ...]) -> str:
    return f" except {', '.join(spared)}" if spared else ""
