"""Spikes and synaptic operations against obvious loops, against spikingjelly's own counter, and bounded from above."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunelang.runtime.synops import Activity, Uncounted, count, fanout

pytest.importorskip("spikingjelly", reason="spiking networks need the extra `snn`")
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter

T, N = 5, 7


class Net(nn.Module):
    """Whole sequences: time outermost, and the first layer reads spikes drawn once for all samples."""

    def __init__(self, *stages: nn.Module, rate: Tensor | None = None) -> None:
        super().__init__()
        self.stages, self.rate = nn.ModuleList(stages), rate
        functional.set_step_mode(self, "m")

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        drive = torch.rand((T, 1, *x.shape[1:]), generator=torch.Generator().manual_seed(3))
        y = (drive < x).float() if self.rate is None else x.expand(T, *x.shape)
        for stage in self.stages:
            y = stage(y)
        return y.mean(0)


class OneStep(nn.Module):
    """The same idea called step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1, self.fc2 = nn.Linear(6, 5), neuron.LIFNode(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        return sum(self.fc2(self.lif1(self.fc1(x))) for _ in range(T)) / T


def mlp() -> Net:
    torch.manual_seed(1)
    net = Net(nn.Linear(6, 9), neuron.LIFNode(), nn.Linear(9, 4), neuron.LIFNode(v_threshold=0.3))
    return thinned(net, 0.4)


def conv() -> Net:
    torch.manual_seed(2)
    first = layer.Conv2d(2, 4, 3, padding=1, stride=2)
    second = layer.Conv2d(4, 4, (3, 2), padding=(2, 0), groups=2, dilation=(1, 2))
    net = Net(
        first,
        neuron.LIFNode(v_threshold=0.2),
        second,
        neuron.LIFNode(v_threshold=0.1),
        layer.Flatten(),
        nn.Linear(20, 3),
    )
    return thinned(net, 0.3)


def thinned(net: Net, share: float) -> Net:
    """With that share of the weights 0, and bold enough to fire."""
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(3.0)
            if p.dim() > 1:
                p[torch.rand_like(p) < share] = 0.0
    return net


def kernels(net: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in net.named_parameters() if name.endswith("weight")}


def counted(net: nn.Module, x: Tensor, batch: int = 256) -> Activity:
    return count(net, x, kernels(net), T, batch)


def recorded(net: nn.Module, x: Tensor) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """(layer, input, output) of every call, sequences cut into their steps."""
    found: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        sequence = inputs[0].dim() > 2 and inputs[0].shape[:2] == (T, len(x))
        found.extend((module, a, b) for a, b in (zip(inputs[0], out, strict=True) if sequence else [(inputs[0], out)]))

    leaves = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d | neuron.LIFNode)]
    handles = [m.register_forward_hook(note) for m in leaves]
    with torch.no_grad():
        net.eval()(x)
    for handle in handles:
        handle.remove()
    return found


def reads_of(module: nn.Module, x: Tensor, out: Tensor) -> int:
    """One sample at one step: every spike counts the kept weights that multiply it, one by one."""
    weight = module.weight.detach()
    if isinstance(module, nn.Linear):
        return sum(int(x[j]) for o in range(len(weight)) for j in range(len(x)) if weight[o, j] != 0)
    assert isinstance(module, nn.Conv2d)
    (sh, sw), (ph, pw), (dh, dw) = module.stride, module.padding, module.dilation
    _, rows, columns = out.shape
    inside, outside = weight.shape[1], weight.shape[0] // module.groups
    total = 0
    for o, i, a, b in product(*map(range, weight.shape)):
        if weight[o, i, a, b] == 0:
            continue
        channel = o // outside * inside + i
        for r, c in product(range(rows), range(columns)):
            at = (r * sh - ph + a * dh, c * sw - pw + b * dw)
            if 0 <= at[0] < x.shape[1] and 0 <= at[1] < x.shape[2]:
                total += int(x[channel, at[0], at[1]])
    return total


def naive(net: nn.Module, x: Tensor) -> tuple[list[int], list[int]]:
    """Synaptic operations and spikes of each sample."""
    synops, spikes = [0] * len(x), [0] * len(x)
    for module, inputs, outputs in recorded(net, x):
        for n in range(len(x)):
            if isinstance(module, neuron.LIFNode):
                spikes[n] += int(outputs[n].sum())
            else:
                synops[n] += reads_of(module, inputs[n], outputs[n])
    return synops, spikes


@pytest.mark.parametrize(("make", "shape"), [(mlp, (6,)), (conv, (2, 6, 5))])
def test_counts_are_those_of_a_loop_over_spikes_and_weights(make: Callable[[], Net], shape: tuple[int, ...]) -> None:
    net, x = make(), torch.rand(N, *shape)
    synops, spikes = naive(net, x)
    found = counted(net, x)
    assert found.synops.tolist() == synops
    assert found.spikes.tolist() == spikes
    assert min(synops) > 0
    assert min(spikes) > 0
    assert sum(found.by_tensor.values()) == pytest.approx(np.mean(synops), rel=1e-12)
    assert found.macs == 0.0
    assert found.values("synops") is found.synops


@pytest.mark.parametrize("batch", [1, 2, 6, 7, 256])
def test_batches_do_not_matter(batch: int) -> None:
    net, x = mlp(), torch.rand(N, 6)
    whole, cut = counted(net, x), counted(net, x, batch)
    assert cut.synops.tolist() == whole.synops.tolist()
    assert cut.spikes.tolist() == whole.spikes.tolist()
    assert cut.by_tensor == whole.by_tensor
    assert (cut.most_synops, cut.most_spikes) == (whole.most_synops, whole.most_spikes)


@pytest.mark.parametrize("make", [mlp, conv])
def test_spikingjelly_counts_the_same_in_a_dense_network(make: Callable[[], Net]) -> None:
    net = make()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1e-3 * torch.randn_like(p))  # no weight is 0: that counter knows no zeros
    x = torch.rand(N, *((6,) if make is mlp else (2, 6, 5)))
    counter = SynOpCounter()
    with torch.no_grad(), DispatchCounterMode([counter]):
        net.eval()(x)
    assert counted(net, x).synops.sum() == counter.get_total()


def test_a_network_that_runs_step_by_step() -> None:
    torch.manual_seed(4)
    net, x = OneStep(), 4 * torch.rand(N, 6)
    spikes = dict.fromkeys(range(N), 0.0)
    found: list[tuple[nn.Module, Tensor, Tensor]] = recorded(net, x)
    for module, _, out in found:
        if isinstance(module, neuron.LIFNode):
            for n in range(N):
                spikes[n] += float(out[n].sum())
    got = counted(net, x)
    assert got.spikes.tolist() == list(spikes.values())
    assert got.synops.tolist() == [3 * s for s in spikes.values()]
    assert got.macs == T * 30  # the input is no spikes: fc1 multiplies, in every step
    assert got.energy == pytest.approx(4.6 * T * 30 + 0.9 * np.mean(got.synops))
    assert set(got.by_tensor) == {"fc2.weight"}


def test_whole_numbers_of_an_image_are_no_spikes_however_they_are_repeated() -> None:
    torch.manual_seed(6)
    net, x = Net(nn.Linear(6, 9), neuron.LIFNode(), nn.Linear(9, 4), rate=torch.ones(())), torch.randint(0, 256, (N, 6))
    viewed = counted(net, x.float())

    class Copied(Net):
        def forward(self, x: Tensor) -> Tensor:
            functional.reset_net(self)
            return nn.Sequential(*self.stages)(x.repeat(T, 1, 1)).mean(0)

    copied = counted(Copied(*net.stages), x.float())
    assert set(viewed.by_tensor) == set(copied.by_tensor) == {"stages.2.weight"}
    assert copied.synops.tolist() == viewed.synops.tolist()
    assert copied.macs == viewed.macs == T * 54


@pytest.mark.parametrize("named", [("input", "weight"), ("weight",), ()])
def test_arguments_may_be_named(named: tuple[str, ...]) -> None:
    weight, x = nn.Parameter(torch.ones(4, 3)), torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])

    class Called(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            given = {"input": x + 0.0, "weight": weight}
            return F.linear(*(v for k, v in given.items() if k not in named), **{k: given[k] for k in named})

    assert count(Called(), x, {"weight": weight}, 1).synops.tolist() == [8.0, 4.0]


def test_no_sample_costs_more_than_what_is_stated() -> None:
    for make, shape in ((mlp, (6,)), (conv, (2, 6, 5))):
        net = make()
        with torch.no_grad():
            for name, p in net.named_parameters():
                if name.endswith("bias"):
                    p.fill_(100.0)  # everything fires always
        found = counted(net, torch.ones(N, *shape))
        assert found.synops.max() <= found.most_synops
        assert found.synops.max() == found.most_synops
        assert found.spikes.max() == found.most_spikes
        rare = counted(make(), torch.rand(N, *shape))
        assert rare.synops.max() < rare.most_synops == found.most_synops


def test_fan_out_of_a_kernel_with_some_weights_gone() -> None:
    weight = torch.randn(4, 3, 3, 3)
    weight[torch.rand_like(weight) < 0.5] = 0.0
    x = torch.zeros(2, 3, 5, 5)
    reads = fanout(F.conv2d, x, weight, [(1, 1), (1, 1)], {})
    one = torch.zeros(1, 3, 5, 5)
    one[0, 1, 0, 4] = 1.0  # a corner: only weights that reach it count
    counts = F.conv2d(one, (weight != 0).float(), padding=1).sum()
    assert float(reads[0, 1, 0, 4]) == float(counts)
    assert float(reads[0, 1, 2, 2]) == float((weight[:, 1] != 0).sum())


def test_a_kernel_that_is_read_in_another_way_is_named() -> None:
    net = mlp()
    net.register_parameter("odd", nn.Parameter(torch.ones(3, 3)))
    with pytest.raises(Uncounted, match="`odd` is not read"):
        count(net, torch.rand(N, 6), {**kernels(net), "odd": net.odd}, T)


def test_the_mode_of_the_network_is_left_as_it_was() -> None:
    net = mlp().train()
    counted(net, torch.rand(N, 6))
    assert net.training
    assert all(not m._forward_hooks for m in net.modules())
