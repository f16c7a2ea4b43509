"""`Program.bind`: what a program needs of a network, an optimizer and a loop that are not ours, checked before a step.

Every refusal is a `SpecError` with a code of its own; `prunelang.stepping` holds the stepper that comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn

from prunelang.compiler.given import GIVEN
from prunelang.compiler.graph import (
    Bracket,
    Calibrate,
    Evaluate,
    Graph,
    Join,
    KeepBest,
    Observe,
    Phase,
    Reach,
    Recalibrate,
    Rest,
    Search,
    Selection,
    Split,
    Step,
    Sweep,
    Tighten,
    Weights,
    walk,
)
from prunelang.compiler.lowering import lower
from prunelang.compiler.problem import Measured
from prunelang.dsl.diagnostics import Diagnostic, SpecError
from prunelang.dsl.spans import NOWHERE, Span
from prunelang.execution import RunOptions, Session
from prunelang.inputs import DTYPES, build, load_data
from prunelang.runtime import described
from prunelang.runtime import evaluate as measuring
from prunelang.runtime.data import Batches
from prunelang.runtime.spiking.state import at_rest
from prunelang.runtime.synops import SPIKING, meter

if TYPE_CHECKING:
    from prunelang.api import Program
    from prunelang.runtime.machine import Samples

Evaluate_ = Callable[[str, str], float]
Rates = Literal["optimizer", "spec"]


class Loader(Protocol):
    """Batches of training data, again and again: a `DataLoader`, or a list of ``(inputs, targets)``."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────

UNBINDABLE: Mapping[type[Step], str] = {
    Search: "it trains the network again and again to find the best bound",
    Split: "it moves whole layers over all training data",
    Sweep: "it moves whole layers over all training data",
    Join: "it moves whole layers over all training data",
}
"""Steps that take more than batches and epochs of somebody else's loop."""


def refusal(program: Program, code: str, message: str, hint: str | None = None, span: Span | None = None) -> SpecError:
    """The error, at the network's line unless it is about another."""
    where = program.plan.model.span if span is None else span
    return SpecError([Diagnostic(code, "error", message, where, hint=hint)], program.plan.source)


def require_bindable(program: Program, graph: Graph) -> None:
    """Raises P550 for a program with a step that somebody else's loop cannot drive."""
    for step in walk(graph.program):
        reason = UNBINDABLE.get(type(step))
        if reason is not None:
            where = next((s.span for s in program.plan.stages if s.solver is not None), NOWHERE)
            line = step.line().splitlines()[0]
            raise refusal(
                program, "P550", f"the step `{line}` cannot be driven by another loop: {reason}",
                "`run` this program, or take a solver whose steps are batches and epochs", where,
            )  # fmt: skip


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside what `torch.compile` or data parallelism has put around it."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def require_network(program: Program, graph: Graph, net: nn.Module) -> None:
    """Raises P551 unless names, shapes and types are those that the spec was checked with, and what it trains is
    trained."""
    own = dict((*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False)))
    for t in program.plan.table.tensors:
        found = own.get(t.name)
        if found is None:
            raise refusal(program, "P551", f"the network has no tensor `{t.name}`, which {program.plan.model.text} has")
        if tuple(found.shape) != t.shape:
            message = f"`{t.name}` is {_times(found.shape)}, and {_times(t.shape)} in {program.plan.model.text}"
            raise refusal(program, "P551", message)
        kind = str(found.dtype).removeprefix("torch.")
        if t.role != "buffer" and kind != t.dtype:
            hint = f'compile the spec with `dtype="{kind}"`' if kind in DTYPES else None
            raise refusal(program, "P551", f"`{t.name}` is {kind}, and the spec was checked for {t.dtype}", hint)
    known = {n for t in program.plan.table.tensors for n in (t.name, *t.aliases)}
    more = next((n for n, _ in net.named_parameters() if n not in known), None)
    if more is not None:
        raise refusal(program, "P551", f"the network has a tensor `{more}`, which {program.plan.model.text} has not")
    for name in _trained(graph):
        if not own[name].requires_grad:
            hint = "write `freeze` for it in the spec, or call `requires_grad_(True)` on it"
            raise refusal(program, "P551", f"`{name}` is not trained: its `requires_grad` is false", hint)


def require_optimizer(program: Program, graph: Graph, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raises P552 for an optimizer that does not hold what is trained, or cannot be stepped once a batch."""
    kind = type(optimizer).__name__
    if isinstance(optimizer, torch.optim.LBFGS):
        raise refusal(program, "P552", "LBFGS evaluates the loss several times a step; a program counts every step")
    held = {id(p) for g in optimizer.param_groups for p in g["params"]}
    own = dict(net.named_parameters(remove_duplicate=False))
    for name in _trained(graph):
        if id(own[name]) not in held:
            hint = "give it `net.parameters()`, after the network has been moved to its device"
            raise refusal(program, "P552", f"the optimizer does not hold `{name}`, which the spec trains", hint)
    keys = optimizer.param_groups[0]
    if any(isinstance(s, Selection) for s in graph.state) and not ("momentum" in keys or "betas" in keys):
        message = f"a minimax reads the step size of its optimizer, and {kind} has none that it knows"
        raise refusal(program, "P552", message, "take SGD, Adam or AdamW")


def require_same_algorithm(program: Program, optimizer: torch.optim.Optimizer) -> None:
    """Raises P552 where the rates of the spec are to be followed by an optimizer of another kind."""
    kinds = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
    for stage in program.plan.stages:
        trains = stage.pruner is None and stage.optimizer is not None
        wanted = kinds.get(stage.optimizer.word) if trains else None
        if wanted is not None and type(optimizer).__name__ != wanted:
            message = f"the spec's rates are those of {wanted}, and the optimizer is {type(optimizer).__name__}"
            raise refusal(program, "P552", message, 'leave `rates="spec"` out, or take that optimizer', stage.span)


def _trained(graph: Graph) -> list[str]:
    return [t for s in graph.state if isinstance(s, Weights | Rest) for t in s.tensors]


def _times(shape: Iterable[int]) -> str:
    return " × ".join(map(str, shape)) or "a single number"


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class LoaderFeed:
    """The training data of somebody else, for the few steps that read some between the stages."""

    def __init__(self, batches: int, seed: int, loader: Loader | None, device: torch.device) -> None:
        self.batches, self.seed, self.loader, self.device = batches, seed, loader, device

    def __len__(self) -> int:
        return self.batches

    @property
    def split(self) -> Samples:
        raise LookupError("a loader has no split that could be read whole")

    def epoch(self, index: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in islice(iter(self.loader or ()), start, None):
            x, y = batch
            yield x.to(self.device), y.to(self.device)


# ── the session ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Given:
    """What the owner of a loop hands over."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loader: Loader | None
    evaluate: Evaluate_ | None
    steps_per_epoch: int | None
    rates: Rates


class BoundSession(Session):
    """A plan with a network that is there already; data is read where something is measured on it."""

    def __init__(self, program: Program, given: Given, options: RunOptions) -> None:
        self.program, self.given = program, given
        self.plan, self.folder, self.options = program.plan, program.folder, options
        self.resumed = 0
        self.model = unwrapped(given.model)
        plan, device = self.plan, next(self.model.parameters()).device
        dtype = DTYPES[options.dtype]
        self.own_data = plan.data.constructor != GIVEN and given.evaluate is None
        if self.own_data:
            self.data = load_data(plan, program.folder, str(device), options.dtype)
        batches, size = self._sizes()
        self.graph = lower(plan, train_size=size, batches=batches)
        self.teachers = {t.name: build(t, plan, program.folder, str(device), dtype).eval() for t in plan.teachers}
        for teacher in self.teachers.values():
            teacher.requires_grad_(False)
        use_own = self.own_data and given.loader is None and given.steps_per_epoch is None
        if use_own:
            self.feed = Batches(self.data.train, plan.data.batch, options.seed)
        else:  # a machine reads nothing of it that a loader does not have
            self.feed = LoaderFeed(batches, options.seed, given.loader, device)  # type: ignore[assignment]  # as much of a feed as is read
        at_rest(self.model)
        if self.own_data:
            self.spikes = meter(self.model, self.data, plan.table)
            self._require_counted()
        self._require_measurable()

    def _sizes(self) -> tuple[int, int]:
        """Optimizer steps an epoch, and training samples."""
        given, batch = self.given, self.plan.data.batch
        if given.steps_per_epoch is not None:
            if given.steps_per_epoch < 1:
                raise refusal(self.program, "P553", f"`steps_per_epoch` is at least 1, not {given.steps_per_epoch}")
            steps = given.steps_per_epoch
        elif given.loader is not None:
            steps = _length(given.loader, self.program)
        elif self.own_data:
            steps = -(-len(self.data.train) // batch)
        else:
            hint = "give `loader`, or `steps_per_epoch`"
            raise refusal(self.program, "P553", "how many steps an epoch has is not known", hint)
        samples = getattr(given.loader, "dataset", None)
        try:
            size = len(self.data.train) if self.own_data else len(samples)  # type: ignore[arg-type]  # caught
        except TypeError:
            size = steps * batch
        return steps, size

    def _require_measurable(self) -> None:
        """Raises P554 where something is to be measured or read and there is nothing to do it on."""
        if self.own_data:
            return
        asked = [(c.label, c.function, c.span) for c in self.plan.problem.constraints]
        for label, function, span in asked:
            if isinstance(function, Measured) and function.name != "bytes":
                message = f"`{label}` is certified on the {function.split} split, and no data set is registered for it"
                raise refusal(self.program, "P554", message, "register the data set and name it in `data`", span)
        for item in self.plan.report:
            if isinstance(item.function, Measured) and item.function.name in (*SPIKING, "description_length"):
                raise refusal(self.program, "P554", f"`{item.title}` needs samples, and no data set is registered")
        for step in walk(self.graph.program):
            if isinstance(step, Calibrate | Tighten):
                hint = "register the data set and name it in `data`"
                raise refusal(self.program, "P554", f"`{step.line()}` counts spikes, and there are no data", hint)
            if isinstance(step, Recalibrate | Reach) and self.given.loader is None:
                raise refusal(
                    self.program, "P554", f"`{step.line()}` reads training data, and there are none", "give `loader`"
                )
            measures = isinstance(step, Evaluate | KeepBest | Bracket | Observe)
            if measures and self.given.evaluate is None:
                raise refusal(self.program, "P554", f"`{step.line()}` has nothing to measure with", "give `evaluate`")
        measured = [
            r.title for r in self.plan.report if isinstance(r.function, Measured) and r.function.name != "bytes"
        ]
        if measured and self.given.evaluate is None:
            raise refusal(
                self.program, "P554", f"the report asks for `{measured[0]}`, and nothing measures it", "give `evaluate`"
            )

    def measure(self, function: Measured) -> measuring.Outcome:
        if self.own_data:
            return super().measure(function)
        if function.name in described.NAMES:
            return described.measure(function, self.model, self.plan.table, "", self.measure)
        if self.given.evaluate is None:
            raise LookupError(f"nothing measures `{function.name}`")  # refused before the first step
        training = self.model.training
        self.model.eval()
        try:
            value = float(self.given.evaluate(function.name, function.split))
        finally:
            self.model.train(training)
        return measuring.Outcome(function.name, function.split, value, 1, "", function.unit)


def _length(loader: Loader, program: Program) -> int:
    try:
        found = len(loader)
    except TypeError:
        found = 0
    if found < 1:
        message = "the loader does not say how many batches it has"
        raise refusal(program, "P553", message, "give `steps_per_epoch`")
    return found


def stages_of(graph: Graph) -> tuple[str, ...]:
    return tuple(s.name for s in graph.program if isinstance(s, Phase))


__all__ = ["BoundSession", "Given", "Loader", "Rates", "require_bindable", "unwrapped"]
