"""`prune export --shrink` as a process, from runs whose units were budgeted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import prunelang
from prunelang.cli import cli
from prunelang.runtime import registry
from prunelang.runtime.files import FileProblem
from prunelang.runtime.weights import load_weights
from prunelang.shrinking import shrink_directory
from tests.cli import documents
from tests.cli.conftest import Done, Prune

SPEC = """\
model net = mlp([64, 16, 10])
data  digits(batch = 64)
minimize   cross_entropy(net)
subject to
    compute: macs(net) ≤ 40%
pretrain with sgd(lr = 0.1, momentum = 0.9) for 2 epochs
solve    lc(steps = 2) with sgd(lr = 0.1, momentum = 0.9) for 1 epochs
"""

MINE = """\
import torch
from torch import nn

from prunelang import register


class Halves(nn.Module):
    def forward(self, y):
        return torch.cat([y[:, :6].relu(), y[:, 6:].tanh()], 1).view(len(y), 12)


@register.model(input_shape=(64,))
class stuck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.halves, self.b = nn.Linear(64, 12), Halves(), nn.Linear(12, 10)

    def forward(self, x):
        return self.b(self.halves(self.a(x.flatten(1))))
"""


@pytest.fixture(scope="module")
def budgeted(tmp_path_factory: pytest.TempPathFactory) -> Done:
    p = Prune(tmp_path_factory.mktemp("budgeted"))
    p.write("mlp.prune", SPEC)
    p.write("mine.py", MINE)
    return Done(p("run", "mlp.prune", "--format", "json", "--quiet"), p, p.folder / "runs" / "mlp")


def test_a_shrunk_run_costs_what_was_certified_and_comes_back(budgeted: Done) -> None:
    run = budgeted.prune("export", "runs/mlp", "--shrink", "--format", "json")
    found = documents.Shrunk.model_validate_json(run.stdout)
    certificate = documents.Run.model_validate_json(budgeted.process.stdout).certificate
    kept = found.units["fc1"].kept
    assert (found.units["fc1"].of, found.whole) == (16, {})
    assert found.macs == certificate.constraints[0].got == 74 * kept <= 473
    assert found.params == 64 * kept + kept + 10 * kept + 10
    assert (found.dense_macs, found.dense_params) == (1184, 1210)
    folder = budgeted.prune.folder
    assert (folder / found.file).stat().st_size == found.bytes < found.dense_bytes
    assert sorted(json.loads((folder / found.description).read_text())["kept"]) == ["fc1"]
    small = prunelang.load_shrunk(folder / found.file)
    dense = registry.models["mlp"].build(sizes=[64, 16, 10])
    arrays = load_weights(budgeted.run / "weights.safetensors")
    dense.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in arrays.items()})
    x = torch.randn(5, 64)
    torch.testing.assert_close(small(x), dense(x), rtol=1e-5, atol=1e-6)


def test_the_text_names_groups_and_costs(budgeted: Done, tmp_path: Path) -> None:
    out = tmp_path / "small.safetensors"
    run = budgeted.prune("export", "runs/mlp", "--shrink", "-o", out)
    assert run.returncode == 0
    first, units, macs, params = run.stdout.splitlines()
    assert first.startswith(f"{out}: ")
    assert first.endswith("; small.json says how to build it")
    assert units.startswith("units: fc1 ")
    assert units.endswith(" of 16")
    assert macs.endswith(" of 1 184")
    assert params.endswith(" of 1 210")
    assert (tmp_path / "small.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--shrink", "--to", "csr"), "--shrink writes dense weights"),
        (("--shrink", "--bits", "4"), "--shrink writes dense weights"),
        (("--with", "mine.py"), "--with is of --shrink alone"),
    ],
)
def test_options_that_exclude_each_other(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    run = CliRunner().invoke(cli, ["export", str(tmp_path), *words])
    assert (run.exit_code, run.stdout) == (2, "")
    assert message in run.stderr


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.other", "shapes.safetensors"])
def test_files_of_a_run_are_never_replaced(name: str, budgeted: Done) -> None:
    before = {p.name: p.read_bytes() for p in budgeted.run.iterdir()}
    with pytest.raises(FileProblem, match="P511"):
        shrink_directory(budgeted.run, budgeted.run / name)
    assert {p.name: p.read_bytes() for p in budgeted.run.iterdir()} == before


def test_a_module_with_a_size_of_its_own_is_refused_by_name(budgeted: Done) -> None:
    prune = budgeted.prune
    prune.write("stuck.prune", SPEC.replace("mlp([64, 16, 10])", "stuck()"))
    run = prune("run", "stuck.prune", "--with", "mine.py", "--quiet")
    assert run.returncode == 0, run.stderr
    stuck = prune("export", "runs/stuck", "--shrink", "--with", "mine.py")
    assert (stuck.returncode, stuck.stdout) == (1, "")
    assert "error[P531]: `halves` does not run with fewer channels" in stuck.stderr
    assert "shrink_channels" in stuck.stderr
    assert not (prune.folder / "runs" / "stuck" / "shrunk.safetensors").exists()
