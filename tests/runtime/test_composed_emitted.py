"""Emitted scripts of tensors that are made of factors end at the weights of the executor, bit for bit.

The scripts of all cases run in one further process, where prunelang cannot be imported.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from prunelang.api import compile
from tests.runtime.emitted_cases import spec
from tests.runtime.test_emitted import RUN_ALL, bits, executed

CASES: dict[str, str] = {
    "low_rank": spec('net["fc1"].weights ∈ low_rank(3)\n    rank(net["fc2"].weights) ≤ 2'),
    "low_rank_by_admm": spec(
        "∀ l ∈ net.layers: l.weights ∈ low_rank(2)", "admm(steps = 2) with sgd(lr = 0.1) for 1 epochs"
    ),
    "codebook": spec("net.weights ∈ codebook(4)"),
    "scaled": spec("net.weights ∈ scaled({-1, 0, 1})"),
    "values": spec("net.weights ∈ {-1, 0, 1}"),
    "box": spec("net.weights ∈ box(-0.1, 0.2)"),
    "nuclear": spec("∀ l ∈ net.layers: nuclear(l.weights) ≤ 4"),
    "train": spec('tt_rank(net["fc1"].weights) ≤ 3'),
    "train_by_its_cores": spec(
        'net["fc1"].weights ∈ tt(3)', "factors(start = random) with adamw(lr = 1e-2) for 2 epochs"
    ),
    "sum": spec('net["fc1"].weights ∈ codebook(2) + sparse(1%)\n    net["fc2"].weights ∈ low_rank(1) + sparse(5)'),
    "mixed": spec(
        '‖net["fc1"].weights‖₀ ≤ 100\n    net["fc2"].weights ∈ low_rank(2)',
    ),
    "budget": spec("∀ l ∈ net.layers: l.weights ∈ low_rank()\n    small: params(net) ≤ 40%"),
    "two_budgets": spec(
        "∀ l ∈ net.layers: l.weights ∈ tt()\n    params(net) ≤ 40%\n    macs(net) ≤ 50%",
        "factors() with sgd(lr = 0.1) for 1 epochs",
    ),
    "price": spec(
        "∀ l ∈ net.layers: l.weights ∈ low_rank()", objective="cross_entropy(net) + (1e-4 * (1 + k))·params(net)"
    ),
    "bytes_of_sums": spec("net.weights ∈ codebook(2) + sparse()\n    file: bytes(net) ≤ 35%"),
    "until": spec(
        'net["fc1"].weights ∈ low_rank(3)',
        "factors() with adam(lr = 1e-2) for 6 epochs until saturated(window = 2 epochs)",
    ),
}


@dataclass(frozen=True)
class Outcome:
    """A case run both ways."""

    executed: Mapping[str, Tensor]
    emitted: Mapping[str, Tensor] | None
    output: str


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """Every case, executed here and emitted there."""
    root = tmp_path_factory.mktemp("emitted")
    weights: dict[str, dict[str, Tensor]] = {}
    torch.use_deterministic_algorithms(True)
    for name, text in CASES.items():
        folder = root / name
        folder.mkdir()
        (folder / "case.prune").write_text(text)
        emitted, weights[name] = executed(compile(folder / "case.prune", dtype="float64"), folder)
        (folder / "train.py").write_text(emitted.script.replace('Path("', f'Path("{folder}/'))  # all in one process
        for file, content in emitted.sidecar.items():
            (folder / file).write_bytes(content)
    folders = [str(root / name) for name in CASES]
    subprocess.run([sys.executable, "-I", "-c", RUN_ALL, *folders], check=True, cwd=root, timeout=240)

    def outcome(name: str) -> Outcome:
        file = root / name / "trained.safetensors"
        output = (root / name / "out.txt").read_text()
        return Outcome(weights[name], load_file(file) if file.exists() else None, output)

    return {name: outcome(name) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_the_script_ends_at_the_weights_of_the_executor_bit_for_bit(name: str, outcomes: Mapping[str, Outcome]) -> None:
    outcome = outcomes[name]
    assert outcome.emitted is not None, outcome.output
    assert outcome.emitted.keys() == outcome.executed.keys()
    for tensor, value in outcome.executed.items():
        assert bits(outcome.emitted[tensor]) == bits(value), f"{tensor}\n{outcome.output}"


def test_every_case_ends_at_weights_of_its_own(outcomes: Mapping[str, Outcome]) -> None:
    """Equality of scripts that do nothing would prove nothing."""
    ends = {bits(outcomes[name].executed["fc1.weight"])[2] for name in CASES}
    assert len(ends) == len(CASES)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("low_rank", ["ranks and counts: {('fc1.weight', 0): (3,)}", "ranks and counts: {('fc2.weight', 0): (2,)}"]),
        ("train", ["ranks and counts: {('fc1.weight', 0): (3, 3, 3)}"]),
        ("sum", ["ranks and counts: {('fc1.weight', 1): (7,)}"]),
        ("budget", ["small: 360 ≤ 364"]),
        ("bytes_of_sums", ["file: "]),
    ],
)
def test_the_script_prints_sizes_and_budgets(name: str, lines: list[str], outcomes: Mapping[str, Outcome]) -> None:
    printed = outcomes[name].output.splitlines()
    for line in lines:
        assert any(p.startswith(line) for p in printed), outcomes[name].output
