"""What a run writes while it trains: its history line by line, and its checkpoints where they are due."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelang.compiler.graph import listing, to_json
from prunelang.resuming.every import Every
from prunelang.resuming.record import HISTORY, RUN, Record, Status
from prunelang.runtime.certificate import CERTIFICATE, SHAPES, SPEC
from prunelang.runtime.checkpoints import folder
from prunelang.runtime.checkpoints.folder import Checkpoint
from prunelang.runtime.checkpoints.state import dump, restore
from prunelang.runtime.files import FileProblem, write_text
from prunelang.runtime.machine import Event, Machine

if TYPE_CHECKING:
    from prunelang.execution import Session

STALE = (CERTIFICATE, "report.md")  # of an earlier end: they speak of weights that are about to change


@dataclass(frozen=True)
class Resumption:
    """Where a run goes on: its record as it is from now on, and the checkpoint, or None to begin at the beginning."""

    record: Record
    checkpoint: Checkpoint | None


class History:
    """``history.jsonl``: every event as a line, which is passed on as it stands there."""

    def __init__(self, path: Path, forward: Callable[[Event], None]) -> None:
        self.path, self.forward = path, forward
        self.start = time.perf_counter()

    def open(self, keep: int = 0, seconds: float = 0.0) -> None:
        """The first `keep` bytes stay, written in the first `seconds` of the run; all others go."""
        self.file = self.path.open("r+b" if keep else "wb")
        self.file.truncate(keep)
        self.file.seek(keep)
        self.start -= seconds

    def close(self) -> None:
        if hasattr(self, "file"):
            self.file.close()

    def __call__(self, event: Event) -> None:
        stamped = {**event, "seconds": round(self.seconds, 3)}
        try:
            self.file.write((json.dumps(stamped, ensure_ascii=False) + "\n").encode())
            self.file.flush()
        except OSError as error:
            raise FileProblem("P525", f"{self.path} cannot be written: {error.strerror or error}") from error
        self.forward(stamped)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def synchronised(self) -> int:
        """How many bytes are on the disk for certain."""
        os.fsync(self.file.fileno())
        return self.file.tell()


class Journal:
    """A run's history and checkpoints. Without `every` it keeps no checkpoints, and without `resumption` no record."""

    def __init__(
        self,
        session: Session,
        out: Path,
        observe: Callable[[Event], None],
        every: Every | None,
        resumption: Resumption | None,
    ) -> None:
        self.session, self.out, self.every = session, out, every
        self.record = None if resumption is None else resumption.record
        self.checkpoint = None if resumption is None else resumption.checkpoint
        self.history = History(out / HISTORY, observe)
        self.written = time.monotonic()
        self.ticks, self.epochs = 0, -1
        self._facts: dict[str, Any] | None = None

    def begin(self, machine: Machine) -> None:
        """Write what the run is, and keep a machine's boundaries from now on; it goes on from the checkpoint, if any.

        Errors: `FileProblem` P522 where that does not fit.
        """
        record = None if self.record is None else replace(self.record, status="running")
        if self.checkpoint is None:
            (self.out / RUN).unlink(missing_ok=True)  # until all of it is there, there is no run to resume
            folder.clear(self.out)
        else:
            restore(machine, self.checkpoint.state["machine"], self.checkpoint.tensors)
            self.epochs = machine.epochs
            assert record is not None
            record.write(self.out)
        for stale in STALE:
            (self.out / stale).unlink(missing_ok=True)
        kept: Mapping[str, Any] = {"bytes": 0, "seconds": 0.0}
        if self.checkpoint is not None:
            kept = self.checkpoint.state["journal"]
        self.history.open(kept["bytes"], kept["seconds"])
        plan, graph = self.session.plan, self.session.graph
        write_text(Path("graph.txt"), listing(graph), root=self.out)
        write_text(Path("graph.json"), json.dumps(to_json(graph), ensure_ascii=False, indent=1), root=self.out)
        if record is None:
            return
        write_text(Path(SPEC), plan.source.text, root=self.out)
        write_text(Path(SHAPES), plan.table.dumps(), root=self.out)
        record.write(self.out)
        if self.every is not None:
            machine.checkpoint = self.boundary

    def boundary(self, machine: Machine, due: bool) -> None:
        """Write a checkpoint if it is due. Errors: `FileProblem` P525, with earlier ones whole."""
        assert self.every is not None
        if machine.epochs != self.epochs or machine.splittings:
            self.ticks, self.epochs = self.ticks + 1, machine.epochs
        late = self.every.minutes is not None and time.monotonic() - self.written >= 60 * self.every.minutes
        if due or late or (self.every.epochs is not None and self.ticks >= self.every.epochs):
            self.keep(machine)

    def keep(self, machine: Machine) -> Path:
        """Write a checkpoint now."""
        plain, tensors = dump(machine)
        at = {"bytes": self.history.synchronised(), "seconds": self.history.seconds}
        path = folder.write(self.out, {"machine": plain, "journal": at}, tensors, self.facts)
        self.written, self.ticks = time.monotonic(), 0
        return path

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the run of a checkpoint is known by."""
        if self._facts is None:
            assert self.record is not None
            self._facts = facts_of(self.session, self.record)
        return self._facts

    def end(self, status: Status) -> None:
        """The last word: what a finished run needs no more is removed."""
        self.history.close()
        if self.record is not None:
            replace(self.record, status=status).write(self.out)
            if status == "finished":
                folder.clear(self.out)


def facts_of(session: Session, record: Record) -> dict[str, Any]:
    """The meaning of the spec, the network's tensors, the training data, and the libraries."""
    from prunelang.runtime.checkpoints.parts import signature
    from prunelang.versions import versions

    return {
        "meaning": record.meaning,
        "network": signature(session.model),
        "data": session.data.digest("train"),
        "seed": record.seed,
        "dtype": record.dtype,
        "device": record.device.partition(":")[0],
        "versions": versions(session.plan, record.device),
    }


@contextmanager
def closing(journal: Journal) -> Iterator[Journal]:
    """The history is closed however a run ends."""
    try:
        yield journal
    finally:
        journal.history.close()
