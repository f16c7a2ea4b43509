"""Leaky integrate-and-fire neurons over a whole sequence of time steps.

The loop over time is written out here with its gradient in closed form: the same spikes and gradients as those of
spikingjelly's loop of torch operators, in a third of the time. On CUDA spikingjelly chooses: a kernel, or such a loop.
"""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import Any

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor
from torch.autograd.function import once_differentiable

THRESHOLD = 1.0
FASTER = frozenset({"cuda"})  # devices that spikingjelly has kernels for


class FusedLIF(torch.autograd.Function):
    """``h_t = v_{t−1} + (x_t − v_{t−1})/τ``, ``s_t = 1[h_t ≥ 1]``, ``v_t = (1 − s_t) h_t``, from ``v_0 = 0``.

    Backwards 1[·] has the derivative ``1/(1 + (π(h − 1))²)`` of the arc tangent, and the factor (1 − s_t) of the reset
    is a constant: ``∂L/∂h_t = ∂L/∂s_t /(1 + (π(h_t − 1))²) + (1 − 1/τ)(1 − s_t) ∂L/∂h_{t+1}``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, tau: float) -> Tensor:
        h = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        s = torch.empty_like(h)
        v = torch.zeros_like(h[0])
        for x_t, h_t, s_t in zip(x, h, s, strict=True):
            torch.sub(x_t, v, out=h_t).div_(tau).add_(v)
            torch.ge(h_t, THRESHOLD, out=s_t)
            torch.addcmul(h_t, h_t, s_t, value=-1, out=v)
        ctx.save_for_backward(h, s)
        ctx.tau = tau
        return s

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        h, s = ctx.saved_tensors
        d = (h - THRESHOLD).mul_(math.pi).square_().add_(1.0).reciprocal_().mul_(grad)
        carried = (1.0 - s).mul_(1.0 - 1.0 / ctx.tau)
        for t in range(len(d) - 2, -1, -1):
            d[t].addcmul_(d[t + 1], carried[t])
        return d.div_(ctx.tau), None


class LIF(neuron.LIFNode):  # type: ignore[misc]  # spikingjelly is untyped
    """spikingjelly's LIFNode with threshold 1, hard reset to 0, the arc tangent as surrogate, and no memory: currents
    ``T × N × …`` to spikes of the same shape, each call from the state of rest. `tau` > 1 is counted in time steps.
    """

    def __init__(self, tau: float = 2.0) -> None:
        super().__init__(float(tau), True, THRESHOLD, 0.0, surrogate.ATan(), True, "m")
        self._memories.clear()
        self._memories_rv.clear()

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "meta":  # only shapes are asked for, and that zeros stay zeros
            return torch.relu(x)
        if x.device.type not in FASTER:
            spikes: Tensor = FusedLIF.apply(x, self.tau)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            return spikes
        arguments = self.tau, True, THRESHOLD, 0.0, self.surrogate_function, True
        spikes, _, _ = functional.lif_multi_step(x, torch.zeros_like(x[0]), *arguments)
        return spikes


def versions(device: str) -> dict[str, str]:
    """What the bits of a spiking network depend on besides torch: the library, and what computes its neurons there."""
    found = {"spikingjelly": version("spikingjelly"), "neurons": "torch"}
    if torch.device(device).type in FASTER:
        found["neurons"] = str(functional.neuron_implementation("lif", torch.device(device))["implementation"])
    return found
