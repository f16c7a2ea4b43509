"""Every spec of this project, cut short: `bind` in the documented loop ends where `run` ends, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from prunelang.api import Program, compile
from prunelang.dsl.diagnostics import SpecError
from tests.binding.loops import differing, executed, looped, network, of_one_optimizer, optimizer_of
from tests.golden_support import GOLDEN, golden
from tests.runtime.shortened import names, shortened, write_data

__all__ = ["golden"]

NEVER_RUN = ("resnet50_infeasible",)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRUNELANG_DATA", str(tmp_path))
    return tmp_path


def program_of(name: str, folder: Path) -> Program:
    write_data(folder, name)
    file = folder / "case.prune"
    file.write_text(shortened(name))  # whose data are beside it
    file.write_text(of_one_optimizer(shortened(name)) if name not in NEVER_RUN else shortened(name))
    return compile(file, dtype="float64")


def refusal(name: str, folder: Path) -> str:
    """The codes of what keeps a spec from being bound; empty where nothing does."""
    try:
        program = program_of(name, folder)
        program.require_runnable()
        net = network(program)
        program.bind(net, optimizer_of(program, net), rates="spec").detach()
    except SpecError as error:
        return " ".join(dict.fromkeys(d.code for d in error.diagnostics if d.severity == "error"))
    return ""


@pytest.mark.parametrize("name", names())
def test_a_spec_bound_ends_as_run(name: str, folder: Path) -> None:
    if "snn" in name or "sew" in name:
        pytest.importorskip("spikingjelly")
    torch.use_deterministic_algorithms(True)
    if codes := refusal(name, folder):
        pytest.skip(f"refused: {codes}")  # which of them are is in the golden file
    program = program_of(name, folder)
    assert differing(executed(program), looped(program).tensors) == []


def test_which_specs_are_refused(folder: Path, golden: Callable[[Path, str], None]) -> None:
    lines = [f"{name}: {refusal(name, folder) or 'bound'}" for name in names()]
    golden(GOLDEN / "bound.txt", "\n".join(lines) + "\n")
