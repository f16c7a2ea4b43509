"""The two LeNets of the compression literature.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-based learning applied to document recognition, 1998. LeNet-5 is
the Caffe variant with 20 and 50 channels and 500 hidden units.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class LeNet300100(nn.Module):
    """``inputs → 300 → 100 → classes``: 266 200 kernel weights at 784 and 10.

    Input ``N × …`` of `inputs` entries, flattened here; output ``N × classes`` logits. Kernels and biases start uniform
    in ±1/√fan_in, drawn from torch's global generator.
    """

    def __init__(self, inputs: int = 784, classes: int = 10, activation: Literal["relu", "tanh"] = "relu") -> None:
        super().__init__()
        self.activation = {"relu": torch.relu, "tanh": torch.tanh}[activation]
        self.fc1 = nn.Linear(inputs, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.fc1(x.flatten(1)))
        x = self.activation(self.fc2(x))
        out: Tensor = self.fc3(x)
        return out


class LeNet5(nn.Module):
    """Two 5 × 5 convolutions (20 and 50 channels), each pooled by 2, then 800 → 500 → classes: 430 500 kernel weights.

    Input ``N × 1 × 28 × 28`` (or 784 in a row); output ``N × classes`` logits. Kernels and biases start uniform in
    ±1/√fan_in, drawn from torch's global generator.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, 1, 28, 28)
        x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.relu(self.fc1(x.flatten(1)))
        out: Tensor = self.fc2(x)
        return out


def lenet_300_100(inputs: int = 784, classes: int = 10, activation: Literal["relu", "tanh"] = "relu") -> LeNet300100:
    """LeNet-300-100: fc1, fc2, fc3."""
    return LeNet300100(inputs, classes, activation)


def lenet_5(classes: int = 10) -> LeNet5:
    """LeNet-5 as in Caffe: conv1, conv2, fc1, fc2."""
    return LeNet5(classes)
