"""`prune sweep` and `prune run --tensorboard` as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cli.conftest import Prune


def finished(folder: Path) -> dict[Path, int]:
    """Weights of runs that came to their end, and when they were written."""
    done = (p.parent for p in folder.glob("runs/*/sweep.json") if json.loads(p.read_text())["finished"])
    return {run: (run / "weights.safetensors").stat().st_mtime_ns for run in done}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_interrupted_and_started_again_it_recomputes_nothing(prune: Prune) -> None:
    """SIGINT while runs are under way: the exit code is 130, finished runs stay, and the rest is run."""
    words = ("sweep", "tiny.prune", "--set", "κ=12%,10%,8%", "--solvers", "lc,spec", "--out", "s", "--no-plot")
    command = [sys.executable, "-m", "prunelang", *words, "--jobs", "2"]
    out = prune.folder / "s"
    with subprocess.Popen(
        command, cwd=prune.folder, env=prune.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:  # fmt: skip
        for _ in range(2400):
            if finished(out) or process.poll() is not None:
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors.decode()
    before = finished(out)
    assert 1 <= len(before) < 6
    again = prune(*words, "--jobs", "1", "--format", "json", "--quiet")
    assert again.returncode == 0, again.stderr
    after = finished(out)
    assert len(after) == 6
    assert all(after[run] == at for run, at in before.items())
    document = json.loads(again.stdout)
    assert document["format_version"] == "1.0"
    assert {run["status"] for run in document["runs"]} == {"feasible-verified"}
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == document


def test_wrong_command_lines(prune: Prune) -> None:
    for words, said in (
        (("--set", "κ=5%,5%"), "stands twice"),
        (("--set", "κ"), "write NAME=VALUE"),
        (("--solvers", "lc,"), "is empty"),
        (("--jobs", "0"), "--jobs"),
    ):
        run = prune("sweep", "tiny.prune", *words)
        assert (run.returncode, run.stdout) == (2, "")
        assert said in run.stderr


def test_errors_of_the_spec(prune: Prune) -> None:
    run = prune("sweep", "tiny.prune", "--solvers", "lcc", "--no-plot")
    assert (run.returncode, "error[P561]" in run.stderr) == (1, True)
    assert "did you mean `lc`" in run.stderr
    run = prune("sweep", "tiny.prune", "--set", "γ=1,2", "--no-plot")
    assert run.returncode == 1
    assert not (prune.folder / "sweeps").exists()


def test_tensorboard(prune: Prune) -> None:
    """Its files where the package is installed; a message before anything is run where it is not."""
    run = prune("run", "tiny.prune", "--tensorboard", "board", "--quiet")
    if find_spec("tensorboard") is None:
        assert (run.returncode, "error[P568]" in run.stderr) == (1, True)
        assert not (prune.folder / "runs").exists()
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(prune.folder / "board")).Reload()
    assert len(board.Scalars("loss")) >= 8
    assert {"constraint/sparsity", "level/μ"} <= set(board.Tags()["scalars"])
