"""Layers that multiply by factors: low rank and tensor trains in the place of linear layers and convolutions.

    layer             y =                                       multiply-adds for one use
    LowRankLinear     U (V x) + b                               r(m + n)
    LowRankConv2d     U ∗₁ₓ₁ (V ∗ x) + b                        r(m + g·n), g groups
    TrainLinear       x, absorbing one core after another, + b  the polynomial of the order (`compiler.trains`)
    TrainConv2d       the same for every patch of x             g times that

with a weight of m rows and n columns. Every product is one matrix product or convolution with a stored kernel, outputs
first, so that whatever counts the operations of linear layers counts these: the core G_k of a train is kept as the
matrix that its step multiplies by, and `cores` gives all of them as r_{k−1} × m_k × n_k × r_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunelang.compiler.forms import Modes
from prunelang.compiler.trains import contraction

Sides: TypeAlias = int | tuple[int, int]
Padding: TypeAlias = Sides | str


class _Convolved(nn.Module):
    """Stride, padding and dilation of a convolution; padding is made explicit before it."""

    def __init__(self, kernel: Sides, stride: Sides, padding: Padding, dilation: Sides, padding_mode: str) -> None:
        super().__init__()
        self.kernel, self.stride, self.dilation = _pair(kernel), _pair(stride), _pair(dilation)
        self.padding_mode = padding_mode
        self.margins = [side for h in reversed(range(2)) for side in self._margins(padding, h)]

    def _margins(self, padding: Padding, h: int) -> tuple[int, int]:
        """Entries before and after dimension h."""
        if isinstance(padding, str):
            total = self.dilation[h] * (self.kernel[h] - 1) if padding == "same" else 0
            return total // 2, total - total // 2
        return _pair(padding)[h], _pair(padding)[h]

    def padded(self, x: Tensor) -> Tensor:
        if not any(self.margins):
            return x
        return F.pad(x, self.margins, "constant" if self.padding_mode == "zeros" else self.padding_mode)

    def positions(self, x: Tensor) -> tuple[int, int]:
        """Height and width of the output for a padded input."""
        h, w = ((x.shape[2 + i] - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1 for i in range(2))
        return h, w


class LowRankLinear(nn.Module):
    """``y = U (V x) + b`` with V rank × inputs and U outputs × rank; any leading dimensions."""

    def __init__(self, inputs: int, outputs: int, rank: int, bias: bool = True, **made: Any) -> None:
        super().__init__()
        self.V = nn.Parameter(_drawn((rank, inputs), inputs, rank, 2, made))
        self.U = nn.Parameter(_drawn((outputs, rank), inputs, rank, 2, made))
        self.bias = nn.Parameter(torch.zeros(outputs, **made)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if not len(self.V):
            y = x.new_zeros(*x.shape[:-1], len(self.U))
            return y if self.bias is None else y + self.bias
        return F.linear(F.linear(x, self.V), self.U, self.bias)

    def extra_repr(self) -> str:
        return f"{self.V.shape[1]}, {len(self.U)}, rank={len(self.V)}, bias={self.bias is not None}"


class LowRankConv2d(_Convolved):
    """`rank` filters of the kernel's size for every group, then a 1 × 1 convolution. Input N × inputs × H × W."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sides,
        rank: int,
        bias: bool = True,
        stride: Sides = 1,
        padding: Padding = 0,
        dilation: Sides = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        **made: Any,
    ) -> None:
        super().__init__(kernel, stride, padding, dilation, padding_mode)
        self.groups = groups
        fan = inputs // groups * prod(self.kernel)
        self.V = nn.Parameter(_drawn((rank, inputs // groups, *self.kernel), fan, rank, 2, made))
        self.U = nn.Parameter(_drawn((outputs, rank, 1, 1), fan, rank, 2, made))
        self.bias = nn.Parameter(torch.zeros(outputs, **made)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.padded(x)
        rank, (h, w) = len(self.V), self.positions(x)
        if not rank:  # torch has no convolution without channels
            y = x.new_zeros(len(x), len(self.U), h, w)
            return y if self.bias is None else y + self.bias[:, None, None]
        parts = x.reshape(-1, x.shape[1] // self.groups, *x.shape[2:])  # all groups have the same V
        inner = F.conv2d(parts, self.V, None, self.stride, 0, self.dilation)
        return F.conv2d(inner.reshape(len(x), self.groups * rank, h, w), self.U, self.bias, groups=self.groups)

    def extra_repr(self) -> str:
        return f"{self.V.shape[1] * self.groups}, {len(self.U)}, {self.kernel}, rank={len(self.V)}"


class Cores(nn.Module):
    """The product of a matrix in train form with samples: ``N × n → N × m``, one core at a time in `order`.

    The state of a sample has an axis n_j for every core j that is left, m_j for every one absorbed, and r for every
    bond between both kinds. Absorbing core k multiplies away n_k and its bonds to absorbed cores, and adds m_k and its
    other bonds.
    """

    def __init__(self, modes: Modes, ranks: Sequence[int], order: Sequence[int] | None = None, **made: Any) -> None:
        super().__init__()
        d = len(modes)
        if len(ranks) != d - 1:
            raise ValueError(f"{d} cores have {d - 1} inner ranks, not {len(ranks)}")
        self.modes, self.ranks = tuple(modes), (1, *ranks, 1)
        self.order = contraction(modes, tuple(ranks)).order if order is None else tuple(order)
        if sorted(self.order) != list(range(d)):
            raise ValueError(f"{list(self.order)} is no order of {d} cores")
        self.inputs, paths = prod(n for _, n in modes), prod(ranks)
        self.steps, self.last = self._planned()
        for k in range(d):
            rows, columns = self._sides(k)
            shape = (prod(self._size(k, a) for a in rows), prod(self._size(k, a) for a in columns))
            self.register_parameter(f"G{k + 1}", nn.Parameter(_drawn(shape, self.inputs, paths, d, made)))

    @property
    def kernels(self) -> list[nn.Parameter]:
        """The cores as stored, in their order along the train."""
        return [self.get_parameter(f"G{k + 1}") for k in range(len(self.modes))]

    @property
    def cores(self) -> list[Tensor]:
        """``r_{k−1} × m_k × n_k × r_k`` each."""
        found = []
        for k, kernel in enumerate(self.kernels):
            axes = [a for side in self._sides(k) for a in side]
            whole = kernel.reshape([self._size(k, a) for a in axes])
            missing = [a for a in range(4) if a not in axes]  # the bonds at both ends, of size 1
            whole = whole.reshape(*whole.shape, *(1 for _ in missing))
            found.append(whole.permute([(axes + missing).index(a) for a in range(4)]))
        return found

    @torch.no_grad()
    def set_cores(self, cores: Sequence[Tensor]) -> None:
        """Take the values of cores of shape ``r_{k−1} × m_k × n_k × r_k``."""
        for k, (core, kernel) in enumerate(zip(cores, self.kernels, strict=True)):
            axes = [a for side in self._sides(k) for a in side]
            missing = [a for a in range(4) if a not in axes]
            kernel.copy_(core.permute(missing + axes).reshape(kernel.shape))

    def forward(self, x: Tensor) -> Tensor:
        if not all(self.ranks):  # a train without rank is zero, and torch cannot divide by its sizes
            return x.new_zeros(x.numel() // self.inputs, prod(m for m, _ in self.modes))
        state = x.reshape(-1, *(n for _, n in self.modes))
        for k, (axes, sizes) in zip(self.order, self.steps, strict=True):
            kernel = self.get_parameter(f"G{k + 1}")
            moved = state.permute(axes)
            kept = moved.shape[: moved.dim() - len(self._sides(k)[1])]
            state = F.linear(moved.reshape(-1, kernel.shape[1]), kernel).reshape(*kept, *sizes)
        return state.permute(self.last).reshape(-1, prod(m for m, _ in self.modes))

    def extra_repr(self) -> str:
        return f"modes={list(self.modes)}, ranks={list(self.ranks[1:-1])}, order={list(self.order)}"

    def _size(self, k: int, axis: int) -> int:
        """The length of an axis of core k: r_{k−1}, m_k, n_k or r_k."""
        return (self.ranks[k], *self.modes[k], self.ranks[k + 1])[axis]

    def _sides(self, k: int) -> tuple[list[int], list[int]]:
        """The axes of core k that its step adds (m first) and those that it multiplies away (n first)."""
        done = self.order[: self.order.index(k)]
        bonds = [(0, k - 1), (3, k + 1)]
        inner = [(axis, j) for axis, j in bonds if 0 <= j < len(self.modes)]
        return [1, *(a for a, j in inner if j not in done)], [2, *(a for a, j in inner if j in done)]

    def _planned(self) -> tuple[list[tuple[list[int], list[int]]], list[int]]:
        """Of every step how the axes of the state are moved, those multiplied away last, and the sizes that it adds; at
        the end, the axes m_1 … m_d in their order. Axis 0 is the sample."""
        steps: list[tuple[list[int], list[int]]] = []
        labels = [("n", k) for k in range(len(self.modes))]
        for k in self.order:
            rows, columns = self._sides(k)
            gone = [self._label(k, a) for a in columns]
            rest = [x for x in labels if x not in gone]
            steps.append(([0, *(1 + labels.index(x) for x in [*rest, *gone])], [self._size(k, a) for a in rows]))
            labels = rest + [self._label(k, a) for a in rows]
        return steps, [0, *(1 + labels.index(("m", k)) for k in range(len(self.modes)))]

    @staticmethod
    def _label(k: int, axis: int) -> tuple[str, int]:
        return (("bond", k), ("m", k), ("n", k), ("bond", k + 1))[axis]


class TrainLinear(Cores):
    """``y = W x + b`` with W the train of the cores; any leading dimensions."""

    def __init__(
        self, modes: Modes, ranks: Sequence[int], bias: bool = True, order: Sequence[int] | None = None, **made: Any
    ) -> None:
        super().__init__(modes, ranks, order, **made)
        self.bias = nn.Parameter(torch.zeros(prod(m for m, _ in modes), **made)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x).reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


class TrainConv2d(_Convolved):
    """A convolution whose kernel, outputs × (inputs/groups · k_h · k_w), is a train. Input N × inputs × H × W.

    With g groups the train is applied to the patches of each, of which its own outputs are taken.
    """

    def __init__(
        self,
        modes: Modes,
        ranks: Sequence[int],
        inputs: int,
        outputs: int,
        kernel: Sides,
        bias: bool = True,
        stride: Sides = 1,
        padding: Padding = 0,
        dilation: Sides = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        order: Sequence[int] | None = None,
        **made: Any,
    ) -> None:
        super().__init__(kernel, stride, padding, dilation, padding_mode)
        size = (outputs, inputs // groups * prod(self.kernel))
        if (prod(m for m, _ in modes), prod(n for _, n in modes)) != size:
            raise ValueError(f"the modes {modes} do not multiply to the {size[0]} × {size[1]} of the kernel")
        self.groups, self.outputs = groups, outputs
        self.train_of = Cores(modes, ranks, order, **made)
        self.bias = nn.Parameter(torch.zeros(outputs, **made)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        x, g = self.padded(x), self.groups
        h, w = self.positions(x)
        patches = F.unfold(x, self.kernel, self.dilation, 0, self.stride)  # N × (g · n) × positions
        samples = patches.reshape(len(x), g, -1, h * w).permute(0, 3, 1, 2)
        y: Tensor = self.train_of(samples).reshape(len(x), h * w, g, g, -1)  # of every group's patch: outputs by group
        own = y.diagonal(dim1=2, dim2=3).permute(0, 3, 2, 1)  # N × g × outputs of the group × positions
        out = own.reshape(len(x), self.outputs, h, w)
        return out if self.bias is None else out + self.bias[:, None, None]


def _drawn(shape: Sequence[int], inputs: int, paths: int, factors: int, made: dict[str, Any]) -> Tensor:
    """Normal entries, so spread that those of the composed matrix have the variance 1/(3n) of a fresh linear layer: it
    is `paths` times the product of the variances of all `factors`."""
    variance = (1 / (3 * max(1, inputs) * max(1, paths))) ** (1 / factors)
    return torch.randn(*shape, **made) * sqrt(variance)


def _pair(sides: int | Sequence[int]) -> tuple[int, int]:
    return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])
