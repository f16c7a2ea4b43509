"""The layers that are timed: a dense one, and those that take its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from prunelang.compiler.forms import Modes
from prunelang.compiler.trains import capped, contraction, low_rank_modes, parameters
from prunelang.runtime.factored import LowRankConv2d, LowRankLinear, TrainConv2d, TrainLinear

BATCHES: Final = (1, 32, 256)
RANKS: Final = (4, 16, 64)


@dataclass(frozen=True)
class Layer:
    """Inputs and outputs; of a convolution, its kernel and the side of the image; modes of its trains by their name."""

    inputs: int
    outputs: int
    trains: Mapping[str, Modes]
    kernel: int = 1
    side: int = 0

    @property
    def columns(self) -> int:
        return self.inputs * self.kernel**2

    def dense(self) -> nn.Module:
        if not self.side:
            return nn.Linear(self.inputs, self.outputs)
        return nn.Conv2d(self.inputs, self.outputs, self.kernel, padding=self.kernel // 2)

    def low_rank(self, rank: int) -> nn.Module:
        if not self.side:
            return LowRankLinear(self.inputs, self.outputs, rank)
        return LowRankConv2d(self.inputs, self.outputs, self.kernel, rank, padding=self.kernel // 2)

    def train(self, modes: Modes, rank: int) -> nn.Module:
        ranks = capped(modes, rank)
        if not self.side:
            return TrainLinear(modes, ranks)
        return TrainConv2d(modes, ranks, self.inputs, self.outputs, self.kernel, padding=self.kernel // 2)

    def sample(self, batch: int) -> Tensor:
        shape = (batch, self.inputs, self.side, self.side) if self.side else (batch, self.inputs)
        return torch.randn(shape)

    def forms(self) -> dict[str, tuple[Modes, Callable[[int], nn.Module]]]:
        """Modes, and what makes the module of a rank, by the name of the form."""
        made: dict[str, tuple[Modes, Callable[[int], nn.Module]]] = {
            "low rank": (low_rank_modes(self.outputs, self.columns), self.low_rank)
        }
        for name, modes in self.trains.items():
            made[name] = (modes, partial(self.train, modes))
        return made

    def shares(self, modes: Modes, rank: int) -> dict[str, float]:
        """Numbers stored and multiply-adds, over those of the dense layer; biases left out."""
        size = self.outputs * self.columns
        macs = contraction(modes, rank).macs(capped(modes, rank))
        return {"parameters": round(parameters(modes, rank) / size, 5), "macs": round(macs / size, 5)}


LAYERS: Final[Mapping[str, Layer]] = {
    "linear 1024 → 1024": Layer(
        1024, 1024, {"train, 2 cores": ((32, 32), (32, 32)), "train, 3 cores": ((8, 8), (8, 16), (16, 8))}
    ),
    "linear 4096 → 4096": Layer(
        4096, 4096, {"train, 2 cores": ((64, 64), (64, 64)), "train, 3 cores": ((16, 16), (16, 16), (16, 16))}
    ),
    "convolution 64 → 64, 3 × 3, 16 × 16": Layer(64, 64, {"train, 2 cores": ((8, 24), (8, 24))}, kernel=3, side=16),
}
