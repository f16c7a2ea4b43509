"""The checks for accelerators, rehearsed on the CPU; and that they notice what they are for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import prunelang
from benchmarks.gpu import checks
from benchmarks.gpu.__main__ import main
from prunelang.compiler.graph import Batches, walk
from prunelang.runtime import registry
from prunelang.runtime.descent import Descent
from prunelang.runtime.evaluate import criterion_of
from prunelang.runtime.execute import execute
from prunelang.runtime.machine import Machine


def test_a_rehearsal_runs_every_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu", "--dry-run", "--json", str(tmp_path / "result.json")]) == 0, capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["dry_run"]
    names = [c["name"] for c in result["checks"]]
    assert names == ["laws of the operators", *(f"run, {x}" for x in checks.RUNS), "overhead", "projection"]
    assert "feasible-verified" in result["checks"][1]["detail"]


@pytest.mark.parametrize("name", checks.RUNS)
def test_no_step_reads_a_number(name: str) -> None:
    """Fake tensors have shapes and no values: whatever would make the host wait for a device raises."""
    program = prunelang.compile(checks.spec_of(name, checks.REHEARSAL))
    with FakeTensorMode(allow_non_fake_inputs=True):
        net = registry.models["mlp"].build(**program.plan.model.arguments)
        x, y = torch.empty(64, 64), torch.zeros(64, dtype=torch.int64)
        machine = Machine(program.graph, net, Feed(), lambda loss: criterion_of(loss, {}))
        loops = [s for phase in program.graph.program for s in walk((phase,)) if isinstance(s, Batches)]
        assert len(loops) == 3
        for loop in loops:
            machine.levels.update(dict.fromkeys(machine.levels, 0.01))
            machine.courses.update(dict.fromkeys(machine.levels, (0.0, 0.0, 0.1, 1.0)))
            descent = Descent(machine, loop, tuple(partial(execute, step, machine) for step in loop.body[1:]))
            descent.begin_epoch()
            for p in (0.1, 0.2):
                descent.step(x, y, p)
            with pytest.raises(DataDependentOutputException):  # the one wait of an epoch
                descent.end_epoch()


class Feed:
    """Batches that nothing asks for."""

    seed = 0

    def __len__(self) -> int:
        return 2

    def epoch(self, index: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        raise AssertionError(index)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "cuda cannot be used" in capsys.readouterr().err


def test_another_device_is_for_rehearsals() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--device", "cpu"])
    assert ended.value.code == 2


def test_a_check_that_raises_has_failed() -> None:
    def broken() -> str:
        raise RuntimeError("called a synchronizing CUDA operation\nand more")

    assert checks.attempt("x", broken) == checks.Check(
        "x", "failed", "RuntimeError: called a synchronizing CUDA operation"
    )


def test_laws_that_fail_are_counted() -> None:
    with pytest.raises(checks.Failed, match="2 error"):
        checks.laws("nowhere", checks.REHEARSAL)


def test_steps_are_watched_on_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str | int] = []
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(Descent, "step", lambda self, x, y, p: None)
    original = Descent.step
    with checks.watched_steps("cuda") as count:
        Descent.step(None, None, None, 0.0)  # type: ignore[arg-type]
    assert (count, modes) == ({"steps": 1}, ["error", 0])
    assert Descent.step is original
    with checks.watched_steps("cpu"):
        Descent.step(None, None, None, 0.0)  # type: ignore[arg-type]
    assert modes == ["error", 0]
