"""Spiking networks with their epochs, and the specs of every method."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import torch

from benchmarks.magnitude import Training
from benchmarks.spiking.points import DRIVEN, MAGNITUDE, MATCHED, POINTS, SOLVERS, SYNOPS

SPECS: Final = Path(__file__).parents[2] / "specs"
SPEC: Final = "gda_snn_mnist"
REPORT: Final = (
    'report "test": accuracy(net), "validation": accuracy(net, on = validation), '
    '"synops": synops(net), "spikes": spikes(net)\n'
)
_DURATION: Final = re.compile(r"for \d+ epochs")


def cosine(epoch: int, done: float) -> float:
    """From 2e-3 to 1e-6."""
    return 1e-6 + (2e-3 - 1e-6) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Network:
    """A constructor, epochs of training, solving and fine-tuning, as many seeds, from 0 on, where, and the data."""

    constructor: str
    dense: int
    solve: int
    finetune: int
    seeds: int = 3
    points: tuple[str, ...] = POINTS
    data: str = 'mnist(root = "ROOT", batch = 128, validation = 10%, seed = 0)'

    @property
    def magnitude(self) -> Training:
        """As many epochs as solving and fine-tuning have; the rate falls by half a cosine."""
        adam = partial(torch.optim.Adam, lr=2e-3)
        return Training(self.solve + self.finetune, adam, cosine)


NETWORKS: Final[Mapping[str, Network]] = {
    "snn_mlp": Network("snn_mlp([784, 500, 10], T = 8)", 10, 6, 4),
    "snn_mlp, 3 layers": Network("snn_mlp([784, 500, 300, 10], T = 8)", 10, 6, 4, points=(SYNOPS,)),
    "snn_conv": Network("snn_conv(width = 8, T = 4, inputs = [1, 28, 28], convs = 2)", 5, 4, 2, seeds=1),
}


def head(network: Network, weights: Path | None, root: str) -> str:
    """The cut of the data is the same for all, since every report reads validation."""
    start = "" if weights is None else f' from "{weights}"'
    data = network.data.replace("ROOT", root)
    return f"model net = {network.constructor}{start}\ndata {data}\nminimize cross_entropy(net)\n"


def dense_spec(network: Network, root: str) -> str:
    """The spec's own training of a dense network: where every method of a seed starts."""
    text = (SPECS / f"{SPEC}.prune").read_text(encoding="utf-8")
    stage = text[text.index("\npretrain ") + 1 : text.index("\nsolve ") + 1]
    return head(network, None, root) + _DURATION.sub(f"for {network.dense} epochs", stage) + REPORT


def stages(network: Network, method: str) -> str:
    """The spec's stages with another solver; none for what is written by hand."""
    if method in (MAGNITUDE, *MATCHED):
        return ""
    text = (SPECS / f"{SPEC}.prune").read_text(encoding="utf-8")
    found = text[text.index("\nsolve ") + 1 : text.index("\nreport ") + 1]
    durations = iter((network.solve, network.finetune))
    if method == "lc":  # an outer iteration an epoch
        found, durations = found.replace("gda()", f"lc(steps = {network.solve})"), iter((1, network.finetune))
    else:
        found = found.replace("gda()", SOLVERS[method])
    return _DURATION.sub(lambda _: f"for {next(durations)} epochs", found)


def spec_of(network: Network, method: str, point: str, weights: Path, root: str, kept: int | None = None) -> str:
    """A method at a point, from the dense network of a seed; `kept` weights where it matches another's run."""
    if point == SYNOPS and method in DRIVEN:
        line = "events: synops(net) ≤ 0.3 * base"
    else:
        line = f"connectivity: ‖net.weights‖₀ ≤ {point if kept is None else kept}"
    return f"{head(network, weights, root)}subject to\n    {line}\n{stages(network, method)}{REPORT}"
