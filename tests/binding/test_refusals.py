"""What cannot be bound, and steps that are not where they should be: each with its code and its text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import prunelang
from prunelang.dsl.diagnostics import SpecError
from prunelang.stepping import Stepper
from tests.binding.loops import network
from tests.golden_support import GOLDEN

HEAD = "model net = mlp([64, 12, 10])\ndata digits(batch = 128)\nminimize cross_entropy(net)\nsubject to\n"
SMALL = "    small: ‖net.weights‖₀ ≤ 20%\n"
LC = "solve lc(steps = 2) with sgd(lr = 0.1) for 1 epochs\n"
GDA = "solve gda() with sgd(lr = 0.1) for 2 epochs\n"
SEARCH = """model net = mlp([64, 12, 10])
data digits(batch = 128)
minimize ‖net.weights‖₀
subject to
    floor: accuracy(net) ≥ 50%
pretrain with sgd(lr = 0.1) for 1 epochs
solve lc(steps = 2) with sgd(lr = 0.1) for 1 epochs
"""


def small() -> nn.Module:
    return network(prunelang.compile(HEAD + SMALL + LC))


def bound(text: str = HEAD + SMALL + LC, net: nn.Module | None = None, **given: object) -> Stepper:
    program = prunelang.compile(text)
    net = network(program) if net is None else net
    optimizer = given.pop("optimizer", torch.optim.SGD(net.parameters(), lr=0.1))
    return program.bind(net, optimizer, **given)  # type: ignore[arg-type]


def renamed() -> nn.Module:
    net = small()
    net.add_module("more", nn.Linear(2, 2))
    return net


def held_still() -> nn.Module:
    net = small()
    next(net.parameters()).requires_grad_(False)
    return net


def half_held() -> object:
    net = small()
    optimizer = torch.optim.SGD(list(net.parameters())[:2], lr=0.1)
    return bound(net=net, optimizer=optimizer)


def other(kind: str, text: str = HEAD + SMALL + LC, **given: object) -> object:
    net = small()
    return bound(text, net, optimizer=getattr(torch.optim, kind)(net.parameters(), lr=0.1), **given)


def too_many() -> object:
    stepper = bound(steps_per_epoch=1)
    try:
        for _ in range(2):
            stepper.step(lambda: _loss(stepper))
    finally:
        stepper.detach()
    return stepper


def too_few() -> object:
    stepper = bound()
    try:
        stepper.step(lambda: _loss(stepper))
        stepper.epoch_end()
    finally:
        stepper.detach()
    return stepper


def unfinished() -> object:
    stepper = bound()
    stepper.detach()
    return stepper.finish("nowhere")


def over() -> object:
    stepper = bound(HEAD + SMALL + LC.replace("steps = 2", "steps = 1"), steps_per_epoch=1)
    try:
        stepper.step(lambda: _loss(stepper))
        stepper.epoch_end()
        return stepper.step(lambda: _loss(stepper))
    finally:
        stepper.detach()


def foreign_state() -> object:
    a, b = bound(), bound(HEAD + SMALL + GDA)
    try:
        return b.load_state_dict(a.state_dict())
    finally:
        a.detach()
        b.detach()


def _loss(stepper: Stepper) -> torch.Tensor:
    x = torch.ones(4, 64)
    return F.cross_entropy(stepper._machine.model(x), torch.tensor([0, 1, 2, 3]))


CASES: dict[str, Callable[[], object]] = {
    "P550_search": lambda: bound(SEARCH),
    "P550_bcd": lambda: bound(HEAD.replace("cross_entropy", "mse") + SMALL + "solve bcd(steps = 2)\n"),
    "P551_missing": lambda: bound(net=nn.Linear(64, 10)),
    "P551_shape": lambda: bound(net=network(prunelang.compile((HEAD + SMALL + LC).replace("12", "14")))),
    "P551_type": lambda: bound(net=small().double()),
    "P551_more": lambda: bound(net=renamed()),
    "P551_still": lambda: bound(net=held_still()),
    "P552_holds": half_held,
    "P552_lbfgs": lambda: other("LBFGS"),
    "P552_minimax": lambda: other("Adagrad", HEAD + SMALL + GDA),
    "P552_rates": lambda: other("Adam", rates="spec"),
    "P553_more": too_many,
    "P553_fewer": too_few,
    "P555_unfinished": unfinished,
    "P555_over": over,
    "P556_state": foreign_state,
}


@pytest.mark.parametrize("name", CASES)
def test_refusal(name: str, golden: Callable[[Path, str], None]) -> None:
    with pytest.raises(SpecError) as caught:
        CASES[name]()
    assert [d.code for d in caught.value.diagnostics] == [name[:4]]
    golden(GOLDEN / "bad" / "bind" / f"{name}.txt", f"{caught.value}\n")
