"""`select` and `certify`: two halves of validation that share no sample, hold all classes, and stay what they are."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from prunelang.runtime import registry
from prunelang.runtime.data import Dataset
from prunelang.runtime.data.dataset import DataUnavailable, Split
from tests.runtime.solving import prepare


def indexed(size: int, classes: int, task: str = "classification") -> Dataset:
    """Samples that carry their number."""
    x = torch.arange(size, dtype=torch.float32)[:, None]
    y = torch.arange(size) % classes
    if task == "language":
        x, y = torch.arange(size)[:, None].repeat(1, 3), torch.arange(size)[:, None].repeat(1, 3)
    return Dataset("d", task, classes, {"train": Split(x, y)})  # type: ignore[arg-type]


def numbers(data: Dataset, split: str) -> set[int]:
    return {int(v) for v in data[split].inputs[:, 0]}


@pytest.mark.parametrize("size", [400, 401, 407])
def test_the_halves_share_nothing_and_are_all_of_validation(size: int) -> None:
    data = indexed(size, 4).split(Fraction(1, 2), seed=3).halved(seed=3)
    select, certify = numbers(data, "select"), numbers(data, "certify")
    assert not select & certify
    assert select | certify == numbers(data, "validation")
    assert not (select | certify) & numbers(data, "train")
    assert 0 <= len(certify) - len(select) <= 1


def test_both_halves_keep_the_shares_of_the_classes() -> None:
    data = registry.data["digits"].load(Path()).split(Fraction(2, 5), seed=0).halved(seed=0)
    whole, parts = data.validation.targets.bincount(), [data[s].targets.bincount() for s in ("select", "certify")]
    assert torch.equal(parts[0] + parts[1], whole)
    assert all(bool(((2 * p - whole).abs() <= 2).all()) for p in parts)


def test_the_halves_depend_on_the_seed_alone_and_not_on_the_cut_of_train() -> None:
    cut = indexed(400, 4).split(Fraction(1, 2), seed=3)
    assert numbers(cut.halved(3), "select") == numbers(cut.halved(3), "select")
    assert numbers(cut.halved(3), "select") != numbers(cut.halved(4), "select")
    assert cut.halved(3).digest("certify") == indexed(400, 4).split(Fraction(1, 2), seed=3).halved(3).digest("certify")


def test_sequences_are_cut_in_order() -> None:
    data = indexed(100, 4, "language").split(Fraction(1, 5), seed=0).halved(seed=0)
    assert numbers(data, "select") == set(range(80, 90))
    assert numbers(data, "certify") == set(range(90, 100))


def test_own_validation_is_halved_too() -> None:
    data = indexed(40, 4)
    own = replace(data, splits={**data.splits, "validation": data.train})
    assert len(own.split(Fraction(1, 10), 0).halved(0)["select"]) == 20


def test_one_sample_has_no_halves() -> None:
    data = indexed(10, 1).split(Fraction(1, 10), seed=0)
    with pytest.raises(DataUnavailable, match="1 samples cannot be cut"):
        data.halved(0)


@pytest.mark.parametrize(
    ("line", "halved"),
    [
        ("accuracy(net) ≥ 80%", True),
        ("accuracy(net, on = test) ≥ 80%", False),
        ("cross_entropy(net, on = train) ≤ 1", False),
        ("‖net.weights‖₀ ≤ 50%", False),
    ],
)
def test_validation_is_cut_in_two_when_a_constraint_reads_it(line: str, halved: bool) -> None:
    session = prepare(
        "model net = mlp([64, 10])\ndata digits(validation = 20%)\nminimize cross_entropy(net)\n"
        f"subject to\n ‖net.weights‖₀ ≤ 60%\n {line}\nsolve lc(steps = 1) for 1 steps\n"
        "report accuracy(net, on = validation)\n",
        Path(),
    )
    assert ({"select", "certify"} <= set(session.data.splits)) == halved
    assert "validation" in session.data.splits
