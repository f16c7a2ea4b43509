"""Losses and metrics over whole splits: counted per prediction, whatever the batch, and the same as slow sums."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunelang.compiler.graph import Loss
from prunelang.compiler.problem import Measured
from prunelang.compiler.schedule import constant
from prunelang.runtime import losses
from prunelang.runtime.data.dataset import Dataset, Split
from prunelang.runtime.evaluate import criterion_of, measure
from tests.runtime.solving import prepare, solve


class Table(nn.Module):
    """Looks up the logits of each token; inputs N or N × T."""

    def __init__(self, classes: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.logits = nn.Parameter(torch.randn(classes, classes, generator=generator, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[x]


def dataset(inputs: Tensor, targets: Tensor, task: str) -> Dataset:
    return Dataset("d", task, 5, {"test": Split(inputs, targets)})  # type: ignore[arg-type]


def tokens(*shape: int) -> Tensor:
    return torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(2))


CLASSES = dataset(tokens(13), tokens(13).flip(0), "classification")
LANGUAGE = dataset(tokens(7, 4), tokens(7, 4).flip(0), "language")


def one_by_one(name: str, data: Dataset) -> float:
    """The definition, a prediction at a time, in plain floats."""
    total, rows = 0.0, Table(5).logits.tolist()
    pairs = list(zip(data.test.inputs.flatten().tolist(), data.test.targets.flatten().tolist(), strict=True))
    for x, y in pairs:
        row = rows[x]
        partition = math.log(sum(math.exp(v) for v in row))
        total += {
            "accuracy": float(row.index(max(row)) == y),
            "error": float(row.index(max(row)) != y),
            "cross_entropy": partition - row[y],
            "nll": (partition - row[y]) / math.log(2),
            "mse": sum((v - (j == y)) ** 2 for j, v in enumerate(row)) / 5,
        }[name]
    return total / len(pairs)


@pytest.mark.parametrize("data", [CLASSES, LANGUAGE], ids=["classes", "language"])
@pytest.mark.parametrize("name", ["accuracy", "error", "cross_entropy", "nll", "mse"])
def test_measures_are_means_over_predictions(name: str, data: Dataset) -> None:
    net = Table(5)
    net.train()
    for batch in (1, 3, 1000):
        found = measure(Measured(name, "test"), net, data, {}, batch)
        assert found.value == pytest.approx(one_by_one(name, data), rel=1e-12)
        if name in ("accuracy", "error"):
            assert found.exact == Fraction(round(found.total), data.test.targets.numel())
        else:
            assert found.exact is None
    assert net.training, "handed back in the mode that it was in"


@pytest.mark.parametrize("name", ["cross_entropy", "nll", "mse"])
@pytest.mark.parametrize("data", [CLASSES, LANGUAGE], ids=["classes", "language"])
def test_what_is_trained_on_is_what_is_measured(name: str, data: Dataset) -> None:
    net, x, y = Table(5), data.test.inputs, data.test.targets
    loss = criterion_of(Loss(name, constant(1)), {})(net(x), x, y)
    assert float(loss.detach()) == pytest.approx(one_by_one(name, data), rel=1e-12)
    loss.backward()  # type: ignore[no-untyped-call]
    assert net.logits.grad is not None


@pytest.mark.parametrize("data", [CLASSES, LANGUAGE], ids=["classes", "language"])
def test_distillation(data: Dataset) -> None:
    """T² KL(teacher ‖ student) per prediction; nothing flows into the teacher."""
    net, teacher, T, x = Table(5), Table(5).requires_grad_(False), 4.0, data.test.inputs
    with torch.no_grad():
        teacher.logits.mul_(-2)
    arguments = (("teacher", "big"), ("T", T))
    loss = criterion_of(Loss("distill", constant(1), arguments), {"big": teacher})(net(x), x, data.test.targets)
    p, q = ((t(x).flatten(0, -2) / T).softmax(-1) for t in (teacher, net))
    expected = T * T * (p * (p.log() - q.log())).sum(-1).mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    found = measure(Measured("distill", "test", arguments), net, data, {"big": teacher}, 3)
    assert found.value == pytest.approx(float(expected.detach()), rel=1e-12)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_one_number_per_sample_may_miss_its_axis(shape: tuple[int, ...]) -> None:
    """N targets beside N × 1 outputs are never spread to N × N."""
    outputs, targets = torch.arange(6.0).reshape(6, 1), torch.ones(6)
    assert float(losses.mse(outputs, targets.reshape(shape))) == pytest.approx(float((outputs - 1).square().mean()))
    with pytest.raises(RuntimeError):
        losses.mse(outputs, torch.ones(5))


def test_teachers_stay_as_they_are_through_a_run(tmp_path: Path) -> None:
    teacher = solve(
        "model net = mlp([64, 10])\ndata digits(batch = 500)\nminimize cross_entropy(net)\n"
        "subject to\n ‖net.weights‖₀ ≤ 640\nsolve lc(steps = 1) with sgd(lr = 0.1) for 1 steps\n",
        dtype="float32",
    )
    from safetensors.torch import save_file

    save_file({n: t.detach().contiguous() for n, t in teacher.machine.tensors.items()}, tmp_path / "big.safetensors")
    text = """
model net = mlp([64, 4, 10])
model big = mlp([64, 10]) from "big.safetensors" frozen
data digits(batch = 500)
minimize distill(net, big, T = 4) + 0.5 * cross_entropy(net)
subject to
    ‖net.weights‖₀ ≤ 20%
solve lc(steps = 2) with sgd(lr = 0.1) for 1 epochs
"""
    session = prepare(text, tmp_path, dtype="float32")
    big = session.teachers["big"]
    assert not big.training
    machine = session.machine(lambda event: None, lambda: False)
    from prunelang.compiler.graph import from_json, to_json
    from prunelang.runtime.execute import run

    assert from_json(to_json(session.graph)) == session.graph
    run(machine)
    assert all(torch.equal(t, teacher.machine.tensors[n]) for n, t in big.state_dict().items())
