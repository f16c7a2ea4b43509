"""`prune` as a process, and run directories that several tests look at."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.shape_tables import lenet_300_100

ROOT = Path(__file__).resolve().parent.parent.parent

TINY = """\
# A network of 1 184 weights on the embedded digits.
language 1
model net = mlp([64, 16, 10])
data  digits(batch = 64)
param κ = 10%

minimize   cross_entropy(net)
subject to
    sparsity: ‖net.weights‖₀ ≤ κ
    file:     bytes(net, format = bitmask) ≤ 2 KB

pretrain with sgd(lr = 0.1, momentum = 0.9) for 3 epochs
solve    lc(steps = 3) with sgd(lr = 0.1, momentum = 0.9) for 1 epochs
finetune with sgd(lr = 0.05, momentum = 0.9) for 2 epochs

report accuracy(net), bytes(net, format = bitmask), "left over": file.margin
"""

LENET = """\
model net = lenet_300_100()
data  mnist(batch = 256)
minimize   cross_entropy(net)
subject to
    sparsity: ‖net.weights‖₀ ≤ 5%
    compute:  sparse_macs(net) ≤ 30%
solve lc(steps = 40) with sgd(lr = 0.1) for 1 epochs
"""

USER = '''\
"""A network, a data set and a loss of a user."""

import torch
from torch import nn

from prunelang import register
from prunelang.runtime.data import Dataset, Split


@register.model(input_shape=(6,))
def ladder(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


@register.data(task="classification")
def blobs(samples: int = 96) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(samples) % 3
    x = torch.randn(samples, 6, generator=generator) + 2 * torch.nn.functional.one_hot(y, 6)
    return Dataset("blobs", "classification", 3, {"train": Split(x, y), "test": Split(x, y)})


@register.loss
def focal(output: torch.Tensor, target: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    log_p = output.log_softmax(1).gather(1, target[:, None])
    return -((1 - log_p.exp()) ** gamma * log_p).mean()
'''

USING = """\
model net = ladder(width = 12)
data  blobs(samples = 60, batch = 16)
minimize   focal(net, gamma = 1.5)
subject to
    sparsity: ‖net.weights‖₀ ≤ 50%
pretrain with adam(lr = 1e-2) for 3 epochs
solve    lc(steps = 2) with sgd(lr = 0.05) for 1 epochs
report   accuracy(net)
"""


@dataclass(frozen=True)
class Prune:
    """Runs the command line of this checkout in a folder."""

    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k != "PRUNELANG_DATA"}
        return {**kept, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **more}

    def __call__(self, *words: object, stdin: str | bytes = "", **more: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "prunelang", *words, stdin=stdin, **more)

    def python(self, *words: object, stdin: str | bytes = "", **more: str) -> subprocess.CompletedProcess[str]:
        """Any Python program. Its streams are decoded strictly, and it must not leave a traceback."""
        run = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=self.folder,
            env=self.environment(**more),
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            check=False,
            timeout=240,
        )
        done = subprocess.CompletedProcess(run.args, run.returncode, run.stdout.decode(), run.stderr.decode())
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path


@pytest.fixture
def prune(tmp_path: Path) -> Prune:
    """In an empty folder that holds ``tiny.prune``, ``lenet.prune`` and the latter's shape table, ``shapes.json``."""
    p = Prune(tmp_path)
    _fill(p)
    return p


def _fill(p: Prune) -> None:
    p.write("tiny.prune", TINY)
    p.write("lenet.prune", LENET)
    p.write("shapes.json", lenet_300_100().dumps())


@dataclass(frozen=True)
class Done:
    """A run that came to its end: the process, its folder and its run directory."""

    process: subprocess.CompletedProcess[str]
    prune: Prune
    run: Path


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """``tiny.prune``, run with JSON in pipes. Tests only read it."""
    p = Prune(tmp_path_factory.mktemp("done"))
    _fill(p)
    process = p("run", "tiny.prune", "--set", "κ=8%", "--seed", "3", "--deterministic", "--format", "json")
    return Done(process, p, p.folder / "runs" / "tiny")


@pytest.fixture(scope="session")
def done_by_user(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A spec over a registered network, data set and loss, run with ``--with``. Tests only read it."""
    p = Prune(tmp_path_factory.mktemp("user"))
    p.write("mine.py", USER)
    p.write("mine.prune", USING)
    process = p("run", "mine.prune", "--with", "mine.py", "--out", "mine", "--quiet")
    return Done(process, p, p.folder / "mine")
