"""`state_dict` in the middle of anything: a second process goes on, and ends at the same bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunelang
from prunelang.api import Program
from prunelang.stepping import Stepper
from tests.binding.loops import SEED, differing, network, optimizer_of

HEAD = "model net = mlp([64, 12, 10])\ndata digits(batch = 256)\nminimize cross_entropy(net)\nsubject to\n"
SGD = "with sgd(lr = 0.1, momentum = 0.9)"
START, END = f"pretrain {SGD} for 1 epochs\n", f"finetune {SGD} for 2 epochs\n"
SMALL = "    small: ‖net.weights‖₀ ≤ 20%\n"
PROGRAMS = {
    "lc": SMALL + START + f"solve lc(steps = 3) {SGD} for 1 epochs\n" + END,
    "ista": SMALL + START + f"solve ista() {SGD} for 3 epochs\n" + END,
    "str": SMALL + START + f"solve ista(threshold = str) {SGD} for 3 epochs\n" + END,
    "gda": SMALL + START + f"solve gda() {SGD} for 3 epochs\n" + END,
    "pmmp": SMALL + START + f"solve pmmp() {SGD} for 3 epochs\n" + END,
    "drr": SMALL + START + f"solve drr() {SGD} for 3 epochs\n" + END,
    "factors": '    r: net["fc1"].weights ∈ low_rank(3)\n' + START + f"solve factors() {SGD} for 3 epochs\n" + END,
}
STOPS = (0, 3, 7, 16, 27, 33)  # steps after which the state is taken: 6 an epoch


def bound(program: Program) -> tuple[nn.Module, Stepper]:
    net = network(program)
    return net, program.bind(net, optimizer_of(program, net, momentum=0.9, fused=None), seed=SEED)


def go_on(stepper: Stepper, net: nn.Module, stop: int | None = None) -> None:
    """The batches of the epoch under way that are left, and all after them."""
    done = 0
    while not stepper.done:
        place = stepper._place["cursor"] + int(stepper._waiting)
        for x, y in stepper._machine.feed.epoch(stepper.epoch, place):
            if done == stop:
                return
            stepper.step(lambda: stepper.objective(net(x), y))
            done += 1
        stepper.epoch_end()


def tensors(net: nn.Module) -> dict[str, Tensor]:
    return {n: t.detach().clone() for n, t in net.state_dict().items()}


@pytest.mark.parametrize("name", PROGRAMS)
def test_going_on_changes_no_bit(name: str) -> None:
    program = prunelang.compile(HEAD + PROGRAMS[name], dtype="float64")
    net, stepper = bound(program)
    states: dict[int, dict[str, Any]] = {}
    done = 0
    while not stepper.done:
        for x, y in stepper.batches():
            if done in STOPS:
                states[done] = stepper.state_dict()
            stepper.step(lambda: stepper.objective(net(x), y))
            done += 1
        stepper.epoch_end()
    stepper.detach()
    expected = tensors(net)
    assert len(states) == len(STOPS)
    for at, state in states.items():
        net, stepper = bound(program)
        with torch.no_grad():
            for p in net.parameters():
                p.add_(1.0)  # the state brings its own network
        stepper.load_state_dict(state)
        go_on(stepper, net)
        stepper.detach()
        assert differing(expected, tensors(net)) == [], f"{name} from step {at}"


def test_a_state_is_plain_data_and_tensors() -> None:
    _, stepper = bound(prunelang.compile(HEAD + PROGRAMS["lc"]))
    state = stepper.state_dict()
    stepper.detach()

    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(isinstance(k, str) and plain(v) for k, v in value.items())
        if isinstance(value, list | tuple):
            return all(map(plain, value))
        return value is None or isinstance(value, str | int | float | bool | Tensor)

    assert plain(state)
