"""`Machine`: a graph's state on a device. Everything a run knows while it runs is here, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunelang.compiler import schedule as clock
from prunelang.compiler.graph import (
    Buffers,
    Copy,
    Dual,
    Factors,
    Feasible,
    Finish,
    Gates,
    Graph,
    Latent,
    Level,
    Loss,
    Multipliers,
    Optimizer,
    Rest,
    Selection,
    Sparsity,
    Support,
    TrainedLevel,
    Weights,
    walk,
)
from prunelang.compiler.graph.base import State
from prunelang.compiler.problem import Measured
from prunelang.runtime.cores import numbers

if TYPE_CHECKING:
    from prunelang.runtime.cores import Cores
    from prunelang.runtime.evaluate import Outcome
    from prunelang.runtime.price import Price
    from prunelang.runtime.standalone import Best
    from prunelang.runtime.surrogates import Surrogate
    from prunelang.runtime.synops import Activity

Event = Mapping[str, Any]
Criterion = Callable[[Tensor, Tensor, Tensor], Tensor]  # (outputs, inputs, targets) → a scalar, mean over predictions


class Samples(Protocol):
    """A split as it lies in memory."""

    @property
    def inputs(self) -> Tensor: ...

    @property
    def targets(self) -> Tensor: ...


class Feed(Protocol):
    """Batches of the train split in an order that depends on the seed and the epoch alone."""

    seed: int

    @property
    def split(self) -> Samples: ...

    def __len__(self) -> int: ...

    def epoch(self, index: int) -> Iterator[tuple[Tensor, Tensor]]: ...


def unmeasured(function: Measured) -> Any:
    """What a machine without data says when something is to be measured."""
    raise LookupError(f"this machine has no data to measure `{function.name}` on")


def inactive(*_: object) -> Any:
    """What a machine without a spiking network says when spikes are to be counted."""
    raise LookupError("this machine has no spiking network to count spikes in")


class NumericalFailure(Exception):
    """The run met a non-finite or diverging number and stopped; the weights are those of the last good boundary."""

    def __init__(self, message: str, where: str) -> None:
        super().__init__(message)
        self.where = where


class Interrupted(Exception):
    """The run was asked to stop; the weights are those of the last boundary."""


@dataclass
class Machine:
    """State by name: tensors of weights, copies, duals, latents and supports; levels; optimisers; clocks."""

    graph: Graph
    model: nn.Module
    feed: Feed
    criterion: Callable[[Loss], Criterion]
    observe: Callable[[Event], None] = lambda event: None
    measure: Callable[[Measured], Outcome] = unmeasured  # on the network as it is now
    each: Callable[[Measured], NDArray[np.float64] | None] = unmeasured  # the same, a value for each sample
    activity: Callable[[str], Activity] = inactive  # of a spiking network as it is now, on a split
    samples: Callable[[str], int] = inactive  # how many a split has
    stop: Callable[[], bool] = lambda: False
    values: dict[str, list[Tensor]] = field(default_factory=dict)
    levels: dict[str, float] = field(default_factory=dict)
    courses: dict[str, tuple[float, float, float, float]] = field(default_factory=dict)  # of steered levels
    steers: dict[str, tuple[float, float]] = field(default_factory=dict)  # (p, q) at the last steer, by level
    tables: dict[str, list[float]] = field(default_factory=dict)  # sums over the steps of a loop
    cuts: dict[tuple[str, ...], float] = field(default_factory=dict)  # ‖ΔW‖/‖W‖ of the last hit, by constraint labels
    optimizers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)
    clocks: dict[str, float] = field(default_factory=lambda: {"k": 0.0, "epoch": 0.0, "step": 0.0, "p": 0.0})
    stage_span: tuple[float, float] = (0.0, 1.0)  # of p, covered by the inner loop under way
    last_loss: float = float("nan")  # mean over the last epoch
    epochs: int = 0  # epochs of data drawn since the start: the order of each is (seed, epochs)
    seconds: dict[str, float] = field(default_factory=dict)
    gaps: dict[tuple[str, ...], float] = field(default_factory=dict)  # of the last projection, by constraint labels
    prices: dict[str, Price] = field(default_factory=dict)  # of budgets, in loss per unit, by constraint label
    cache: dict[tuple[int, int], Any] = field(default_factory=dict)  # projections by step and part, with warm starts
    factors: dict[str, Tensor] = field(default_factory=dict)  # what composed tensors are made of, by name
    composed: bool = False  # the network is Δ(factors) as it stands
    cores: dict[str, Cores] = field(default_factory=dict)  # of the loop under way, by the state of factors
    splittings: dict[str, Any] = field(default_factory=dict)  # of block coordinate descent, by state of activations
    best: dict[str, Best] = field(default_factory=dict)  # by snapshot
    best_after: dict[str, float] = field(default_factory=dict)  # how many epochs each is into its loop
    good: dict[str, Tensor] = field(default_factory=dict)  # the network at the last good boundary
    good_factors: dict[str, Tensor] | None = None  # of that network; None where it is not composed
    entering: dict[str, Tensor] = field(default_factory=dict)  # the network that `base` speaks of, on the host
    bases: dict[tuple[str, str], float] = field(default_factory=dict)  # value of `base` by constraint and split
    starts: dict[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)  # the same, a value a sample
    highs: dict[tuple[str, str], float] = field(default_factory=dict)  # greatest values of a sample, of counts
    calibrations: dict[str, Surrogate] = field(default_factory=dict)  # of budgets that data decides, by state
    short: dict[str, float] = field(default_factory=dict)  # floors that the network entering a search misses: its value

    def __post_init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.tensors.update(self.model.named_parameters(remove_duplicate=False))
        self.tensors.update(self.model.named_buffers(remove_duplicate=False))
        self.nodes: dict[str, State] = {s.name: s for s in self.graph.state}
        trained: set[str] = set()
        for node in self.graph.state:
            self._born(node)
            if isinstance(node, Weights | Rest):
                trained |= set(node.tensors)
        for name, p in self.model.named_parameters():
            p.requires_grad_(name in trained)
        self.keep_good()

    def _born(self, node: State) -> None:
        match node:
            case Weights() | Rest() | Buffers():
                self.values[node.name] = [self.tensors[t] for t in node.tensors]
            case Copy() | Gates() | Latent():
                self.values[node.name] = [torch.zeros_like(w.detach()) for w in self.values[node.of]]
                if isinstance(node, Latent):
                    for theta in self.values[node.name]:
                        theta.requires_grad_(True)
            case Dual():
                shaped = (w.detach() for w in self.values[node.like])
                zeros = [torch.zeros_like(w) if node.each == "entry" else w.new_zeros(()) for w in shaped]
                self.values[node.name] = zeros
            case TrainedLevel():
                first = self.values[node.of][0].detach()
                self.values[node.name] = [first.new_zeros(len(self.values[node.of])).requires_grad_(True)]
            case Sparsity():
                self.values[node.name] = [self._numbers(len(node.items))]
            case Multipliers():
                self.values[node.name] = [self._numbers(len(node.resources))]
            case Selection():
                self.values[node.name] = [torch.zeros_like(self.values[node.of][0]) for _ in range(4)]
            case Support():
                self.values[node.name] = [torch.ones_like(w, dtype=torch.bool) for w in self.values[node.of]]
            case Factors():
                self.values[node.name] = []  # a projection writes them
            case Level():
                self.levels[node.name] = 0.0

    def _numbers(self, count: int) -> Tensor:
        """So many zeros in float64 beside the network."""
        return torch.zeros(count, dtype=torch.float64, device=next(iter(self.tensors.values())).device)

    @cached_property
    def feasible(self) -> Feasible:
        """What the program finishes in; no parts when it finishes in nothing."""
        found = [s.onto for s in walk(self.graph.program) if isinstance(s, Finish)]
        return found[0] if found else Feasible(())

    def names(self, state: str) -> tuple[str, ...]:
        """The tensor names behind a state of tensors."""
        node = self.nodes[state]
        if isinstance(node, Weights | Rest | Buffers):
            return node.tensors
        return self.names(node.like if isinstance(node, Dual) else node.of)  # type: ignore[attr-defined]  # all others have `of`

    def view(self, state: str, tensors: tuple[str, ...]) -> list[Tensor]:
        """The tensors of a state that stand for the given names, in their order."""
        by_name = dict(zip(self.names(state), self.values[state], strict=True))
        return [by_name[t] for t in tensors]

    def value(self, s: clock.Schedule) -> float:
        return clock.evaluate(s, self.clocks)

    def enter(self, name: str) -> torch.optim.Optimizer:
        """The optimizer of a loop: fresh at each entry, or kept."""
        node = self.nodes[name]
        assert isinstance(node, Optimizer)
        options = {k: v if isinstance(v, bool) else self.value(v) for k, v in node.options.items()}
        if node.policy == "kept" and name in self.optimizers:
            for group in self.optimizers[name].param_groups:
                group.update({k: v for k, v in options.items() if k in group})
            return self.optimizers[name]
        groups = [{"params": self.values[s], "name": s} for s in node.of if self.values[s]]
        self.optimizers[name] = build(node.algorithm, groups, options)
        return self.optimizers[name]

    def install(self, factors: Mapping[str, Tensor]) -> None:
        """New factors, whatever their shapes: numbers with a point are trained where a descent holds their state."""
        self.factors = dict(factors)
        for node in self.graph.state:
            if isinstance(node, Factors):
                self.values[node.name] = numbers(self.factors)

    def price(self, label: str) -> float | None:
        """Of a budget, in loss per unit; None where nothing states one."""
        return self.prices[label].value if label in self.prices else None

    def keep_good(self) -> None:
        """Remember the network as it is: called at boundaries where everything is finite."""
        with torch.no_grad():
            for name, t in self.tensors.items():
                if name in self.good:
                    self.good[name].copy_(t)
                else:
                    self.good[name] = t.detach().clone()
        self.good_factors = {n: t.detach().clone() for n, t in self.factors.items()} if self.composed else None

    def restore_good(self) -> None:
        with torch.no_grad():
            for name, t in self.tensors.items():
                t.copy_(self.good[name])
        self.composed = self.good_factors is not None
        if self.good_factors is not None:
            self.install({n: t.clone() for n, t in self.good_factors.items()})


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor that holds NaN or ±∞."""
    return next((n for n, t in tensors if t.is_floating_point() and not bool(torch.isfinite(t).all())), None)


def build(algorithm: str, groups: list[dict[str, Any]], options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """torch's optimizer of that name. Fused: one kernel per step, and a device flag can mask the update."""
    rest = dict(options)
    if algorithm == "sgd":
        sgd = torch.optim.SGD(groups, fused=True, **rest)
        if rest["momentum"]:  # v = 0: a first step that is masked would leave torch's own v unset
            for p in (p for group in groups for p in group["params"]):
                sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return sgd
    betas = (rest.pop("beta1"), rest.pop("beta2"))
    kind: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[algorithm]
    return kind(groups, betas=betas, fused=True, **rest)
