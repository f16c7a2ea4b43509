"""How an input becomes currents over T time steps: `Direct` or `Poisson`, both through the network's first layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

DRAW = 0x5EED  # of the one draw that evaluation uses


Map = Callable[[Tensor], Tensor]


def each_step(layer: Map, x: Tensor) -> Tensor:
    """`layer` at every time step of ``T × N × …``, as one batch of T·N."""
    y = layer(x.flatten(0, 1))
    return y.view(*x.shape[:2], *y.shape[1:])


class Direct(nn.Module):
    """The first layer reads the input itself, once; its current is the same at each of `steps` time steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor, first: Map) -> Tensor:
        current = first(x)
        return current.expand(self.steps, *current.shape)


class Poisson(nn.Module):
    """The first layer reads spikes: one with probability min(max(x, 0), 1) in every entry of each of `steps` steps.

    In training they are drawn from torch's global generator. In evaluation all samples share one draw of the uniform
    thresholds, the same on every device, so that the network is a function of its input: neither the order of samples
    nor the size of a batch changes what it says.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor, first: Map) -> Tensor:
        if self.training:
            u = torch.rand((self.steps, *x.shape), dtype=x.dtype, device=x.device)
        else:
            own = torch.Generator().manual_seed(DRAW)
            u = torch.rand((self.steps, 1, *x.shape[1:]), generator=own, device="cpu").to(x)
        return each_step(first, (u < x).to(x.dtype))


ENCODINGS: dict[str, type[Direct | Poisson]] = {"direct": Direct, "poisson": Poisson}
