"""The specs of this project, cut to a few steps on random samples: what can be run in a second.

Every number is cut in the text, so that checker, executor and generator see one and the same spec.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from prunelang.compiler.solvers.base import solvers
from prunelang.dsl import tree
from prunelang.dsl.parser import parse

SPECS = Path(__file__).resolve().parents[2] / "specs"

SMALLER: Mapping[str, Mapping[str, str]] = {
    "bcd_cnn": {
        "strided_cnn()": "strided_cnn(channels = [4], hidden = [32, 16])",
        "[[32, 52], [32, 104]]": "[[4, 26], [8, 26]]",
        "[[32, 32], [32, 32]]": "[[4, 8], [4, 4]]",
        "r = 140": "r = 3",
    },
    "bcd_mnist": {
        "mlp([784, 512, 512, 10])": "mlp([784, 64, 64, 10])",
        "[[8, 8], [8, 7], [8, 14]]": "[[4, 8], [4, 7], [4, 14]]",
        "[[8, 8], [8, 8], [8, 8]]": "[[4, 4], [4, 4], [4, 4]]",
        "r = 20": "r = 4",
    },
    "bytes_parts": {"10 KB": "20 KB"},  # of float64
    "gda_snn_cifar10": {"width = 256, T = 8": "width = 2, T = 2", "c = 5%": "c = 50%"},
    "gda_sew_resnet18": {"T = 4, width = 64": "T = 2, width = 4", "0.2 * base": "100 kSynOps"},
    "gda_snn_mnist": {"[784, 500, 10], T = 8": "[784, 20, 10], T = 3"},
    "snn_synops": {
        "[784, 500, 10], T = 8": "[784, 20, 10], T = 2",
        "0.3 * base": "0.8 * base",
        "validation = 10%": "validation = 80%",  # what is decided by a confidence bound needs samples
    },
}
"""Networks that take minutes a step, and what they are made smaller by: words of the spec by what stands for them."""

LENGTHS = {"epochs": 1, "steps": 3}
OUTER = 2  # iterations of outer loops
LOOP = 3  # epochs of solvers that are one loop: so that what is steered moves
SAMPLES = {"train": 120, "test": 40}
MORE = {"snn_synops": 4000}  # samples of train
BATCH = 32

DURATION = re.compile(r"\bfor\s+(?:ramp\([^)]*\)|\S+)\s+(epochs|steps)\b")
OPTION = re.compile(r"\b(steps|probes)\s*=\s*\d+")
UNTIL = re.compile(r"\buntil\s+saturated(\([^)]*\))?")


def names() -> list[str]:
    return sorted(file.stem for file in SPECS.glob("*.prune"))


def shortened(name: str, solver: str | None = None) -> str:
    """A spec of `specs/` cut short; with `solver` its solve stage takes that solver with default options."""
    text = (SPECS / f"{name}.prune").read_text(encoding="utf-8")
    for old, new in SMALLER.get(name, {}).items():
        assert old in text, f"{name}: nothing reads {old!r}"
        text = text.replace(old, new)
    text = re.sub(r"\bbatch = \d{3,}", f"batch = {BATCH}", text)
    return _stages(text, solver)


def _stages(text: str, solver: str | None) -> str:
    """The same with every stage cut, from the last one on, so that places before it stay where they are."""
    stages = [s for s in parse(text).statements if isinstance(s, tree.Stage | tree.Solve)]
    for s in reversed(stages):
        clause = text[s.span.start : s.span.end]
        text = text[: s.span.start] + _cut(clause, s, solver) + text[s.span.end :]
    return text


def _cut(clause: str, stage: tree.Stage | tree.Solve, solver: str | None) -> str:
    if isinstance(stage, tree.Stage):
        return _until(DURATION.sub(_duration, clause))
    if solver is not None:
        return replacement(solver)
    word = clause.split("solve", 1)[1].split("(", 1)[0].strip()
    clause = OPTION.sub(lambda m: f"{m[1]} = {OUTER if m[1] == 'steps' else 4}", clause)
    epochs = 1 if word in solvers() and solvers()[word].outer else LOOP
    return _until(DURATION.sub(lambda m: _duration(m, epochs), clause))


def replacement(solver: str) -> str:
    """A solve stage of a solver with its defaults."""
    if solver == "bcd":
        return "solve bcd(steps = 2)"
    if solvers()[solver].outer:
        return f"solve {solver}(steps = {OUTER}) with sgd(lr = 0.05 * 0.9^k, momentum = 0.9) for 1 epochs"
    optimizer = "adam(lr = 5e-3)" if solver == "pmmp" else "sgd(lr = 0.05 * 0.9^epoch, momentum = 0.9)"
    return f"solve {solver}() with {optimizer} for {LOOP} epochs"


def _duration(match: re.Match[str], epochs: int = LENGTHS["epochs"]) -> str:
    return f"for {epochs if match[1] == 'epochs' else LENGTHS['steps']} {match[1]}"


def _until(clause: str) -> str:
    return UNTIL.sub("until saturated(window = 2 epochs)", clause)


def write_data(folder: Path, name: str) -> None:
    """Random samples in the files that a spec names."""
    generator = torch.Generator().manual_seed(1)
    for file, split in (("train", "train"), ("t10k", "test")):
        count = MORE.get(name, SAMPLES[split])
        images = torch.randint(0, 256, (count * 784,), generator=generator, dtype=torch.uint8)
        labels = torch.arange(count, dtype=torch.uint8) % 10
        heads = (struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28), struct.pack(">4BI", 0, 0, 8, 1, count))
        (folder / f"{file}-images-idx3-ubyte").write_bytes(heads[0] + images.numpy().tobytes())
        (folder / f"{file}-labels-idx1-ubyte").write_bytes(heads[1] + labels.numpy().tobytes())
    images, classes, points, values = {}, {}, {}, {}
    for split, count in SAMPLES.items():
        images[f"x_{split}"] = torch.randn(count // 2, 3, 32, 32, generator=generator)
        classes[f"y_{split}"] = torch.arange(count // 2) % 10
        points[f"x_{split}"] = torch.randn(count, 2, generator=generator)
        values[f"y_{split}"] = torch.randn(count, 1, generator=generator)
    save_file(images | classes, folder / "cifar10.safetensors")
    save_file(points | values, folder / "teacher.safetensors")
