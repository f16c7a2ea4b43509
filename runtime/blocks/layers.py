"""Affine layers as the blocks see them: apply, its adjoint, and the linear regression that a layer's weights are."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Pair: TypeAlias = tuple[int, int]


class Layer(Protocol):
    """``Z = W V + b`` over n samples. W is stored as the network stores it; `rows` makes a convolution a regression."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample; a linear layer takes any shape of so many entries."""
        ...

    @property
    def output_shape(self) -> tuple[int, ...]: ...

    @property
    def weight_shape(self) -> tuple[int, ...]: ...

    @property
    def features(self) -> int:
        """Columns of `rows`: the entries of W that one output sees."""
        ...

    def apply(self, W: Tensor, b: Tensor, V: Tensor) -> Tensor:
        """``W V + b``, in V's type."""
        ...

    def adjoint(self, W: Tensor, R: Tensor) -> Tensor:
        """``Wᵀ R`` for the linear part: ``⟨W V, R⟩ = ⟨V, Wᵀ R⟩``; of shape n × input_shape."""
        ...

    def rows(self, V: Tensor) -> Tensor:
        """V̄, (n · positions) × features, with ``rows(V) · W.flatten(1)ᵀ + b = columns(apply(W, b, V))``."""
        ...

    def columns(self, R: Tensor) -> Tensor:
        """(n · positions) × outputs."""
        ...


@dataclass(frozen=True)
class Linear:
    """W: outputs × inputs. What it is applied to is flattened."""

    inputs: int
    outputs: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.inputs,)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.outputs,)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.outputs, self.inputs)

    @property
    def features(self) -> int:
        return self.inputs

    def apply(self, W: Tensor, b: Tensor, V: Tensor) -> Tensor:
        return F.linear(V.flatten(1), W.to(V.dtype), b.to(V.dtype))

    def adjoint(self, W: Tensor, R: Tensor) -> Tensor:
        return R @ W.to(R.dtype)

    def rows(self, V: Tensor) -> Tensor:
        return V.flatten(1)

    def columns(self, R: Tensor) -> Tensor:
        return R


@dataclass(frozen=True)
class Convolution:
    """W: outputs × channels × kernel. `inputs`: channels, height, width of what comes in. No groups."""

    inputs: tuple[int, int, int]
    outputs: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.inputs

    @property
    def image(self) -> Pair:
        """Height and width of what comes out: ``⌊(h + 2p − d(k − 1) − 1)/s⌋ + 1``."""
        height, width = (
            (h + 2 * p - d * (k - 1) - 1) // s + 1
            for h, p, d, k, s in zip(
                self.inputs[1:], self.padding, self.dilation, self.kernel, self.stride, strict=True
            )
        )
        return height, width

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.outputs, *self.image)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.outputs, self.inputs[0], *self.kernel)

    @property
    def features(self) -> int:
        return self.inputs[0] * prod(self.kernel)

    def apply(self, W: Tensor, b: Tensor, V: Tensor) -> Tensor:
        V = V.view(-1, *self.inputs)
        return F.conv2d(V, W.to(V.dtype), b.to(V.dtype), self.stride, self.padding, self.dilation)

    def adjoint(self, W: Tensor, R: Tensor) -> Tensor:
        _, height, width = self.inputs
        rest = tuple(
            size - ((o - 1) * s - 2 * p + d * (k - 1) + 1)
            for size, o, s, p, d, k in zip(
                (height, width), self.image, self.stride, self.padding, self.dilation, self.kernel, strict=True
            )
        )  # rows and columns at the far edge that the stride never reaches
        return F.conv_transpose2d(
            R, W.to(R.dtype), None, self.stride, self.padding, output_padding=rest, dilation=self.dilation
        )

    def rows(self, V: Tensor) -> Tensor:
        patches = F.unfold(V.view(-1, *self.inputs), self.kernel, self.dilation, self.padding, self.stride)
        return patches.transpose(1, 2).reshape(-1, self.features)

    def columns(self, R: Tensor) -> Tensor:
        return R.flatten(2).transpose(1, 2).reshape(-1, self.outputs)


def forward(layers: tuple[Layer, ...], weights: list[tuple[Tensor, Tensor]], X: Tensor) -> Tensor:
    """The network's outputs: ReLU after every layer but the last."""
    V = X
    for layer, (W, b) in zip(layers[:-1], weights[:-1], strict=True):
        V = torch.relu_(layer.apply(W, b, V))
    return layers[-1].apply(*weights[-1], V)
