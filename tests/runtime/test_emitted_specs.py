"""Every spec of this project with every solver: what can be emitted ends at the weights of the executor, bit for bit.

Specs are cut to a few steps on random samples (`shortened`). A pair of spec and solver is *run* or *refused*, and which
it is stands in a golden file, with the codes of what refuses it: nothing is left out in silence. The scripts run in
one further process, where prunelang cannot be imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from prunelang.api import compile
from prunelang.compiler.codegen import Emitted, IdxData
from prunelang.compiler.solvers.base import solvers
from prunelang.dsl.diagnostics import SpecError
from prunelang.emission import written
from tests.compiler.test_codegen import require_tidy
from tests.golden_support import GOLDEN, golden
from tests.runtime.shortened import SAMPLES, names, shortened, write_data
from tests.runtime.test_emitted import bits, executed

__all__ = ["golden"]

OWN = [(name, "") for name in names()]
ALL = "PRUNELANG_ALL_PAIRS" in os.environ  # as `benchmarks.emitted` runs them
LONG = ("gda_channels", "gda_sew_resnet18", "group_filters")  # ten seconds for each solver
OTHERS = [(name, solver) for name in names() if ALL or name not in LONG for solver in solvers()]

WORKER = """
import contextlib, io, runpy, sys, traceback
from pathlib import Path

sys.modules["prunelang"] = None  # importing it raises from here on
for line in sys.stdin:
    folder = Path(line.strip())
    data = ["--data", str(folder)] if "required=True" in (folder / "train.py").read_text() else []
    sys.argv = ["train.py", "--out", str(folder / "trained.safetensors"), *data]
    with open(folder / "out.txt", "w") as out, contextlib.redirect_stdout(out):
        try:
            runpy.run_path(str(folder / "train.py"), run_name="__main__")
        except BaseException:
            traceback.print_exc(file=out)
    print("done", flush=True)
"""


@pytest.fixture(scope="module")
def outside() -> Iterator[Callable[[Path], None]]:
    """Runs the script of a folder in a process without prunelang."""
    command = [sys.executable, "-I", "-c", WORKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def run(folder: Path) -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"

        yield run
        process.stdin.close()


@cache
def refusal(name: str, solver: str) -> str:
    """The codes of what keeps a pair from running or from being emitted; empty where nothing does."""
    try:
        program = compile(shortened(name, solver or None), dtype="float64")
        program.require_runnable()
        program.__dict__["train_size"] = SAMPLES["train"]
        written(program, IdxData("mnist", center=True), 0)
    except SpecError as error:
        return " ".join(dict.fromkeys(d.code for d in error.diagnostics if d.severity == "error"))
    return ""


def both(name: str, solver: str, folder: Path, outside: Callable[[Path], None]) -> tuple[Emitted, dict[str, Tensor]]:
    """The script, run by itself, and the weights of the executor."""
    write_data(folder, name)
    (folder / "case.prune").write_text(shortened(name, solver or None))
    emitted, weights = executed(compile(folder / "case.prune", dtype="float64"), folder)
    (folder / "train.py").write_text(emitted.script.replace('Path("', f'Path("{folder}/'))
    for file, content in emitted.sidecar.items():
        (folder / file).write_bytes(content)
    outside(folder)
    return emitted, weights


def require_equal(name: str, solver: str, folder: Path, outside: Callable[[Path], None]) -> None:
    torch.use_deterministic_algorithms(True)
    emitted, weights = both(name, solver, folder, outside)
    output = (folder / "out.txt").read_text()
    assert (folder / "trained.safetensors").exists(), output
    trained = load_file(folder / "trained.safetensors")
    assert trained.keys() == weights.keys()
    for tensor, value in weights.items():
        assert bits(trained[tensor]) == bits(value), f"{tensor}\n{output}"
    if not solver:
        require_tidy(emitted.script)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRUNELANG_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("name", "solver"), OWN)
def test_a_spec_ends_as_executed(name: str, solver: str, folder: Path, outside: Callable[[Path], None]) -> None:
    write_data(folder, name)
    if codes := refusal(name, solver):
        pytest.skip(f"refused: {codes}")  # which of them are is in the golden file
    require_equal(name, solver, folder, outside)


@pytest.mark.parametrize(("name", "solver"), OTHERS)
def test_a_spec_with_another_solver(name: str, solver: str, folder: Path, outside: Callable[[Path], None]) -> None:
    write_data(folder, name)
    if codes := refusal(name, solver):
        pytest.skip(f"refused: {codes}")
    require_equal(name, solver, folder, outside)


def test_which_pairs_are_refused(golden: Callable[[Path, str], None]) -> None:
    """``spec: solvers`` and the codes of the others."""
    lines = []
    for name in names():
        found = {solver: refusal(name, solver) for solver in ("", *solvers())}
        taken = [solver for solver, codes in found.items() if not codes and solver]
        own = f" (as it stands: {found['']})" if found[""] else ""
        lines.append(f"{name}{own}: {' '.join(taken) or 'none'}")
    golden(GOLDEN / "emitted" / "pairs.txt", "\n".join(lines) + "\n")
