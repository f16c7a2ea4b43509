"""``run.json``: what a run was started with, so that nothing but its folder is needed to go on. And its lock."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from prunelang.runtime.files import FileProblem, parse_json, read_text, write_text

RUN, LOCK, HISTORY = "run.json", "run.lock", "history.jsonl"
FORMAT_VERSION: Final = 1

Status: TypeAlias = Literal["running", "finished", "interrupted", "failed"]


class ResumeRefused(FileProblem):
    """A run that is not taken up again, with a stable code and what to do about it. Nothing was written.

    P520 damaged · P521 of another version · P522 does not fit · P523 of another run · P524 other libraries ·
    P526 another meaning · P528 in use · P529 nothing to resume.
    """


@dataclass(frozen=True)
class Record:
    """What ``run.json`` holds. Paths in the spec start at `folder`; code is named in messages alone."""

    status: Status
    source: str  # the name of the spec's file, for messages and titles
    folder: str
    parameters: Mapping[str, str]  # that were given beside the spec
    code: tuple[str, ...]  # what --with named
    shapes: bool  # a shape table was given: it is shapes.json
    seed: int
    device: str
    dtype: str
    deterministic: bool
    checkpoint_every: str
    meaning: str
    accepted: tuple[str, ...]  # meanings before changes that were accepted
    document: Mapping[str, Any]
    lines: tuple[str, ...]
    resumed: int = 0  # how often
    exact: bool = True  # every time bit for bit as if it had never stopped
    format_version: int = FORMAT_VERSION

    def write(self, out: Path) -> None:
        """Errors: `FileProblem` P510."""
        write_text(Path(RUN), json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n", root=out)


def read_record(out: Path) -> Record:
    """Errors: `ResumeRefused` P529 where no run was, P521 of another version; `FileProblem` P512 damaged."""
    path = out / RUN
    if not path.is_file():
        message = f"{out} holds no run that can be resumed: there is no {RUN}"
        raise ResumeRefused("P529", message, "Start it with `prune run SPEC --out " + str(out) + "`.")
    data = parse_json(read_text(path), path)
    if isinstance(data, dict) and data.get("format_version") != FORMAT_VERSION:
        message = f"{path} is of format {data.get('format_version')!r}, this is {FORMAT_VERSION}"
        raise ResumeRefused("P521", message, "Resume with the version that wrote it.")
    names = {f.name for f in fields(Record)}
    if not isinstance(data, dict) or set(data) != names:
        raise FileProblem("P512", f"{path} has not the keys of a run's record")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    return Record(**values)


def status_of(out: Path) -> Status | None:
    """The status that a folder's record states; None where there is none that can be read."""
    try:
        return read_record(out).status
    except FileProblem:
        return None


# ── lock ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """The folder of a run for this process alone. A process that dies gives it back, however it dies.

    Errors: `ResumeRefused` P528 where another one has it.
    """
    path = out / LOCK
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _taken(handle) or not _is_still(path, handle):
            raise ResumeRefused("P528", f"{out} is in use by {_holder(path)}", "Wait for it, or stop it first.")
        os.truncate(handle, 0)
        os.write(handle, f"process {os.getpid()}\n".encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    """Whether the lock is ours now; it belongs to the open file, and ends with it."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]  # Windows alone
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_still(path: Path, handle: int) -> bool:
    """Whether the file that we locked has not been removed by the process that held it before."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except OSError:
        return False


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() or "another process"
    except OSError:
        return "another process"
