"""Users' networks of spikingjelly's modules: at rest before every pass, counted in time steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("spikingjelly", reason="spiking networks need the extra `snn`")
from spikingjelly.activation_based import encoding, layer, neuron, surrogate

from prunelang.runtime.spiking.state import at_rest
from prunelang.runtime.trace import trace
from prunelang.runtime.zoo.spiking import snn_mlp

STEPS = 5


class StepByStep(nn.Module):
    """Single-step mode, the loop over time written by its user."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif, self.fc2 = nn.Linear(6, 9), neuron.LIFNode(v_threshold=0.1), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.fc2(self.lif(self.fc1(x))) for _ in range(STEPS)]).mean(0)


class Sequences(nn.Module):
    """Multi-step mode; layers and a trained time constant of spikingjelly."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = layer.Linear(6, 9, step_mode="m")
        self.lif = neuron.ParametricLIFNode(v_threshold=0.1, surrogate_function=surrogate.ATan(), step_mode="m")
        self.fc2 = layer.Linear(9, 4, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.lif(self.fc1(x.repeat(STEPS, 1, 1)))).mean(0)
        return out


class Drawn(nn.Module):
    """Spikes drawn by an encoder of spikingjelly, one step after another."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.fc1, self.lif = encoding.PoissonEncoder(), nn.Linear(6, 4), neuron.IFNode()

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.lif(self.fc1(self.encode(x))) for _ in range(STEPS)]).mean(0)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


OWN = [StepByStep, Sequences]


@pytest.mark.parametrize("make", OWN)
def test_a_network_of_neurons_remembers(make: Callable[[], nn.Module]) -> None:
    """Left alone it says something else the second time: what the hook is for."""
    net, x = seeded(make).eval(), torch.rand(3, 6)
    assert not torch.equal(net(x), net(x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", [*OWN, lambda: snn_mlp([6, 9, 4], T=STEPS)])
def test_every_pass_starts_at_rest(make: Callable[[], nn.Module], training: bool) -> None:
    net, x, y = at_rest(seeded(make)).train(training), torch.rand(3, 6), torch.rand(2, 6)
    first, second = net(x), net(y)
    assert torch.equal(net(x), first)
    assert torch.equal(net(x), first)
    assert torch.equal(net(y), second)
    assert bool(first.any())


def test_gradients_do_not_reach_back_into_the_pass_before() -> None:
    net, x = at_rest(seeded(StepByStep)), torch.rand(3, 6)
    net(x).sum().backward()
    net(x).sum().backward()  # torch would complain about a graph that is freed


def test_a_copy_is_at_rest_by_itself() -> None:
    from copy import deepcopy

    net, x = at_rest(seeded(StepByStep)).eval(), torch.rand(3, 6)
    with torch.no_grad():
        first = net(x)
        copied = deepcopy(net)
        assert torch.equal(copied(x), first)
        assert torch.equal(copied(x), first)


def test_a_network_without_neurons_is_left_alone() -> None:
    net = at_rest(nn.Linear(2, 2))
    assert not net._forward_pre_hooks


def test_drawn_spikes_repeat_in_evaluation_alone() -> None:
    net, x = at_rest(seeded(Drawn)), torch.rand(3, 6)
    state = torch.get_rng_state()
    with torch.no_grad():
        first = net.eval()(x)
        assert torch.equal(net(x), first)
        assert torch.equal(torch.get_rng_state(), state)
        net.train()(x)
    assert not torch.equal(torch.get_rng_state(), state)


def test_the_generators_are_put_back_after_a_failure() -> None:
    net, wrong = at_rest(seeded(Drawn)).eval(), torch.rand(3, 7)
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError):
        net(wrong)
    assert torch.equal(torch.get_rng_state(), state)


def test_parts_of_a_network_keep_their_names() -> None:
    net = seeded(Drawn)
    net.generators = nn.Linear(2, 2)
    at_rest(net)(torch.rand(3, 6))
    assert isinstance(net.generators, nn.Linear)


@pytest.mark.parametrize(("make", "uses"), [(StepByStep, STEPS), (Sequences, STEPS), (Drawn, STEPS)])
def test_time_steps_are_traced(make: Callable[[], nn.Module], uses: int) -> None:
    table = trace(seeded(make), (6,), model_text="own()")
    assert table.steps == STEPS
    assert [x.uses for x in table.layers] == [uses] * len(table.layers)
    assert {x.weight for x in table.layers} <= {"fc1.weight", "fc2.weight"}


def test_a_network_that_has_run_can_be_traced() -> None:
    net = seeded(StepByStep)
    net(torch.rand(3, 6)).sum().backward()
    assert trace(net, (6,), model_text="own()").steps == STEPS


def test_the_zoo_is_traced_with_the_first_layer_read_once() -> None:
    table = trace(snn_mlp([6, 9, 4], T=7), (6,), model_text="x")
    assert (table.steps, [x.uses for x in table.layers]) == (7, [1, 7])
    drawn = trace(snn_mlp([6, 9, 4], T=7, encoding="poisson"), (6,), model_text="x")
    assert (drawn.steps, [x.uses for x in drawn.layers]) == (7, [7, 7])
    assert trace(nn.Linear(6, 2), (6,), model_text="x").steps == 0
