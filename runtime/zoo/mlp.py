"""Fully connected networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers ``fc1 … fcL`` with an activation between them; ``sizes = [inputs, hidden …, outputs]``.

    Input ``N × …`` of sizes[0] entries, flattened here; output ``N × sizes[-1]`` logits. Kernels and biases start
    uniform in ±1/√fan_in, drawn from torch's global generator.
    """

    def __init__(self, sizes: Sequence[int], activation: Literal["relu", "tanh"] = "relu") -> None:
        super().__init__()
        self.activation = {"relu": torch.relu, "tanh": torch.tanh}[activation]
        for i in range(1, len(sizes)):
            self.add_module(f"fc{i}", nn.Linear(sizes[i - 1], sizes[i]))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        *hidden, last = self.children()
        for layer in hidden:
            x = self.activation(layer(x))
        out: Tensor = last(x)
        return out


def mlp(sizes: Sequence[int], activation: Literal["relu", "tanh"] = "relu") -> MLP:
    """``mlp([784, 300, 100, 10])`` has the layers fc1, fc2 and fc3."""
    return MLP(sizes, activation)
