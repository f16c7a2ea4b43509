"""Measured functions: losses and metrics of a network over a whole split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunelang.compiler.graph import Loss
from prunelang.compiler.problem import Measured
from prunelang.compiler.schedule import constant
from prunelang.runtime import losses, registry
from prunelang.runtime.data import Dataset
from prunelang.runtime.machine import Criterion

BATCH = 1024
COUNTED = ("accuracy", "error", "bytes", "synops", "spikes")


@dataclass(frozen=True)
class Outcome:
    """A measured value: `total` over `count` predictions of the split with this `digest`."""

    name: str
    split: str
    total: float
    count: int
    digest: str
    unit: str = ""

    @property
    def value(self) -> float:
        return self.total / self.count

    @property
    def exact(self) -> Fraction | None:
        """For counts: of predictions (accuracy, error), spikes and their operations the exact ratio, of bytes their
        number."""
        return Fraction(int(self.total), self.count) if self.name in COUNTED else None


def criterion_of(loss: Loss, teachers: Mapping[str, nn.Module]) -> Criterion:
    """The data term as a function of outputs, inputs and targets."""
    arguments = dict(loss.arguments)
    if loss.name == "distill":
        teacher, temperature = teachers[str(arguments["teacher"])], float(arguments["T"])

        def distill(outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = teacher(inputs)
            return losses.distill(outputs, wanted, temperature)

        return distill
    function: Callable[[Tensor, Tensor], Tensor]
    if loss.name in losses.LOSSES:
        function = losses.LOSSES[loss.name]
    else:
        entry = registry.losses[loss.name]

        def function(outputs: Tensor, targets: Tensor) -> Tensor:
            return entry.value(outputs, targets, **arguments)

    return lambda outputs, inputs, targets: function(outputs, targets)


@torch.no_grad()
def measure(
    function: Measured, model: nn.Module, data: Dataset, teachers: Mapping[str, nn.Module], batch: int = BATCH
) -> Outcome:
    """`function` over its whole split, in evaluation mode, summed in float64."""
    split = data[function.split]
    training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=split.inputs.device)
    criterion = _summed(function, teachers)
    for start in range(0, len(split), batch):
        x, y = split.inputs[start : start + batch], split.targets[start : start + batch]
        total += criterion(model(x), x, y)
    model.train(training)
    per_sample = split.targets[:1].numel() if function.name in ("accuracy", "error", "cross_entropy", "nll") else 1
    count = len(split) * per_sample
    return Outcome(function.name, function.split, float(total), count, data.digest(function.split), function.unit)


@torch.no_grad()
def each(
    function: Measured, model: nn.Module, data: Dataset, teachers: Mapping[str, nn.Module], batch: int = BATCH
) -> NDArray[np.float64] | None:
    """The values whose mean is `measure`, one a sample, in float64: 0 and 1 for classes, means over the positions of a
    sequence. None for a loss that is known as a mean over a batch only."""
    split = data[function.split]
    training = model.training
    model.eval()
    found: list[Tensor] = []
    for start in range(0, len(split), batch):
        x, y = split.inputs[start : start + batch], split.targets[start : start + batch]
        if function.name == "distill":
            arguments = dict(function.arguments)
            wanted = teachers[str(arguments["teacher"])](x)
            values = losses.distill_each(model(x), wanted, float(arguments["T"]))
        elif function.name in losses.EACH:
            values = losses.each(function.name, model(x), y)
        else:
            break
        found.append(values.reshape(len(x), -1).mean(1).cpu())
    model.train(training)
    return torch.cat(found).numpy() if found else None


def _summed(function: Measured, teachers: Mapping[str, nn.Module]) -> Criterion:
    if function.name in ("accuracy", "error", "cross_entropy", "nll", "mse"):
        return lambda outputs, inputs, targets: losses.summed(function.name, outputs, targets)
    mean = criterion_of(Loss(function.name, constant(1), function.arguments), teachers)

    def summed(outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        value: Any = mean(outputs, inputs, targets).to(torch.float64)
        scaled: Tensor = value * len(inputs)
        return scaled

    return summed
