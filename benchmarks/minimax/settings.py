"""What is compared: two networks with their stages, and the points: sets of budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final

import torch

import prunelang
from benchmarks.magnitude import Training
from prunelang.compiler.problem import Count

SPECS: Final = Path(__file__).parents[2] / "specs"
SHARE: Final = Fraction(60, 100)  # of the csr file at the point's count, that the file may have
SHARES: Final = {"5%": Fraction(5, 100), "2%": Fraction(2, 100), "1%": Fraction(1, 100)}
COUNTS: Final = tuple(SHARES)
COMPUTE: Final = "compute"
POINTS: Final = (*COUNTS, COMPUTE, *(f"{x}, all" for x in SHARES))
"""Counts; multiply-adds alone; a count, multiply-adds and the file together."""

MAGNITUDE: Final = "gradual magnitude"
SGD: Final = "sgd(lr = {}, momentum = 0.9, nesterov = true)"


def stages(spec: str) -> str:
    """The statements of a spec from `solve` on, up to `report`."""
    text = (SPECS / f"{spec}.prune").read_text(encoding="utf-8")
    return text[text.index("\nsolve ") + 1 : text.index("\nreport ") + 1]


@dataclass(frozen=True)
class Network:
    """A constructor, its data, training of the dense network, and each method's stages."""

    constructor: str
    data: str
    pretrain: str
    stages: Mapping[str, str]
    magnitude: Training

    @property
    def methods(self) -> tuple[str, ...]:
        return (*self.stages, MAGNITUDE)

    def head(self, weights: Path | None, root: str) -> str:
        start = "" if weights is None else f' from "{weights}"'
        data = self.data.replace("ROOT", root)
        return f"model net = {self.constructor}{start}\ndata {data}\nminimize cross_entropy(net)\n"


REPORT: Final = "report error(net)\n"
_nesterov: Final = partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True)
NETWORKS: Final[Mapping[str, Network]] = {
    "lenet_300_100": Network(
        "lenet_300_100()",
        'mnist(root = "ROOT", batch = 256, seed = 0)',
        f"pretrain with {SGD.format('0.1 * 0.95^epoch')} for 20 epochs\n",
        {"gda": stages("gda_lenet300"), "lc": stages("lc_lenet300")},
        Training(40, _nesterov, lambda epoch, done: 0.1 * 0.95**epoch),
    ),
    "lenet_5": Network(
        "lenet_5()",
        'mnist(root = "ROOT", batch = 128, seed = 0)',
        "pretrain with adam(lr = ramp(1e-3, 1e-6, 0, 1, shape = cosine)) for 4 epochs\n",
        {
            "gda": stages("gda_lenet5"),
            "lc": (
                f"solve lc(μ = 8.5e-5 * 1.93^k, steps = 8) with {SGD.format('0.05 * 0.9^k')} for 1 epochs\n"
                f"finetune with {SGD.format('0.02 * 0.5^epoch')} for 3 epochs\n"
            ),
        },
        Training(11, _nesterov, lambda epoch, done: 0.05 * 0.85**epoch),
    ),
}


def dense_spec(network: Network, root: str) -> str:
    """Ordinary training: where every method of a seed starts."""
    return network.head(None, root) + network.pretrain + REPORT


def task(network: Network, point: str) -> str:
    """The constraints of a point."""
    share, _, rest = point.partition(", ")
    lines = [] if point == COMPUTE else [f"sparsity: ‖net.weights‖₀ ≤ {share}"]
    if rest or point == COMPUTE:
        lines.append("compute: sparse_macs(net) ≤ 10%")
    if rest:
        lines.append(f"file: bytes(net, format = csr) ≤ {file_bound(network, SHARES[share])} B")
    return "subject to\n" + "".join(f"    {line}\n" for line in lines)


def file_bound(network: Network, share: Fraction) -> int:
    """60 % of the csr file that holds a share of the weights, all of them with the widest index in use."""
    text = network.head(None, ".") + "subject to\n    file: bytes(net, format = csr) ≤ 1 GB\n"
    plan = prunelang.compile(text).plan
    (constraint,) = plan.problem.constraints
    file = constraint.function
    assert isinstance(file, Count)
    weights = sum(plan.table.tensor[name].size for name in file.coefficients)
    return int(SHARE * (file.constant + max(file.coefficients.values()) * int(share * weights)))


def spec_of(network: Network, method: str, point: str, weights: Path, root: str) -> str:
    """A method at a point from the dense network of a seed; without stages for the loop that is written by hand."""
    return network.head(weights, root) + task(network, point) + network.stages.get(method, "") + REPORT
