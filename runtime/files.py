"""Files that are whole or not there: written under a temporary name, synchronised, checked, renamed into place.

A reader never sees half a file, and a write that fails (disk full, no permission, process killed) leaves the file of
before untouched. What a killed process leaves behind is called ``.tmp-…`` and `sweep` removes it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

TEMPORARY = ".tmp-"


class FileProblem(Exception):
    """A file that cannot be used or written, with a stable code, what is wrong, and what to do about it.

    P510 cannot be read or written · P511 outside the folder of the run · P512 damaged, or not of its format ·
    P513 other tensors than the network has · P514 other shape or type · P515 a number that is not finite ·
    P516 of another version · P517 contradicts itself.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(f"[{code}] {message}\n{hint}" if hint else f"[{code}] {message}")
        self.code = code
        self.message = message
        self.hint = hint


def inside(root: Path, path: Path) -> Path:
    """`path` (taken from `root` where relative) with its folder resolved. Errors: P511 unless it lies under `root`."""
    joined = root / path
    target = joined.parent.resolve() / joined.name
    if joined.name in {"", ".."} or not target.is_relative_to(root.resolve()):
        raise FileProblem("P511", f"{path} is not inside {root}", "Files of a run are written in its own folder.")
    return target


def write_atomically(
    path: Path,
    content: bytes | Iterable[bytes | memoryview],
    *,
    root: Path | None = None,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Write `content`, whole or in chunks, to `path`, all or nothing, and give back where that is.

    The folder has to exist and to lie under `root` (default: is `root`). `check` sees the complete file before it takes
    its name, and refuses it by raising. Errors: `FileProblem` P510, P511; whatever `content` and `check` raise.
    """
    target = inside(path.parent if root is None else root, Path(path.name) if root is None else path)
    temporary = target.with_name(f"{TEMPORARY}{target.name}-{uuid4().hex}")
    try:
        _write(temporary, [content] if isinstance(content, bytes) else content)
        if check is not None:
            check(temporary)
        os.replace(temporary, target)
        synchronise_folder(target.parent)
    except OSError as error:
        raise FileProblem("P510", f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def write_text(path: Path, text: str, *, root: Path | None = None) -> Path:
    """`write_atomically` of UTF-8 text, newlines as they are."""
    return write_atomically(path, text.encode(), root=root)


def sweep(root: Path) -> list[Path]:
    """Remove what writes that were killed left under `root`; only while nothing else writes there."""
    leftovers = sorted(p for p in root.rglob(f"{TEMPORARY}*") if p.is_file() and not p.is_symlink())
    for path in leftovers:
        path.unlink(missing_ok=True)
    return leftovers


def read(path: Path) -> bytes:
    """The content. Errors: `FileProblem` P510."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileProblem("P510", f"{path} cannot be read: {error.strerror or error}") from error


def read_text(path: Path) -> str:
    """The content as UTF-8, newlines as they are. Errors: `FileProblem` P510, P512."""
    return decode(read(path), path)


def decode(raw: bytes, path: Path) -> str:
    """UTF-8 text read from `path`. Errors: `FileProblem` P512."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise FileProblem("P512", f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def parse_json(text: str, path: Path) -> Any:
    """JSON without its loopholes: no key twice, no NaN or Infinity. Errors: `FileProblem` P512."""
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FileProblem("P512", f"{path} is not JSON: {error}") from error


def sha256(path: Path) -> str:
    """Digest of a file, read piece by piece. Errors: `FileProblem` P510."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileProblem("P510", f"{path} cannot be read: {error.strerror or error}") from error


def digest(raw: bytes) -> str:
    """sha256 of bytes at hand."""
    return hashlib.sha256(raw).hexdigest()


def _write(temporary: Path, chunks: Iterable[bytes | memoryview]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def synchronise_folder(folder: Path) -> None:
    """The rename itself survives a power cut; Windows cannot open folders and needs no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(k for k, _ in pairs if sum(k == other for other, _ in pairs) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")
