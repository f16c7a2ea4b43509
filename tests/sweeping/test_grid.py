"""What a sweep consists of, and how other solvers take a stage over."""

from __future__ import annotations

from fractions import Fraction

import pytest

import prunelang
from prunelang.compiler.schedule import evaluate
from prunelang.dsl.diagnostics import SpecError
from prunelang.sweeping.grid import Cell, grid_of, listed, settings
from prunelang.sweeping.row import number
from prunelang.sweeping.solver import NotCarried, solver_call, stated, with_solver

HEAD = (
    "model net = mlp([64, 16, 10])\ndata digits(batch = 64)\nminimize cross_entropy(net)\ns.t. ‖net.weights‖₀ ≤ 10%\n"
)


def solve(text: str, solver: str, head: str = HEAD) -> str:
    """The `solve` of a spec after another solver took it over; the whole has to compile."""
    program = prunelang.compile(head + text + "\n")
    plan = program.plan
    new = with_solver(plan.source.text, plan.spec, plan, solver_call(solver, plan.source), 23)
    prunelang.compile(new)
    return stated(new)


def test_cells_go_by_values_then_solvers_then_seeds() -> None:
    grid = grid_of({"κ": ("10%", "5%"), "a": ("1", "2")}, ("lc", "ista"), range(2))
    cells = list(grid.cells())
    assert len(cells) == len(grid) == 16
    assert cells[0] == Cell((("kappa", "10%"), ("a", "1")), "lc", 0)
    assert cells[1].seed == 1
    assert cells[2].solver == "ista"
    assert cells[4].parameters == {"kappa": "10%", "a": "2"}
    assert cells[0].name == "κ = 10%, a = 1, lc, seed 0"
    assert len({c.folder for c in cells}) == 16


def test_folders_are_names_that_every_file_system_takes() -> None:
    """Other cells have other folders, even where the same letters are left of them."""
    texts = ("5%", "5pct", "../x", "a/b", "a b", "…", "x" * 300, "5% ", 'say "hi"')
    folders = [Cell((("kappa", t),), "lc(steps = 10)", 0).folder for t in texts]
    assert len(set(folders)) == len(texts)
    for folder in folders:
        assert folder.isascii()
        assert len(folder) < 100
        assert not set(folder) & set('/\\:*?"<>|% ')
        assert not folder.startswith((".", "-"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("10%, 5%,2%", ("10%", "5%", "2%")),
        ("lc(steps = 10, μ = 1), ista", ("lc(steps = 10, μ = 1)", "ista")),
        ("[1, 2], [3]", ("[1, 2]", "[3]")),
        ('"a,b", c', ('"a,b"', "c")),
        ("x", ("x",)),
        ("", ("",)),
    ],
)
def test_lists_are_cut_at_their_own_commas(text: str, parts: tuple[str, ...]) -> None:
    assert listed(text) == parts


@pytest.mark.parametrize("given", [["κ"], ["=1"], ["κ=1", "kappa=2"]])
def test_settings_that_are_none(given: list[str]) -> None:
    with pytest.raises(ValueError, match=r"write NAME|given twice"):
        settings(given)


@pytest.mark.parametrize(
    ("values", "solvers", "seeds"),
    [
        ({"a": ()}, ("lc",), (0,)),
        ({"a": ("1", "1")}, ("lc",), (0,)),
        ({}, (), (0,)),
        ({}, ("lc",), (0, 0)),
        ({"a": ("",)}, ("lc",), (0,)),
    ],
)
def test_grids_that_are_none(
    values: dict[str, tuple[str, ...]], solvers: tuple[str, ...], seeds: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"there are no|stands twice|is empty"):
        grid_of(values, solvers, seeds)


def test_numbers_of_params() -> None:
    assert [number(t) for t in ("5%", "0.1", "30 MMACs", "relu", "", "1e-3")] == [5.0, 0.1, 30.0, None, None, 1e-3]


# ── another solver ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_spec_s_own_solver_stays_word_for_word() -> None:
    text = "solve lc(steps = 7)  # as it was\n    with sgd(lr = 0.1)\n    for 2 epochs\n"
    plan = prunelang.compile(HEAD + text).plan
    assert with_solver(plan.source.text, plan.spec, plan, solver_call("lc", plan.source), None) == HEAD + text


@pytest.mark.parametrize(
    ("stage", "solver", "expected"),
    [
        (
            "solve lc(steps = 20) with sgd(lr = 0.1 * 0.98^k) for 1 epochs",
            "ista",
            "solve ista() with sgd(lr = 0.1 * 0.98^epoch) for 20 epochs",
        ),
        (
            "solve lc(steps = 20) with sgd(lr = 0.1 * 0.98^k * 0.9^epoch) for 3 epochs",
            "gda",
            "solve gda() with sgd(lr = 0.1 * 0.98^floor(epoch / 3) * 0.9^(epoch - 3 * floor(epoch / 3))) for 60 epochs",
        ),
        (
            "solve lc(steps = 20) with sgd(lr = 0.1) for 1 epochs",
            "admm",
            "solve admm(steps = 20) with sgd(lr = 0.1) for 1 epochs",
        ),
        (
            "solve ista() with sgd(lr = 0.1 * 0.9^epoch) for 20 epochs",
            "lc",
            "solve lc(steps = 20) with sgd(lr = 0.1 * 0.9^k) for 1 epochs",
        ),
        (
            "solve ista() with sgd(lr = 0.1 * 0.9^epoch) for 120 epochs",
            "lc",
            "solve lc(steps = 40) with sgd(lr = 0.1 * 0.9^(3 * k + epoch)) for 3 epochs",
        ),
        (
            "solve ista() with sgd(lr = 0.1) for 20 epochs",
            "lc(steps = 5)",
            "solve lc(steps = 5) with sgd(lr = 0.1) for 4 epochs",
        ),
        ("solve lc(steps = 4) with adam() for 50 steps", "ista", "solve ista() with adam() for 200 steps"),
        ("solve auto with adam() for 2 epochs", "gda", "solve gda() with adam() for 80 epochs"),
    ],
)
def test_other_solvers(stage: str, solver: str, expected: str) -> None:
    assert solve(stage, solver) == expected


def test_a_let_that_follows_a_clock_is_written_out() -> None:
    head = HEAD.replace("minimize", "let η = 0.1 * 0.9^k\nminimize")
    made = solve("solve lc(steps = 5) with sgd(lr = η) for 1 epochs", "ista", head)
    assert made == "solve ista() with sgd(lr = 0.1 * 0.9^epoch) for 5 epochs"


def test_searches_keep_their_probes() -> None:
    head = "model net = mlp([64, 16, 10])\ndata digits()\nminimize ‖net.weights‖₀\ns.t. accuracy(net) ≥ 80%\n"
    made = solve("solve lc(steps = 5, probes = 3, tolerance = 10%) for 1 epochs", "ista", head)
    assert made == "solve ista(probes = 3, tolerance = 10%) for 5 epochs"


def test_clocks_mean_the_same_in_one_loop_as_in_many() -> None:
    """At every epoch of K × D = 4 × 3 the rate is the one that the outer iterations had."""
    stage = "solve lc(steps = 4) with sgd(lr = 0.1 * 0.7^k * 0.9^epoch) for 3 epochs"
    plan = prunelang.compile(HEAD + stage + "\n").plan
    flat = prunelang.compile(with_solver(plan.source.text, plan.spec, plan, solver_call("ista", plan.source), 23)).plan
    one, other = plan.stages[-1].optimizer, flat.stages[-1].optimizer
    for k in range(4):
        for epoch in range(3):
            nested = evaluate(one.lr, {"k": k, "epoch": epoch, "step": 0, "p": 0})  # type: ignore[attr-defined]
            whole = evaluate(other.lr, {"epoch": 3 * k + epoch, "step": 0, "p": 0})  # type: ignore[attr-defined]
            assert nested == pytest.approx(whole, rel=1e-15)


@pytest.mark.parametrize("total", [1, 2, 7, 20, 40, 41, 97, 100, 1000])
def test_lengths_stay_near_what_they_were(total: int) -> None:
    made = solve(f"solve ista() with sgd(lr = 0.1) for {total} epochs", "lc")
    steps, inner = (int(x) for x in made.replace(")", " ").split() if x.isdigit())
    assert abs(steps * inner - total) <= Fraction(total, 20)


def test_a_clock_that_cannot_be_carried() -> None:
    with pytest.raises(NotCarried, match="follows `epoch`"):
        solve("solve lc(steps = 4) with sgd(lr = 0.1 * 0.9^epoch) for (1 + k) epochs", "ista")


@pytest.mark.parametrize(
    ("text", "solver", "code"),
    [
        ("solve lc()\nfinetune for 1 epochs\nsolve ista() for 1 epochs\n", "lc", "P560"),
        ("pretrain for 1 epochs\n", "lc", "P560"),
        ("solve lc()\n", "adam", "P561"),
        ("solve lc()\n", "lc(steps = 1", "P1"),
        ("solve lc()\n", "lc() for 3 epochs", "P561"),
    ],
)
def test_solvers_and_specs_that_are_refused(text: str, solver: str, code: str) -> None:
    plan = prunelang.compile(HEAD + text).plan
    with pytest.raises(SpecError) as caught:
        with_solver(plan.source.text, plan.spec, plan, solver_call(solver, plan.source), None)
    assert caught.value.diagnostics[0].code.startswith(code)
