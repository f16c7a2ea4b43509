"""Data terms and metrics. A data term is a function of outputs and targets with a mean over predictions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """``−mean log softmax(outputs)[target]`` in nats; outputs ``(…, classes)``, targets ``(…)``."""
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def nll(outputs: Tensor, targets: Tensor) -> Tensor:
    """`cross_entropy` in bits."""
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten()) / math.log(2.0)


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """``mean (outputs − targets)²``; integer targets are one-hot encoded, one number per sample may miss its axis."""
    if not targets.is_floating_point():
        targets = F.one_hot(targets, outputs.shape[-1])
    return F.mse_loss(outputs, targets.to(outputs.dtype).view_as(outputs))


def distill(outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T² KL(softmax(teacher/T) ‖ softmax(outputs/T))``, mean per prediction (Hinton et al. 2015)."""
    log_p = F.log_softmax(outputs.flatten(0, -2) / temperature, -1)
    q = F.softmax(teacher.flatten(0, -2) / temperature, -1)
    return F.kl_div(log_p, q, reduction="batchmean") * temperature**2


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "nll": nll, "mse": mse}


def correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """How many predictions are right, as a device integer; ties go to the lowest class."""
    return (outputs.argmax(-1) == targets).sum()


def summed(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """A metric summed over the predictions of a batch, in float64: a split's value does not depend on the batch."""
    if name == "accuracy":
        return correct(outputs, targets).to(torch.float64)
    if name == "error":
        return targets.numel() - correct(outputs, targets).to(torch.float64)
    if name in ("cross_entropy", "nll"):
        flat = F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none").to(torch.float64)
        return flat.sum() / (math.log(2.0) if name == "nll" else 1.0)
    if name == "mse":
        return mse(outputs.to(torch.float64), targets) * len(outputs)
    raise KeyError(name)


EACH = frozenset({"accuracy", "error", "cross_entropy", "nll", "mse"})


def each(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """A metric prediction by prediction, in float64, the samples in the first dimension."""
    if name in ("accuracy", "error"):
        right = outputs.argmax(-1) == targets
        return (right if name == "accuracy" else ~right).to(torch.float64)
    if name in ("cross_entropy", "nll"):
        flat = F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none").to(torch.float64)
        return flat.view(targets.shape) / (math.log(2.0) if name == "nll" else 1.0)
    if name == "mse":
        if not targets.is_floating_point():
            targets = F.one_hot(targets, outputs.shape[-1])
        wide = outputs.to(torch.float64)
        return (wide - targets.to(torch.float64).view_as(wide)).square()
    raise KeyError(name)


def distill_each(outputs: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`distill` prediction by prediction, in float64."""
    log_p = F.log_softmax(outputs.to(torch.float64) / temperature, -1)
    q = F.softmax(teacher.to(torch.float64) / temperature, -1)
    return F.kl_div(log_p, q, reduction="none").sum(-1) * temperature**2
