"""Steps: the instructions of a graph. Each stands for a sequence of torch calls that executor and emitter share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from prunelang.compiler.graph.base import Step, Sync
from prunelang.compiler.graph.coupling import Coupling
from prunelang.compiler.graph.state import Combination, Feasible, Loss, Penalty, Priced, Quadratic
from prunelang.compiler.graph.stopping import Saturated
from prunelang.compiler.schedule import Schedule


@dataclass(frozen=True)
class Assign(Step):
    """``target ← value``."""

    target: str
    value: Combination

    def line(self) -> str:
        return f"{self.target} ← {self.value}"

    def reads(self) -> tuple[str, ...]:
        return self.value.names()

    def writes(self) -> tuple[str, ...]:
        return (self.target,)


@dataclass(frozen=True)
class Project(Step):
    """``target ← Π_C(source)``; kept positions go to `support`.

    `over` is the coefficient μ of the pull: times the multiplier of a norm ball's projection it is the ball's price.
    A `final` one ends a solve: the history tells how much of the weights it removed. What composed tensors are made of
    goes to `factors`; with a `priced` cost it is ``argmin μ/2 ‖source − θ‖² + weight · cost(θ)`` over C.
    """

    target: str
    source: Combination
    onto: Feasible
    support: str | None = None
    over: str | None = None
    final: bool = False
    factors: str | None = None
    priced: Priced | None = None
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        marks = {p.exactness for p in self.onto.parts}
        price = f" + {self.priced}" if self.priced else ""
        mark = "   [gap certified]" if "gap" in marks else ""
        return f"{self.target} ← Π{self.onto}({self.source}){price}{mark}"

    def reads(self) -> tuple[str, ...]:
        return self.source.names()

    def writes(self) -> tuple[str, ...]:
        return (self.target, *(n for n in (self.support, self.factors) if n))


@dataclass(frozen=True)
class ProjectBalls(Step):
    """``target ← Π(target)`` for balls and boxes after every optimizer step: how finetune keeps sets that a support
    does not."""

    target: str
    onto: Feasible

    def line(self) -> str:
        return f"project {self.target}: {self.onto}"

    def reads(self) -> tuple[str, ...]:
        return (self.target,)

    def writes(self) -> tuple[str, ...]:
        return (self.target,)


@dataclass(frozen=True)
class Prox(Step):
    """``target ← prox_{α f/μ}(source)``: the penalty form of the splitting."""

    target: str
    source: Combination
    function: Literal["norm0", "norm1", "norm2", "norm2_squared", "group_norm1"]
    weight: Schedule
    over: str
    by: str = ""
    tensors: tuple[str, ...] = ()
    support: str | None = None
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        sign = {"norm0": "‖·‖₀", "norm1": "‖·‖₁", "norm2": "‖·‖₂", "norm2_squared": "‖·‖₂²"}.get(
            self.function, f"{self.function}(·, {self.by})"
        )
        return f"{self.target} ← prox{{{self.weight} {sign}/{self.over}}}({self.source})"

    def reads(self) -> tuple[str, ...]:
        return (*self.source.names(), self.over)

    def writes(self) -> tuple[str, ...]:
        return (self.target, *((self.support,) if self.support else ()))


@dataclass(frozen=True)
class Ascend(Step):
    """``dual ← dual − step·residual`` for the equality ``residual = 0`` (augmented Lagrangian)."""

    dual: str
    step: str
    residual: Combination

    def line(self) -> str:
        return f"{self.dual} ← {self.dual} − {self.step}({self.residual})"

    def reads(self) -> tuple[str, ...]:
        return (self.dual, self.step, *self.residual.names())

    def writes(self) -> tuple[str, ...]:
        return (self.dual,)


@dataclass(frozen=True)
class Descend(Step):
    """One optimizer step on ``Σ losses [+ quadratic] [+ penalties]``: data terms by autograd, the rest in closed form.

    A non-finite loss masks the whole update on the device. With `support` gradients outside it are zero.
    For `latents` in `of` the gradient with respect to what they write is handed to them.
    """

    of: tuple[str, ...]
    losses: tuple[Loss, ...]
    by: str
    quadratic: tuple[Quadratic, ...] = ()
    support: str | None = None
    latents: tuple[str, ...] = ()
    penalties: tuple[Penalty, ...] = ()
    couplings: tuple[Coupling, ...] = ()  # their gradients are taken at the same point; then all of it moves

    def line(self) -> str:
        closed = (*self.quadratic, *self.penalties, *self.couplings)
        f = " + ".join([*(x.text or x.name for x in self.losses), *map(str, closed)])
        on = f" on {self.support}" if self.support else ""
        jointly = "jointly: " if self.couplings else ""
        moved = "".join(f"; {c.update()}" for c in self.couplings)
        return f"{jointly}descend {', '.join(self.of)}{on}: {f}  by {self.by}{moved}; guard"

    def reads(self) -> tuple[str, ...]:
        extra = tuple(n for q in self.quadratic for n in (q.of, q.target, q.level))
        extra += tuple(n for x in self.penalties for n in (x.of, *x.level))
        extra += tuple(n for c in self.couplings for n in c.names())
        return (*self.of, self.by, *extra, *((self.support,) if self.support else ()), *self.latents)

    def writes(self) -> tuple[str, ...]:
        return (*self.of, self.by, *(n for c in self.couplings for n in c.moved()))


@dataclass(frozen=True)
class Record(Step):
    """A line of the history: mean loss of the epoch, constraints counted on `counted`, ‖of − copy‖. Changes nothing."""

    what: Literal["epoch", "outer", "stage"]
    stage: str
    counted: str | None = None
    copy: str | None = None
    of: str | None = None
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        distance = f", ‖{self.of} − {self.copy}‖" if self.copy else ""
        counts = f", constraints on {self.counted}" if self.counted else ""
        return f"record {self.what}: loss{counts}{distance}"

    def reads(self) -> tuple[str, ...]:
        return tuple(n for n in (self.counted, self.copy, self.of) if n)


@dataclass(frozen=True)
class Recalibrate(Step):
    """Statistics of batch normalisation from the train split, with the weights as they are (cumulative average)."""

    buffers: str
    batches: int
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        return f"recalibrate {self.buffers} on {self.batches} batches"

    def reads(self) -> tuple[str, ...]:
        return (self.buffers,)

    def writes(self) -> tuple[str, ...]:
        return (self.buffers,)


@dataclass(frozen=True)
class Finish(Step):
    """``W ← value``, composed tensors ``← Δ(factors)``, then exact joint feasibility, asserted by recount."""

    of: str
    value: Combination
    onto: Feasible
    support: str
    factors: str | None = None
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        composed = f", Δ({self.factors})" if self.factors else ""
        return f"finish {self.of} ← {self.value}{composed} ∈ {self.onto}"

    def reads(self) -> tuple[str, ...]:
        return (*self.value.names(), *((self.factors,) if self.factors else ()))

    def writes(self) -> tuple[str, ...]:
        return (self.of, self.support)


@dataclass(frozen=True)
class Certify(Step):
    """Save and recount from the saved file."""

    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        return "certify"


@dataclass(frozen=True)
class Batches(Step):
    """``for each batch × D``: the one inner loop. `each_epoch` runs at every epoch boundary, `settle` right before it:
    what a boundary needs so that the network counts as good.

    With `until` the test is made after each epoch, and D is the upper limit.
    """

    duration: Schedule
    unit: Literal["epochs", "steps"]
    body: tuple[Step, ...]
    data: str
    optimizer: str  # started afresh at the entry when its policy says so
    each_epoch: tuple[Step, ...] = ()
    until: Saturated | None = None
    settle: tuple[Step, ...] = ()

    def line(self) -> str:
        test = f", {self.until}" if self.until else ""
        return f"for each batch × {self.duration} {self.unit}{test}:"

    def reads(self) -> tuple[str, ...]:
        return (self.data, self.optimizer)

    def bodies(self) -> tuple[tuple[str, tuple[Step, ...]], ...]:
        return (("", self.body), ("settle:", self.settle), ("each epoch:", self.each_epoch))


@dataclass(frozen=True)
class Outer(Step):
    """``for k in 0..K``."""

    count: int
    body: tuple[Step, ...]
    levels: tuple[str, ...] = ()  # scheduled levels, evaluated at the head of each iteration

    def line(self) -> str:
        return f"for k in 0..{self.count - 1}:"

    def writes(self) -> tuple[str, ...]:
        return self.levels

    def bodies(self) -> tuple[tuple[str, tuple[Step, ...]], ...]:
        return (("", self.body),)


@dataclass(frozen=True)
class Phase(Step):
    """A stage of the spec."""

    name: str
    body: tuple[Step, ...]

    def line(self) -> str:
        return f"{self.name}:"

    def bodies(self) -> tuple[tuple[str, tuple[Step, ...]], ...]:
        return (("", self.body),)
