"""One run of a sweep, in this process or in one of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelang.api import Program, compile_source
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl.spans import Source
from prunelang.sweeping import row as rows
from prunelang.sweeping.grid import Cell

if TYPE_CHECKING:
    from prunelang.execution import Session, Solution
    from prunelang.runtime.machine import Machine


@dataclass(frozen=True)
class Settings:
    """What all runs of a sweep have in common."""

    name: str  # of the spec, for messages
    folder: Path  # where its relative paths start
    device: str = "cpu"
    dtype: str = "float32"
    deterministic: bool = False
    shapes: ShapeTable | None = None


@dataclass(frozen=True)
class Task:
    """A run: its spec with the solver in place, where it goes, and what it starts from."""

    cell: Cell
    text: str
    solve: str
    identity: str
    out: Path
    settings: Settings
    pretrained: Path | None = None

    def program(self) -> Program:
        s = self.settings
        source = Source(self.text, s.name)
        return compile_source(source, s.folder, params=self.cell.parameters, shapes=s.shapes, dtype=s.dtype)


@dataclass(frozen=True)
class Pretraining:
    """What has to be trained before the runs that share it: the leading stages of any of them."""

    task: Task
    folder: Path
    identity: str


def perform(task: Task, stop: Callable[[], bool], larger: Path | None = None) -> rows.Row:
    """Run, certify, and say so in the run directory. `larger` holds the weights to start from in place of pretraining.

    Whatever is no bug of ours becomes a row.
    """
    from prunelang.execution import RunOptions, run
    from prunelang.resuming.every import Every
    from prunelang.sweeping import pretrained

    if stop():
        return rows.Row(task.cell, "not run", task.solve)
    s = task.settings
    every = Every() if larger is None else None  # what a run started from is not in its own directory
    options = RunOptions(
        task.out,
        task.cell.seed,
        s.device,
        s.dtype,
        s.deterministic,
        every,
        restart=True,
        parameters=task.cell.parameters,
        shapes=s.shapes is not None,
    )

    def prepare(session: Session, machine: Machine) -> None:
        if larger is not None:
            pretrained.start_from(machine, larger)
        elif task.pretrained is not None:
            pretrained.enter(session, machine, task.pretrained)

    try:
        with one_thread():
            solution = None if every is None else _continued(task, stop)
            if solution is None:
                program = task.program()
                program.require_runnable()
                if task.out.exists():
                    shutil.rmtree(task.out)
                rows.begin(task.identity, task.out)
                solution = run(program.plan, program.folder, options, stop=stop, prepare=prepare)
    except Exception as error:
        return _failed(task, error)
    if solution.interrupted:
        return rows.Row(task.cell, "interrupted", task.solve, directory=task.out)
    row = rows.finished(task.cell, solution.certificate, task.solve, solution.seconds, solution.failure, task.out)
    rows.keep(row, task.identity, task.out)
    return row


def _continued(task: Task, stop: Callable[[], bool]) -> Solution | None:
    """The same run, gone on with where it was interrupted; None where there is nothing to go on with."""
    from prunelang.resuming.record import ResumeRefused
    from prunelang.resuming.resume import resume
    from prunelang.runtime.files import FileProblem

    if not rows.begun(task.identity, task.out):
        return None
    try:
        return resume(task.out, stop=stop, warn=lambda message: None)
    except ResumeRefused as error:
        if error.code == "P528":  # another process works there
            raise
        return None
    except FileProblem:
        return None  # damaged: it begins anew


def _failed(task: Task, error: Exception) -> rows.Row:
    """The row of a run that could not be run; errors that say nothing to a user go on up."""
    from prunelang.console import SAID
    from prunelang.dsl.diagnostics import SpecError
    from prunelang.runtime.files import FileProblem

    if isinstance(error, SpecError):
        return rows.refused(task.cell, error.diagnostics, task.solve)
    if type(error).__name__ not in SAID and not isinstance(error, FileProblem):
        raise error
    message = getattr(error, "message", str(error))
    return rows.Row(task.cell, "failed", task.solve, message=message, code=getattr(error, "code", ""))


def pretrain(work: Pretraining, stop: Callable[[], bool]) -> bool:
    """Train what several runs start from; False where that fails, and each of them will say why itself."""
    from prunelang.console import SAID
    from prunelang.dsl.diagnostics import SpecError
    from prunelang.execution import RunOptions, Session, numerics
    from prunelang.runtime.machine import Interrupted, NumericalFailure
    from prunelang.sweeping import pretrained

    if stop():
        return False
    s = work.task.settings
    options = RunOptions(work.folder, work.task.cell.seed, s.device, s.dtype, s.deterministic)
    try:
        program = work.task.program()
        with one_thread(), numerics(s.deterministic):
            session = Session(program.plan, program.folder, options)
            pretrained.train(session, work.folder, work.identity, lambda event: None, stop)
    except (NumericalFailure, Interrupted, SpecError):
        return False
    except Exception as error:
        if type(error).__name__ not in SAID:
            raise
        return False
    return True


@contextmanager
def one_thread() -> Iterator[None]:
    """A run has one thread of torch, so that its bits do not depend on how many run beside it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────

_stop: Any = None


def begin(stop: Any, code: tuple[str, ...]) -> None:
    """A worker process: it ends when the sweep says so, and not on signals, which the sweep hears too."""
    global _stop  # noqa: PLW0603  # of this process, set once before its first task
    from prunelang.console import load_code

    _stop = stop
    load_code(code)


def stopping() -> bool:
    return bool(_stop.is_set()) or os.getppid() == 1  # without its sweep, a worker has nobody to work for


def perform_chain(tasks: tuple[Task, ...], larger: tuple[Path | None, ...]) -> list[rows.Row]:
    """Runs one after the other, in a worker process; `larger` as `chain` takes it."""
    return list(chain(tasks, larger, stopping))


def chain(tasks: tuple[Task, ...], larger: tuple[Path | None, ...], stop: Callable[[], bool]) -> Iterator[rows.Row]:
    """Runs one after the other; each may start from the weights of an earlier one, where it is there."""
    from prunelang.runtime.certificate import WEIGHTS

    for task, before in zip(tasks, larger, strict=True):
        weights = None if before is None or not rows.identity_of(before) else before / WEIGHTS
        yield perform(task, stop, weights)


def pretrain_in_worker(work: Pretraining) -> bool:
    return pretrain(work, stopping)
