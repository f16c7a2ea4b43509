"""Writes that are whole or not there, with every system call made to fail in turn."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prunelang.runtime import files
from prunelang.runtime.files import (
    TEMPORARY,
    FileProblem,
    inside,
    parse_json,
    read,
    read_text,
    sha256,
    sweep,
    write_atomically,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_what_is_written_is_read_and_digested(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    path = write_atomically(tmp_path / "a.bin", (content[i : i + 70_000] for i in range(0, len(content), 70_000)))
    assert read(path) == content
    assert sha256(path) == hashlib.sha256(content).hexdigest() == files.digest(content)
    write_text(tmp_path / "a.txt", "κ ≤ 5 %\r\n")
    assert read_text(tmp_path / "a.txt") == "κ ≤ 5 %\r\n"
    assert names(tmp_path) == ["a.bin", "a.txt"]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    written = write_atomically(tmp_path / "w", b"")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_write_that_fails_leaves_the_old_file(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = write_atomically(tmp_path / "w", b"old")

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    def chunks() -> Iterator[bytes]:
        yield b"new"
        if call == "write":
            fail()

    if call != "write":
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(FileProblem, match=os.strerror(code)) as caught:
        write_atomically(target, chunks())
    monkeypatch.undo()
    assert caught.value.code == "P510"
    assert names(tmp_path) == ["w"]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_killed_process_leaves_the_old_file(step: str, tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from prunelang.runtime.files import write_atomically
die = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
def chunks():
    yield b"new" * 100_000
    if {step!r} == "write":
        die()
if {step!r} != "write":
    setattr(os, {step!r}, die)
write_atomically(Path("w"), chunks())
"""
    (tmp_path / "w").write_bytes(b"old")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=False)
    assert run.returncode == -signal.SIGKILL
    assert (tmp_path / "w").read_bytes() == b"old"
    assert len(sweep(tmp_path)) == 1
    assert names(tmp_path) == ["w"]


def test_a_check_sees_the_whole_file_and_can_refuse_it(tmp_path: Path) -> None:
    seen: list[bytes] = []
    write_atomically(tmp_path / "w", b"old")

    def refuse(path: Path) -> None:
        seen.append(path.read_bytes())
        raise AssertionError("no")

    with pytest.raises(AssertionError, match="no"):
        write_atomically(tmp_path / "w", [b"n", b"ew"], check=refuse)
    assert seen == [b"new"]
    assert (tmp_path / "w").read_bytes() == b"old"
    assert names(tmp_path) == ["w"]


@pytest.mark.parametrize("path", ["../w", "/etc/w", "a/../../w", "..", "link/w"])
def test_nothing_is_written_outside_the_folder(path: str, tmp_path: Path) -> None:
    root = tmp_path / "run"
    (root / "a").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(FileProblem, match="is not inside") as caught:
        write_atomically(Path(path), b"x", root=root)
    assert caught.value.code == "P511"
    assert names(tmp_path) == ["run"]


def test_inside_folders_and_links_of_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert inside(tmp_path, Path("a/w")) == (tmp_path / "a/w").resolve()
    outside = tmp_path / "a" / "theirs"
    outside.write_bytes(b"theirs")
    root = tmp_path / "run"
    root.mkdir()
    (root / "w").symlink_to(outside)
    write_atomically(Path("w"), b"ours", root=root)  # the link is replaced, not followed
    assert outside.read_bytes() == b"theirs"
    assert not (root / "w").is_symlink()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="No such file"):
        write_atomically(tmp_path / "no" / "w", b"x")
    with pytest.raises(FileProblem, match="cannot be read: No such file"):
        read(tmp_path / "no")
    with pytest.raises(FileProblem, match="cannot be read: No such file"):
        sha256(tmp_path / "no")


def test_leftovers_are_swept(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for path in (tmp_path / f"{TEMPORARY}w-1", tmp_path / "a" / f"{TEMPORARY}w-2", tmp_path / "w"):
        path.write_bytes(b"half")
    assert [p.name for p in sweep(tmp_path)] == [f"{TEMPORARY}w-1", f"{TEMPORARY}w-2"]
    assert names(tmp_path) == ["a", "w"]
    assert not names(tmp_path / "a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting property name"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"a": {"b": 1, "c": 2, "b": 2}}', "the key 'b' stands twice"),
        ("[NaN]", "NaN is not a number"),
        ("[-Infinity]", "-Infinity is not a number"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_json_without_loopholes(text: str, said: str) -> None:
    with pytest.raises(FileProblem, match=said) as caught:
        parse_json(text, Path("x.json"))
    assert caught.value.code == "P512"


def test_text_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"ab\xff")
    with pytest.raises(FileProblem, match="not UTF-8 text: invalid start byte at byte 2"):
        read_text(tmp_path / "w")


def test_problems_carry_code_message_and_hint() -> None:
    problem = FileProblem("P512", "it is torn", "Take another.")
    assert (problem.code, problem.message, problem.hint) == ("P512", "it is torn", "Take another.")
    assert str(problem) == "[P512] it is torn\nTake another."


def test_every_code_is_documented() -> None:
    runtime = Path(files.__file__).parent
    used: set[str] = set()
    for name in ("files", "weights", "export", "certificate", "verify"):
        used |= set(re.findall(r'FileProblem\(\s*"(P\d+)"', (runtime / f"{name}.py").read_text(encoding="utf-8")))
    assert used == set(re.findall(r"P\d+", FileProblem.__doc__ or ""))
