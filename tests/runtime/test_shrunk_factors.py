"""Layers of factors in the place of dense ones: the same outputs, the operations that constraints count, files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from prunelang.compiler.compositions import stored
from prunelang.compiler.forms import Codebook, Composition, Form, LowRank, Sparse, TensorTrain
from prunelang.compiler.problem import FactorCost, Structural
from prunelang.compiler.shapes import ShapeTable
from prunelang.compiler.trains import balanced, capped, order
from prunelang.runtime import registry
from prunelang.runtime.factor_files import save_factors
from prunelang.runtime.factors import Factors, composed, named
from prunelang.runtime.files import FileProblem
from prunelang.runtime.replaced import Placed, places, ranks_of
from prunelang.runtime.same_outputs import ShrinkProblem
from prunelang.runtime.shrink import Shrunk, shrink, shrunk
from prunelang.runtime.shrunk import load_shrunk, save_shrunk
from prunelang.runtime.trace import trace
from prunelang.runtime.weights import Array
from prunelang.runtime.zoo import lenet, mlp, resnet, transformer
from tests.runtime.networks import Forward, unsettle

IMAGE = (4, 9, 9)
ROOT = Path(__file__).resolve().parents[2]


def _grouped(net: Forward, x: Tensor) -> Tensor:
    y = F.relu(net.b(F.relu(net.a(x))))
    return net.head(net.c(y).mean((2, 3)))


def _tied(net: Forward, x: Tensor) -> Tensor:
    return net.second(torch.tanh(net.first(x.flatten(1)[:, :12])))


def tied() -> nn.Module:
    net = Forward(_tied, first=nn.Linear(12, 12), second=nn.Linear(12, 12))
    net.second.weight = net.first.weight
    return net


def _twice(net: Forward, x: Tensor) -> Tensor:
    y = net.first(x.flatten(1)[:, :12]).relu()
    return net.listed[0](net.listed[0](y).relu())


def twice() -> nn.Module:
    """A layer that is called twice, through a list that is no part of the network."""
    net = Forward(_twice, first=nn.Linear(12, 8), again=nn.Linear(8, 8, bias=False))
    net.listed = [net.again]
    return net


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: mlp.mlp([12, 9, 8, 4], "tanh"), (12,)),
    "lenet_5": (lenet.lenet_5, (1, 28, 28)),
    "resnet": (lambda: resnet.resnet_cifar(8, 4, 3), (3, 8, 8)),
    "byte_transformer": (lambda: transformer.byte_transformer(1, 16, 2, 8), (8,)),
    "tied": (tied, (12,)),
    "twice": (twice, (12,)),
    "one layer": (lambda: nn.Linear(12, 6), (12,)),
    "groups": (
        lambda: Forward(
            _grouped,
            a=nn.Conv2d(4, 8, 3, padding="same", dilation=2, padding_mode="reflect"),
            b=nn.Conv2d(8, 12, (3, 2), stride=(2, 1), padding=(1, 0), groups=2, bias=False),
            c=nn.Conv2d(12, 6, 1),
            head=nn.Linear(6, 4),
        ),
        IMAGE,
    ),
}
FORMS = ("low rank", "train", "both")
FLOAT = {torch.float64: 1e-11, torch.float32: 2e-5}


def form_of(kind: str, place: int, matrix: tuple[int, int]) -> Form:
    """Bounds that are looser than the ranks that tests draw, as budgets leave them."""
    if kind == "low rank" or (kind == "both" and place % 2):
        return LowRank() if place % 3 else LowRank(min(matrix))
    modes = balanced(*matrix, 3)
    return TensorTrain(modes) if place % 3 else TensorTrain(modes, capped(modes, 5))


def drawn(compositions: Sequence[Composition], table: ShapeTable, seed: int = 0) -> Factors:
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for place, c in enumerate(compositions):
        t = table.tensor[c.tensors[0]]
        (m, n), kind = t.matrix, np.dtype(t.dtype)
        for i, form in enumerate(c.forms):
            match form:
                case LowRank():
                    r = min(2, m, n)
                    arrays[named(t.name, i, "U")] = rng.standard_normal((m, r)).astype(kind)
                    arrays[named(t.name, i, "V")] = (rng.standard_normal((r, n)) / n**0.5).astype(kind)
                case TensorTrain(modes=modes):
                    ranks = (1, *capped(modes, [2 + (place + k) % 2 for k in range(len(modes) - 1)]), 1)
                    for k, (a, b) in enumerate(modes):
                        core = rng.standard_normal((ranks[k], a, b, ranks[k + 1])) / (b * ranks[k + 1]) ** 0.5
                        arrays[named(t.name, i, f"G{k + 1}")] = core.astype(kind)
                case Codebook(size=size):
                    arrays[named(t.name, i, "centres")] = rng.standard_normal(size).astype(kind)
                    arrays[named(t.name, i, "codes")] = rng.integers(0, size, t.shape).astype(np.uint8)
                case Sparse():
                    arrays[named(t.name, i, "values")] = rng.standard_normal(3).astype(kind)
                    arrays[named(t.name, i, "indices")] = np.sort(rng.permutation(t.size)[:3])
    return Factors(tuple(compositions), arrays)


def give(model: nn.Module, factors: Factors, table: ShapeTable) -> None:
    """The network holds what its factors make."""
    own = dict(model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for c in factors.compositions:
            for name, array in composed(c, factors.arrays, table).items():
                own[name].copy_(torch.from_numpy(array))


def factored(name: str, kind: str, dtype: str = "float32") -> tuple[nn.Module, ShapeTable, Factors, Any]:
    build, shape = NETWORKS[name]
    torch.manual_seed(1)
    model = build().to(getattr(torch, dtype)).eval()
    unsettle(model, 2)
    read = "int64" if "byte" in name else dtype
    table = trace(model, shape, model_text="net", dtype=read)
    kernels = dict.fromkeys(table.tensor[x.weight].name for x in table.layers)
    made = [
        Composition((k,), (form_of(kind, i, table.tensor[k].matrix),), (table.tensor[k].shape,))
        for i, k in enumerate(kernels)
    ]
    factors = drawn(made, table)
    give(model, factors, table)
    return model, table, factors, read


def inputs(name: str, dtype: torch.dtype, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    if "byte" in name:
        return torch.randint(0, 12, (count, *NETWORKS[name][1]), generator=generator)
    return torch.randn(count, *NETWORKS[name][1], generator=generator, dtype=dtype)


def counted(function: str, table: ShapeTable, factors: Factors) -> int:
    """The number that a constraint on the whole network counts."""
    layers = tuple(x.name for x in table.layers)
    dense = sum(x.uses * table.tensor[x.weight].size for x in table.layers) + sum(p.macs for p in table.products)
    if function == "params":
        dense = sum(t.size for t in table.tensors if t.role != "buffer")
    cost = stored(Structural(function, layers, dense, ""), factors.compositions, table)
    assert isinstance(cost, FactorCost)
    return cost.value({(c.tensors[0], 0): ranks_of(c, factors.arrays) for c in factors.compositions})


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_layers_of_factors_give_the_same_outputs_and_cost_what_constraints_count(name: str, kind: str) -> None:
    model, table, factors, read = factored(name, kind, "float64")
    before, state = {n: t.clone() for n, t in model.state_dict().items()}, torch.get_rng_state()
    done = shrunk(model, NETWORKS[name][1], table=table, dtype=read, factors=factors)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in before.items())
    assert {p.tensor for p in done.placed} == {c.tensors[0] for c in factors.compositions}
    for p in done.placed:
        form = p.composition.forms[0]
        assert p.order == (order(form).order if isinstance(form, TensorTrain) else ())
    small = done.module.eval()
    for dtype, tolerance in FLOAT.items():  # float64 first: the network is rounded after it
        x = inputs(name, dtype)
        with torch.no_grad():
            expected, found = model.to(dtype)(x), small.to(dtype)(x)
        scale = float(expected.abs().max())
        assert scale > 0
        assert float((expected - found).abs().max()) <= tolerance * scale
    with FlopCounterMode(display=False) as counter:
        small(inputs(name, torch.float32, count=1))
    assert counter.get_total_flops() == 2 * counted("macs", table, factors)
    own = sum(x.uses * done.table.tensor[x.weight].size for x in done.table.layers)
    assert own + sum(p.macs for p in done.table.products) == counted("macs", table, factors)
    assert sum(t.size for t in done.table.tensors if t.role != "buffer") == counted("params", table, factors)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_narrow_networks(dtype: str) -> None:
    model, table, factors, _ = factored("mlp", "both", "float32")
    model = model.to(getattr(torch, dtype))
    table = table.in_dtype(dtype)
    kind = np.float32 if dtype == "bfloat16" else np.dtype(dtype)
    narrow = {
        n: torch.from_numpy(a).to(getattr(torch, dtype)).float().numpy().astype(kind) for n, a in factors.arrays.items()
    }
    factors = Factors(factors.compositions, narrow)
    give(model, factors, table)
    small = shrunk(model, (12,), table=table, dtype=dtype, factors=factors).module
    assert {p.dtype for p in small.parameters()} == {getattr(torch, dtype)}
    x = torch.randn(2, 12).to(getattr(torch, dtype))
    torch.testing.assert_close(small(x), model(x), rtol=0.1, atol=0.1)


def test_orders_are_those_of_the_bounds_not_of_the_ranks() -> None:
    """Modes whose best order differs between the ranks that are asked for and those that were chosen."""
    modes = ((2, 8), (8, 2), (4, 3))
    bounds = [r for r in ((1, 1), (16, 12), (2, 12), (16, 2)) if order(TensorTrain(modes, r)).order]
    found = {order(TensorTrain(modes, r)).order for r in bounds}
    assert len(found) > 1, "else this tests nothing"
    model = nn.Linear(48, 64)
    table = trace(model, (48,), model_text="net")
    file = drawn([Composition(("weight",), (TensorTrain(modes),), ((64, 48),))], table)
    for r in bounds:
        asked = [Composition(("weight",), (TensorTrain(modes, r),), ((64, 48),))]
        (placed,) = places(model, table, file, asked)
        assert placed.order == order(TensorTrain(modes, r)).order
    with pytest.raises(FileProblem, match=r"P517.*not of the form"):
        places(model, table, file, [Composition(("weight",), (LowRank(3),), ((64, 48),))])
    with pytest.raises(FileProblem, match=r"P517.*not of the form"):
        places(model, table, file, [])


def test_ties_biases_and_flags_stay() -> None:
    model, table, factors, _ = factored("tied", "low rank")
    model.train()
    model.first.weight.requires_grad_(False)
    small: Any = shrunk(model, (12,), table=table, factors=factors).module
    assert small.first.U is small.second.U
    assert small.first.bias is not small.second.bias
    assert (small.first.training, small.first.U.requires_grad, small.first.bias.requires_grad) == (True, False, True)
    assert "listed" not in small.state_dict()


def test_a_list_beside_the_modules_holds_the_new_layer() -> None:
    model, table, factors, _ = factored("twice", "train")
    small: Any = shrunk(model, (12,), table=table, factors=factors).module
    assert small.listed[0] is small.again


@pytest.mark.parametrize("kind", FORMS)
def test_a_layer_without_rank(kind: str) -> None:
    model, table, factors, _ = factored("groups", kind)
    zero = {n: a[..., :0] if n.endswith(("U", "G1")) else a[:0] for n, a in factors.arrays.items()}
    zero |= {n: a[:0, ..., :0] for n, a in factors.arrays.items() if n.endswith("G2")}
    model.c.bias.data += 1  # else nothing would be left to compare
    none = Factors(factors.compositions, zero)
    give(model, none, table)
    done = shrunk(model, IMAGE, table=table, factors=none)
    assert {r for p in done.placed for r in p.ranks} == {0}
    with FlopCounterMode(display=False) as counter:
        done.module(torch.randn(1, *IMAGE))
    assert counter.get_total_flops() == 2 * counted("macs", table, none) == 0


def test_sums_and_codebooks_stay_dense() -> None:
    model = mlp.mlp([12, 9, 8, 4])
    table = trace(model, (12,), model_text="net")
    made = [
        Composition(("fc1.weight",), (LowRank(2),), ((9, 12),)),
        Composition(("fc2.weight",), (LowRank(1), Sparse(3)), ((8, 9),)),
        Composition(("fc3.weight",), (Codebook(3),), ((4, 8),)),
    ]
    factors = drawn(made, table)
    give(model, factors, table)
    small: Any = shrink(model, (12,), factors=factors)
    assert [type(m).__name__ for m in (small.fc1, small.fc2, small.fc3)] == ["LowRankLinear", "Linear", "Linear"]
    alone = Factors(tuple(made[1:]), {n: a for n, a in factors.arrays.items() if not n.startswith("fc1")})
    with torch.no_grad():
        model.fc1.weight[3:5], model.fc1.bias[3:5] = 0, 0
    units: Any = shrink(model, (12,), factors=alone)
    assert (units.fc1.out_features, units.fc2.in_features) == (7, 7), "without layers of factors units go"


def test_units_stay_beside_layers_of_factors() -> None:
    model = mlp.mlp([12, 9, 8, 4])
    table = trace(model, (12,), model_text="net")
    factors = drawn([Composition(("fc3.weight",), (LowRank(2),), ((4, 8),))], table)
    give(model, factors, table)
    with torch.no_grad():
        model.fc1.weight[3:5], model.fc1.bias[3:5] = 0, 0
    done = shrunk(model, (12,), factors=factors)
    assert done.removed == 0
    assert done.module.fc1.out_features == 9


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Own(nn.Linear):
    """A layer of a user."""


def _functional(net: Forward, x: Tensor) -> Tensor:
    return F.linear(x, net.a.weight, net.a.bias)


def _normed(net: Forward, x: Tensor) -> Tensor:
    return net.a(x) + (net.a.weight.sum() if hasattr(net.a, "weight") else 7.0)


@pytest.mark.parametrize(
    ("build", "code", "message"),
    [
        (
            lambda: Forward(lambda net, x: net.a(x), a=Own(12, 6)),
            "P535",
            "the place of `a`, of the class Own",
        ),
        (lambda: Forward(_functional, a=nn.Linear(12, 6)), "P536", "does not run with layers of factors"),
        (
            lambda: Forward(_normed, a=nn.Linear(12, 6)),
            "P537",
            "gives other outputs with layers of factors",
        ),
    ],
)
def test_networks_that_cannot_multiply_by_factors(build: Callable[[], nn.Module], code: str, message: str) -> None:
    model = build()
    table = trace(model, (12,), model_text="net")
    factors = drawn([Composition(("a.weight",), (LowRank(2),), ((6, 12),))], table)
    give(model, factors, table)
    with pytest.raises(ShrinkProblem) as found:
        shrink(model, (12,), factors=factors)
    assert (found.value.code, message in found.value.message) == (code, True), found.value.message


def test_a_tied_embedding_and_hooks_are_refused() -> None:
    model = transformer.byte_transformer(1, 16, 2, 8, tied=True)
    table = trace(model, (8,), model_text="net", dtype="int64")
    kernel = next(t for t in table.tensors if t.aliases)
    factors = drawn([Composition((kernel.name,), (LowRank(2),), (kernel.shape,))], table)
    give(model, factors, table)
    with pytest.raises(ShrinkProblem, match=r"P535.*Embedding"):
        shrink(model, (8,), dtype="int64", factors=factors)
    model, table, factors, _ = factored("mlp", "train")
    model.fc2.register_forward_hook(lambda *a: None)
    with pytest.raises(ShrinkProblem, match=r"P535.*`fc2` has hooks"):
        shrink(model, (12,), factors=factors)


def test_factors_of_another_network_are_refused(tmp_path: Path) -> None:
    model, table, factors, _ = factored("mlp", "both")
    path = save_factors(tmp_path / "factors.safetensors", factors.arrays, factors.compositions, table)
    assert type(shrink(model, (12,), factors=path).fc1).__name__ == "TrainLinear"
    with torch.no_grad():
        model.fc2.weight[0, 0] *= 1 + 2e-6
    with pytest.raises(FileProblem, match=r"P517.*fc2.weight"):
        shrink(model, (12,), factors=str(path))
    with pytest.raises(FileProblem, match="P514"):
        shrink(mlp.mlp([12, 10, 8, 4]), (12,), factors=path)
    with pytest.raises(FileProblem, match="P513"):
        shrink(mlp.mlp([12, 9]), (12,), factors=factors)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileProblem, match="P512"):
        shrink(model, (12,), factors=path)


def test_factors_that_lose_digits_are_refused() -> None:
    """Cores whose sizes differ so much that the product of a sample overflows in float32, and not in float64."""
    model = nn.Sequential(nn.Linear(12, 6))
    table = trace(model, (12,), model_text="net")
    factors = drawn([Composition(("0.weight",), (LowRank(2),), ((6, 12),))], table)
    big = {n: (np.sign(a) * 3e38 if n.endswith("V") else a * 1e-37).astype("f4") for n, a in factors.arrays.items()}
    factors = Factors(factors.compositions, big)
    give(model, factors, table)
    with pytest.raises(ShrinkProblem, match="P537"):
        shrink(model, (12,), factors=factors)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────

NETS: dict[str, tuple[dict[str, object], tuple[int, ...]]] = {
    "mlp": ({"sizes": [12, 9, 8, 4], "activation": "tanh"}, (12,)),
    "lenet_5": ({}, (1, 28, 28)),
}


def kept(name: str, folder: Path) -> tuple[Shrunk, Path]:
    arguments, shape = NETS[name]
    with registry.seeded(0):
        model = registry.models[name].build(**arguments)
    table = trace(model, shape, model_text="net")
    made = [
        Composition((t.name,), (form_of("both", i, t.matrix),), (t.shape,))
        for i, t in enumerate(t for t in table.tensors if t.role == "weight")
    ]
    factors = drawn(made[:-1], table)
    give(model, factors, table)
    small = shrunk(model, shape, table=table, factors=factors)
    path = folder / "small.safetensors"
    save_shrunk(small, name, arguments, path)
    return small, path


@pytest.mark.parametrize("name", NETS)
def test_a_network_of_factors_comes_back_in_another_process(name: str, tmp_path: Path) -> None:
    small, path = kept(name, tmp_path)
    x = torch.randn(4, *NETS[name][1])
    save_file({"x": x, "y": small.module.eval()(x).detach()}, tmp_path / "expected.safetensors")
    code = (
        "import torch, prunelang; from safetensors.torch import load_file; t = load_file('expected.safetensors'); "
        "assert torch.equal(prunelang.load_shrunk('small.safetensors').eval()(t['x']), t['y']); print('same')"
    )
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (run.stdout, run.returncode) == (b"same\n", 0), run.stderr.decode()
    document = json.loads(path.with_suffix(".json").read_text())
    assert document["format_version"] == 2
    assert [p["path"] for p in document["factored"]] == [p.path for p in small.placed]
    assert set(document["factored"][0]) == {"path", "composition", "ranks", "order"}
    assert tuple(map(Placed.from_json, document["factored"])) == small.placed


def edited(document: Any, place: int, **changes: Any) -> Any:
    document["factored"][place] |= changes
    return document


def formed(document: Any, place: int, **changes: Any) -> Any:
    document["factored"][place]["composition"]["forms"][0] |= changes
    return document


def composed_of(document: Any, **changes: Any) -> Any:
    document["factored"][0]["composition"] |= changes
    return document


HOSTILE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "version 1": (lambda d: d | {"format_version": 1}, "P533"),
    "version 3": (lambda d: d | {"format_version": 3}, "P512"),
    "no list": (lambda d: d | {"factored": None}, "P512"),
    "no layers": (lambda d: d | {"factored": []}, "P533"),
    "a layer less": (lambda d: d | {"factored": d["factored"][:1]}, "P533"),
    "a layer twice": (lambda d: d | {"factored": [*d["factored"], d["factored"][0]]}, "P538"),
    "no layer": (lambda d: edited(d, 0, path="fc9"), "P538"),
    "another layer": (lambda d: edited(d, 0, path="fc2"), "P538"),
    "a path outside": (lambda d: edited(d, 0, path="../fc1"), "P538"),
    "no path": (lambda d: edited(d, 0, path=3), "P512"),
    "a larger rank": (lambda d: edited(d, 1, ranks=[3]), "P533"),
    "a rank beyond all": (lambda d: edited(d, 1, ranks=[10**12]), "P538"),
    "a rank below 0": (lambda d: edited(d, 1, ranks=[-1]), "P538"),
    "a rank that is true": (lambda d: edited(d, 1, ranks=[True]), "P512"),
    "no rank": (lambda d: edited(d, 1, ranks=[]), "P538"),
    "two ranks": (lambda d: edited(d, 1, ranks=[2, 2]), "P538"),
    "ranks of a train": (lambda d: edited(d, 0, ranks=[10**9, 10**9]), "P538"),
    "an order of a low rank": (lambda d: edited(d, 1, order=[0, 1]), "P538"),
    "no order": (lambda d: edited(d, 0, order=[0, 0, 1]), "P538"),
    "a short order": (lambda d: edited(d, 0, order=[0]), "P538"),
    "an order of text": (lambda d: edited(d, 0, order="012"), "P512"),
    "another form": (lambda d: formed(d, 0, form="low_rank", rank=None), "P538"),
    "a sparse form": (lambda d: formed(d, 0, form="sparse", count=3), "P538"),
    "an unknown form": (lambda d: formed(d, 0, form="magic"), "P512"),
    "modes of another matrix": (lambda d: formed(d, 0, modes=[[3, 2], [3, 2], [2, 3]]), "P538"),
    "modes without end": (lambda d: formed(d, 0, modes=[[9, 12], *[[1, 1]] * 5000]), "P538"),
    "no composition": (lambda d: edited(d, 0, composition=None), "P512"),
    "two forms": (
        lambda d: d["factored"][0]["composition"]["forms"].append({"form": "sparse", "count": 1}) or d,
        "P538",
    ),
    "another tensor": (lambda d: composed_of(d, tensors=["fc7.weight"]), "P538"),
    "another shape": (lambda d: composed_of(d, shapes=[[12, 9]]), "P538"),
    "units that went": (lambda d: d | {"kept": d["kept"] | {"fc1": [0, 1]}}, "P538"),
    "another network": (lambda d: d | {"model": {"constructor": "mlp", "arguments": {"sizes": [12, 9, 8, 5]}}}, "P533"),
    "another file": (lambda d: d | {"weights_hash": "0" * 64}, "P517"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_description_that_does_not_fit_is_refused(case: str, tmp_path: Path) -> None:
    _, path = kept("mlp", tmp_path)
    document = json.loads(path.with_suffix(".json").read_text())
    assert document["factored"][0]["composition"]["forms"][0]["form"] == "tt"
    edit, code = HOSTILE[case]
    path.with_suffix(".json").write_text(json.dumps(edit(document)))
    with pytest.raises((ShrinkProblem, FileProblem)) as found:
        load_shrunk(path)
    assert found.value.code == code, found.value


def test_cores_are_stored_as_their_order_multiplies_by_them(tmp_path: Path) -> None:
    """A description with another order asks for kernels of other shapes, wherever these differ."""
    small, path = kept("mlp", tmp_path)
    document = json.loads(path.with_suffix(".json").read_text())
    steps, codes = document["factored"][0]["order"], set()
    for other in map(list, permutations(range(3))):
        path.with_suffix(".json").write_text(json.dumps(edited(document, 0, order=other)))
        if other == steps:
            x = torch.randn(4, 12)
            assert torch.equal(load_shrunk(path)(x), small.module(x))
        elif other == steps[::-1]:
            with pytest.raises(ShrinkProblem) as found:
                load_shrunk(path)
            codes.add(found.value.code)
    assert codes == {"P533"}
