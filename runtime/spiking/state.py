"""The state of spikingjelly's modules: a network that remembers, made a function of its input.

Nothing here imports spikingjelly: a network that holds one of its modules has imported it already.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from prunelang.runtime.spiking.encoding import DRAW


def rememberers(net: nn.Module) -> Iterator[Any]:
    """The modules of `net` that may keep state from one call to the next: neurons, synapse filters, encoders."""
    base = sys.modules.get("spikingjelly.activation_based.base")
    if base is not None:
        yield from (m for m in net.modules() if isinstance(m, base.MemoryModule))


def rest(net: nn.Module, *_: object) -> None:
    """Put every neuron of `net` back to where it starts."""
    for module in rememberers(net):
        module.reset()


def at_rest(net: nn.Module) -> nn.Module:
    """`net` itself, from now on with every forward pass starting at rest: what it says depends on the input alone.

    Where it draws spikes by an encoder of spikingjelly, every pass in evaluation mode draws the same ones.
    """
    if any(m._memories for m in rememberers(net)):
        without_notices()
        net.register_forward_pre_hook(rest)
    encoding = sys.modules.get("spikingjelly.activation_based.encoding")
    if encoding is not None and any(isinstance(m, encoding.StatelessEncoder) for m in net.modules()):
        net.register_forward_pre_hook(fix_draws)
        net.register_forward_hook(free_draws, always_call=True)
    return net


def fix_draws(net: Any, inputs: tuple[Tensor, ...]) -> None:
    """In evaluation mode, let torch's global generators start at a fixed place, and remember where they were."""
    net._before_draws = None if net.training else generators(inputs[0])  # a name that no network of a user has
    for generator, _ in net._before_draws or ():
        generator.manual_seed(DRAW)


def free_draws(net: Any, *_: object) -> None:
    """Put the generators back."""
    for generator, state in net._before_draws or ():
        generator.set_state(state)
    net._before_draws = None


def generators(x: Tensor) -> list[tuple[torch.Generator, Tensor]]:
    """The global generators that a network on the device of x may draw from, each with its state."""
    found = [torch.default_generator]
    if x.device.type == "cuda":
        found.append(torch.cuda.default_generators[x.device.index])
    return [(generator, generator.get_state()) for generator in found]


def without_notices() -> None:
    """Silence what torch logs each time spikingjelly registers an operator where Triton is not installed."""
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)


class StepCount:
    """How many time steps one forward pass of `net` takes: of the module with state that sees most of them.

    A module in multi-step mode sees a sequence ``T × N × …`` at once, one in single-step mode is called T times.
    """

    def __init__(self, net: nn.Module) -> None:
        self.seen: dict[nn.Module, int] = {}
        self.handles = [m.register_forward_pre_hook(self._count) for m in rememberers(net)]
        if self.handles:
            without_notices()

    def _count(self, module: Any, inputs: tuple[Any, ...]) -> None:
        steps = len(inputs[0]) if module.step_mode == "m" else 1
        self.seen[module] = self.seen.get(module, 0) + steps

    @property
    def steps(self) -> int:
        """T, or 0 for a network without neurons."""
        return max(self.seen.values(), default=0)

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()
