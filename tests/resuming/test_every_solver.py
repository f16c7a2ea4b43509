"""A run that is stopped at a boundary and resumed ends as the one that never stopped, byte for byte."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F
from torch import Tensor

import prunelang
from prunelang import compile, resume
from prunelang.compiler.solvers.base import solvers
from prunelang.resuming.record import read_record
from prunelang.runtime import registry
from tests.resuming.problems import PROBLEMS, results


def counting(at: int | None = None) -> tuple[Callable[[], bool], list[int]]:
    """A stop that is asked for at the boundary of that number, and how often it was looked at."""
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == at

    return stop, asked


def test_every_solver_has_a_problem() -> None:
    assert set(solvers()) <= {name.split()[0] for name in PROBLEMS}


@pytest.mark.parametrize("name", PROBLEMS)
def test_stopped_and_resumed_is_uninterrupted(name: str, tmp_path: Path) -> None:
    program = compile(PROBLEMS[name])
    stop, asked = counting()
    whole = program.run(tmp_path / "whole", deterministic=True, stop=stop)
    wanted = results(tmp_path / "whole")
    rng = random.Random(name)
    for at in sorted(rng.sample(range(1, len(asked)), 2)):  # the last boundary is the end of the run
        out = tmp_path / f"cut{at}"
        cut = program.run(out, deterministic=True, stop=counting(at)[0])
        assert cut.interrupted
        assert read_record(out).status == "interrupted"
        resumed = resume(out)
        assert resumed.certificate == whole.certificate
        assert results(out) == wanted
        assert not (out / "checkpoints").exists()
        record = read_record(out)
        assert (record.status, record.resumed, record.exact) == ("finished", 1, True)


def test_a_run_that_is_stopped_at_every_boundary_gets_there_too(tmp_path: Path) -> None:
    program = compile(PROBLEMS["lc of sums"])
    program.run(tmp_path / "whole", deterministic=True)
    out = tmp_path / "cut"
    solution = program.run(out, deterministic=True, stop=lambda: True)
    turns = 0
    while solution.interrupted:
        solution = resume(out, stop=lambda: True)
        turns += 1
    assert turns >= 5
    assert results(out) == results(tmp_path / "whole")


def test_a_run_in_the_ordinary_mode_says_that_it_was_resumed(tmp_path: Path) -> None:
    program = compile(PROBLEMS["ista"])
    program.run(tmp_path / "whole")
    out = tmp_path / "cut"
    assert program.run(out, stop=counting(2)[0]).interrupted
    solution = resume(out)
    assert (solution.certificate.mode, solution.certificate.resumed) == ("nondeterministic", 1)
    assert '"resumed": 1' in (out / "certificate.json").read_text(encoding="utf-8")
    assert "Resumed once without `--deterministic`" in (out / "report.md").read_text(encoding="utf-8")
    one, other = results(out), results(tmp_path / "whole")
    assert one["weights.safetensors"] == other["weights.safetensors"]  # one thread on the host: the same bits even so
    assert one["history"] == other["history"]


def test_what_a_loss_of_ones_own_draws_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.losses, "_entries", dict(registry.losses._entries))

    @prunelang.register.loss(name="drawn_for_this_test")
    def drawn(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs * (1 + 0.1 * random.random() + 0.1 * np.random.rand()), targets)

    text = PROBLEMS["ista"].replace("cross_entropy(net)", "drawn_for_this_test(net)")
    ends = []
    for at in (None, 3):
        random.seed(0)
        np.random.seed(0)
        out = tmp_path / str(at)
        solution = compile(text).run(out, deterministic=True, stop=counting(at)[0])
        if solution.interrupted:
            random.seed(1)
            np.random.seed(1)
            resume(out)
        ends.append(results(out))
    assert ends[0] == ends[1]
