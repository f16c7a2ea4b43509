"""Networks that are chains: which are found, with what layers, and why others are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunelang.runtime.blocks.layers import Convolution, Linear, forward
from prunelang.runtime.chains import NotAChain, chain_of

SHAPE = (2, 9, 8)


class Functional(nn.Module):
    """Layers with what is done between them by functions."""

    def __init__(self, between: Callable[[Tensor], Tensor], *, after: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 3)
        self.between, self.after = between, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.second(self.between(self.first(x))))


def images(*between: nn.Module) -> nn.Module:
    """A strided convolution, `between`, and a linear layer of the size that comes out."""
    front = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1), *between, nn.Flatten())
    width = front(torch.zeros(1, *SHAPE)).shape[1]
    return nn.Sequential(*front, nn.Linear(width, 3))


def test_a_chain_computes_what_the_network_computes() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(4, 3, 3, dilation=2, padding="same"), nn.ReLU(),
        nn.Flatten(), nn.Linear(75, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3),
    ).double()  # fmt: skip
    chain = chain_of(net, SHAPE)
    assert chain.weights == ("0.weight", "2.weight", "5.weight", "8.weight")
    assert chain.biases == ("0.bias", "2.bias", "5.bias", "8.bias")
    assert chain.tensors[:2] == ("0.weight", "0.bias")
    assert chain.layers[0] == Convolution(SHAPE, 4, (3, 2), (2, 2), (1, 1))
    assert chain.layers[1] == Convolution((4, 5, 5), 3, (3, 3), padding=(2, 2), dilation=(2, 2))
    assert chain.layers[2:] == (Linear(75, 6), Linear(6, 3))
    state = net.state_dict()
    x = torch.randn(5, *SHAPE, dtype=torch.float64)
    weights = [(state[w], state[b]) for w, b in zip(chain.weights, chain.biases, strict=True)]
    torch.testing.assert_close(forward(chain.layers, weights, x), net.eval()(x), rtol=1e-12, atol=1e-12)


def test_functions_between_layers_are_seen_by_what_they_do() -> None:
    assert chain_of(Functional(torch.relu), (6,)).weights == ("first.weight", "second.weight")
    dropped = Functional(lambda x: F.dropout(x.clamp(min=0), 0.5, training=False))
    assert chain_of(dropped, (6,)).layers == (Linear(6, 5), Linear(5, 3))


def test_one_linear_layer_is_a_chain() -> None:
    assert chain_of(nn.Linear(4, 2), (4,)).layers == (Linear(4, 2),)


def test_the_network_is_left_as_it_was() -> None:
    net = images(nn.ReLU()).half().train()
    before = {name: (p.data_ptr(), p.dtype) for name, p in net.named_parameters()}
    state = torch.random.get_rng_state()
    chain_of(net, SHAPE)
    assert {name: (p.data_ptr(), p.dtype) for name, p in net.named_parameters()} == before
    assert all(m.training for m in net.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


def shared() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer)


def spare() -> nn.Module:
    net = Functional(torch.relu)
    net.scale = nn.Parameter(torch.ones(1))
    return net


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(
    ("net", "shape", "reason"),
    [
        (images(nn.ReLU(), nn.MaxPool2d(2)), SHAPE, "`2` is a MaxPool2d"),
        (images(nn.BatchNorm2d(4), nn.ReLU()), SHAPE, "`1` is a BatchNorm2d"),
        (images(nn.Tanh()), SHAPE, "`1` is a Tanh"),
        (Functional(torch.tanh), (6,), "`second` is not given what `first` makes after a ReLU"),
        (Functional(lambda x: x), (6,), "`second` is not given what `first` makes after a ReLU"),
        (Functional(torch.relu, after=torch.relu), (6,), "its output is not what `second` makes"),
        (nn.Sequential(nn.ReLU(), nn.Linear(4, 2)), (4,), "`1` is not given the input"),
        (shared(), (4,), "`0` is used more than once"),
        (spare(), (6,), "`scale` belongs to none"),
        (nn.Sequential(nn.Linear(4, 2, bias=False)), (4,), "`0` has no bias"),
        (nn.Sequential(nn.Conv2d(2, 4, 3, groups=2)), SHAPE, "`0` is a convolution in 2 groups"),
        (nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect")), SHAPE, "`0` pads by reflect"),
        (nn.Sequential(nn.Conv2d(2, 4, 2, padding="same")), SHAPE, "`0` pads its two sides differently"),
        (nn.Sequential(nn.Linear(8, 2)), SHAPE, "`0` is applied at every position of a sequence"),
        (nn.Sequential(nn.Linear(5, 2)), (4,), "it does not run in float64"),
        (nn.Sequential(nn.ReLU()), (4,), "it has no linear layer or convolution"),
    ],
)
def test_others_are_refused_by_name(net: nn.Module, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(NotAChain) as refused:
        chain_of(net, shape)
    assert reason in str(refused.value)
