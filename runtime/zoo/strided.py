"""Convolutions that shrink the image by their stride, then linear layers: a chain without pooling or normalisation.

With the defaults the network on 28 × 28 images of C. Li et al., On Model Compression for Neural Networks: Framework,
Algorithm, and Convergence Guarantee, 2023: 32 filters, 5408 → 1024 → 1024 → 10.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class StridedCNN(nn.Module):
    """3 × 3 convolutions of stride 2 without padding (conv1, …), then linear layers (fc1, …), with ReLU in between.

    An image of side s leaves a convolution with side ⌊(s − 3)/2⌋ + 1. Input ``N × inputs``, or as many entries in a
    row; output ``N × classes`` logits. Kernels and biases start uniform in ±1/√fan_in, drawn from torch's global
    generator.
    """

    def __init__(self, channels: Sequence[int], hidden: Sequence[int], inputs: Sequence[int], classes: int) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        self.depth = len(channels)
        before, *sides = inputs
        for i, width in enumerate(channels, 1):
            self.add_module(f"conv{i}", nn.Conv2d(before, width, 3, stride=2))
            before, sides = width, [(side - 3) // 2 + 1 for side in sides]
        sizes = [before * sides[0] * sides[1], *hidden, classes]
        for i in range(1, len(sizes)):
            self.add_module(f"fc{i}", nn.Linear(sizes[i - 1], sizes[i]))

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, *self.inputs)
        layers = list(self.children())
        for conv in layers[: self.depth]:
            x = torch.relu(conv(x))
        x = x.flatten(1)
        *inner, last = layers[self.depth :]
        for layer in inner:
            x = torch.relu(layer(x))
        out: Tensor = last(x)
        return out


def strided_cnn(
    channels: Sequence[int] = (32,),
    hidden: Sequence[int] = (1024, 1024),
    inputs: Sequence[int] = (1, 28, 28),
    classes: int = 10,
) -> StridedCNN:
    """``strided_cnn()`` has the layers conv1, fc1, fc2 and fc3; `channels` has a number for each convolution."""
    if len(inputs) != 3 or not channels or min(inputs[1:]) < 2 ** (len(channels) + 1) - 1:
        raise ValueError(f"{len(channels)} convolutions of stride 2 do not fit {tuple(inputs)}")
    return StridedCNN(channels, hidden, inputs, classes)
