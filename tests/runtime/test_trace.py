"""Tracing: the tables of known networks, each way to use a kernel, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from prunelang.compiler import catalog, shape_cache
from prunelang.compiler.shapes import ShapeTable
from prunelang.runtime import registry
from prunelang.runtime.trace import TraceError, shape_table, trace
from tests import shape_tables


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRUNELANG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shapes"


def table_of(name: str, **arguments: object) -> ShapeTable:
    entry = registry.models[name]
    return entry.shapes(entry.facts.signature.bind((), arguments))


def macs(table: ShapeTable) -> int:
    return sum(x.uses * table.tensor[x.weight].size for x in table.layers)


def kernels(table: ShapeTable) -> int:
    return sum(t.size for t in table.tensors if t.role == "weight")


class Ad(nn.Module):
    """A network written as one function of itself and its input; keyword arguments become attributes."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **parts: object) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(torch.zeros(part)) if isinstance(part, tuple) else part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def ad(shape: tuple[int, ...], function: Callable[[Any, Tensor], Tensor], **parts: object) -> ShapeTable:
    return trace(Ad(function, **parts), shape, model_text="ad()")


# ── known networks ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["lenet_300_100", "lenet_5", "resnet50"])
def test_traced_tables_are_those_written_by_hand(name: str) -> None:
    assert table_of(name) == getattr(shape_tables, name)()


def test_a_spiking_network_is_that_written_by_hand() -> None:
    table = table_of("snn_mlp", sizes=[784, 500, 10])
    assert table == shape_tables.snn_mlp()
    assert ShapeTable.loads(table.dumps()) == table
    older = {k: v for k, v in table.to_json().items() if k != "steps"}
    assert ShapeTable.from_json(older).steps == 0


def test_chain_is_an_mlp() -> None:
    assert table_of("mlp", sizes=[8, 8, 8, 8]) == shape_tables.chain(3)


def test_numbers_of_the_papers() -> None:
    resnet50 = table_of("resnet50")
    assert (len(resnet50.layers), kernels(resnet50), macs(resnet50)) == (54, 25_502_912, 4_089_184_256)
    assert resnet50.tensor["conv1.weight"].size == 9_408
    assert resnet50.tensor["fc.weight"].size == 2_048_000
    resnet20 = table_of("resnet20")
    assert sum(t.size for t in resnet20.tensors if t.role != "buffer") == 269_722
    assert (len(resnet20.layers), macs(resnet20)) == (20, 40_551_040)
    assert (kernels(table_of("lenet_5")), macs(table_of("lenet_5"))) == (430_500, 2_293_000)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mlp", {"sizes": [20, 7, 3]}),
        ("lenet_5", {}),
        ("strided_cnn", {"channels": [4, 3]}),
        ("resnet_cifar", {"depth": 8, "width": 4}),
        ("resnet50", {}),
        ("byte_transformer", {"layers": 2, "width": 8, "heads": 2, "context": 5}),
        ("snn_mlp", {"sizes": [20, 7, 3], "encoding": "poisson"}),
        ("snn_conv", {"width": 4, "T": 5}),
        ("sew_resnet18", {"width": 4}),
    ],
)
def test_torchs_counter_agrees(name: str, arguments: dict[str, Any]) -> None:
    table = table_of(name, **arguments)
    dtype = getattr(torch, catalog.MODELS[name].input_dtype)
    with torch.device("meta"):
        net = registry.models[name].build(**arguments).eval()
        with FlopCounterMode(display=False) as counter:
            net(torch.zeros((1, *table.input_shape), dtype=dtype))
    assert counter.get_total_flops() == 2 * (macs(table) + sum(p.macs for p in table.products))


def test_the_table_lists_what_a_state_dict_holds() -> None:
    net = registry.models["resnet20"].build()
    table = trace(net, (3, 32, 32), model_text="x")
    assert {t.name: t.shape for t in table.tensors} == {k: tuple(v.shape) for k, v in net.state_dict().items()}
    assert [t.name for t in table.tensors] == list(net.state_dict())
    roles = {t.name: t.role for t in table.tensors}
    assert (roles["bn1.weight"], roles["bn1.running_var"], roles["fc.bias"]) == ("norm", "buffer", "bias")
    assert table.tensor["bn1.num_batches_tracked"].dtype == "int64"


def test_transformer() -> None:
    t, width, layers = 6, 8, 2
    table = table_of("byte_transformer", layers=layers, width=width, heads=2, context=t)
    assert sum(p.macs for p in table.products) == layers * 2 * t * t * width
    assert all(x.uses == t for x in table.layers)
    assert {x.name for x in table.layers} >= {"block1.q", "block2.o", "block1.fc2", "head"}
    assert (table.tensor["embedding.weight"].role, table.tensor["position.weight"].role) == ("embedding", "embedding")
    assert table.outputs == (t, 256)


def test_a_tied_head_counts_once_for_storage() -> None:
    options = {"layers": 1, "width": 8, "heads": 2, "context": 4}
    tied, untied = table_of("byte_transformer", tied=True, **options), table_of("byte_transformer", **options)
    assert tied.tensor["head.weight"] is tied.tensor["embedding.weight"]
    assert (tied.tensor["head.weight"].role, tied.tensor["head.weight"].aliases) == ("weight", ("head.weight",))
    assert tied.layer["head"].weight == "embedding.weight"
    assert macs(tied) == macs(untied)


# ── ways to use a kernel ─────────────────────────────────────────────────────────────────────────────────────────


def test_calls_of_a_shared_layer_add_up() -> None:
    linear = nn.Linear(4, 4)
    table = ad((4,), lambda s, x: s.b(s.a(s.a(x))), a=linear, b=linear)
    assert [(x.name, x.uses) for x in table.layers] == [("a", 3)]
    assert [(t.name, t.aliases) for t in table.tensors] == [("a.weight", ("b.weight",)), ("a.bias", ("b.bias",))]


def test_two_layers_with_one_kernel_each_have_their_uses() -> None:
    a, b = nn.Linear(4, 4), nn.Linear(4, 4)
    b.weight = a.weight
    table = ad((3, 4), lambda s, x: s.b(s.a(x)[:, :2]), a=a, b=b)
    assert [(x.name, x.weight, x.bias, x.uses) for x in table.layers] == [
        ("a", "a.weight", "a.bias", 3),
        ("b", "a.weight", "b.bias", 2),
    ]
    assert table.uses == {"a.weight": 5}


def test_functional_use_is_seen() -> None:
    table = ad((5, 4), lambda s, x: F.linear(x, s.W, s.c), W=(3, 4), c=(3,))
    assert [(x.name, x.weight, x.bias, x.uses) for x in table.layers] == [("W", "W", "c", 5)]
    assert [t.role for t in table.tensors] == ["weight", "bias"]


def test_bias_is_found_where_torch_adds_it_apart() -> None:
    table = ad((4, 5), lambda s, x: s.fc(x.transpose(1, 2)), fc=nn.Linear(4, 3))
    assert [(x.name, x.bias, x.uses) for x in table.layers] == [("fc", "fc.bias", 5)]


@pytest.mark.parametrize(
    ("layer", "shape", "uses"),
    [
        (nn.Conv1d(4, 8, 3, padding=1), (4, 5), 5),
        (nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4), (4, 9, 9), 25),
        (nn.Conv3d(1, 2, 2), (1, 4, 4, 4), 27),
    ],
)
def test_convolutions(layer: nn.Module, shape: tuple[int, ...], uses: int) -> None:
    table = ad(shape, lambda s, x: s.conv(x), conv=layer)
    (found,) = table.layers
    assert (found.name, found.kind, found.uses, found.groups) == (
        "conv",
        f"conv{len(shape) - 1}d",
        uses,
        4 if len(shape) == 3 else 1,
    )
    assert table.uses["conv.weight"] == prod(table.outputs[1:])


def test_multihead_attention_of_torch() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    table = ad((6, 8), lambda s, x: s.a(x, x, x)[0], a=attention)
    assert [(x.name, x.bias, x.uses) for x in table.layers] == [
        ("a.in_proj_weight", "a.in_proj_bias", 6),
        ("a.out_proj", "a.out_proj.bias", 6),
    ]
    assert [p.macs for p in table.products] == [6 * 6 * 8, 6 * 6 * 8]


def test_fused_attention() -> None:
    table = ad((2, 6, 8), lambda s, x: F.scaled_dot_product_attention(x, x, x, is_causal=True))
    assert sum(p.macs for p in table.products) == 2 * (2 * 6 * 6 * 8)


def test_recurrent_layers_count_every_time_step() -> None:
    table = ad((7, 4), lambda s, x: s.rnn(x)[0], rnn=nn.LSTM(4, 5, batch_first=True))
    assert table.uses == {"rnn.weight_ih_l0": 7, "rnn.weight_hh_l0": 7}
    assert {t.role for t in table.tensors} == {"weight", "bias"}


def test_a_product_with_a_constant_has_no_kernel() -> None:
    net = Ad(lambda s, x: x @ (2 * s.basis))
    net.register_buffer("basis", torch.ones(4, 3))
    table = trace(net, (4,), model_text="x")
    assert (table.layers, [p.macs for p in table.products]) == ((), [12])
    assert table.tensor["basis"].role == "buffer"


def test_a_layer_that_is_not_reached_is_stored_all_the_same() -> None:
    table = ad((4,), lambda s, x: s.used(x), used=nn.Linear(4, 2), idle=nn.Conv2d(2, 3, 1))
    assert [(x.name, x.kind, x.uses) for x in table.layers] == [("used", "linear", 1), ("idle", "conv2d", 0)]
    assert table.tensor["idle.weight"].role == "weight"


def test_scales_and_shifts_are_other() -> None:
    table = ad((4,), lambda s, x: s.gain * x + s.shift, gain=(4,), shift=(4,))
    assert [t.role for t in table.tensors] == ["other", "other"]


def test_a_parametrised_gain_does_not_make_activations_weights() -> None:
    table = ad((4,), lambda s, x: s.fc(x * s.gain.exp()), fc=nn.Linear(4, 2), gain=(4,))
    assert [(x.name, x.uses) for x in table.layers] == [("fc", 1)]


def test_the_network_is_left_alone() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    trace(net, (4,), model_text="x")
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not net[0]._forward_hooks
    assert not net[0]._forward_pre_hooks


def test_half_precision() -> None:
    table = trace(nn.Linear(4, 2).to(torch.bfloat16), (4,), model_text="x", dtype="bfloat16")
    assert {t.dtype for t in table.tensors} == {"bfloat16"}


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("shape", "function", "parts", "says"),
    [
        ((4,), lambda s, x: x @ s.W, {"W": (4, 3)}, "`W` outside a linear"),
        ((4,), lambda s, x: x @ s.W, {"W": (4, 4)}, "`W` outside a linear"),
        ((4,), lambda s, x: torch.einsum("bi,oi->bo", x, s.W), {"W": (3, 4)}, "`W` outside a linear"),
        ((4,), lambda s, x: F.linear(x, s.W[:2]), {"W": (3, 4)}, "`W` outside a linear"),
        ((4,), lambda s, x: F.linear(x, s.W.tanh()), {"W": (3, 4)}, "computed from `W`"),
        ((1, 4, 4), lambda s, x: F.conv2d(x, s.W * 2), {"W": (3, 1, 2, 2)}, "computed from `W`"),
        ((4,), lambda s, x: s.b(x, x), {"b": nn.Bilinear(4, 4, 2)}, "`b` uses `_trilinear`"),
        ((1, 4, 4), lambda s, x: s.up(x), {"up": nn.ConvTranspose2d(1, 2, 3)}, "`up` is a transposed convolution"),
        ((4,), lambda s, x: x if x.sum() > 0 else -x, {}, "cannot run on the meta device"),
        ((5,), lambda s, x: s.fc(x), {"fc": nn.Linear(4, 2)}, "`fc` cannot run on the meta device"),
        ((4,), lambda s, x: (x, x), {}, "returns a tuple"),
    ],
)
def test_what_cannot_be_counted_is_refused_by_name(
    shape: tuple[int, ...], function: Callable[[Any, Tensor], Tensor], parts: dict[str, object], says: str
) -> None:
    with pytest.raises(TraceError, match=says):
        ad(shape, function, **parts)


def test_weight_norm_is_refused() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    with pytest.raises(TraceError, match=r"`0` multiplies by a tensor computed from `0\.parametrizations"):
        trace(nn.Sequential(layer), (4,), model_text="x")


def test_a_factory_that_makes_no_module_is_refused() -> None:
    with pytest.raises(TraceError, match="makes a int"):
        shape_table("f()", lambda: 3, {}, (4,))
    with pytest.raises(TraceError, match="cannot be built on the meta device"):
        shape_table("f()", lambda: torch.zeros(2).item(), {}, (4,))


# ── the cache ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_network_of_the_zoo_is_traced_once(cache: Path) -> None:
    facts = catalog.MODELS["lenet_5"]
    values = facts.signature.bind()
    assert catalog.cached_shapes("lenet_5", values) is None
    table = table_of("lenet_5")
    assert catalog.cached_shapes("lenet_5", values) == table
    (file,) = cache.iterdir()
    other = replace(table, outputs=(11,))
    file.write_text(json.dumps({"sha256": other.digest, "table": other.to_json()}))
    assert table_of("lenet_5").outputs == (11,)


def test_networks_of_users_are_not_cached(cache: Path) -> None:
    shape_table("f()", lambda: nn.Linear(4, 2), {}, (4,))
    assert not cache.exists()


@pytest.mark.parametrize("damage", ["", "{}", '{"table": 3}', '{"table": {"format_version": 0}}', "[]", "null"])
def test_a_damaged_entry_is_traced_again(cache: Path, damage: str) -> None:
    table = table_of("lenet_5")
    (file,) = cache.iterdir()
    whole = file.read_text()
    file.write_text(damage)
    assert table_of("lenet_5") == table
    assert file.read_text() == whole


def test_a_digit_that_flips_is_noticed(cache: Path) -> None:
    table = table_of("lenet_5")
    (file,) = cache.iterdir()
    file.write_text(file.read_text().replace('"uses": 576', '"uses": 577'))
    assert table_of("lenet_5") == table


def test_the_key_holds_text_shape_and_source(tmp_path: Path) -> None:
    source = tmp_path / "net.py"
    source.write_text("a")
    keys = {shape_cache.key("f()", (4,), (source,)), shape_cache.key("g()", (4,), (source,))}
    keys.add(shape_cache.key("f()", (5,), (source,)))
    source.write_text("b")
    keys.add(shape_cache.key("f()", (4,), (source,)))
    assert len(keys) == 4


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRUNELANG_CACHE", str(tmp_path / "file"))
    assert table_of("lenet_5") == shape_tables.lenet_5()


def test_the_cache_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRUNELANG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert shape_cache.directory() == tmp_path / "prunelang" / "shapes"
