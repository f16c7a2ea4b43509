"""The teacher's samples, and how long a student's description of them is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from torch import Tensor

from prunelang.runtime.zoo.mlp import MLP

NOISE: Final = 0.08  # σ of what is added to the teacher's output, which has variance 1
TEST: Final = 10_000
POOL: Final = 2_000  # samples that every size takes its first n from
VALUE_BITS: Final = 8
PARAMETERS: Final = 2 * 25 + 25 + 25 * 25 + 25 + 25 + 1  # of the student


def teacher(seed: int) -> MLP:
    """2 → 5 → 8 → 1 with tanh: kernels normal with deviation 2/√fan_in, biases with deviation ½."""
    generator = torch.Generator().manual_seed(1000 + seed)
    net = MLP([2, 5, 8, 1], "tanh")
    with torch.no_grad():
        for layer in net.children():
            assert isinstance(layer, torch.nn.Linear)
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * 2 / layer.in_features**0.5)
            layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator) / 2)
    return net


def samples(seed: int, n: int) -> dict[str, Tensor]:
    """n train and `TEST` test samples, x uniform in [−2, 2]²; the first n of the same `POOL` for every n.

    The n are repeated to at least `POOL` rows: an epoch has as many steps, and costs as much, for every n.
    """
    generator = torch.Generator().manual_seed(2000 + seed)
    x = torch.rand(POOL + TEST, 2, generator=generator) * 4 - 2
    with torch.no_grad():
        clean = teacher(seed)(x)
    y = (clean - clean.mean()) / clean.std() + NOISE * torch.randn(clean.shape, generator=generator)
    rows = torch.arange(n).repeat(-(-POOL // n))
    return {"x_train": x[rows], "y_train": y[rows], "x_test": x[POOL:].clone(), "y_test": y[POOL:].clone()}


def write(path: Path, seed: int, n: int) -> Path:
    """The samples as a file that ``tensors`` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(samples(seed, n), path)
    return path


def data_bits(n: int, train_mse: float) -> float:
    """``n (mse/(2σ² ln 2) + ½ log₂ 2πσ²)``: −log₂ of the density of n targets, σ known; negative where it passes 1."""
    return n * (train_mse / (2 * NOISE**2 * math.log(2)) + math.log2(2 * math.pi * NOISE**2) / 2)


def model_bits(kept: int) -> float:
    """``log₂ C(N, k) + 8k``: which k of the N parameters are not 0, and 8 bits for each."""
    ways = math.lgamma(PARAMETERS + 1) - math.lgamma(kept + 1) - math.lgamma(PARAMETERS - kept + 1)
    return ways / math.log(2) + VALUE_BITS * kept
