"""Reachability against an oracle that walks every edge, and against what the network computes."""

from __future__ import annotations

import copy
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunelang.runtime.pruning import remove_unreachable_
from prunelang.runtime.reachability import Untraceable
from prunelang.runtime.zoo.mlp import mlp
from prunelang.runtime.zoo.resnet import resnet_cifar
from prunelang.runtime.zoo.transformer import byte_transformer

Unit = tuple[object, ...]
Edge = tuple[Unit, tuple[str, tuple[int, ...]] | None, Unit]  # from, the weight on it (None: always open), to


def kernels(net: nn.Module) -> dict[str, Tensor]:
    """Weights of linear and convolution layers, by name; a tied one once."""
    found = {}
    for name, m in net.named_modules():
        if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d)) and not any(m.weight is w for w in found.values()):
            found[f"{name}.weight"] = m.weight
    return found


def rest(net: nn.Module) -> list[Tensor]:
    held = {id(w) for w in kernels(net).values()}
    return [p for p in net.parameters() if id(p) not in held]


def sparse(net: nn.Module, seed: int, density: float) -> nn.Module:
    """In float64, every parameter and statistic drawn anew, kernels with zeros."""
    g = torch.Generator().manual_seed(seed)
    net.double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64))
        for name, b in net.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(torch.randn(b.shape, generator=g, dtype=torch.float64))
        for w in kernels(net).values():
            w.mul_(torch.rand(w.shape, generator=g) < density)
    return net.eval()


def removed(net: nn.Module, x: Tensor) -> tuple[nn.Module, dict[str, Tensor], int]:
    """A copy after the removal, the kept positions, and how many weights moved into a bias."""
    new = copy.deepcopy(net)
    weights = kernels(new)
    masks = {n: torch.ones_like(w, dtype=torch.bool) for n, w in weights.items()}
    moved = remove_unreachable_(new, list(weights.values()), list(masks.values()), rest(new), [], x)
    for n, w in weights.items():
        assert not w[~masks[n]].any(), "what is not kept is 0"
    return new, masks, moved


def same(net: nn.Module, new: nn.Module, inputs: Tensor) -> bool:
    with torch.no_grad():
        a, b = net(inputs), new(inputs)
    return bool((a - b).abs().max() <= 1e-12 * (1 + a.abs().max()))


# ── the oracle: units and edges, walked one by one ───────────────────────────────────────────────────────────────


def walk_from(starts: Iterable[Unit], edges: list[Edge], open_: Callable[[Edge], bool], forward: bool) -> set[Unit]:
    onward = defaultdict(list)
    for e in edges:
        if open_(e):
            onward[e[0] if forward else e[2]].append(e[2] if forward else e[0])
    seen, todo = set(starts), list(starts)
    while todo:
        for unit in onward[todo.pop()]:
            if unit not in seen:
                seen.add(unit)
                todo.append(unit)
    return seen


def on_paths(net: nn.Module, edges: list[Edge], inputs: list[Unit], outputs: list[Unit]) -> dict[str, Tensor]:
    """Non-zero weights that lie on a path of open edges from an input to an output."""
    weights = kernels(net)

    def open_(e: Edge) -> bool:
        return e[1] is None or bool(weights[e[1][0]][e[1][1]] != 0)

    ahead = walk_from(inputs, edges, open_, forward=True)
    back = walk_from(outputs, edges, open_, forward=False)
    found = {n: torch.zeros_like(w, dtype=torch.bool) for n, w in weights.items()}
    for e in edges:
        if e[1] is not None and open_(e) and e[0] in ahead and e[2] in back:
            found[e[1][0]][e[1][1]] = True
    return found


def mlp_edges(sizes: list[int]) -> list[Edge]:
    return [
        ((k, i), (f"fc{k + 1}.weight", (o, i)), (k + 1, o))
        for k in range(len(sizes) - 1)
        for i, o in itertools.product(range(sizes[k]), range(sizes[k + 1]))
    ]


class Convs(nn.Module):
    """6 × 6 → conv → pool → conv → linear, small enough to walk."""

    def __init__(self, padding: int, pool: str, groups: int, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 2, 3, padding=padding)
        self.b = nn.Conv2d(2, 2, 2, padding=padding, groups=groups)
        side = (6 + 2 * padding - 2) // 2 + 2 * padding - 1
        self.c = nn.Linear(2 * side * side, 2)
        self.padding, self.groups, self.act = padding, groups, act
        self.pool = {"max": F.max_pool2d, "mean": F.avg_pool2d}[pool]

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(self.act(self.a(x)), 2)
        out: Tensor = self.c(self.act(self.b(y)).flatten(1))
        return out

    def edges(self) -> list[Edge]:
        found: list[Edge] = []
        p = self.padding
        first = 6 + 2 * p - 2
        found += conv_edges("a", "x", "a", self.a.weight, 6, p, 1)
        half = first // 2
        for c, i, j, di, dj in itertools.product(range(2), range(half), range(half), range(2), range(2)):
            found.append((("a", c, 2 * i + di, 2 * j + dj), None, ("p", c, i, j)))
        found += conv_edges("b", "p", "b", self.b.weight, half, p, self.groups)
        side = half + 2 * p - 1
        for o, c, i, j in itertools.product(range(2), range(2), range(side), range(side)):
            found.append((("b", c, i, j), ("c.weight", (o, (c * side + i) * side + j)), ("y", o)))
        return found


def conv_edges(name: str, source: str, to: str, w: Tensor, side: int, p: int, groups: int) -> list[Edge]:
    outs, ins, kh, kw = w.shape
    found: list[Edge] = []
    for o, c, u, v in itertools.product(range(outs), range(ins), range(kh), range(kw)):
        channel = c + (o // (outs // groups)) * ins
        for i, j in itertools.product(range(side + 2 * p - kh + 1), range(side + 2 * p - kw + 1)):
            y, x = i + u - p, j + v - p
            if 0 <= y < side and 0 <= x < side:
                found.append(((source, channel, y, x), (f"{name}.weight", (o, c, u, v)), (to, o, i, j)))
    return found


# ── against the oracle ───────────────────────────────────────────────────────────────────────────────────────────

seeds = st.integers(0, 2**20)
densities = st.sampled_from([0.15, 0.3, 0.5, 0.8])


@settings(max_examples=60, deadline=None)
@given(seeds, densities, st.sampled_from(["relu", "tanh"]), st.sampled_from([[4, 3, 2], [5, 4, 4, 3], [3, 3, 3, 3, 2]]))
def test_of_linear_layers_exactly_the_weights_on_paths_stay(
    seed: int, density: float, activation: str, sizes: list[int]
) -> None:
    net = sparse(mlp(sizes, activation), seed, density)
    x = torch.randn(16, sizes[0], dtype=torch.float64)
    new, masks, _ = removed(net, x[:1])
    last = len(sizes) - 1
    ends = [(0, i) for i in range(sizes[0])], [(last, o) for o in range(sizes[-1])]
    paths = on_paths(net, mlp_edges(sizes), *ends)
    assert same(net, new, x)
    for name, w in kernels(new).items():
        assert torch.equal(w != 0, paths[name])
        assert bool((masks[name] >= paths[name]).all())


@settings(max_examples=60, deadline=None)
@given(seeds, densities, st.integers(0, 1), st.sampled_from(["max", "mean"]), st.integers(1, 2), st.booleans())
def test_of_convolutions_all_weights_on_paths_stay_and_others_only_where_padding_makes_a_constant_uneven(
    seed: int, density: float, padding: int, pool: str, groups: int, smooth: bool
) -> None:
    net = sparse(Convs(padding, pool, groups, torch.sigmoid if smooth else torch.relu), seed, density)
    x = torch.randn(8, 1, 6, 6, dtype=torch.float64)
    new, _, _ = removed(net, x[:1])
    edges = net.edges()
    inputs = [("x", 0, i, j) for i in range(6) for j in range(6)]
    paths = on_paths(net, edges, inputs, [("y", 0), ("y", 1)])
    assert same(net, new, x)
    for name, w in kernels(new).items():
        assert bool((paths[name] <= (w != 0)).all())
        if not padding:
            assert torch.equal(w != 0, paths[name])
    if padding:
        assert_each_matters(new, x)


def assert_each_matters(net: nn.Module, x: Tensor) -> None:
    """Each weight left changes the output, for some values of the others and with operators that are never flat."""
    g = torch.Generator().manual_seed(1)
    moved = {n: torch.zeros_like(w, dtype=torch.bool) for n, w in kernels(net).items()}
    for _ in range(3):
        other = copy.deepcopy(net)
        if isinstance(other, Convs):
            other.act, other.pool = (lambda t: F.softplus(t) - math.log(2)), F.avg_pool2d
        with torch.no_grad():
            for p in other.parameters():
                p.mul_(torch.randn(p.shape, generator=g, dtype=p.dtype))
        weights = kernels(other)
        out = other(x)
        for o in range(out.shape[1]):
            grads = torch.autograd.grad(out[:, o].square().sum(), list(weights.values()), retain_graph=True)
            for name, grad in zip(weights, grads, strict=True):
                moved[name] |= grad != 0
    for name, w in kernels(net).items():
        assert bool((moved[name] >= (w != 0)).all()), name


def test_a_chain_of_constants_moves_into_the_first_layer_that_depends_on_the_input() -> None:
    net = mlp([2, 2, 2, 1], "tanh").double()
    with torch.no_grad():
        net.fc1.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 2.0]]))  # the first unit is tanh(b)
        net.fc2.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))  # and so is the one behind it
        net.fc3.weight.copy_(torch.tensor([[5.0, 6.0]]))
    x = torch.randn(9, 2, dtype=torch.float64)
    new, _, moved = removed(net, x[:1])
    assert same(net, new, x)
    assert moved == 2
    assert [w.count_nonzero().item() for w in kernels(new).values()] == [2, 1, 1]


# ── other networks ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3])
def test_a_residual_network_computes_the_same(density: float) -> None:
    net = sparse(resnet_cifar(8, 4, 5), 3, density)
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    new, _, _ = removed(net, x[:1])
    assert same(net, new, x)
    before, after = (sum(int(w.count_nonzero()) for w in kernels(n).values()) for n in (net, new))
    assert after <= before
    assert density > 0.1 or after < before


def test_a_shortcut_keeps_a_branch_without_weights_alive() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.a(x))
            y = y + self.b(y)
            out: Tensor = self.c(y)
            return out

    net = sparse(Block(), 5, 1.0)
    with torch.no_grad():
        net.b.weight.zero_()
        net.c.weight[0, 0] = 0  # then the first unit ends nowhere
    x = torch.randn(9, 3, dtype=torch.float64)
    new, _, _ = removed(net, x[:1])
    assert same(net, new, x)
    assert (new.a.weight != 0).any(1).tolist() == [False, True, True]


def test_a_tied_kernel_loses_what_no_use_needs_and_folds_nothing() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.tanh(self.a(x))
            out: Tensor = self.b(torch.tanh(self.a(y)))
            return out

    for seed in range(20):
        net = sparse(Tied(), seed, 0.3)
        x = torch.randn(9, 4, dtype=torch.float64)
        new, _, _ = removed(net, x[:1])
        assert same(net, new, x)
        assert_each_matters(new, x)


def test_attention_mixes_everything_and_the_layers_around_it_are_still_looked_at() -> None:
    net = sparse(byte_transformer(1, 8, 2, 6), 0, 0.9)
    with torch.no_grad():
        net.block1.fc2.weight[:, 3] = 0  # unit 3 of the first layer ends nowhere
        net.block1.fc1.weight[5] = 0  # unit 5 is a constant
    x = torch.randint(0, 256, (4, 6))
    new, _, moved = removed(net, x[:1])
    assert same(net, new, x)
    assert not new.block1.fc1.weight[3].any()
    assert not new.block1.fc2.weight[:, 5].any()
    assert moved == int(net.block1.fc2.weight[:, 5].count_nonzero())
    assert torch.equal(new.block1.q.weight, net.block1.q.weight)


class Odd(nn.Module):
    """Two linear layers with something between them."""

    def __init__(self, between: Callable[[Tensor], Tensor], hidden: int = 4) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(hidden, 2)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.between(self.a(x)))
        return out


def in_place(y: Tensor) -> Tensor:
    z = y.clone()
    half = z[:, :2]
    z.relu_()
    half += 1  # also changes z
    z[:, 3] = z[:, 0] * z[:, 1]
    return z.mul_(2)


def noise(y: Tensor) -> Tensor:
    return y + 0 * torch.rand_like(y)


@pytest.mark.parametrize(
    ("between", "hidden"),
    [
        (in_place, 4),
        (lambda y: torch.softmax(y, -1), 4),
        (lambda y: F.layer_norm(y, (4,)), 4),
        (lambda y: torch.cat([y.flip(1), y[:, 1:3]], 1), 6),
        (lambda y: F.pad(y, (1, 0), value=0.5), 5),
        (lambda y: y[:, [3, 0, 2]], 3),
        (lambda y: torch.where(y > 0, y, y.sum(1, keepdim=True)), 4),
        (lambda y: torch.stack([y, y.tanh()], 1).mean(1), 4),
        (lambda y: torch.einsum("ni,nj->nij", y, y).flatten(1), 16),
        (lambda y: y.sort(1).values, 4),
        (lambda y: F.max_pool1d(y[:, None], 3, 2, 1, ceil_mode=True).flatten(1), 3),
        (lambda y: F.dropout(y, 0.5, training=False), 4),
        (lambda y: y * torch.tensor([1.0, 0.0, 2.0, 1.0], dtype=y.dtype), 4),
        (lambda y: y.cumsum(1).repeat(1, 2), 8),
        (noise, 4),
    ],
)
def test_whatever_is_computed_between_layers_stays_the_same(between: Callable[[Tensor], Tensor], hidden: int) -> None:
    for seed in range(12):
        net = sparse(Odd(between, hidden), seed, 0.35)
        x = torch.randn(9, 3, dtype=torch.float64)
        new, _, _ = removed(net, x[:1])
        assert same(net, new, x)


def test_noise_is_no_constant() -> None:
    net = sparse(Odd(noise), 0, 1.0)
    with torch.no_grad():
        net.a.weight.zero_()
    new, _, moved = removed(net, torch.randn(1, 3, dtype=torch.float64))
    assert moved == 0
    assert torch.equal(new.b.weight, net.b.weight)


def test_a_network_that_decides_by_its_input_is_left_as_it_is() -> None:
    net = sparse(Odd(lambda y: y if y.sum() > 0 else -y), 1, 0.3)
    before = copy.deepcopy(net.state_dict())
    weights = list(kernels(net).values())
    masks = [torch.ones_like(w, dtype=torch.bool) for w in weights]
    with pytest.raises(Untraceable, match="depends on the input"):
        remove_unreachable_(net, weights, masks, rest(net), [], torch.randn(1, 3, dtype=torch.float64))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_network_that_remembers_is_left_as_it_is() -> None:
    class Remembers(Odd):
        last: Tensor

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.a(x)
            out: Tensor = self.b(y + self.last)
            self.last.copy_(y.mean(0))
            return out

    net = Remembers(lambda y: y)
    net.register_buffer("last", torch.zeros(4))
    with pytest.raises(Untraceable, match="buffer"):
        removed(net, torch.randn(1, 3))


def test_a_zero_of_a_tensor_that_may_not_lose_positions_blocks_nothing() -> None:
    net = mlp([3, 4, 2])
    with torch.no_grad():
        net.fc2.weight.zero_()
    mask = torch.ones_like(net.fc1.weight, dtype=torch.bool)
    remove_unreachable_(net, [net.fc1.weight], [mask], [net.fc1.bias], [net.fc2.weight], torch.randn(1, 3))
    assert bool(mask.all())
    remove_unreachable_(net, [net.fc1.weight], [mask], [net.fc1.bias], [], torch.randn(1, 3))
    assert not bool(mask.any()), "a zero of a tensor that is not trained stays one"


def test_a_constant_stays_a_unit_where_no_bias_takes_it() -> None:
    net = mlp([3, 2, 2], "tanh").double()
    with torch.no_grad():
        net.fc1.weight[0] = 0
    x = torch.randn(9, 3, dtype=torch.float64)
    weights = [net.fc1.weight, net.fc2.weight]
    masks = [torch.ones_like(w, dtype=torch.bool) for w in weights]
    before = copy.deepcopy(net)
    moved = remove_unreachable_(net, weights, masks, [net.fc1.bias], [], x[:1])
    assert moved == 0
    assert same(before, net, x)
    assert bool(net.fc2.weight.all())
