"""The Python API: `prunelang.compile` and what a `Program` offers without training."""

from __future__ import annotations

from pathlib import Path

import pytest

import prunelang
from prunelang.compiler.problem import Interval
from prunelang.compiler.shapes import ShapeTable
from tests.cli.conftest import LENET
from tests.shape_tables import lenet_5, lenet_300_100

WITH_PARAMS = """\
model net = lenet_300_100()
data  mnist(batch = 256)
param κ = 5% in [1%, 50%]
param n = 40
param nesterov_on = true
minimize   cross_entropy(net)
subject to
    sparsity: ‖net.weights‖₀ ≤ κ
solve lc(steps = n) with sgd(lr = 0.1, momentum = 0.9, nesterov = nesterov_on) for 1 epochs
"""


def compiled(text: str, table: ShapeTable | None = None, **params: str | float) -> prunelang.Program:
    return prunelang.compile(text, params=params, shapes=table or lenet_300_100())


def upper(program: prunelang.Program) -> object:
    found = program.problem.constraint("sparsity").set
    assert isinstance(found, Interval)
    return found.upper


@pytest.mark.parametrize(("value", "expected"), [("2%", 5_324), (0.02, 5_324), (0.125, 33_275), (1e-2, 2_662)])
def test_a_percentage_from_python(value: str | float, expected: int) -> None:
    assert upper(compiled(WITH_PARAMS, κ=value)) == expected


def test_numbers_and_truths_from_python() -> None:
    program = compiled(WITH_PARAMS, n=7, nesterov_on=False)
    assert program.plan.parameters == {"kappa": "5%", "n": "7", "nesterov_on": "false"}
    assert "7 × 1 epochs" in program.explain("solver")
    assert "nesterov = false" in program.explain("solver")


@pytest.mark.parametrize(("name", "value"), [("κ", 0.9), ("κ", float("nan")), ("n", 2.5), ("m", 1)])
def test_values_that_are_refused(name: str, value: float) -> None:
    with pytest.raises(prunelang.SpecError) as refused:
        compiled(WITH_PARAMS, **{name: value})
    assert [d.severity for d in refused.value.diagnostics] == ["error"]


def test_a_path_is_read_and_a_text_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "lenet.prune"
    path.write_text(LENET, encoding="utf-8")
    for given in (path, str(path)):
        program = prunelang.compile(given, shapes=lenet_300_100())
        assert (program.plan.source.name, program.folder) == (str(path), tmp_path)
    assert compiled(LENET).plan.source.name == "<text>"
    with pytest.raises(FileNotFoundError):
        prunelang.compile(tmp_path / "other.prune")


def test_a_table_of_another_network() -> None:
    with pytest.raises(prunelang.SpecError, match=r"the given shape table is of lenet_5\(classes = 10\)"):
        compiled(LENET, lenet_5())


def test_a_table_is_of_the_dtype_that_is_asked_for() -> None:
    program = prunelang.compile(LENET, shapes=lenet_300_100(), dtype="float64")
    assert {t.dtype for t in program.plan.table.tensors} == {"float64"}


def test_notes_obstacles_and_the_graph() -> None:
    program = compiled(LENET)
    assert [d.code for d in program.diagnostics] == ["P301"]
    assert program.obstacles == ()
    assert program.train_size == 60_000
    assert program.to_json()["title"] == program.graph.title
    assert "for k in 0..39" in program.listing()
    refused = compiled(LENET.replace("sparse_macs(net) ≤ 30%", "entropy(net.weights) ≤ 3"))
    assert [d.code for d in refused.obstacles] == ["P414"]
    for use in (refused.listing, refused.run, refused.to_python):
        with pytest.raises(prunelang.SpecError, match="P414"):
            use()
    assert "P414" in refused.explain("graph")


def test_a_spec_without_solve_is_explained() -> None:
    program = compiled(LENET.replace("solve lc(steps = 40)", "pretrain"))
    assert [d.code for d in program.diagnostics if d.severity == "warning"] == ["P413"]
    assert program.explain("solver").startswith("pretrain\n    for 1 epochs with sgd(lr = 0.1")


def test_validation_is_cut_off_the_training_set() -> None:
    until = "pretrain with sgd(lr = 0.1) for 9 epochs until saturated(window = 2 epochs)"
    program = compiled(LENET.replace("solve", f"{until}\nsolve"))
    assert program.train_size == 54_000
    assert "\n    until saturated(" in program.explain("solver")
