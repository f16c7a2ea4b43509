"""The networks: what they compute, how they start, that the catalog describes them, that each file stands alone."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunelang.compiler.arguments import ArgumentError, Parameter, Signature
from prunelang.compiler.catalog import MODELS, ModelFacts
from prunelang.runtime import registry
from prunelang.runtime.describe import signature
from prunelang.runtime.zoo.transformer import Block, byte_transformer

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"sizes": [20, 7, 3]},
    "lenet_300_100": {"inputs": 64},
    "lenet_5": {},
    "strided_cnn": {"channels": [4, 3], "hidden": [7], "inputs": [1, 8, 9], "classes": 3},
    "resnet20": {},
    "resnet_cifar": {"depth": 8, "width": 4},
    "resnet50": {"classes": 2},
    "byte_transformer": {"layers": 2, "width": 8, "heads": 2, "context": 5},
    "snn_mlp": {"sizes": [20, 7, 3], "T": 4},
    "snn_conv": {"width": 4, "T": 3, "inputs": [2, 8, 8], "convs": 2},
    "sew_resnet18": {"width": 2, "T": 2},
}


def build(name: str, seed: int = 0) -> nn.Module:
    with registry.seeded(seed):
        return registry.models[name].build(**SMALL[name])


def sample(name: str, count: int) -> Tensor:
    facts = MODELS[name]
    assert facts.input_shape is not None
    shape = (count, *facts.input_shape(facts.signature.bind((), SMALL[name])))
    generator = torch.Generator().manual_seed(1)
    if facts.input_dtype == "int64":
        return torch.randint(256, shape, generator=generator)
    return torch.randn(shape, generator=generator)


def test_every_network_is_tested() -> None:
    assert set(SMALL) == set(MODELS)


@pytest.mark.parametrize("facts", MODELS.values(), ids=lambda f: f.name)
def test_the_catalog_describes_the_code(facts: ModelFacts) -> None:
    assert plain(signature(registry.models[facts.name].factory, facts.name)) == plain(facts.signature)


def plain(s: Signature) -> list[tuple[object, ...]]:
    def facts(p: Parameter) -> tuple[object, ...]:
        return (p.name, p.kind, "required" if p.required else p.default, p.choices)

    return [facts(p) for p in s.parameters]


@pytest.mark.parametrize("name", [n for n in SMALL if n != "resnet50"])
def test_the_seed_decides_the_weights(name: str) -> None:
    def weights(seed: int) -> Tensor:
        return torch.cat([p.flatten() for p in build(name, seed).parameters()])

    before = torch.get_rng_state()
    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [n for n in SMALL if n != "resnet50"])
def test_every_parameter_learns(name: str) -> None:
    net = build(name)
    loss = net(sample(name, 4)).square().mean()
    loss.backward()
    assert bool(loss.isfinite())
    idle = [n for n, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())]
    # a key's bias adds the same to all scores of a query, which softmax forgets
    assert [n for n in idle if not n.endswith(".k.bias")] == []


@pytest.mark.parametrize("name", ["mlp", "lenet_300_100", "lenet_5", "snn_mlp"])
def test_images_may_come_flat_or_not(name: str) -> None:
    net, x = build(name), sample(name, 3)
    side = {20: (1, 4, 5), 64: (1, 8, 8), 784: (1, 28, 28)}[x[0].numel()]
    assert torch.equal(net(x.reshape(3, -1)), net(x.reshape(3, *side)))


@pytest.mark.parametrize(("activation", "function"), [("relu", torch.relu), ("tanh", torch.tanh)])
def test_lenet_300_100_is_the_formula(activation: str, function: Callable[[Tensor], Tensor]) -> None:
    net = registry.models["lenet_300_100"].build(inputs=6, classes=3, activation=activation)
    same = registry.models["mlp"].build([6, 300, 100, 3], activation=activation)
    same.load_state_dict(net.state_dict())
    x = torch.randn(4, 6)
    W = {k: v.detach() for k, v in net.state_dict().items()}
    y = function(x @ W["fc1.weight"].T + W["fc1.bias"])
    y = function(y @ W["fc2.weight"].T + W["fc2.bias"])
    y = y @ W["fc3.weight"].T + W["fc3.bias"]
    torch.testing.assert_close(net(x), y)
    assert torch.equal(net(x), same(x))


def test_strided_cnn_is_the_formula() -> None:
    net, x = build("strided_cnn"), sample("strided_cnn", 3)
    assert [(n, tuple(p.shape)) for n, p in net.named_parameters() if n.endswith("weight")] == [
        ("conv1.weight", (4, 1, 3, 3)),
        ("conv2.weight", (3, 4, 3, 3)),
        ("fc1.weight", (7, 3)),
        ("fc2.weight", (3, 7)),
    ]
    W = net.state_dict()
    y = x
    for i in (1, 2):
        y = torch.relu(nn.functional.conv2d(y, W[f"conv{i}.weight"], W[f"conv{i}.bias"], stride=2))
    assert y.shape == (3, 3, 1, 1)
    y = torch.relu(y.flatten(1) @ W["fc1.weight"].T + W["fc1.bias"])
    torch.testing.assert_close(net(x), y @ W["fc2.weight"].T + W["fc2.bias"])
    assert torch.equal(net(x.flatten(1)), net(x))
    fc1 = registry.models["strided_cnn"].build().get_submodule("fc1")
    assert isinstance(fc1, nn.Linear)
    assert (fc1.in_features, fc1.out_features) == (5408, 1024)


def test_attention_is_the_formula() -> None:
    """Against a loop over positions and heads: position t attends to 0…t with softmax(q·k / √d)."""
    n, t, width, heads = 2, 5, 6, 3
    block, x = Block(width, heads, context=7), torch.randn(2, 5, 6)
    q, k, v = block.q(x), block.k(x), block.v(x)
    d = width // heads
    expected = torch.zeros(n, t, width)
    for i in range(n):
        for h in range(heads):
            s = slice(h * d, (h + 1) * d)
            for at in range(t):
                scores = torch.stack([q[i, at, s] @ k[i, j, s] / d**0.5 for j in range(at + 1)])
                expected[i, at, s] = sum((p * v[i, j, s] for j, p in enumerate(scores.softmax(0))), torch.zeros(d))
    torch.testing.assert_close(block.attend(x), block.o(expected))


def test_the_transformer_does_not_look_ahead() -> None:
    net, x = build("byte_transformer"), sample("byte_transformer", 2)
    later = x.clone()
    later[:, 3:] = (later[:, 3:] + 1) % 256
    torch.testing.assert_close(net(x)[:, :3], net(later)[:, :3])
    assert not torch.allclose(net(x)[:, 3:], net(later)[:, 3:])
    torch.testing.assert_close(net(x)[:, :2], net(x[:, :2]))


def test_a_tied_head_is_the_embedding() -> None:
    net = byte_transformer(1, 8, 2, 4, tied=True)
    assert net.head.weight is net.embedding.weight


def test_residual_shortcuts() -> None:
    """With all branches at zero a basic block passes its input on: every second pixel, new channels zero."""
    net = build("resnet_cifar")
    block = net.get_submodule("layer2.0")
    torch.nn.init.zeros_(block.get_parameter("bn2.weight"))
    x = torch.rand(2, 4, 8, 8)
    y = block.eval()(x)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert not bool(y[:, :2].any() or y[:, 6:].any())


def test_resnet50_has_the_layer_names_of_published_weights() -> None:
    with torch.device("meta"):
        names = set(registry.models["resnet50"].build().state_dict())
    assert len(names) == 320
    assert names >= {"conv1.weight", "bn1.running_mean", "layer1.0.downsample.0.weight", "layer4.2.bn3.bias", "fc.bias"}


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("resnet_cifar", {"depth": 9}),
        ("byte_transformer", {"width": 9, "heads": 2}),
        ("strided_cnn", {"inputs": (1, 2, 8)}),
        ("strided_cnn", {"inputs": (1, 8, 6), "channels": (2, 2)}),
        ("strided_cnn", {"inputs": (1, 8, 8, 8)}),
        ("snn_conv", {"convs": 3}),
        ("snn_conv", {"inputs": (1, 3, 8)}),
        ("snn_conv", {"inputs": (1, 8, 8, 8)}),
    ],
)
def test_factories_refuse_what_the_catalog_refuses(name: str, bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"6n|heads divide|`convs` even|do not fit"):
        registry.models[name].factory(**bad)
    with pytest.raises(
        ArgumentError, match=r"6n|heads|`convs` is even|4 × 4|channels, height|of stride 2 need [37] × [37] "
    ):
        MODELS[name].signature.bind((), bad)


@pytest.mark.parametrize("path", sorted({m.source for m in MODELS.values() if m.source}), ids=lambda p: p.stem)
def test_each_file_needs_torch_alone(path: Path) -> None:
    """So that an emitted script can hold the file's text; the spiking ones bring their neurons."""
    roots = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").split(".")[0])
    more = {"prunelang"} if path.stem == "spiking" else set()
    assert roots <= {"__future__", "collections", "functools", "math", "typing", "torch"} | more


def test_sources_are_where_the_catalog_says() -> None:
    for facts in MODELS.values():
        source = inspect.getsourcefile(registry.models[facts.name].factory)
        assert source is not None
        assert facts.source is not None
        assert Path(source).resolve() == facts.source.resolve()
