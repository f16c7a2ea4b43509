"""What is compared: the compressions that the LC toolkit publishes a result for, as specs, and the schedules tried."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SPECS: Final = Path(__file__).parents[2] / "specs"
REFERENCE: Final = 2.13  # test error of the toolkit's network before compression, %
HELD: Final = "10%"  # of the training images, held out while schedules are picked


@dataclass(frozen=True)
class Case:
    """A spec, what of it is asked elsewhere, and the test error in % that the toolkit publishes."""

    title: str
    spec: str
    published: float
    asked: tuple[str, str] = ("", "")


CASES: Final[Mapping[str, Case]] = {
    "codebook": Case("codebooks of two values, one for each layer", "codebook_lenet300", 2.56),
    "codebook 1, 3": Case(
        "codebooks of two values, first and third layer",
        "codebook_lenet300",
        2.26,
        ("∀ l ∈ net.layers:", '∀ l ∈ net["fc1", "fc3"]:'),
    ),
    "additive": Case("one codebook of two values, plus 1 % corrected", "additive_lenet300", 2.17),
    "mixed": Case("5 000 weights, rank 10, two values", "mixed_lenet300", 2.51),
    "rank selection": Case("ranks chosen by a price of stored numbers", "rank_selection_lenet300", 1.90),
}
FILE: Final = "bytes"
PARTS: Final = "bytes_parts"
"""The case of a budget of bytes over parts of three kinds, and its spec."""


@dataclass(frozen=True)
class Schedule:
    """What may differ between the schedules tried: μ, the rate of the steps in between, and of the epochs after."""

    mu: str
    lr: str
    after: str


TRIED: Final[Mapping[str, Schedule]] = {
    "low": Schedule("1e-4 * 1.2^k", "0.09 * 0.97^k", "0.02 * 0.9^epoch"),
    "low, gentle": Schedule("1e-4 * 1.2^k", "0.05 * 0.97^k", "0.02 * 0.9^epoch"),
    "toolkit": Schedule("1e-3 * 1.14^k", "0.1 * 0.97^k", "0.02 * 0.9^epoch"),
    "lower": Schedule("5e-5 * 1.2^k", "0.09 * 0.97^k", "0.02 * 0.9^epoch"),
    "high": Schedule("1e-3 * 1.2^k", "0.09 * 0.97^k", "0.02 * 0.9^epoch"),
    "late": Schedule("1e-4 * 1.35^k", "0.09 * 0.97^k", "0.02 * 0.9^epoch"),
}
RATE: Final = r"(?<=sgd\(lr = )[^,]+"


def stages(case: Case, schedule: Schedule | None = None) -> str:
    """The statements of the case's spec from `solve` on, up to `report`; under a schedule in place of its own."""
    text = _read(case)
    found = text[text.index("\nsolve ") + 1 : text.index("\nreport ") + 1]
    if schedule is None:
        return found
    solve, finetune = found.split("finetune ")
    solve = _once(r"(?<=lc\(μ = )[^,]+", schedule.mu, solve)
    solve = _once(RATE, schedule.lr, solve)
    return f"{solve}finetune {_once(RATE, schedule.after, finetune)}"


def task(case: Case) -> str:
    """Objective and constraints of the case."""
    text = _read(case)
    start = "\nparam " if "\nparam " in text else "\nminimize "
    return text[text.index(start) + 1 : text.index("\npretrain ") + 1]


def head(weights: Path | None, root: str, held: bool) -> str:
    """The network with tanh units, and MNIST, with images held out or without."""
    start = "" if weights is None else f' from "{weights}"'
    share = f", validation = {HELD}" if held else ""
    model = f"model net = lenet_300_100(activation = tanh){start}\n"
    return f'{model}data mnist(root = "{root}", batch = 256, seed = 0{share})\n'


def reference_spec(root: str, held: bool = False) -> str:
    """The network before compression, trained as the specs say."""
    text = _read(CASES["codebook"])
    pretrain = text[text.index("\npretrain ") + 1 : text.index("\nsolve ") + 1]
    return f"{head(None, root, held)}minimize cross_entropy(net)\n{pretrain}{_report(held)}"


def spec_of(case: Case, weights: Path, root: str, schedule: Schedule | None = None) -> str:
    """The case from the network of a seed, reporting the test error; under a schedule, the error on held-out images."""
    held = schedule is not None
    return head(weights, root, held) + task(case) + stages(case, schedule) + _report(held)


def _report(held: bool) -> str:
    if held:
        return 'report "error": error(net, on = validation)\n'
    return 'report "error": error(net), "params": params(net), "macs": macs(net), "bytes": bytes(net)\n'


def _read(case: Case) -> str:
    text = (SPECS / f"{case.spec}.prune").read_text(encoding="utf-8")
    return _once(re.escape(case.asked[0]), case.asked[1], text) if case.asked[0] else text


def _once(pattern: str, other: str, text: str) -> str:
    found, count = re.subn(pattern, other, text)
    if count != 1:
        raise ValueError(f"`{pattern}` is {count} times in\n{text}")
    return found
