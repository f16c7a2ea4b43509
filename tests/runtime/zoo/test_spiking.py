"""The spiking networks against loops over time: one step after another through spikingjelly's single-step neurons."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

pytest.importorskip("spikingjelly", reason="spiking networks need the extra `snn`")
from spikingjelly.activation_based import neuron

from prunelang.runtime.spiking.encoding import Poisson
from prunelang.runtime.zoo.spiking import SEWBlock, SEWResNet18, sew_resnet18, snn_conv, snn_mlp


class Neurons(dict[str, neuron.LIFNode]):
    """A single-step neuron for each name, made when it is first asked for."""

    def __init__(self, tau: float) -> None:
        super().__init__()
        self.tau = tau

    def __missing__(self, name: str) -> neuron.LIFNode:
        self[name] = neuron.LIFNode(self.tau)
        return self[name]


def steps(x: Tensor, T: int, encoding: str) -> Iterator[Tensor]:
    """What the first layer reads at each step."""
    yield from Poisson(T).eval()(x, lambda z: z) if encoding == "poisson" else x.expand(T, *x.shape)


def randomised(net: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics of batch normalisation that are not the first ones."""
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 3.0)
            nn.init.uniform_(m.bias, 0.0, 2.0)
            m.running_mean = 0.1 * torch.randn(m.num_features)
            m.running_var = 0.5 + torch.rand(m.num_features)
    return net.double().eval()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("encoding", ["direct", "poisson"])
@pytest.mark.parametrize("readout", ["current", "rate"])
def test_snn_mlp(encoding: str, readout: str) -> None:
    T, x = 6, 2 * torch.rand(5, 7, dtype=torch.float64)
    net = snn_mlp([7, 40, 40, 9], T=T, encoding=encoding, tau=1.5, readout=readout).double().eval()  # type: ignore[arg-type]
    lif, total = Neurons(1.5), torch.zeros(5, 9, dtype=torch.float64)
    for y in steps(x, T, encoding):
        for i in (1, 2, 3):
            y = net.get_submodule(f"fc{i}")(y)
            if i < 3 or readout == "rate":
                y = lif[f"{i}"](y)
        total += y
    torch.testing.assert_close(net(x), total / T)
    assert bool(total.any())


@pytest.mark.parametrize("encoding", ["direct", "poisson"])
@pytest.mark.parametrize("readout", ["current", "rate"])
def test_snn_conv(encoding: str, readout: str) -> None:
    T, x = 8, torch.rand(2, 3, 8, 8, dtype=torch.float64)
    made = snn_conv(4, T, encoding, 1.3, readout, inputs=[3, 8, 8], classes=2, convs=4, dropout=0.5)  # type: ignore[arg-type]
    net, lif = randomised(made), Neurons(1.3)
    votes = torch.zeros(2, 20, dtype=torch.float64)
    for y in steps(x, T, encoding):
        for i in (1, 2, 3, 4):
            y = lif[f"{i}"](net.get_submodule(f"bn{i}")(net.get_submodule(f"conv{i}")(y)))
            y = max_pool2d(y, 2) if i in (2, 4) else y
        y = lif["fc1"](net.get_submodule("fc1")(y.flatten(1)))
        y = net.get_submodule("fc2")(y)
        votes += lif["fc2"](y) if readout == "rate" else y
    expected = torch.stack([votes[:, :10].mean(1), votes[:, 10:].mean(1)], 1) / T
    torch.testing.assert_close(net(x), expected)
    assert bool(expected.any())


def block(b: SEWBlock, x: Tensor, lif: Neurons, name: str) -> Tensor:
    y = lif[f"{name}.1"](b.bn1(b.conv1(x)))
    y = lif[f"{name}.2"](b.bn2(b.conv2(y)))
    added: Tensor = y + (x if b.downsample is None else lif[f"{name}.3"](b.downsample(x)))
    return added


def test_sew_resnet18() -> None:
    T, x = 3, torch.rand(2, 3, 32, 32, dtype=torch.float64)
    net, lif = randomised(sew_resnet18(T, width=3, classes=4)), Neurons(2.0)
    assert isinstance(net, SEWResNet18)
    total = torch.zeros(2, 4, dtype=torch.float64)
    blocks = [(name, b) for name, b in net.named_modules() if isinstance(b, SEWBlock)]
    assert [name for name, _ in blocks] == [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]
    for y in steps(x, T, "direct"):
        y = lif["stem"](net.bn1(net.conv1(y)))
        for name, b in blocks:
            y = block(b, y, lif, name)
        total += net.fc(y.mean((2, 3)))
    torch.testing.assert_close(net(x), total / T)


def test_entries_are_dropped_at_all_steps_or_none() -> None:
    net = snn_conv(4, 5, inputs=[1, 8, 8], convs=2, dropout=0.5).train()
    read: list[Tensor] = []
    net.fc1.register_forward_pre_hook(lambda m, inputs: read.append(inputs[0].view(5, 3, -1)))
    x = torch.ones(3, 1, 8, 8)
    for name in ("bn1.bias", "bn2.bias"):
        nn.init.constant_(net.get_parameter(name), 9.0)  # every neuron fires at every step
    net(x)
    assert {float(v) for v in read[0].detach().flatten()} == {0.0, 2.0}
    assert all(torch.equal(x_t, read[0][0]) for x_t in read[0])
    net.eval()(x)
    assert {float(v) for v in read[1].detach().flatten()} == {1.0}
