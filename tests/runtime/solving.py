"""Small problems through the real executor: a spec's text in, the machine that ran it out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunelang import compile
from prunelang.execution import RunOptions, Session
from prunelang.runtime.execute import run
from prunelang.runtime.machine import Event, Machine

SIDE = 4.0  # the design is SIDE times the identity: a power of two, so that nothing in it is rounded

DEVICE = os.environ.get("PRUNELANG_TEST_DEVICE", "cpu")


@dataclass
class Ran:
    """A finished machine and everything that it reported."""

    session: Session
    machine: Machine
    events: list[Event]

    def w(self, name: str = "fc1.weight") -> Tensor:
        return self.machine.tensors[name].detach()

    @property
    def kept(self) -> dict[str, Tensor]:
        return dict(zip(self.machine.names("m"), self.machine.values["m"], strict=True))

    def stages(self, what: str) -> list[Event]:
        return [e for e in self.events if e["event"] == what]


def prepare(text: str, folder: Path, *, dtype: str = "float64", seed: int = 0) -> Session:
    program = compile(text, dtype=dtype)
    program.require_runnable()
    return Session(program.plan, folder, RunOptions(folder, seed=seed, dtype=dtype, device=DEVICE))


def solve(
    text: str,
    folder: Path = Path(),
    *,
    dtype: str = "float64",
    seed: int = 0,
    before: Callable[[Machine], None] = lambda machine: None,
    observe: Callable[[Machine, Event], None] = lambda machine, event: None,
    stop: Callable[[], bool] = lambda: False,
) -> Ran:
    """Runs a spec; `before` sees the machine first, `observe` every event with it. Exceptions pass through."""
    session = prepare(text, folder, dtype=dtype, seed=seed)
    events: list[Event] = []

    def note(event: Event) -> None:
        events.append(event)
        observe(machine, event)

    machine = session.machine(note, stop)
    before(machine)
    run(machine)
    return Ran(session, machine, events)


def quadratic(folder: Path, target: Tensor, start: Tensor | None = None) -> str:
    """The head of a spec whose data term is ½‖W − A‖² exactly: X = SIDE·I, one batch, W from `start` (0), no bias.

    ``mean (XWᵀ − XAᵀ)² = SIDE²/(n·o) ‖W − A‖²`` over o outputs and n inputs, hence the coefficient of the objective.
    """
    o, n = target.shape
    x = SIDE * torch.eye(n)
    y = x @ target.float().t()
    np.savez(folder / "quadratic.npz", x_train=x.numpy(), y_train=y.numpy(), x_test=x.numpy(), y_test=y.numpy())
    return linear(folder, o, n, n, f"{n * o / (2 * SIDE**2)!r} * mse(net)", "quadratic.npz", start)


def linear(
    folder: Path, outputs: int, inputs: int, batch: int, loss: str, data: str, start: Tensor | None = None
) -> str:
    """A linear map without bias from `start`, on a file of tensors."""
    from safetensors.torch import save_file

    w = torch.zeros(outputs, inputs) if start is None else start.float()
    save_file({"fc1.weight": w.contiguous(), "fc1.bias": torch.zeros(outputs)}, folder / "start.safetensors")
    return (
        f'model net = mlp([{inputs}, {outputs}]) from "start.safetensors"\n'
        f'data tensors("{folder / data}", batch = {batch})\n'
        f"freeze net.biases\nminimize {loss}"
    )
