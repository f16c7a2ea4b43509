"""Every solver on spiking networks: what it hands back satisfies the constraints, and it has learned something."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("spikingjelly", reason="spiking networks need the extra `snn`")

from prunelang import compile
from prunelang.compiler.problem import Measured
from prunelang.execution import RunOptions, Session
from tests.conformance.test_solvers import ROWS
from tests.runtime.solving import solve

NETWORKS = {
    "mlp": ("snn_mlp([64, 24, 10], T = 4)", "cross_entropy(net)", 532),
    "drawn": ("snn_mlp([64, 24, 10], T = 4, encoding = poisson, tau = 1.5, readout = rate)", "mse(net)", 532),
    "conv": ("snn_conv(width = 4, T = 2, inputs = [1, 8, 8], convs = 2)", "cross_entropy(net)", 1167),
}
COUNT = "‖net.weights‖₀ ≤ 30%"
ASKED = {"factors": "∀ l ∈ net.layers: rank(l.weights) ≤ 4"}  # of solvers that take no count
ALL = [(word, "mlp") for word in ROWS] + [
    (word, net) for word in ("lc", "gda", "ista lats") for net in NETWORKS if net != "mlp"
]


@pytest.mark.parametrize(("word", "net"), ALL)
def test_every_solver_ends_feasible_on_spiking_networks(word: str, net: str) -> None:
    call, epochs = ROWS[word]
    constructor, loss, allowed = NETWORKS[net]
    ran = solve(
        f"model net = {constructor}\ndata digits(batch = 128)\nminimize {loss}\nsubject to {ASKED.get(word, COUNT)}\n"
        "pretrain with adam(lr = 1e-2) for 1 epochs\n"
        f"solve {call} with adam(lr = 5e-3) for {epochs} epochs\nfinetune with adam(lr = 5e-3) for 2 epochs",
        dtype="float32",
    )
    weights = [t.tensors[w] for t in [ran.machine] for w in (x.weight for x in ran.session.plan.table.layers)]
    kept = sum(int(w.detach().count_nonzero()) for w in weights)
    if word in ASKED:
        assert all(int(torch.linalg.matrix_rank(w.detach())) == 4 for w in weights)
    else:
        assert 0 < kept <= allowed
    losses = [float(e["loss"]) for e in ran.stages("epoch")]
    assert all(math.isfinite(x) for x in losses)
    finetuned = [float(e["loss"]) for e in ran.stages("epoch") if e["stage"] == "finetune"]
    assert finetuned[1] < finetuned[0]


def test_measurements_of_drawn_spikes_repeat(tmp_path: Path) -> None:
    text = (
        "model net = snn_mlp([64, 24, 10], T = 4, encoding = poisson)\ndata digits()\n"
        "minimize cross_entropy(net)\nsubject to\n good: accuracy(net) ≥ 50%\n ‖net.weights‖₀ ≤ 10%\nsolve lc()"
    )
    program = compile(text)
    session = Session(program.plan, tmp_path, RunOptions(tmp_path))
    function = next(c.function for c in program.plan.problem.constraints if c.label == "good")
    assert isinstance(function, Measured)
    first, each = session.measure(function), session.each(function)
    torch.rand(3)
    assert session.measure(function) == first
    again = session.each(function)
    assert each is not None
    assert again is not None
    assert each.tolist() == again.tolist()
    assert float(each.mean()) == first.value


def test_the_papers_network_has_the_papers_weights() -> None:
    """36 708 352 are those after the first convolution, which its authors keep dense and do not count."""
    plan = compile(
        'model net = snn_conv(width = 256)\ndata tensors("none.npz")\nminimize cross_entropy(net)\nsolve auto'
    ).plan
    sizes = [plan.table.tensor[x.weight].size for x in plan.table.layers]
    assert (sum(sizes), sum(sizes[1:])) == (36_715_264, 36_708_352)
    assert plan.table.steps == 8
