"""Coupling groups: a unit without weights emits exactly 0 to all that read it; what is not followed is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunelang.compiler.shapes import Channels, ShapeTable, Slice
from prunelang.runtime.trace import trace
from prunelang.runtime.zoo import lenet, mlp, resnet, transformer
from tests.runtime.networks import NETWORKS, WHOLE_NUMBERS, Forward, members, unsettle, zero
from tests.shape_tables import resnet50 as saved_resnet50

IMAGE = (3, 8, 8)


def table_of(model: nn.Module, shape: tuple[int, ...], dtype: str = "float32") -> ShapeTable:
    return trace(model, shape, model_text="net", dtype=dtype)


def sizes(table: ShapeTable) -> dict[str, int]:
    return {g.name: g.size for g in table.channels if not g.reason}


# ── the zoo ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_units_of_a_multilayer_perceptron() -> None:
    (fc1,) = table_of(mlp.mlp([4, 5, 3], "tanh"), (4,)).channels
    slices = Slice("fc1.weight", 0, 0), Slice("fc1.bias", 0, 0), Slice("fc2.weight", 1, 0)
    assert (fc1.name, fc1.size, set(fc1.slices), fc1.reason) == ("fc1", 5, set(slices), "")


def test_flattened_channels_own_all_their_positions() -> None:
    table = table_of(lenet.lenet_5(), (1, 28, 28))
    assert sizes(table) == {"conv1": 20, "conv2": 50, "fc1": 500}
    assert Slice("fc1.weight", 1, 0, repeat=16) in table.channels[1].slices


def test_padded_shortcuts_make_groups_of_parts() -> None:
    table = table_of(resnet.resnet20(), (3, 32, 32))
    streams = {name: size for name, size in sizes(table).items() if not name.endswith(".conv1")}
    parts = {
        "layer2.0.conv2[0:8]": 8,
        "layer2.0.conv2[24:32]": 8,
        "layer3.0.conv2[0:16]": 16,
        "layer3.0.conv2[48:64]": 16,
    }
    assert streams == {"conv1": 16, **parts}
    stream = {g.name: g for g in table.channels}["conv1"]
    assert {s for s in stream.slices if s.tensor == "fc.weight"} == {Slice("fc.weight", 1, 24)}
    assert {s for s in stream.slices if s.tensor == "layer3.1.bn2.running_var"} == {
        Slice("layer3.1.bn2.running_var", 0, 24)
    }


def test_groups_of_resnet_50_are_those_of_the_saved_table() -> None:
    with torch.device("meta"):
        model = resnet.resnet50()
    saved = saved_resnet50()
    assert trace(model, (3, 224, 224), model_text=saved.model) == saved
    found = sizes(saved)
    assert len(found) == 37
    assert [found[f"layer{i}.0.conv3"] for i in (1, 2, 3, 4)] == [256, 512, 1024, 2048]
    assert ShapeTable.loads(saved.dumps()) == saved


def test_a_transformer_gives_its_hidden_units_and_reasons_for_the_rest() -> None:
    table = table_of(transformer.byte_transformer(2, 16, 2, 8), (8,), "int64")
    assert sizes(table) == {"block1.fc1": 64, "block2.fc1": 64}
    reasons = {g.name: g.reason for g in table.channels}
    assert reasons["embedding"] == "`block1.norm1` normalises all units together (operator `native_layer_norm`)"
    assert reasons["block1.q"] == "`block1` multiplies activations with each other (operator `bmm`)"


# ── own networks, with an oracle ─────────────────────────────────────────────────────────────────────────────────

EXPECTED = {
    "depthwise": {"up": 8, "down": 6},
    "residual": {"stem": 6, "a": 5},
    "concatenated": {"a": 4, "b": 5},
    "channels last": {"a": 5},
    "gated": {"a[0:7]": 7},
    "squeezed": {"a": 6, "narrow": 3},
    "written": {"a": 4, "b": 5},
    "twice": {"a": 6},
    "bag": {"words": 6},
    "volume": {"a": 5},
    "prelu": {"a": 5},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_of_small_networks(name: str) -> None:
    table = table_of(NETWORKS[name](), *((4,), "int64") if name in WHOLE_NUMBERS else (IMAGE,))
    assert sizes(table) == EXPECTED[name]
    assert not any(g.reason for g in table.channels)
    taken: set[tuple[str, int, int]] = set()
    for group in table.channels:
        for s in group.slices:
            own = {(s.tensor, s.dim, i) for m in range(group.size) for i in s.indices(m)}
            assert len(own) == group.size * s.repeat
            assert not own & taken
            assert all(i < table.tensor[s.tensor].shape[s.dim] for _, _, i in own)
            taken |= own


@pytest.mark.parametrize("name", NETWORKS)
def test_a_unit_without_weights_of_its_own_is_exactly_0_to_all_that_read_it(name: str) -> None:
    """Oracle: where a member's own weights are zero, kernels may read it with any weights: the outputs are the same."""
    whole = name in WHOLE_NUMBERS
    x = torch.randint(0, 12, (3, 4)) if whole else torch.randn(3, *IMAGE)
    model = NETWORKS[name]().eval()
    table = table_of(model, tuple(x.shape[1:]), "int64" if whole else "float32")
    unsettle(model, 1)
    named = dict(model.named_parameters())
    for group in table.channels:
        dead = torch.arange(group.size) % 2 == 0
        zero(model, table, group, dead, reads=False)
        before = model(x)
        for s in group.slices:
            if s.dim == 1 and table.tensor[s.tensor].role == "weight":
                with torch.no_grad():
                    members(named[s.tensor], s, group.size)[dead] = 1e3
        assert torch.equal(model(x), before), group.name
        assert bool((before != 0).any())


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _of(function: Callable[..., Tensor], **layers: nn.Module) -> Callable[[], nn.Module]:
    convolutions = {"a": nn.Conv2d(3, 4, 3, padding=1), "head": nn.Linear(4, 2)}
    return lambda: Forward(function, **{**convolutions, **layers})


REFUSED = {
    "`sigmoid`": (_of(lambda net, x: net.head(net.a(x).sigmoid().mean((2, 3)))), "the network makes 0.5 of 0"),
    "`add`": (_of(lambda net, x: net.head((net.a(x) + 1).mean((2, 3)))), "the network makes 1 of 0"),
    "`layer_norm`": (
        _of(lambda net, x: net.head(net.n(net.a(x).mean((2, 3)))), n=nn.LayerNorm(4)),
        "`n` normalises all units together",
    ),
    "`softmax`": (_of(lambda net, x: net.head(net.a(x).mean((2, 3)).softmax(1))), "weighs units against each other"),
    "`groups`": (
        _of(lambda net, x: net.head(net.b(net.a(x)).mean((2, 3))), b=nn.Conv2d(4, 4, 3, groups=2)),
        "`b` is a convolution in 2 groups",
    ),
    "`input`": (
        _of(lambda net, x: net.head((net.a(x) * torch.cat([x, x[:, :1]], 1)).mean((2, 3)))),
        "joins them with what has a size of its own (operator `mul`)",
    ),
    "`a sum with the input`": (
        _of(lambda net, x: net.head((net.a(x) + x).mean((2, 3))), a=nn.Conv2d(3, 3, 1), head=nn.Linear(3, 2)),
        "joins them with what has a size of its own (operator `add`)",
    ),
    "`noise`": (
        _of(lambda net, x: net.head((net.a(x).bernoulli(0.5) * 2).mean((2, 3)))),
        "combines units in a way that is not followed (operator `bernoulli`)",
    ),
    "`mean over units`": (
        _of(lambda net, x: net.head(net.a(x).mean(1).flatten(1)), head=nn.Linear(64, 2)),
        "averages units with each other",
    ),
    "`sort`": (_of(lambda net, x: net.head(net.a(x).mean((2, 3)).sort(1).values)), "not followed (operator `sort`)"),
    "`batch norm without scale`": (
        _of(lambda net, x: net.head(net.n(net.a(x)).mean((2, 3))), n=nn.BatchNorm2d(4, affine=False)),
        "`n` has no scale and shift that are trained",
    ),
    "`a buffer`": (
        _of(lambda net, x: net.head((net.a(x) + net.n.running_mean[:, None, None]).mean((2, 3))), n=nn.BatchNorm2d(4)),
        "not known to be 0 (operator `add`)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_followed_is_refused_by_name(what: str) -> None:
    build, reason = REFUSED[what]
    groups = [g for g in table_of(build(), IMAGE).channels if any(s.tensor == "a.weight" for s in g.slices)]
    assert groups
    assert all(reason in g.reason for g in groups)


def test_what_the_network_returns_and_what_it_is_given_are_no_groups() -> None:
    table = table_of(nn.Sequential(nn.Linear(4, 6), nn.ReLU()), (4,))
    assert table.channels == ()
    both = Forward(lambda net, x: net.b(F.relu(net.a(x))) + net.a(x), a=nn.Linear(4, 4), b=nn.Linear(4, 4))
    assert table_of(both, (4,)).channels == ()


def test_an_old_table_has_no_groups_and_keeps_its_digest() -> None:
    table = table_of(lenet.lenet_300_100(), (784,))
    old = table.to_json()
    assert old.pop("channels")
    loaded = ShapeTable.from_json(old)
    assert loaded.channels == ()
    assert loaded.to_json() == old
    assert loaded.digest != table.digest
    assert ShapeTable.loads(table.dumps()) == table


def test_indices_of_a_member() -> None:
    s = Slice("fc.weight", 1, 8, repeat=4)
    assert list(s.indices(2)) == [16, 17, 18, 19]
    assert Channels("fc", 3, (s,)).reason == ""
