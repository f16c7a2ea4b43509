"""What `prune resume` takes up, what it refuses, and how it says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prunelang import compile, resume
from prunelang.cli import cli
from prunelang.console import guarded
from prunelang.resuming.record import ResumeRefused, locked, read_record
from prunelang.resuming.resume import MeaningChanged
from prunelang.runtime.checkpoints import folder
from prunelang.runtime.files import FileProblem
from tests.resuming.problems import PROBLEMS, results

TEXT = PROBLEMS["lc"]


def stop_at(boundary: int) -> Callable[[], bool]:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == boundary

    return stop


def prune(*words: object) -> int:
    return guarded(lambda: cli.main([*map(str, words)], standalone_mode=False, prog_name="prune"))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in its solve stage, with two checkpoints. Tests work on copies."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    program = compile(TEXT)
    assert program.run(out, deterministic=True, checkpoint_every="1epochs", stop=stop_at(4)).interrupted
    return out


@pytest.fixture
def out(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def snapshot(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def edit(out: Path, old: str, new: str) -> None:
    text = (out / "spec.prune").read_text(encoding="utf-8")
    assert old in text
    (out / "spec.prune").write_text(text.replace(old, new), encoding="utf-8")


# ── the spec ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_comments_and_layout_have_no_meaning(out: Path) -> None:
    edit(out, "minimize cross_entropy(net)", "# why not\nminimize   cross_entropy( net )  # here")
    edit(out, "≤ 10%", "<=   10.0%")
    assert resume(out).feasible


def test_another_meaning_is_shown_and_refused_with_nothing_written(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(out, "≤ 10%", "≤ 5%")
    before = snapshot(out)
    with pytest.raises(MeaningChanged) as error:
        resume(out)
    assert error.value.code == "P526"
    assert any(x.startswith("- s: norm0 ≤ 88 of 888") for x in error.value.difference)
    assert any(x.startswith("+ s: norm0 ≤ 44 of 888") for x in error.value.difference)
    assert prune("resume", out, "--quiet") == 6
    said = capsys.readouterr().err
    assert "error[P526]" in said
    assert "+ s: norm0 ≤ 44 of 888" in said
    assert "--accept-change" in said
    assert snapshot(out) == before


def test_a_change_that_fits_can_be_accepted(out: Path) -> None:
    edit(out, "≤ 10%", "≤ 5%")
    solution = resume(out, accept_change=True)
    assert solution.feasible
    assert solution.certificate.constraints[0].bound == 44
    record = read_record(out)
    assert (solution.certificate.resumed, record.exact, len(record.accepted)) == (1, False, 1)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("solve lc(steps = 3)", "solve ista()", "state of one alone"),
        ("pretrain with sgd(lr = 0.1, momentum = 0.9) for 1 epochs\n", "", "made of other steps|state of one alone"),
    ],
)
def test_a_change_that_does_not_fit_is_refused(out: Path, old: str, new: str, why: str) -> None:
    edit(out, old, new)
    before = {n: b for n, b in snapshot(out).items() if n != "spec.prune"}
    with pytest.raises(ResumeRefused, match=why) as error:
        resume(out, accept_change=True)
    assert error.value.code == "P526"
    assert {n: b for n, b in snapshot(out).items() if n != "spec.prune"} == before


def test_a_longer_last_stage_can_be_accepted(out: Path) -> None:
    edit(out, "finetune with adam(lr = 1e-3) for 2 epochs", "finetune with adam(lr = 1e-3) for 3 epochs")
    resume(out, accept_change=True)
    events = results(out)["history"]
    assert sum(e["event"] == "epoch" and e["stage"] == "finetune" for e in events) == 3


# ── the folder ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_finished_run_is_left_as_it_is(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resume(out)
    before = snapshot(out)
    assert resume(out).feasible
    assert prune("resume", out, "--quiet") == 0
    assert "has finished: nothing is left to do" in capsys.readouterr().err
    assert snapshot(out) == before
    edit(out, "≤ 10%", "≤ 5%")
    with pytest.raises(MeaningChanged, match="has finished"):
        resume(out, accept_change=True)


def test_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune("resume", tmp_path) == 2
    assert "error[P529]" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_passed_over(out: Path) -> None:
    first, last = folder.numbers(out)
    path = out / "checkpoints" / f"{last:06d}" / folder.TENSORS
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    said: list[str] = []
    solution = resume(out, warn=said.append)
    assert "P520" in said[0]
    assert f"{first:06d}" in said[1]
    whole = compile(TEXT).run(out.parent / "whole", deterministic=True)
    assert solution.certificate == whole.certificate
    assert results(out) == results(out.parent / "whole")


def test_without_a_whole_checkpoint_nothing_is_written(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in folder.numbers(out):
        (out / "checkpoints" / f"{number:06d}" / folder.STATE).write_bytes(b"{}")
    before = snapshot(out)
    assert prune("resume", out, "--quiet") == 6
    said = capsys.readouterr().err
    assert "error[P520]" in said
    assert "Nothing was changed" in said
    assert snapshot(out) == before


@pytest.mark.parametrize(("fact", "what"), [("meaning", "spec"), ("network", "network"), ("data", "training data")])
def test_a_foreign_checkpoint_is_refused(out: Path, fact: str, what: str) -> None:
    found = folder.read(out, folder.numbers(out)[-1])
    folder.clear(out)
    folder.write(out, found.state, found.tensors, {**found.facts, fact: "another"})
    with pytest.raises(ResumeRefused, match=f"of another {what}") as error:
        resume(out, warn=lambda message: None)
    assert error.value.code == "P523"


def test_another_torch_is_refused_unless_accepted(out: Path) -> None:
    found = folder.read(out, folder.numbers(out)[-1])
    folder.clear(out)
    folder.write(
        out, found.state, found.tensors, {**found.facts, "versions": {**found.facts["versions"], "torch": "1"}}
    )
    with pytest.raises(ResumeRefused, match="torch 1, this is") as error:
        resume(out, warn=lambda message: None)
    assert error.value.code == "P524"
    assert resume(out, accept_change=True).certificate.resumed == 1


def test_a_run_killed_before_its_first_checkpoint_begins_anew(out: Path) -> None:
    folder.clear(out)
    said: list[str] = []
    resume(out, warn=said.append)
    assert said == ["no checkpoint was written yet: the run begins at its beginning"]
    compile(TEXT).run(out.parent / "whole", deterministic=True)
    assert results(out) == results(out.parent / "whole")


def test_one_process_at_a_time(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(out):
        assert prune("resume", out, "--quiet") == 6
        assert "error[P528]" in capsys.readouterr().err
        with pytest.raises(ResumeRefused, match="in use by process"):
            compile(TEXT).run(out, restart=True)
    assert not (out / "run.lock").exists()


def test_a_new_run_does_not_overwrite_one_that_has_not_finished(out: Path) -> None:
    before = snapshot(out)
    with pytest.raises(ResumeRefused) as error:
        compile(TEXT).run(out)
    assert error.value.code == "P527"
    assert snapshot(out) == before
    assert compile(TEXT).run(out, restart=True).feasible


def test_a_full_disk_stops_the_run_with_the_last_good_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, program = tmp_path / "run", compile(TEXT)
    real, calls = folder._written, []

    def full(path: Path, chunks: object) -> dict[str, object]:
        calls.append(path)
        if len(calls) > 7:
            raise OSError(28, "No space left on device")
        return real(path, chunks)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(folder, "_written", full)
        with pytest.raises(FileProblem, match="No space left") as error:
            program.run(out, deterministic=True, checkpoint_every="1epochs")
    assert error.value.code == "P525"
    assert "is whole" in error.value.hint
    resume(out)
    program.run(tmp_path / "whole", deterministic=True)
    assert results(out) == results(tmp_path / "whole")


def test_params_of_the_command_line_are_kept(tmp_path: Path) -> None:
    text = TEXT.replace("≤ 10%", "≤ κ").replace("minimize", "param κ = 10%\nminimize")
    program = compile(text, params={"κ": "20%"})
    out = tmp_path / "run"
    assert program.run(out, stop=stop_at(3)).interrupted
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["parameters"] == {"κ": "20%"}
    assert resume(out).certificate.constraints[0].bound == 177


def test_how_often_is_minutes_or_epochs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "x.prune").write_text(TEXT, encoding="utf-8")
    assert prune("run", tmp_path / "x.prune", "--out", tmp_path / "x", "--checkpoint-every", "often") == 2
    assert "neither minutes" in capsys.readouterr().err
