"""The order in which samples are seen: a function of seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from prunelang.runtime.data.dataset import Split


@dataclass(frozen=True, slots=True)
class Position:
    """The next batch to hand out: number `cursor` of epoch `epoch`."""

    epoch: int = 0
    cursor: int = 0


class Batches:
    """Batches ``(inputs, targets)`` of one split, every sample once an epoch, the last batch perhaps smaller.

    The order of epoch e is a random permutation drawn on the CPU by a generator of its own from (seed, e): the same on
    every device, whatever else draws random numbers, and wherever a run is taken up again. Batches are gathered one by
    one from the tensors where they lie: gathering a whole epoch at once took as long and a second copy of the data.
    """

    def __init__(self, split: Split, batch: int, seed: int, position: Position = Position()) -> None:
        if len(split) == 0 or batch < 1:
            raise ValueError(f"batches of {batch} of {len(split)} samples")
        self.split = split
        self.batch = batch
        self.seed = seed
        self.position = position

    def __len__(self) -> int:
        """Batches in an epoch."""
        return (len(self.split) + self.batch - 1) // self.batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The rest of the current epoch; the next ``for`` is the next epoch. `position` is past what is yielded."""
        epoch, start = self.position.epoch, self.position.cursor
        for i, pair in enumerate(self.epoch(epoch, start), start + 1):
            self.position = Position(epoch, i) if i < len(self) else Position(epoch + 1, 0)
            yield pair

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch from number `start` on, without moving `position`."""
        return batches(self.split.inputs, self.split.targets, self.batch, self.seed, epoch, start)

    def order(self, epoch: int) -> Tensor:
        """The permutation of one epoch, int64 on the CPU."""
        return order_of(len(self.split), self.seed, epoch)


def batches(x: Tensor, y: Tensor, size: int, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """The samples of one epoch, from batch number `start` on, in an order that seed and epoch alone decide."""
    order = order_of(len(x), seed, epoch).to(x.device)
    for first in range(start * size, len(order), size):
        index = order[first : first + size]
        yield x.index_select(0, index), y.index_select(0, index)


def order_of(samples: int, seed: int, epoch: int) -> Tensor:
    """The permutation of one epoch, int64 on the CPU."""
    generator = torch.Generator().manual_seed(_mix(seed, epoch))
    return torch.randperm(samples, generator=generator)


def _mix(seed: int, epoch: int) -> int:
    """A seed for (seed, epoch) by splitmix64 (Steele, Lea, Flood 2014): (0, 1) and (1, 0) are unrelated."""
    mask = 2**64 - 1
    z = (seed * 0x9E3779B97F4A7C15 + (epoch + 1) * 0xD1B54A32D192ED03) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) & (2**63 - 1)
