"""Spiking networks of leaky integrate-and-fire neurons, run over T time steps in every forward pass.

``snn_conv`` at width 256 and 3 × 32 × 32 is the network of Y. Chen et al., State transition of dendritic spines
improves learning of sparse spiking neural networks, 2022; ``sew_resnet18`` follows W. Fang et al., Deep residual
learning in spiking neural networks, 2021, with the stem of networks for 32 × 32 images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from prunelang.runtime.spiking.encoding import ENCODINGS, each_step
from prunelang.runtime.spiking.lif import LIF
from prunelang.runtime.zoo.resnet import initialize

VOTES = 10  # outputs for each class, averaged


def excitable(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """Kernels four times as large as torch makes them, uniform in ±4/√fan_in, so that neurons behind them fire.

    If a fifth of the inputs fire, the current then has standard deviation 1: the threshold of a neuron. Behind a batch
    normalisation the size does not matter; it is the same there, so that one threshold is fair to all layers.
    """
    with torch.no_grad():
        layer.weight.mul_(4.0)
    return layer


class SpikingMLP(nn.Module):
    """Linear layers ``fc1 … fcL`` with neurons ``lif1 …`` between them; ``sizes = [inputs, hidden …, outputs]``.

    Input ``N × …`` of sizes[0] entries, flattened here; output ``N × sizes[-1]``: the mean over the T steps of the last
    layer's current, or of the spikes of neurons behind it (`rate`). Kernels start uniform in ±4/√fan_in and biases
    in ±1/√fan_in, drawn from torch's global generator.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        T: int,
        encoding: Literal["direct", "poisson"],
        tau: float,
        readout: Literal["current", "rate"],
    ) -> None:
        super().__init__()
        self.encode = ENCODINGS[encoding](T)
        for i in range(1, len(sizes)):
            self.add_module(f"fc{i}", excitable(nn.Linear(sizes[i - 1], sizes[i])))
            self.add_module(f"lif{i}", LIF(tau))
        if readout == "current":
            del self._modules[f"lif{len(sizes) - 1}"]

    def forward(self, x: Tensor) -> Tensor:
        _, first, *rest = self.children()
        x = self.encode(x.flatten(1), first)
        for module in rest:
            x = module(x) if isinstance(module, LIF) else each_step(module, x)
        return x.mean(0)


class SpikingConvNet(nn.Module):
    """Two stages of 3 × 3 convolutions with batch normalisation, each with a 2 × 2 maximum; then two linear layers.

    `convs` convolutions of `width` channels (conv1, bn1, lif1, …), fc1 with 8·width neurons, fc2 with ten outputs for
    each class that vote by their mean; no biases. Input ``N × inputs``; output ``N × classes`` as of `SpikingMLP`. With
    `dropout` p, entries that fc1 reads are dropped in training, the same at all time steps.
    """

    def __init__(
        self,
        width: int,
        T: int,
        encoding: Literal["direct", "poisson"],
        tau: float,
        readout: Literal["current", "rate"],
        inputs: Sequence[int],
        classes: int,
        convs: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if len(inputs) != 3 or min(inputs[1:]) < 4 or convs < 2 or convs % 2:
            raise ValueError(
                f"`inputs` is channels × 4 or more × 4 or more, `convs` even: not {tuple(inputs)}, {convs}"
            )
        channels, *size = inputs
        self.classes, self.convs, self.dropout = classes, convs, dropout
        self.encode = ENCODINGS[encoding](T)
        for i in range(1, convs + 1):
            conv = nn.Conv2d(channels if i == 1 else width, width, 3, padding=1, bias=False)
            self.add_module(f"conv{i}", excitable(conv))
            self.add_module(f"bn{i}", nn.BatchNorm2d(width))
            self.add_module(f"lif{i}", LIF(tau))
        self.fc1 = excitable(nn.Linear(width * (size[0] // 4) * (size[1] // 4), 8 * width, bias=False))
        self.lif_fc1 = LIF(tau)
        self.fc2 = excitable(nn.Linear(8 * width, VOTES * classes, bias=False))
        self.lif_fc2 = LIF(tau) if readout == "rate" else nn.Identity()

    def synapses(self, i: int, x: Tensor) -> Tensor:
        """Convolution i and its normalisation, of ``N × …``."""
        out: Tensor = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x))
        return out

    def forward(self, x: Tensor) -> Tensor:
        x = self.encode(x, partial(self.synapses, 1))
        for i in range(1, self.convs + 1):
            x = self.get_submodule(f"lif{i}")(x)
            if i in (self.convs // 2, self.convs):
                x = each_step(partial(nn.functional.max_pool2d, kernel_size=2), x)
            if i < self.convs:
                x = each_step(partial(self.synapses, i + 1), x)
        x = x.flatten(2)
        if self.training and self.dropout:
            x = x * nn.functional.dropout(x.new_ones(x.shape[1:]), self.dropout)
        x = self.lif_fc1(each_step(self.fc1, x))
        x = self.lif_fc2(each_step(self.fc2, x))
        return x.mean(0).view(-1, self.classes, VOTES).mean(2)


class SEWBlock(nn.Module):
    """Two 3 × 3 convolutions with neurons; the spikes of the shortcut are added to those of the block."""

    def __init__(self, channels: int, width: int, stride: int, tau: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.lif1 = LIF(tau)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.lif2 = LIF(tau)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != width:
            shortcut = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(width))
            self.lif3 = LIF(tau)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lif1(each_step(lambda z: self.bn1(self.conv1(z)), x))
        y = self.lif2(each_step(lambda z: self.bn2(self.conv2(z)), y))
        if self.downsample is not None:
            x = self.lif3(each_step(self.downsample, x))
        added: Tensor = y + x
        return added


class SEWResNet18(nn.Module):
    """3 × 3 convolution, four stages of two `SEWBlock` at 1, 2, 4 and 8 times `width` channels, mean, ``fc``.

    Input ``N × 3 × 32 × 32``; output ``N × classes``, the mean over the T steps of the current of ``fc``. Convolutions
    start normal with variance 2 / (out · k_h · k_w), from torch's global generator.
    """

    def __init__(self, T: int, width: int, encoding: Literal["direct", "poisson"], tau: float, classes: int) -> None:
        super().__init__()
        self.encode = ENCODINGS[encoding](T)
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.lif1 = LIF(tau)
        self.layer1 = self.stage(width, width, 1, tau)
        self.layer2 = self.stage(width, 2 * width, 2, tau)
        self.layer3 = self.stage(2 * width, 4 * width, 2, tau)
        self.layer4 = self.stage(4 * width, 8 * width, 2, tau)
        self.fc = nn.Linear(8 * width, classes)
        initialize(self)

    @staticmethod
    def stage(channels: int, width: int, stride: int, tau: float) -> nn.Sequential:
        return nn.Sequential(SEWBlock(channels, width, stride, tau), SEWBlock(width, width, 1, tau))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif1(self.encode(x, lambda z: self.bn1(self.conv1(z))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return each_step(self.fc, x.mean((3, 4))).mean(0)


def snn_mlp(
    sizes: Sequence[int],
    T: int = 8,
    encoding: Literal["direct", "poisson"] = "direct",
    tau: float = 2.0,
    readout: Literal["current", "rate"] = "current",
) -> SpikingMLP:
    """``snn_mlp([784, 500, 10], T = 8)`` has the layers fc1 and fc2, and the neurons lif1."""
    return SpikingMLP(sizes, T, encoding, tau, readout)


def snn_conv(
    width: int = 32,
    T: int = 8,
    encoding: Literal["direct", "poisson"] = "direct",
    tau: float = 2.0,
    readout: Literal["current", "rate"] = "current",
    inputs: Sequence[int] = (3, 32, 32),
    classes: int = 10,
    convs: int = 6,
    dropout: float = 0.0,
) -> SpikingConvNet:
    """Six convolutions and two linear layers: conv1 … conv6, fc1, fc2."""
    return SpikingConvNet(width, T, encoding, tau, readout, inputs, classes, convs, dropout)


def sew_resnet18(
    T: int = 4,
    width: int = 64,
    encoding: Literal["direct", "poisson"] = "direct",
    tau: float = 2.0,
    classes: int = 10,
) -> SEWResNet18:
    """Spike-element-wise ResNet-18 for 32 × 32 images."""
    return SEWResNet18(T, width, encoding, tau, classes)
