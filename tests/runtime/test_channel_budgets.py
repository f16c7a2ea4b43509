"""Budgets of shapes from a spec to a network that really has the smaller shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from prunelang import shrink
from prunelang.compiler.graph import Weights
from prunelang.runtime.recount import recount
from prunelang.runtime.stored import Stored
from tests.runtime.solving import Ran, solve

SOLVERS = {
    "lc": "lc(steps = 2) with sgd(lr = 0.01) for 2 steps",
    "gda": "gda() with sgd(lr = 0.01, momentum = 0.9) for 8 steps",
    "pmmp": "pmmp() with sgd(lr = 0.01) for 4 steps",
}
NETWORKS = {"resnet_cifar(8, width = 4)": (3, 32, 32), "lenet_5()": (1, 28, 28), "mlp([6, 12, 9, 10])": (6,)}


def ran(folder: Path, network: str, lines: str, solver: str, more: str = "") -> Ran:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, *NETWORKS[network])).astype(np.float32)
    y = np.arange(8) % 10
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return solve(
        f'model net = {network}\ndata tensors("{folder / "data.npz"}", batch = 4)\n{more}\n'
        f"minimize cross_entropy(net)\nsubject to\n{lines}\nsolve {solver}\n"
        "finetune with sgd(lr = 0.01, momentum = 0.9) for 3 steps\n",
        folder,
        dtype="float32",
    )


def stored(r: Ran) -> Stored:
    return Stored({n: t.detach().numpy() for n, t in r.machine.tensors.items()}, {}, r.session.plan.table)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_certified_is_what_the_smaller_network_does(network: str, solver: str, tmp_path: Path) -> None:
    """Half the multiply-adds at most, counted by torch on the network without the removed members; same outputs."""
    r = ran(tmp_path, network, "  ops: macs(net) ≤ 50%", SOLVERS[solver])
    (ops,) = r.session.plan.problem.constraints
    outcome = recount(ops, stored(r))
    assert outcome.satisfied, outcome.remark
    assert outcome.value is not None
    model = r.session.model.eval()
    small = shrink(model, NETWORKS[network])
    x = torch.randn(2, *NETWORKS[network])
    assert torch.allclose(model(x), small.eval()(x), atol=1e-4, rtol=1e-4)
    with FlopCounterMode(display=False) as counter:
        small(x[:1])
    assert counter.get_total_flops() == 2 * int(outcome.value.middle)


def test_biases_and_normalisation_go_with_a_member_and_counts_do_not_see_it(tmp_path: Path) -> None:
    r = ran(tmp_path, "resnet_cifar(8, width = 4)", "  ops: macs(net) ≤ 40%\n  n: nonzeros(net) ≤ 60%", SOLVERS["lc"])
    table, s = r.session.plan.table, stored(r)
    (weights,) = (x for x in r.session.graph.state if isinstance(x, Weights))
    assert {t.name for t in table.tensors if t.role != "buffer"} - {"fc.bias"} == set(weights.tensors)
    for g in table.channels:
        parts = [(s.array(x.tensor), x) for x in g.slices if table.tensor[x.tensor].role != "buffer"]
        for i in range(g.size):
            held = [np.take(a, x.indices(i), axis=x.dim).any() for a, x in parts if a.ndim == 1]
            kernels = [np.take(a, x.indices(i), axis=x.dim).any() for a, x in parts if a.ndim > 1]
            assert any(kernels) or not any(held)
    kernels_of = sum(int(np.count_nonzero(s.array(t.name))) for t in table.tensors if t.role == "weight")
    rest = sum(t.size for t in table.tensors if t.role not in ("weight", "buffer"))
    (_, n) = r.session.plan.problem.constraints
    value = recount(n, s).value
    assert value is not None
    assert value.middle == kernels_of + rest


def test_a_group_with_a_frozen_tensor_keeps_all_members(tmp_path: Path) -> None:
    r = ran(
        tmp_path,
        "mlp([6, 12, 9, 10])",
        "  ops: macs(net) ≤ 70%",
        SOLVERS["lc"],
        more='freeze net["fc1"].biases',
    )
    (ops,) = r.session.plan.problem.constraints
    assert getattr(ops.function, "groups", ()) == ("fc2",)
    assert recount(ops, stored(r)).satisfied
    assert r.w("fc1.weight").abs().sum(1).ne(0).all()
