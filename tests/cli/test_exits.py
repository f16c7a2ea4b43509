"""Ways out that a well-behaved installation never takes, in the process of the tests; and the table of exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from prunelang import cli, console
from prunelang.exits import MEANINGS, Exit, worst
from prunelang.signals import stop_on_signals


def main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["prune", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert isinstance(left.value.code, int)
    return left.value.code


def test_a_bug_of_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def broken() -> str:
        raise AssertionError("1 702 positions were asked for, 1 703 are kept")

    monkeypatch.setattr("prunelang.templates.describe", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(monkeypatch, "init", "--list") == 70
    out, err = capsys.readouterr()
    assert out == ""
    (report,) = tmp_path.iterdir()
    assert f"a bug in prunelang; please report it with {report}" in err
    assert "1 703 are kept" in err
    assert "Traceback" not in err
    text = report.read_text("utf-8")
    assert text.startswith("prune init --list\n")
    assert "Traceback" in text


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> str:
        raise OSError(28, "No space left on device", "runs/x/history.jsonl")

    monkeypatch.setattr("prunelang.templates.describe", full)
    assert main(monkeypatch, "init", "--list") == 1
    assert capsys.readouterr().err == "prune: runs/x/history.jsonl: No space left on device\n"


def test_a_reader_that_goes_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def closed() -> str:
        raise BrokenPipeError

    monkeypatch.setattr("prunelang.templates.describe", closed)
    with (tmp_path / "out").open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(monkeypatch, "init", "--list") == 0


def test_a_second_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def impatient() -> str:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop()
            os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    monkeypatch.setattr("prunelang.templates.describe", impatient)
    before = signal.getsignal(signal.SIGINT)
    assert main(monkeypatch, "init", "--list") == 130
    assert "stopped at once" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


def test_signals_ask_once() -> None:
    with stop_on_signals() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()


def test_code_of_the_user_that_fails_later(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "fails.py"
    path.write_text("def describe():\n    return {}['width']\n")
    console.load_code([str(path)])
    monkeypatch.setattr("prunelang.templates.describe", console._loaded[-1].describe)
    assert main(monkeypatch, "init", "--list") == 1
    assert f"the code given with --with failed in {path}:2: KeyError: 'width'" in capsys.readouterr().err


def test_the_table_is_in_the_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(monkeypatch, "--help") == 0
    out = capsys.readouterr().out
    assert set(MEANINGS) == set(Exit)
    for code, meaning in MEANINGS.items():
        assert f"{code:>3}  {meaning}" in out


@pytest.mark.parametrize(
    ("exits", "expected"),
    [([], Exit.DONE), ([Exit.DONE, Exit.INFEASIBLE], Exit.INFEASIBLE), ([Exit.INFEASIBLE, Exit.SPEC], Exit.SPEC)],
)
def test_the_worst_of_several_files(exits: list[Exit], expected: Exit) -> None:
    assert worst(exits) is expected


def test_a_bug_is_said_as_json_lines_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """stdout holds the document and nothing else, whatever stderr says."""
    assert main(monkeypatch, "explain", "P310", "--format", "json") == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["code"], err) == ("P310", "")
