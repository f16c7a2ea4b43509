"""`shrink`: the smaller network gives the same outputs, costs what the formula says, and comes back from its file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import prunelang
from prunelang.compiler.shapes import ShapeTable
from prunelang.runtime import registry
from prunelang.runtime.files import FileProblem
from prunelang.runtime.same_outputs import ShrinkProblem
from prunelang.runtime.shrink import indices, shrink, shrunk
from prunelang.runtime.shrunk import load_shrunk, save_shrunk
from prunelang.runtime.trace import trace
from prunelang.runtime.zoo import lenet, mlp, resnet, transformer
from tests.runtime.networks import NETWORKS, WHOLE_NUMBERS, Forward, silence, unsettle

IMAGE = (3, 8, 8)
ZOO: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: mlp.mlp([12, 9, 7, 4], "tanh"), (12,)),
    "lenet_300_100": (lenet.lenet_300_100, (784,)),
    "lenet_5": (lenet.lenet_5, (1, 28, 28)),
    "resnet_cifar": (lambda: resnet.resnet_cifar(14, 8), (3, 16, 16)),
    "resnet20": (resnet.resnet20, (3, 32, 32)),
    "resnet50": (lambda: resnet.resnet50(20), (3, 32, 32)),
    "byte_transformer": (lambda: transformer.byte_transformer(2, 16, 2, 8), (8,)),
    "tied byte_transformer": (lambda: transformer.byte_transformer(1, 16, 2, 8, tied=True), (8,)),
    **{name: (build, (4,) if name in WHOLE_NUMBERS else IMAGE) for name, build in NETWORKS.items()},
}
BYTES = frozenset({"byte_transformer", "tied byte_transformer"}) | WHOLE_NUMBERS
FLOAT = {torch.float64: 1e-12, torch.float32: 1e-5}


def inputs(name: str, shape: Sequence[int], dtype: torch.dtype, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    if name in BYTES:
        return torch.randint(0, 12, (count, *shape), generator=generator)
    return torch.randn(count, *shape, generator=generator, dtype=dtype)


def kept_of(table: ShapeTable, left: Mapping[str, tuple[int, ...]], tensor: str, dim: int) -> int:
    """How many indices of a dimension are left, summed over the slices of all groups."""
    size = table.tensor[tensor].shape[dim]
    for group in table.channels:
        for s in group.slices:
            if (s.tensor, s.dim) == (tensor, dim):
                size -= s.repeat * (group.size - len(left[group.name]))
    return size


def formula(table: ShapeTable, left: Mapping[str, tuple[int, ...]]) -> int:
    """Σ uses · ∏ kernel · out(k) · in(k), and the products without a kernel."""
    total = sum(p.macs for p in table.products)
    for layer in table.layers:
        kernel = torch.Size(table.tensor[layer.weight].shape[2:]).numel()
        total += layer.uses * kernel * kept_of(table, left, layer.weight, 0) * kept_of(table, left, layer.weight, 1)
    return total


@pytest.mark.parametrize("name", ZOO)
def test_a_shrunk_network_gives_the_same_outputs_and_costs_what_the_formula_says(name: str) -> None:
    build, shape = ZOO[name]
    model = build().double().eval()
    unsettle(model, 2)
    kind = "int64" if name in BYTES else "float64"
    table = trace(model, shape, model_text="net", dtype=kind)
    left = silence(model, table, 0.5, 3)
    done = shrunk(model, shape, table=table, dtype=kind)
    assert done.members == left
    assert done.removed == sum(g.size - len(left[g.name]) for g in table.channels) > 0
    small = done.module.eval()
    for dtype, tolerance in FLOAT.items():  # float64 first: the network is rounded after it
        x = inputs(name, shape, dtype)
        with torch.no_grad():
            expected, found = model.to(dtype)(x), small.to(dtype)(x)
        scale = float(expected.abs().max())
        assert scale > 0
        assert float((expected - found).abs().max()) <= tolerance * scale
    with FlopCounterMode(display=False) as counter:
        small(inputs(name, shape, torch.float32, count=1))
    assert counter.get_total_flops() == 2 * formula(table, left)
    own = sum(x.uses * done.table.tensor[x.weight].size for x in done.table.layers)
    assert own + sum(p.macs for p in done.table.products) == formula(table, left)


def test_the_original_stays_as_it_is_and_the_copy_keeps_types_ties_and_stated_sizes() -> None:
    model = NETWORKS["depthwise"]().half()
    model.depth.weight.requires_grad_(False)
    table = trace(model, IMAGE, model_text="net", dtype="float16")
    left = silence(model, table, 0.5, 1)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    small = shrink(model, IMAGE)
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in before.items())
    k = len(left["up"])
    assert (small.depth.groups, small.depth.in_channels, small.depth.out_channels) == (k, k, 2 * k)
    assert (small.bn2.num_features, small.head.in_features) == (2 * k, len(left["down"]))
    assert small.depth.weight.dtype == torch.float16
    assert not small.depth.weight.requires_grad
    assert small.up.weight.requires_grad
    assert small.training
    tied = transformer.byte_transformer(1, 16, 2, 8, tied=True)
    silence(tied, trace(tied, (8,), model_text="net", dtype="int64"), 0.5, 1)
    smaller = prunelang.shrink(tied, (8,), dtype="int64")
    assert smaller.head.weight is smaller.embedding.weight
    assert smaller.block1.fc1.out_features == smaller.block1.fc2.in_features < 64


def test_what_nothing_reads_goes_with_what_only_that_reads() -> None:
    model = mlp.mlp([4, 3, 3, 2])
    with torch.no_grad():
        model.fc3.weight[:, 0] = 0  # nothing reads unit 0 of fc2, whatever its bias
        model.fc2.weight[1:, 2] = 0  # so nothing that stays reads unit 2 of fc1
    done = shrunk(model, (4,))
    assert done.members == {"fc1": (0, 1), "fc2": (1, 2)}


def test_a_group_without_weights_keeps_one_member() -> None:
    model = lenet.lenet_5()
    with torch.no_grad():
        model.conv2.weight.zero_()
        model.conv2.bias.zero_()
    done = shrunk(model, (1, 28, 28))
    assert done.members["conv2"] == (0,)
    assert done.members["conv1"] == (0,)  # nothing reads it
    assert done.module.fc1.in_features == 16


def test_indices_that_are_left() -> None:
    table = trace(lenet.lenet_5(), (1, 28, 28), model_text="net")
    members = {g.name: tuple(range(g.size)) for g in table.channels} | {"conv2": (0, 49)}
    left = indices(table, members)
    assert set(left) == {("conv2.weight", 0), ("conv2.bias", 0), ("fc1.weight", 1)}
    assert left["fc1.weight", 1] == (*range(16), *range(784, 800))


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Fixed(nn.Module):
    """A forward pass with a number of its own."""

    def __init__(self, use: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x)


@pytest.mark.parametrize(
    ("use", "code", "message"),
    [
        (lambda x: x.view(-1, 6, 64).flatten(1), "P531", "`fixed` does not run with fewer channels"),
        (lambda x: x.flatten(1) * x.shape[1], "P532", "`fixed` gives other outputs with fewer channels"),
    ],
)
def test_sizes_of_a_modules_own_are_refused_by_its_name(
    use: Callable[[Tensor], Tensor], code: str, message: str
) -> None:
    model = Forward(
        lambda net, x: net.head(net.fixed(F.relu(net.a(x)))),
        a=nn.Conv2d(3, 6, 3, padding=1), fixed=Fixed(use), head=nn.Linear(6 * 64, 2),
    )  # fmt: skip
    silence(model, trace(model, IMAGE, model_text="net"), 0.5, 1)
    with pytest.raises(ShrinkProblem) as found:
        shrink(model, IMAGE)
    assert found.value.code == code
    assert message in found.value.message
    assert "shrink_channels" in found.value.hint


def test_outputs_that_are_not_finite_are_refused() -> None:
    model = mlp.mlp([4, 3, 2])
    with torch.no_grad():
        model.fc2.bias.fill_(torch.inf)
    with pytest.raises(ShrinkProblem, match=r"P530.*not finite"):
        shrink(model, (4,))


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    model = Forward(lambda net, x: x.flatten(1) @ net.w, w=nn.Parameter(torch.ones(192, 2)))
    with pytest.raises(ShrinkProblem, match=r"P530.*operator `mm`"):
        shrink(model, IMAGE)


def test_a_module_sets_its_own_sizes() -> None:
    class Half(nn.Module):
        """Reads the first channels of two parts."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.head, self.first = nn.Conv2d(3, 6, 3), nn.Linear(6, 2), 4

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x).mean((2, 3))
            one, two = y[:, : self.first], y[:, self.first :]
            assert two.shape[1] + self.first == y.shape[1]
            return self.head(torch.cat([one.relu(), two.tanh()], 1))

        def shrink_channels(
            self, kept: Mapping[tuple[str, int], Sequence[int]], sizes: Mapping[tuple[str, int], int]
        ) -> None:
            assert sizes["a.weight", 0] == 6
            assert kept["head.weight", 1] == kept["a.bias", 0]
            self.first = sum(i < self.first for i in kept["a.weight", 0])

    model = nn.Sequential(Half())
    with torch.no_grad():
        for row in (1, 2, 5):
            model[0].a.weight[row], model[0].a.bias[row], model[0].head.weight[:, row] = 0, 0, 0
    small = shrink(model, IMAGE)
    assert small[0].first == 2
    assert small[0].a.out_channels == 3
    assert model[0].first == 4


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("constructor", "arguments", "shape"),
    [
        ("mlp", {"sizes": [12, 9, 4], "activation": "tanh"}, (12,)),
        ("resnet_cifar", {"depth": 8, "width": 4, "classes": 3}, (3, 8, 8)),
        ("byte_transformer", {"layers": 1, "width": 16, "heads": 2, "context": 8, "tied": True}, (8,)),
    ],
)
def test_a_shrunk_network_comes_back_from_its_files(
    constructor: str, arguments: dict[str, object], shape: tuple[int, ...], tmp_path: Path
) -> None:
    model = registry.models[constructor].build(**arguments).double()
    unsettle(model, 4)
    kind = "int64" if constructor == "byte_transformer" else "float64"
    silence(model, trace(model, shape, model_text="net", dtype=kind), 0.5, 3)
    small = shrunk(model, shape, dtype=kind)
    beside = save_shrunk(small, constructor, arguments, tmp_path / "small.safetensors")
    assert beside == tmp_path / "small.json"
    back = load_shrunk(tmp_path / "small.safetensors")
    x = inputs(constructor, shape, torch.float64)
    with torch.no_grad():
        assert torch.equal(back.eval()(x), small.module.eval()(x))
    assert {n: t.shape for n, t in back.state_dict().items()} == {
        n: t.shape for n, t in small.module.state_dict().items()
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = mlp.mlp([6, 5, 2])
    silence(model, trace(model, (6,), model_text="net"), 0.5, 1)
    save_shrunk(shrunk(model, (6,)), "mlp", {"sizes": [6, 5, 2]}, tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"format_version": 9}, "P512"),
        ({"kept": {"fc1": [0, 9]}}, "P533"),
        ({"kept": {"fc1": [1, 0]}}, "P533"),
        ({"kept": {}}, "P533"),
        ({"kept": {"fc1": [0]}}, "P533"),
        ({"model": {"constructor": "mlp", "arguments": {"sizes": [6, 4, 2]}}}, "P533"),
        ({"weights_hash": "0"}, "P517"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(change: dict[str, object], code: str, saved: Path) -> None:
    document = json.loads(saved.with_suffix(".json").read_text())
    saved.with_suffix(".json").write_text(json.dumps(document | change))
    with pytest.raises((ShrinkProblem, FileProblem)) as found:
        load_shrunk(saved)
    assert found.value.code == code


def test_the_description_never_replaces_the_weights(saved: Path) -> None:
    with pytest.raises(FileProblem, match="P511"):
        save_shrunk(shrunk(mlp.mlp([6, 5, 2]), (6,)), "mlp", {"sizes": [6, 5, 2]}, saved.with_suffix(".json"))


# ── spiking networks ─────────────────────────────────────────────────────────────────────────────────────────────

SPIKING: dict[str, tuple[dict[str, object], tuple[int, ...], dict[str, int]]] = {
    "snn_mlp": ({"sizes": [20, 30, 10], "T": 4}, (20,), {"fc1": 30}),
    "snn_conv": (
        {"width": 6, "T": 3, "inputs": [1, 8, 8], "convs": 2, "classes": 3},
        (1, 8, 8),
        {"conv1": 6, "conv2": 6, "fc1": 48},
    ),
    "sew_resnet18": ({"width": 4, "T": 2}, (3, 32, 32), {"conv1": 4, "layer4.0.conv2": 32, "layer4.1.conv1": 32}),
}


@pytest.mark.skipif(find_spec("spikingjelly") is None, reason="needs spikingjelly")
@pytest.mark.parametrize("name", SPIKING)
def test_spiking_networks_lose_neurons_and_keep_their_spikes(name: str) -> None:
    arguments, shape, expected = SPIKING[name]
    with registry.seeded(0):
        model = registry.models[name].build(**arguments).double().eval()
    unsettle(model, 2)
    with torch.no_grad():
        for p in model.parameters():
            p *= 3  # so that neurons fire
    table = trace(model, shape, model_text="net")
    sizes = {g.name: g.size for g in table.channels if not g.reason}
    assert expected.items() <= sizes.items()
    left = silence(model, table, 0.4, 3)
    done = shrunk(model, shape, table=table)
    x = 40 * inputs(name, shape, torch.float64).abs()
    with torch.no_grad():
        expected_outputs, found = model(x), done.module.eval()(x)
    scale = float(expected_outputs.abs().max())
    assert scale > 0
    assert float((expected_outputs - found).abs().max()) <= 1e-12 * scale
    with FlopCounterMode(display=False) as counter:
        done.module(x[:1])
    assert counter.get_total_flops() == 2 * formula(table, left)


def test_neurons_of_spikingjelly_are_followed_and_those_that_fire_of_themselves_refused() -> None:
    activation_based = pytest.importorskip("spikingjelly.activation_based")
    neuron, functional = activation_based.neuron, activation_based.functional

    def reasons(kind: type[nn.Module], mode: str, **more: object) -> list[str]:
        def forward(net: Forward, x: Tensor) -> Tensor:
            functional.reset_net(net)
            y = net.a(x)
            if mode == "m":
                return net.b(net.n(y.expand(3, *y.shape)).mean(0))
            return net.b(net.n(y)) + net.b(net.n(y))

        net = Forward(forward, a=nn.Linear(6, 7), n=kind(step_mode=mode, **more), b=nn.Linear(7, 3))
        return [g.reason for g in trace(net, (6,), model_text="net").channels]

    for mode in ("s", "m"):
        assert reasons(neuron.LIFNode, mode) == reasons(neuron.IFNode, mode, v_reset=None) == [""]
        assert reasons(neuron.ParametricLIFNode, mode) == [""]
    for mode, reset in (("s", 2.0), ("m", 2.0), ("s", -1.0)):
        assert reasons(neuron.LIFNode, mode, v_reset=reset, tau=1.5) == [
            "the neurons of `n` do not stay at 0 without input"
        ]
