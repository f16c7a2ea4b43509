"""What is compared: networks with their budgets of epochs, and methods with the strengths that are tried."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SPECS: Final = Path(__file__).parents[2] / "specs"
DROP: Final = 0.5  # percentage points that a method may lose against the dense network
_DURATION: Final = re.compile(r"for \d+ epochs")
_BATCH: Final = re.compile(r"batch = \d+")
REPORT: Final = 'report "test": error(net), "validation": error(net, on = validation), bytes(net, format = coded)\n'


@dataclass(frozen=True)
class Method:
    """A solver and what is varied: ``param α`` of the penalty form, or ``param κ`` where `counts`.

    `strengths` go from mild to strong. `solver` replaces ``drr(β = 5)`` in the spec of the network.
    """

    solver: str
    strengths: tuple[str, ...]
    counts: bool = False


@dataclass(frozen=True)
class Network:
    """A spec in specs/ whose text is varied, and the epochs of its stages.

    `counted` are the stages of methods that take a count, by method.
    """

    spec: str
    dense: int
    solve: int
    finetune: int
    methods: Mapping[str, Method]
    counted: Mapping[str, str]
    seeds: int = 3  # as many, from 0 on

    @property
    def text(self) -> str:
        return (SPECS / f"{self.spec}.prune").read_text(encoding="utf-8")

    def constructor(self) -> str:
        """The call that builds the network, as the spec has it."""
        found = re.search(r"^model net = (.+)$", self.text, re.MULTILINE)
        assert found is not None
        return found[1]


def head(network: Network, weights: Path | None, root: str) -> str:
    """Model and data of the spec, with a folder for the data and, where given, starting weights."""
    text = network.text
    data = re.search(r"^data +mnist\((.*?)\)", text, re.MULTILINE)
    assert data is not None
    start = f' from "{weights}"' if weights is not None else ""
    return f'model net = {network.constructor()}{start}\ndata mnist(root = "{root}", {data[1]}, seed = 0)\n'


def dense_spec(network: Network, root: str) -> str:
    """Ordinary training: where every method of a seed starts."""
    stage = network.text[network.text.index("\npretrain ") + 1 : network.text.index("\nsolve ") + 1]
    stage = _DURATION.sub(f"for {network.dense} epochs", stage)
    return head(network, None, root) + f"minimize cross_entropy(net)\n{stage}{REPORT}"


def spec_of(network: Network, method: str, strength: str, weights: Path, root: str) -> str:
    """One method at one strength, on the dense network of a seed."""
    chosen = network.methods[method]
    if chosen.counts:
        task = f"minimize cross_entropy(net)\nsubject to\n    sparsity: ‖net.weights‖₀ ≤ {strength}\n"
        return _BATCH.sub("batch = 256", head(network, weights, root)) + task + network.counted[method] + REPORT
    text = network.text
    stages = text[text.index("\nsolve ") + 1 : text.index("\nreport ") + 1]
    stages = stages.replace("drr(β = 5)", chosen.solver)
    durations = iter((network.solve, network.finetune))
    stages = _DURATION.sub(lambda _: f"for {next(durations)} epochs", stages)
    task = f"minimize cross_entropy(net) + {strength} * ‖net.weights‖₀\n"
    return head(network, weights, root) + task + stages + REPORT


SGD: Final = "sgd(lr = {}, momentum = 0.9, nesterov = true)"


def _lc(steps: int, growth: float, first: str, last: str, finetune: int) -> str:
    return (
        f"solve lc(μ = 8.5e-5 * {growth}^k, steps = {steps}) with {SGD.format(first)} for 1 epochs\n"
        f"finetune with {SGD.format(last)} for {finetune} epochs\n"
    )


def _ista(epochs: int, first: str, last: str, finetune: int) -> str:
    return (
        f"solve ista(threshold = s_lats, reach = 0.5) with {SGD.format(first)} for {epochs} epochs\n"
        f"finetune with {SGD.format(last)} for {finetune} epochs\n"
    )


PENALTIES: Final = {
    "drr": Method("drr(β = 5)", ("2e-5", "3e-5", "4.5e-5", "6e-5", "8e-5", "1e-4")),
    "rl1": Method("rl1()", ("1e-4", "2e-4", "3e-4")),
    "pmmp": Method("pmmp()", ("1e-4", "3e-4", "1e-3", "3e-3", "1e-2")),
}
COUNTS: Final = {
    "lc": Method("lc", ("1.5%", "1%"), counts=True),
    "ista": Method("ista", ("1.5%", "1%"), counts=True),
}
NETWORKS: Final[Mapping[str, Network]] = {
    "lenet_300_100": Network(
        "drr_penalty_lenet300",
        20,
        30,
        10,
        {**PENALTIES, **COUNTS},
        {
            "lc": _lc(30, 1.172, "0.1 * 0.97^k", "0.03 * 0.7^epoch", 10),
            "ista": _ista(30, "0.1 * 0.95^epoch", "0.05 * 0.8^epoch", 10),
        },
    ),
    "lenet_300_100, longer": Network(
        "drr_penalty_lenet300",
        20,
        200,
        80,
        {
            "drr": Method("drr(β = 5)", ("3e-5", "6e-5")),
            "rl1": Method("rl1()", ("1.5e-4", "3e-4")),
            "pmmp": Method("pmmp()", ("3e-4", "1e-3")),
        },
        {},
        seeds=1,
    ),
    "lenet_5": Network(
        "drr_penalty_lenet5",
        4,
        8,
        3,
        {
            "drr": Method("drr(β = 5)", ("1e-4", "2e-4")),
            "rl1": Method("rl1()", ("2e-4", "4e-4", "8e-4")),
            "pmmp": Method("pmmp()", ("3e-4",)),
            "lc": Method("lc", ("0.5%",), counts=True),
            "ista": Method("ista", ("0.5%",), counts=True),
        },
        {
            "lc": _lc(8, 1.93, "0.05 * 0.9^k", "0.02 * 0.5^epoch", 3),
            "ista": _ista(8, "0.05 * 0.85^epoch", "0.02 * 0.5^epoch", 3),
        },
    ),
}
