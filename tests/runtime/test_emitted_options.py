"""Params of a spec as options of its script, and the script as a notebook."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prunelang.api import Program, compile
from prunelang.compiler.codegen.notebook import cells_of, notebook
from prunelang.compiler.codegen.options import Param
from prunelang.emission import emit_program
from tests.compiler.test_codegen import require_tidy
from tests.runtime.test_emitted import bits, executed

SPEC = """\
param width = 12
model net = mlp([64, width, 10])
data digits(batch = 128)
param κ = 20%
param α = 1e-3
param units = 2
param rate = 0.1
minimize cross_entropy(net) + 2 * α * ‖net["fc2"].weights‖₁
subject to
    sparsity: ‖net["fc1"].weights‖₀ ≤ κ
pretrain with sgd(lr = rate, momentum = 0.9) for 1 epochs
solve lc(steps = units, μ = 1e-2 * 2^k) with sgd(lr = 0.1 * 0.98^k, momentum = 0.9) for 1 epochs
finetune with sgd(lr = rate * 0.9^epoch) for 1 epochs
report accuracy(net)
"""

RUN = """
import runpy, sys
sys.modules["prunelang"] = None
runpy.run_path("train.py", run_name="__main__")
"""

CELLS = """
import codeop, json, sys
sys.modules["prunelang"] = None
compiler, names = codeop.Compile(), {"__name__": "__main__"}  # remembers `from __future__`, as a kernel does
for cell in json.load(open("train.ipynb"))["cells"]:
    if cell["cell_type"] == "code":
        exec(compiler("".join(cell["source"]), "cell", "exec"), names)
"""


def outside(code: str, folder: Path, *arguments: str) -> str:
    """What a process without prunelang prints."""
    command = [sys.executable, "-I", "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def program() -> Program:
    return compile(SPEC, dtype="float64")


@pytest.fixture(scope="module")
def folder(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script with its data, and the notebook of it."""
    made = tmp_path_factory.mktemp("options")
    emitted = emit_program(program, seed=3)
    (made / "train.py").write_text(emitted.script)
    (made / "train.ipynb").write_text(notebook(emitted.script))
    for name, content in emitted.sidecar.items():
        (made / name).write_bytes(content)
    require_tidy(emitted.script)
    return made


def test_params_are_options(folder: Path) -> None:
    script = (folder / "train.py").read_text()
    said = outside(RUN, folder, "--help")
    for flag in ("--κ", "--kappa", "--α", "--alpha", "--rate", "--units", "--seed", "--device", "--data", "--out"):
        assert flag in said
    assert "int(κ * 768)" in script
    assert "for k in range(int(units)):" in script
    assert "--width" not in said, "it makes another network"
    assert "# Params of the spec are options: --κ, --α, --units, --rate. Every other value (width among them)" in script


@pytest.mark.parametrize(
    ("given", "params"),
    [
        (["--κ", "12.5%"], {"kappa": "12.5%"}),
        (["--kappa", "0.13", "--alpha", "0.0007"], {"kappa": "13%", "alpha": "7e-4"}),
        (["--rate", "0.07", "--κ", "29%"], {"rate": "0.07", "kappa": "29%"}),
    ],
)
def test_an_option_is_the_param(
    given: list[str],
    params: dict[str, str | int | float],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.use_deterministic_algorithms(True)
    _, wanted = executed(compile(SPEC, params=params, dtype="float64"), tmp_path)
    outside(RUN, folder, *given, "--out", str(tmp_path / "out.safetensors"))
    found = load_file(tmp_path / "out.safetensors")
    assert all(bits(found[name]) == bits(value) for name, value in wanted.items())


def test_a_value_that_was_not_tried_is_refused(folder: Path) -> None:
    for value, what in (("95%", "95% is not from 10% to 40%"), ("many", "invalid amount value: 'many'")):
        with pytest.raises(AssertionError, match=what):
            outside(RUN, folder, "--κ", value)


def test_values_that_are_tried_stay_of_their_kind() -> None:
    assert all(0 < v <= 1 for v in Param("kappa", Fraction(9, 10), True).tried())
    assert all(v.denominator == 1 and v != 20 for v in Param("r", Fraction(20), False).tried())


def test_the_notebook_ends_where_the_script_does(folder: Path) -> None:
    outside(RUN, folder, "--out", "script.safetensors")
    outside(CELLS, folder)
    script, cells = load_file(folder / "script.safetensors"), load_file(folder / "weights.safetensors")
    assert script.keys() == cells.keys()
    assert all(bits(script[name]) == bits(cells[name]) for name in script)


def test_the_notebook_is_one(folder: Path) -> None:
    data = json.loads((folder / "train.ipynb").read_text())
    assert (data["nbformat"], data["nbformat_minor"]) == (4, 5)
    identities = [cell["id"] for cell in data["cells"]]
    assert len(set(identities)) == len(identities)
    headings = [c.source for c in cells_of((folder / "train.py").read_text()) if c.source.startswith("## ")]
    titles = [heading.splitlines()[0] for heading in headings]
    assert titles == [
        "## Options", "## Data and network", "## state", "## pretrain", "## solve", "## finetune",
        "## counts, metrics, weights",
    ]  # fmt: skip
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbformat.validate(nbformat.from_dict(data))


def test_other_text_is_no_script() -> None:
    with pytest.raises(ValueError, match="no emitted script"):
        notebook("print()\n")
