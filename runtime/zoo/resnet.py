"""Residual networks: K. He, X. Zhang, S. Ren, J. Sun, Deep residual learning for image recognition, 2016.

Layer names are those that published weights use: conv1, layer1.0.conv1, …, layer4.0.downsample.0, fc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def initialize(net: nn.Module) -> None:
    """Convolutions start normal with variance 2 / (out · k_h · k_w), from torch's global generator; BN at identity."""
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions; a shortcut without parameters (every second pixel, new channels zero)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (width - channels) // 2
        self.after = width - channels - self.before
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride != 1 or self.before or self.after:
            x = x[:, :, :: self.stride, :: self.stride]
            x = nn.functional.pad(x, (0, 0, 0, 0, self.before, self.after))
        return torch.relu(y + x)

    def shrink_channels(
        self, kept: Mapping[tuple[str, int], Sequence[int]], sizes: Mapping[tuple[str, int], int]
    ) -> None:
        """The shortcut pads for the new channels that are kept: those that the second convolution alone makes."""
        rows = ("conv2.weight", 0)
        if rows in kept:
            last = sizes[rows] - self.after
            self.before, self.after = sum(i < self.before for i in kept[rows]), sum(i >= last for i in kept[rows])


class ResNetCifar(nn.Module):
    """3 × 3 convolution, three stages of n basic blocks at 1, 2 and 4 times `width` channels, mean, ``fc``.

    ``depth = 6n + 2``. Input ``N × 3 × 32 × 32``; output ``N × classes`` logits.
    """

    def __init__(self, depth: int, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth is 6n + 2, not {depth}")
        n = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self.stage(n, width, width, stride=1)
        self.layer2 = self.stage(n, width, 2 * width, stride=2)
        self.layer3 = self.stage(n, 2 * width, 4 * width, stride=2)
        self.fc = nn.Linear(4 * width, classes)
        initialize(self)

    @staticmethod
    def stage(n: int, channels: int, width: int, stride: int) -> nn.Sequential:
        rest = [BasicBlock(width, width, 1) for _ in range(n - 1)]
        return nn.Sequential(BasicBlock(channels, width, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3 (with the stride), 1 × 1 to four times the width; a 1 × 1 shortcut where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != 4 * width:
            shortcut = nn.Conv2d(channels, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + self.downsample(x))


class ResNet50(nn.Module):
    """Stages of 3, 4, 6 and 3 bottlenecks: 53 convolutions and ``fc``, 25 502 912 kernel weights at 1000 classes.

    Input ``N × 3 × 224 × 224``; output ``N × classes`` logits.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self.stage(3, 64, 64, stride=1)
        self.layer2 = self.stage(4, 256, 128, stride=2)
        self.layer3 = self.stage(6, 512, 256, stride=2)
        self.layer4 = self.stage(3, 1024, 512, stride=2)
        self.fc = nn.Linear(2048, classes)
        initialize(self)

    @staticmethod
    def stage(n: int, channels: int, width: int, stride: int) -> nn.Sequential:
        rest = [Bottleneck(4 * width, width, 1) for _ in range(n - 1)]
        return nn.Sequential(Bottleneck(channels, width, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 3, 2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


def resnet_cifar(depth: int, width: int = 16, classes: int = 10) -> ResNetCifar:
    """Residual network for 32 × 32 images."""
    return ResNetCifar(depth, width, classes)


def resnet20(classes: int = 10) -> ResNetCifar:
    """ResNet-20 for 32 × 32 images."""
    return ResNetCifar(20, 16, classes)


def resnet50(classes: int = 1000) -> ResNet50:
    """ResNet-50 for 224 × 224 images."""
    return ResNet50(classes)
