"""Spikes and synaptic operations of a spiking network, counted sample by sample and exactly.

    synops(x) = Σ_t Σ_l Σ_j spike_lj(x, t) · fanout_lj        spikes(x) = Σ_t Σ_l Σ_j spike_lj(x, t)

fanout_lj is the number of kept weights that read neuron j: in a linear layer the non-zeros of column j, in a
convolution those that meet position j as it slides, padding and strides included, which is ∂(Σ outputs)/∂x_j with the
mask in the place of the weights. A layer whose input is no whole number of spikes (an image, a mean over pooled spikes)
multiplies: its multiply-adds are counted apart.

Time stands before samples: activations are [T, N, …], [T·N, …], or [N, …] at one time step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunelang.compiler.problem import Measured
from prunelang.compiler.shapes import ShapeTable
from prunelang.runtime.data import Dataset
from prunelang.runtime.evaluate import Outcome

Array = NDArray[np.float64]
BATCH: Final = 256
PRODUCTS: Final = (F.linear, F.conv1d, F.conv2d, F.conv3d)
MAC_PICOJOULE, AC_PICOJOULE = 4.6, 0.9  # 32-bit floats, 45 nm, 0.9 V: Horowitz, ISSCC 2014


class Uncounted(Exception):
    """A layer multiplies in a way that is not counted; names it."""


@dataclass(frozen=True)
class Activity:
    """What a network did on a set of samples.

    `most_synops` and `most_spikes` are what one sample would cost if every neuron fired at every step: no sample can
    cost more, since layers between neurons (sums, pooling) pass on more spikes where more come in.
    """

    synops: Array  # a value for each sample
    spikes: Array
    by_tensor: Mapping[str, float]  # mean synaptic operations of a sample in each kernel that spikes reach
    macs: float  # multiply-adds of a sample in layers with analog input, zero weights skipped
    most_synops: float
    most_spikes: float

    def values(self, name: str) -> Array:
        """Of `synops`, `spikes` or `energy`, a value for each sample."""
        if name == "energy":
            return MAC_PICOJOULE * self.macs + AC_PICOJOULE * self.synops
        return self.synops if name == "synops" else self.spikes

    def total(self, name: str) -> float:
        """Of `synops`, `spikes` or `energy`, the sum over the samples."""
        return self.energy * len(self.synops) if name == "energy" else math.fsum(self.values(name).tolist())

    def most(self, name: str) -> float:
        """The greatest value of `synops` or `spikes` that a sample can have."""
        return self.most_synops if name == "synops" else self.most_spikes

    @property
    def energy(self) -> float:
        """Estimate in pJ: 4.6 for each multiply-add, 0.9 for each synaptic operation."""
        return MAC_PICOJOULE * self.macs + AC_PICOJOULE * float(self.synops.mean())


SPIKING: Final = ("synops", "spikes", "energy")
"""What is measured on spikes, and on nothing else."""


class Meter:
    """Counts on splits by name, and once only while the network stays the same. `kernels` are names of tensors."""

    def __init__(self, model: nn.Module, inputs: Callable[[str], Tensor], kernels: Sequence[str], steps: int) -> None:
        self.model, self.inputs, self.kernels, self.steps = model, inputs, kernels, steps
        self.known: dict[str, Activity] = {}
        self.then: dict[str, Tensor] = {}

    def on(self, split: str) -> Activity:
        """What the network as it is now does on a split."""
        own = self.model.state_dict()
        if not (self.then and all(torch.equal(t, self.then[name]) for name, t in own.items())):
            self.known.clear()
            self.then = {name: t.clone() for name, t in own.items()}
        if split not in self.known:
            self.known[split] = self._count(self.inputs(split))
        return self.known[split]

    def require(self) -> None:
        """Raises `Uncounted` unless every kernel is read in a way that is counted: one look at one sample, which draws
        no random number."""
        x = self.inputs("train")[:1]
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            self._count(x)

    def _count(self, inputs: Tensor) -> Activity:
        own = self.model.state_dict(keep_vars=True)
        return count(self.model, inputs, {name: own[name] for name in self.kernels}, self.steps)


def meter(model: nn.Module, data: Dataset, table: ShapeTable) -> Meter:
    """The meter of a network on a data set."""
    return Meter(model, lambda split: data[split].inputs, counted_kernels(table), table.steps)


def counted_kernels(table: ShapeTable) -> tuple[str, ...]:
    """The kernels whose reads are synaptic operations: those that a sample uses."""
    return tuple(dict.fromkeys(layer.weight for layer in table.layers if layer.uses))


def outcome(activity: Activity, function: Measured, digest: str) -> Outcome:
    """Of `synops`, `spikes` or `energy`, a mean over the samples of the split with that digest."""
    total = activity.total(function.name)
    return Outcome(function.name, function.split, total, len(activity.synops), digest, function.unit)


def is_neuron(module: nn.Module) -> bool:
    """Whether a module emits spikes: it has a firing threshold."""
    return hasattr(module, "v_threshold")


@torch.no_grad()
def count(model: nn.Module, inputs: Tensor, kernels: Mapping[str, Tensor], steps: int, batch: int = BATCH) -> Activity:
    """The activity of `model` on `inputs`, in evaluation mode, over its stored `kernels` by name.

    Errors: `Uncounted` where one of them is not read by a linear layer or convolution as torch calls them.
    """
    training = model.training
    model.eval()
    size = max(min(batch, len(inputs)), steps + 1)  # more samples than steps: no axis can be taken for the other
    totals = _Totals(kernels)
    try:
        for start in range(0, len(inputs), size):
            x = inputs[start : start + size]
            found = len(x)
            with _watching(model, totals.batch(x if found > steps else _repeated(x, steps + 1), found)) as padded:
                model(padded)
        unseen = [name for name in kernels if name not in totals.seen]
        if unseen:
            raise Uncounted(f"`{unseen[0]}` is not read by a linear layer or a convolution")
        top = totals.at_most()
        x = inputs[:size] if len(inputs) >= size else _repeated(inputs, size)
        with _watching(model, top.batch(x, size), firing=True) as full:
            model(full)
    finally:
        model.train(training)
    return totals.outcome(len(inputs), top)


def _repeated(x: Tensor, size: int) -> Tensor:
    """`size` samples: the given ones over and over."""
    return x[torch.arange(size, device=x.device) % len(x)]


# ── sums ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Totals:
    """Sums over batches. With `at_most` set, layers that spikes reach are counted at one spike or more an entry."""

    kernels: Mapping[str, Tensor]
    analog: set[str] = field(default_factory=set)
    ceiling: bool = False
    seen: set[str] = field(default_factory=set)
    synops: dict[str, list[Tensor]] = field(default_factory=dict)  # by kernel: samples of each call, in order
    spikes: list[Tensor] = field(default_factory=list)
    macs: dict[str, float] = field(default_factory=dict)  # by kernel: multiply-adds of all samples
    fanouts: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = {_storage(t): name for name, t in self.kernels.items()}
        self.x = torch.empty(0)
        self.real = 0

    def batch(self, x: Tensor, real: int) -> _Totals:
        """The next samples: the first `real` of x are to be counted."""
        self.x, self.real = x, real
        self.spikes.append(torch.zeros(real, dtype=torch.float64))
        for name in self.kernels:
            self.synops.setdefault(name, []).append(torch.zeros(real, dtype=torch.float64))
        return self

    def at_most(self) -> _Totals:
        """A fresh count of what these layers do when every neuron fires."""
        return _Totals(self.kernels, self.analog, True, fanouts=self.fanouts)

    def product(self, func: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any], out: Tensor) -> None:
        """One call of a linear layer or convolution."""
        named = (kwargs[k] for k in ("input", "weight")[len(args) :])
        x, weight, *rest = *args, *named
        name = self.names.get(_storage(weight))
        if name is None:
            return
        self.seen.add(name)
        if not self.ceiling and (_repeats(x, self.x) or not _is_whole(x)):
            self.analog.add(name)
        share = self.real / len(self.x)
        positions = out.numel() / weight.shape[0] * share
        self.macs[name] = self.macs.get(name, 0.0) + positions * int(torch.count_nonzero(weight))
        events = x.double().clamp(min=1.0) if self.ceiling else x.double()
        options = {k: v for k, v in kwargs.items() if k not in ("input", "weight", "bias")}
        key = (name, tuple(x.shape[1:]), repr(rest[1:]), repr(options))
        if key not in self.fanouts:
            self.fanouts[key] = fanout(func, x, weight, rest[1:], options)
        reads = self.fanouts[key]
        if func is F.linear:
            cost = events @ reads
        else:
            cost = events.flatten(1) @ reads.flatten()
        self.synops[name][-1] += self.by_sample(cost)

    def fired(self, out: Tensor) -> None:
        """The output of a neuron layer."""
        self.spikes[-1] += self.by_sample(out.double())

    def by_sample(self, values: Tensor) -> Tensor:
        """Sums for each sample over time and positions. Errors: `Uncounted` where no axis is that of the samples."""
        n = len(self.x)
        if values.shape[0] % n == 0:  # [N, …] or [T·N, …]
            summed = values.reshape(-1, n, values[0].numel()).sum((0, 2))
        elif values.dim() > 1 and values.shape[1] == n:  # [T, N, …]
            summed = values.reshape(len(values), n, -1).sum((0, 2))
        else:
            raise Uncounted(f"an activation of shape {tuple(values.shape)} has no axis for {n} samples")
        return summed[: self.real].cpu()

    def outcome(self, samples: int, top: _Totals) -> Activity:
        spiking = [name for name in self.kernels if name not in self.analog]
        found = {name: torch.cat(self.synops[name]) for name in spiking}
        total = sum(found.values(), torch.zeros(samples, dtype=torch.float64))
        most = sum(float(top.synops[name][0].max()) for name in spiking)
        return Activity(
            synops=total.numpy(),
            spikes=torch.cat(self.spikes).numpy(),
            by_tensor={name: float(values.mean()) for name, values in found.items()},
            macs=sum(v for name, v in self.macs.items() if name in self.analog) / samples,
            most_synops=most,
            most_spikes=float(top.spikes[0].max()),
        )


def fanout(
    func: Callable[..., Tensor], x: Tensor, weight: Tensor, rest: Sequence[Any], options: Mapping[str, Any]
) -> Tensor:
    """Kept weights that read each entry of one row of x: ∂(Σ outputs)/∂x at weights 1 where they are kept, else 0."""
    kept = (weight.detach() != 0).double()
    if func is F.linear:
        return kept.sum(0)
    with torch.enable_grad():
        one = torch.zeros(1, *x.shape[1:], dtype=torch.float64, device=x.device, requires_grad=True)
        (reads,) = torch.autograd.grad(func(one, kept, None, *rest, **options).sum(), one)
    return reads.round()


def _is_whole(x: Tensor) -> bool:
    """Whether all entries are whole numbers of spikes."""
    return bool(((x >= 0) & (x == x.floor())).all())


def _repeats(x: Tensor, data: Tensor) -> bool:
    """Whether x is the data itself: a view of it, or a copy for each time step of numbers beyond those of spikes."""
    if _storage(x) == _storage(data):
        return True
    if x.numel() % data.numel() or not bool((data > 1).any()):
        return False
    return bool((x.reshape(-1, data.numel()) == data.reshape(1, -1)).all())


def _storage(t: Tensor) -> int:
    return int(t.untyped_storage()._cdata)


# ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Products(TorchFunctionMode):
    """Hands every call of a linear layer or convolution on to the totals."""

    def __init__(self, totals: _Totals) -> None:
        super().__init__()
        self.totals = totals

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in PRODUCTS:
            self.totals.product(func, args, kwargs or {}, out)
        return out


@contextmanager
def _watching(model: nn.Module, totals: _Totals, firing: bool = False) -> Iterator[Tensor]:
    """The samples to give to the network while it is watched; with `firing` every neuron fires whatever it gets."""

    def fired(module: nn.Module, args: Any, out: Tensor) -> Tensor | None:
        out = torch.ones_like(out) if firing else out
        totals.fired(out)
        return out if firing else None

    handles = [m.register_forward_hook(fired) for m in model.modules() if is_neuron(m)]
    try:
        with _Products(totals):
            yield totals.x
    finally:
        for handle in handles:
            handle.remove()
