"""What solvers refuse: a warning while checking, an error when the program is to run, always with who would take it."""

from __future__ import annotations

import pytest

from prunelang.compiler.runnability import runnability, takers_of
from prunelang.dsl.diagnostics import Diagnostic
from tests.compiler.checking import HEAD, findings, plan_of


def refused(lines: str, solver: str = "lc()", head: str = HEAD) -> tuple[Diagnostic, ...]:
    return runnability(plan_of(f"{head}subject to\n{lines}\nsolve {solver}\n"))


OTHERS = "`gda`, `lc`, `admm`, `pmmp`, `drr` and `rl1` would take it"


@pytest.mark.parametrize(
    ("lines", "solver", "named", "hint"),
    [
        ("  ‖net.weights‖₁ ≤ 3", "ista()", "norm1", "`lc` and `admm` would take it"),
        ("  net.weights ∈ n_of_m(2, 4)", "ista()", "n_of_m", OTHERS),
        ("  bytes(net) ≤ 50 KB", "ista()", "weighted count", OTHERS),
        ("  ‖net.weights‖₀ ≥ 9", "ista()", "lower", OTHERS),
        ('  net["fc1"].weights ∈ low_rank(5)', "ista()", "low_rank", "`factors`, `lc` and `admm` would take it"),
        ("  net.weights ∈ codebook(2)", "gda()", "codebook", "`factors`, `lc` and `admm` would take it"),
        ('  nuclear(net["fc1"].weights) ≤ 5', "factors()", "nuclear", "`lc` and `admm` would take it"),
        ("  entropy(net.weights) ≤ 3", "admm()", "entropy", "no solver takes it yet"),
        ("  macs(net) ≥ 10%", "lc()", "macs", "no solver takes it yet"),
        ("  accuracy(net) - error(net) ≥ 0.1", "ista()", "combination", "no solver takes it yet"),
    ],
)
def test_p414_names_the_function_and_the_solvers_that_would(lines: str, solver: str, named: str, hint: str) -> None:
    found = refused(lines, solver)
    assert {d.code for d in found} == {"P414"}
    assert named in found[0].message
    assert f"`{solver.removesuffix('()')}` cannot run this" in found[0].message
    assert found[0].hint == hint
    text = f"{HEAD}subject to\n{lines}\nsolve {solver}\n"
    assert text[found[0].span.start : found[0].span.end] == lines.strip()


def test_a_cost_of_shapes_without_channels_that_could_go_is_refused() -> None:
    """A single layer has inputs and outputs, and nothing between them."""
    head = "model net = chain(layers = 1)\ndata anything()\nminimize mse(net)\nsubject to\n"
    (found,) = runnability(plan_of(f"{head}  macs(net) ≤ 50%\nsolve lc()\n"))
    assert found.code == "P415"
    assert "no channel of its layers can be removed" in found.message
    assert not runnability(plan_of(f"{head}  macs(net) ≤ 100%\nsolve lc()\n"))


@pytest.mark.parametrize(
    ("objective", "reason", "hint"),
    [
        ("entropy(net.weights)", "`entropy` in the objective", "no solver takes it yet"),
        ("bytes(net)", "cheapest format", "`gda` would take it"),
        ("‖net.weights‖₁ + 0.1 * ‖net.weights‖₂²", "one penalty a tensor", "no solver takes it yet"),
    ],
)
def test_p414_of_penalties(objective: str, reason: str, hint: str) -> None:
    found = runnability(plan_of(f"{HEAD.rstrip()} + 0.1 * {objective}\nsolve lc()\n"))
    assert [d.code for d in found] == ["P414"]
    assert reason in found[0].message
    assert found[0].hint == hint


def test_ista_takes_the_one_norm_and_names_who_takes_others() -> None:
    penalised = f"{HEAD.rstrip()} + 0.1 * "
    sgd = "solve ista() with sgd(lr = 0.1)\n"
    assert not runnability(plan_of(f"{penalised}‖net.weights‖₁\n{sgd}"))
    (found,) = runnability(plan_of(f"{penalised}‖net.weights‖₂\n{sgd}"))
    assert found.code == "P414"
    assert "`lc` and `admm`" in (found.hint or "")


@pytest.mark.parametrize(
    ("objective", "solve", "code", "words"),
    [
        ("", "ista(β = 0.1)", "P431", "`β` has no meaning for `threshold = s_lats`"),
        ("", "ista(threshold = lats, s = -5)", "P431", "`s` has no meaning for `threshold = lats`"),
        ("", "ista(threshold = str, D = 0.1)", "P431", "`D` has no meaning for `threshold = str`"),
        ("", "ista(threshold = fixed, μ = 0.1)", "P431", "`μ` has no meaning for `threshold = fixed`"),
        ("", "ista(threshold = fixed, reach = 0.1)", "P431", "`reach` has no meaning"),
        ("", "ista(threshold = str, s = -5, reach = 0.1)", "P431", "`reach` has no meaning"),
        ("", "ista(D = 0.1, μ = 0.1)", "P431", "`D` and `μ` both say how far the threshold goes"),
        ("", "ista(μ = 0.1) with adam()", "P432", "which `adam` rescales for each weight"),
        (" + 0.1 * ‖net.weights‖₁", "ista() with adam()", "P432", "which `adam` rescales for each weight"),
        (" + 0.1 * ‖net.weights‖₁", "ista(D = 0.1)", "P414", "leave out `D` and `μ`"),
        (" + 0.1 * ‖net.weights‖₁", "ista(threshold = str)", "P414", "minimises no penalty"),
        (" + 0.1 * ‖net.weights‖₁\nsubject to\n  ‖net.weights‖₀ ≤ 9", "ista()", "P414", "not both"),
        ("\nsubject to\n  ‖net.weights‖₀ ≤ 9", "ista(threshold = str, s = -5)", "P414", "leave `s` out"),
    ],
)
def test_options_of_ista_that_contradict(objective: str, solve: str, code: str, words: str) -> None:
    clause = "" if " with " in solve else " with sgd(lr = 0.1)"
    found = runnability(plan_of(f"{HEAD.rstrip()}{objective}\nsolve {solve}{clause}\n"))
    assert [d.code for d in found] == [code]
    assert words in found[0].message


def test_a_tensor_under_a_constraint_and_a_penalty_has_one_owner() -> None:
    text = f"{HEAD.rstrip()} + 0.1 * ‖net.weights‖₁\nsubject to\n  ‖net.weights‖₀ ≤ 5%\nsolve lc()\n"
    (found,) = runnability(plan_of(text))
    assert "either under constraints or under a penalty" in found.message


def test_ista_takes_one_constraint_a_tensor() -> None:
    found = refused('  all: ‖net.weights‖₀ ≤ 5%\n  one: ‖net["fc1"].weights‖₀ ≤ 9', "ista()")
    assert [d.code for d in found] == ["P414"]
    assert "`fc1.weight` is also under `all`" in found[0].message


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("  ball: ‖net.weights‖₁ ≤ 3\n  size: bytes(net) ≤ 50 KB", "one plain"),
        ("  a: ‖net.weights‖₁ ≤ 3\n  b: ‖net.weights‖₂ ≤ 3", "several norm balls"),
        ('  a: ‖net["fc1"].params‖₀ ≤ 9000\n  b: ‖net.weights‖₀ ≤ 9000', "cross"),
    ],
)
def test_p415_points_at_all_that_clash(lines: str, reason: str) -> None:
    (found,) = refused(lines)
    assert found.code == "P415"
    assert reason in found.message
    assert len(found.conflict) == 2
    assert [label.message for label in found.secondary] == ["together with this"]


@pytest.mark.parametrize(
    ("solver", "reason"),
    [
        ("lc()", "outer iteration"),
        ("admm()", "outer iteration"),
        ("ista(reach = 1)", "give `reach` below 1"),
        ("ista(μ = 1e-3) with sgd(lr = 0.1)", "give `reach` below 1"),
        ("drr(reach = 1)", "give `reach` below 1"),
    ],
)
def test_p416_solvers_that_have_to_run_to_their_end(solver: str, reason: str) -> None:
    text = f"{HEAD}subject to\n  ‖net.weights‖₀ ≤ 5%\nsolve {solver} until saturated(window = 5 epochs)\n"
    (found,) = runnability(plan_of(text))
    assert found.code == "P416"
    assert reason in (found.hint or "")
    assert [d.code for d in findings(text) if d.code in ("P416", "P441")] == ["P416"], "a warning while checking"


@pytest.mark.parametrize("solver", ["ista()", "ista(threshold = str)", "drr()", "rl1(α = 1e-4)"])
def test_until_on_a_solve(solver: str) -> None:
    text = f"{HEAD}subject to\n  ‖net.weights‖₀ ≤ 5%\nsolve {solver} until saturated(window = 5 epochs)\n"
    assert runnability(plan_of(text)) == ()


def test_p417_moving_bounds_are_refused_with_a_way_out() -> None:
    (found,) = refused("  ‖net.weights‖₀ ≤ ramp(100%, 5%, 0, 0.7)")
    assert found.code == "P417"
    assert found.hint == "give the final bound"


def test_nothing_to_train_is_said_before_a_run() -> None:
    found = runnability(plan_of(HEAD + "freeze net.params\nsolve lc()\n"))
    assert [d.code for d in found] == ["P409"]
    assert "frozen" in found[0].message


def test_while_checking_they_are_warnings() -> None:
    text = f"{HEAD}subject to\n  ‖net.weights‖₁ ≤ 3\nsolve ista()\n"
    assert [(d.code, d.severity) for d in findings(text) if d.code == "P414"] == [("P414", "warning")]
    assert all(d.severity == "error" for d in runnability(plan_of(text)))


def test_what_is_taken_is_not_mentioned() -> None:
    plan = plan_of(f"{HEAD}subject to\n  ‖net.weights‖₀ ≤ 5%\nsolve auto\n")
    assert runnability(plan) == ()
    assert takers_of(plan.problem.constraints[0], plan.problem) == ["gda", "ista", "lc", "admm", "pmmp", "drr", "rl1"]


MEASURED = (
    "  ‖net.weights‖₀ ≤ 5%\n  accuracy(net) ≥ 97%\n  error(net, on = test) ≤ base + 1 pp\n  cross_entropy(net) ≤ 0.1"
)


@pytest.mark.parametrize("word", ["lc", "admm", "ista"])
def test_measured_constraints_are_taken_by_all(word: str) -> None:
    assert refused(MEASURED, f"{word}()") == ()


@pytest.mark.parametrize(
    ("objective", "lines", "solver", "codes"),
    [
        ("‖net.weights‖₀", "accuracy(net) ≥ 97%", "lc(probes = 3, tolerance = 1%)", []),
        ("bytes(net)", "accuracy(net) ≥ 97%", "lc()", []),
        ("bytes(net)", "accuracy(net) ≥ 97%", "ista()", ["P414"]),
        ("sparse_macs(net)", "cross_entropy(net, on = train) ≤ 0.1\n  net.weights ∈ n_of_m(2, 4)", "lc()", []),
        ("2 * ‖net.weights‖₀", "accuracy(net) ≥ 97%", "ista()", []),
        ("‖net.weights‖₁", "accuracy(net) ≥ 97%", "lc()", ["P451"]),
        ("‖net.weights‖₀ + ‖net.biases‖₀", "accuracy(net) ≥ 97%", "lc()", ["P451"]),
        ("‖net.weights‖₀", "accuracy(net, on = test) ≥ 97%", "lc()", ["P452"]),
        ("‖net.weights‖₀", "accuracy(net) ≥ 99.99%", "lc()", ["P453"]),
        ("‖net.weights‖₀", "error(net) ≤ 0%", "lc()", ["P453"]),
        ("cross_entropy(net)", "‖net.weights‖₀ ≤ 5%\n  accuracy(net) ≥ 97%", "lc(probes = 3)", ["P454"]),
    ],
)
def test_the_reversed_form(objective: str, lines: str, solver: str, codes: list[str]) -> None:
    head = HEAD.replace("cross_entropy(net)", objective)
    assert [d.code for d in refused(f"  {lines}", solver, head)] == codes


def test_auto_chooses_for_the_forward_problem() -> None:
    plan = plan_of(
        f"{HEAD.replace('cross_entropy(net)', '‖net.weights‖₀')}subject to\n  accuracy(net) ≥ 97%\nsolve auto\n"
    )
    (stage,) = plan.stages
    assert stage.solver is not None
    assert stage.solver.word == "lc"
    assert [t.function.name for t in stage.losses] == ["cross_entropy"]
