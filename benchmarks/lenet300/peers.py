"""The peers, written by hand: gradual magnitude pruning (Zhu & Gupta 2017) and one-shot pruning with fine-tuning."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunelang.runtime.data import Batches


def kernels(net: nn.Module) -> list[Tensor]:
    return [p for p in net.parameters() if p.dim() > 1]


def keep_largest(weights: list[Tensor], kappa: int) -> list[Tensor]:
    """Masks of the κ largest magnitudes over all tensors, by a plain sort."""
    flat = torch.cat([w.detach().abs().flatten() for w in weights])
    order = flat.argsort(descending=True, stable=True)[:kappa]
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[order] = True
    return [m.view_as(w) for m, w in zip(kept.split([w.numel() for w in weights]), weights, strict=True)]


def train(
    net: nn.Module,
    feed: Batches,
    first_epoch: int,
    epochs: int,
    lr: Callable[[int], float],
    after: Callable[[float], None],
) -> None:
    """SGD with Nesterov momentum 0.9; `after` gets the share of steps done."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr(0), momentum=0.9, nesterov=True)
    done, total = 0, epochs * len(feed)
    net.train()
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = lr(epoch)
        for x, y in feed.epoch(first_epoch + epoch):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
            done += 1
            after(done / total)


@torch.no_grad()
def apply(weights: list[Tensor], masks: list[Tensor]) -> None:
    for w, m in zip(weights, masks, strict=True):
        w.mul_(m)


def gradual_magnitude(net: nn.Module, feed: Batches, kappa: int, epochs: int, lr: Callable[[int], float]) -> None:
    """Sparsity rises as 1 − (1 − u)³ until 60 % of the budget, masks renewed every 100 steps, then held."""
    weights = kernels(net)
    n = sum(w.numel() for w in weights)
    state = {"step": 0, "masks": keep_largest(weights, n), "full": False}

    def after(p: float) -> None:
        state["step"] += 1
        u = min(1.0, p / 0.6)
        if state["step"] % 100 == 0 and not state["full"]:
            state["masks"] = keep_largest(weights, round(kappa + (n - kappa) * (1 - u) ** 3))
            state["full"] = u >= 1.0
        apply(weights, state["masks"])

    train(net, feed, 20, epochs, lr, after)


def one_shot(net: nn.Module, feed: Batches, kappa: int, epochs: int, lr: Callable[[int], float]) -> None:
    """Prune once, then the whole budget is fine-tuning."""
    weights = kernels(net)
    masks = keep_largest(weights, kappa)
    apply(weights, masks)
    train(net, feed, 20, epochs, lr, lambda p: apply(weights, masks))
