"""LeNet-300-100 with dropout, for the highest floor: the plain network has hardly more than 98 % on validation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunelang.register import model


@model(input_shape=(784,))
class LeNet300100Dropout(nn.Module):
    """784 → 300 → 100 → 10, ReLU; in training a share `inputs` of the pixels and `hidden` of the units is dropped."""

    def __init__(self, inputs: float = 0.1, hidden: float = 0.25) -> None:
        super().__init__()
        self.inputs, self.hidden = inputs, hidden
        self.fc1 = nn.Linear(784, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.dropout(x.flatten(1), self.inputs, self.training)
        x = nn.functional.dropout(torch.relu(self.fc1(x)), self.hidden, self.training)
        x = nn.functional.dropout(torch.relu(self.fc2(x)), self.hidden, self.training)
        out: Tensor = self.fc3(x)
        return out
