"""Budgets as formulas: on random masks and random channels of every network of the zoo they equal what is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from prunelang import compile
from prunelang.compiler.graph import Items
from prunelang.compiler.graph.resource import Resource
from prunelang.compiler.levels import budgets, levels
from prunelang.compiler.plan import Plan
from prunelang.compiler.problem import Constraint, Structural
from prunelang.compiler.resources import derivative, envelope, expression, formulas, names, resources, symbols
from prunelang.compiler.shapes import ShapeTable
from prunelang.runtime.budgets import Budgets
from prunelang.runtime.exact import Array
from prunelang.runtime.recount import recount
from prunelang.runtime.stored import Stored

IMAGES = {"digits": (8, 8), "mnist": (1, 28, 28), "cifar": (3, 32, 32), "imagenet": (3, 224, 224)}
ZOO = {
    "mlp": ("mlp([64, 20, 12, 10])", "digits"),
    "lenet_300_100": ("lenet_300_100()", "mnist"),
    "lenet_5": ("lenet_5()", "mnist"),
    "strided_cnn": ("strided_cnn(channels = [4, 3], hidden = [12])", "mnist"),
    "resnet20": ("resnet20()", "cifar"),
    "resnet_cifar": ("resnet_cifar(8, width = 6)", "cifar"),
    "resnet50": ("resnet50(classes = 10)", "imagenet"),
    "byte_transformer": ("byte_transformer(layers = 2, width = 16, heads = 2, context = 8)", "text"),
    "snn_mlp": ("snn_mlp([64, 20, 10], T = 2)", "digits"),
    "snn_conv": ("snn_conv(width = 4, T = 2, inputs = [1, 28, 28], convs = 2)", "mnist"),
    "sew_resnet18": ("sew_resnet18(T = 2, width = 4)", "cifar"),
}
COSTS = """
    ‖net.weights‖₀ ≤ 10%
    nonzeros(net) ≤ 50%
    sparse_macs(net) ≤ 10%
    sparse_flops(net) ≤ 20%
    bytes(net, format = dense) ≤ 100%
    bytes(net, format = bitmask) ≤ 60%
    bytes(net, format = csr) ≤ 60%
    bytes(net) ≤ 60%
    params(net) ≤ 90%
    macs(net) ≤ 90%
    flops(net) ≤ 80%
"""


@cache
def plan(name: str, folder: Path) -> Plan:
    model, data = ZOO[name]
    if data == "text":
        (folder / "text.txt").write_text("the same old text " * 20)
        given = 'text("text.txt", context = 8, batch = 4)'
    else:
        x = np.zeros((4, *IMAGES[data]), np.float32)
        y = np.arange(4) % 10
        np.savez(folder / f"{data}.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        given = f'tensors("{folder / data}.npz", batch = 4)'
    text = f"model net = {model}\ndata {given}\nminimize cross_entropy(net)\nsubject to{COSTS}solve lc()\n"
    return compile(text.replace('"text.txt"', f'"{folder / "text.txt"}"')).plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def pruned(table: ShapeTable, rng: np.random.Generator) -> tuple[Stored, dict[str, int], dict[str, int]]:
    """Random weights without random members and, of what stays, without random entries; what each tensor and each
    group keeps. A member that loses its last entry by chance is given a bias."""
    arrays: dict[str, Array] = {}
    for t in table.tensors:
        arrays[t.name] = rng.uniform(1, 2, t.shape).astype(np.float32 if "float" in t.dtype else t.dtype)
    for t in table.tensors:
        if t.role == "weight":
            arrays[t.name] *= rng.random(t.shape, np.float32) < rng.uniform(0.2, 1.0)
    kept: dict[str, int] = {}
    for g in table.channels:
        gone = np.flatnonzero(rng.random(g.size) < 0.4) if not g.reason else np.zeros(0, int)
        kept[g.name] = g.size - gone.size
        for s in (s for s in g.slices if table.tensor[s.tensor].role != "buffer"):
            for i in gone:
                index = [slice(None)] * len(table.tensor[s.tensor].shape)
                index[s.dim] = slice(s.start + i * s.repeat, s.start + (i + 1) * s.repeat)
                arrays[table.tensor[s.tensor].name][tuple(index)] = 0
    stored = Stored(arrays, {}, table)
    return stored, stored.nonzeros, kept


def k_of(items: tuple[Items, ...], entries: Mapping[str, int], members: Mapping[str, int]) -> list[int]:
    return [members[x.name] if x.pieces else sum(entries[t] for t in x.tensors) for x in items]


def counted(c: Constraint, stored: Stored) -> int:
    found = recount(c, stored)
    assert found.value is not None, found.remark
    return int(found.value.middle)


@pytest.mark.parametrize("name", ZOO)
def test_formulas_equal_the_meters(name: str, folder: Path) -> None:
    """R(k) of exact integers, SymPy's R(s), and the evaluation on a device: all are what is counted on the weights."""
    p = plan(name, folder)
    costs = budgets(p.problem)
    assert [c.function.name for c in costs][-3:] == ["params", "macs", "flops"]
    assert len(costs) >= 10
    items = levels(p.problem, p.table, tuple(c.function for c in costs), "layer")
    found = resources(p.problem, p.table, items)
    stored, entries, members = pruned(p.table, np.random.default_rng(len(name)))
    k = k_of(items, entries, members)
    for c, r in zip(costs, found, strict=True):
        assert r.value(k) == counted(c, stored), c.label
        assert r.dense == r.value([x.size for x in items])
        assert r.bound == getattr(c.set, "upper", None)
        if isinstance(c.function, Structural):
            assert r.dense == c.function.dense
            assert r.value(k) < r.dense or not r.levels()
        if name != "resnet50":
            assert lambdified(r, items)(*removed(items, k)) == pytest.approx(r.value(k), rel=1e-12)
    device = Budgets(found, len(items), torch.device("cpu"))
    residual = device.residual(torch.tensor(k, dtype=torch.float64))
    expected = [(r.value(k) - r.bound) / r.dense for r in found]
    assert torch.allclose(residual, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def removed(items: tuple[Items, ...], k: list[int]) -> list[float]:
    return [float(x.size - kept) for x, kept in zip(items, k, strict=True)]


def lambdified(r: Resource, items: tuple[Items, ...]) -> Callable[..., float]:
    import sympy

    made: Callable[..., float] = sympy.lambdify(symbols(items), expression(r, items), "math")
    return made


@pytest.mark.parametrize("name", ["mlp", "lenet_5", "resnet_cifar", "byte_transformer"])
def test_derivatives_agree_on_a_device_in_sympy_and_in_differences(name: str, folder: Path) -> None:
    import sympy

    p = plan(name, folder)
    items = levels(p.problem, p.table, tuple(c.function for c in budgets(p.problem)), "layer")
    found = resources(p.problem, p.table, items)
    rng = np.random.default_rng(3)
    k = [int(rng.integers(1, x.size)) for x in items]
    device = Budgets(found, len(items), torch.device("cpu"))
    got = device.derivative(torch.tensor(k, dtype=torch.float64))
    z = torch.from_numpy(rng.random(len(found)))
    assert torch.allclose(device.price(z, torch.tensor(k, dtype=torch.float64)), z @ got)
    for row, r in enumerate(found):
        if r.choices:
            differences = {i: slope(r, i, k[i], items[i].size) for i in r.levels()}
        else:
            differences = {i: r.value(k) - r.value([*k[:i], k[i] - 1, *k[i + 1 :]]) for i in r.levels()}
        for i in range(len(items)):
            expected = differences.get(i, 0) / r.dense
            assert float(got[row, i]) == pytest.approx(expected, rel=1e-12), (r.label, items[i].name)
        for i in r.levels()[:3]:
            slopes = sympy.lambdify(symbols(items), derivative(r, items, i), "math")
            assert -slopes(*removed(items, k)) == pytest.approx(differences[i], rel=1e-12)


def slope(r: Resource, level: int, k: int, size: int) -> int:
    """Bytes of one more entry in the cheapest format of k entries."""
    ways = dict(r.choices)[level]
    return min(((a * k + b, i, a) for i, (_, a, b) in enumerate(ways)))[2]


def test_the_cheapest_format_is_a_concave_envelope() -> None:
    ways = (("dense", 0, 100), ("bitmask", 4, 13), ("csr", 6, 5), ("dear", 9, 90))
    pieces = envelope(ways, 50)
    assert [w[0] for w, _ in pieces] == ["csr", "bitmask", "dense"]
    for k in range(51):
        piece = next(w for w, end in pieces if k <= end)
        assert piece[1] * k + piece[2] == min(a * k + b for _, a, b in ways)


def test_what_no_level_holds_costs_what_it_costs_in_full(folder: Path) -> None:
    text = (
        f'model net = mlp([64, 20, 12, 10])\ndata tensors("{folder / "digits"}.npz", batch = 4)\n'
        "minimize cross_entropy(net)\nsubject to\n  ‖net.weights‖₀ ≤ 50%\n  macs(net) ≤ 100%\n"
        '  net["fc2"].weights ∈ dense\nsolve lc()\n'
    )
    plan("mlp", folder)
    p = compile(text).plan
    items = levels(p.problem, p.table, tuple(c.function for c in budgets(p.problem)), "layer")
    count, macs = resources(p.problem, p.table, items)
    assert [x.name for x in items] == ["fc1.weight", "fc3.weight"]
    assert (count.terms, count.constant) == (((1, (0,)), (1, (1,))), 20 * 12)
    assert (macs.terms, macs.constant, macs.dense) == ((), 64 * 20 + 20 * 12 + 12 * 10, 64 * 20 + 20 * 12 + 12 * 10)


def test_how_formulas_are_read(folder: Path) -> None:
    p = plan("mlp", folder)
    items = levels(p.problem, p.table, tuple(c.function for c in budgets(p.problem)), "layer")
    found = {r.name: list(formulas(r, items)) for r in resources(p.problem, p.table, items)}
    assert names(items) == ("s_fc1.weight", "s_fc2.weight", "s_fc3", "s_fc1", "s_fc2")
    assert found["macs"] == [
        "macs(net)  R(s) = 64·(20 − s_fc1) + (20 − s_fc1)·(12 − s_fc2) + 10·(12 − s_fc2) ≤ 1 476 of 1 640 MACs",
        "    ∂R/∂s_fc1 = −(12 − s_fc2) − 64",
        "    ∂R/∂s_fc2 = −(20 − s_fc1) − 10",
    ]
    alone = (Items("all", ("a.weight", "b.weight"), 30),)
    (line, slope_line) = formulas(Resource("size", "norm0", ((1, (0,)),), bound=3, dense=30), alone)
    assert (line, slope_line) == ("size  R(s) = (30 − s) ≤ 3 of 30", "    ∂R/∂s = −1")
