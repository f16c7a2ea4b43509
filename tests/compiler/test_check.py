"""What specs mean: canonical functions, exact bounds, labels, defaults. Expected numbers are worked out by hand."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

import pytest

from prunelang.compiler.functions import FUNCTIONS, SETS, TESTS
from prunelang.compiler.optimizers import Adam
from prunelang.compiler.problem import (
    Affine,
    Blocks,
    Choice,
    Count,
    Entries,
    GroupCount,
    Interval,
    Kept,
    MatrixFunction,
    Measured,
    Named,
    NofM,
    Relative,
    Structural,
    VectorNorm,
)
from prunelang.compiler.schedule import constant, evaluate
from tests.compiler.checking import HEAD, codes, constrained, count, findings, only, plan_of, upper
from tests.golden_support import GOLDEN
from tests.shape_tables import lenet_300_100

TABLE = lenet_300_100()
FC1, FC2, FC3 = 235_200, 30_000, 1_000
ALL = FC1 + FC2 + FC3
KERNELS = {"fc1.weight": 1, "fc2.weight": 1, "fc3.weight": 1}


def test_the_spec_at_the_top_of_the_language_page() -> None:
    plan = plan_of((GOLDEN / "good" / "lc_lenet300.prune").read_text(encoding="utf-8"))
    sparsity, compute = plan.problem.constraints
    assert (sparsity.label, sparsity.set, sparsity.dense) == ("sparsity", Interval(None, 13_310), ALL)
    assert (compute.label, compute.set, compute.function.unit) == ("compute", Interval(None, 79_860), "MACs")
    assert [s.kind for s in plan.stages] == ["pretrain", "solve", "finetune"]
    assert [t.function for t in plan.stages[1].losses] == [Measured("cross_entropy", "train", (), "nats")]
    assert plan.parameters == {"kappa": "5%"}
    assert [(r.title, r.label, r.field) for r in plan.report][2] == ("sparsity.dual", "sparsity", "dual")
    assert plan.data.batch == 256
    assert not plan.data.reads_validation


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "bound"),
    [
        ("‖net.weights‖₀ ≤ 5%", 13_310),
        ("‖net.weights‖₀ ≤ 1234", 1234),
        ("1234 ≥ ‖net.weights‖₀", 1234),
        ("‖net.weights‖₀ ≤ 13k", 13_000),
        ("‖net.weights‖₀ ≤ 0.333%", floor(Fraction(333, 100_000) * ALL)),
        ("norm0(net.weights) + 10 ≤ 110", 100),
        ("0.5 * ‖net.weights‖₀ ≤ 50.3", 100),
        ("‖net.weights‖₀ / 3 ≤ 10", 30),
        ("-1 * ‖net.weights‖₀ ≥ -7", 7),
        ("‖net.weights‖₀ ≤ size(net.weights) / 10", 26_620),
        ("‖net.weights‖₀ ≤ floor(size(net.weights) / 7)", ALL // 7),
        ("sparse_macs(net) ≤ 30 kMACs", 30_000),
        ("sparse_flops(net) ≤ 50%", ALL),
        ("flops(net) ≤ 0.1 MFLOPs", 100_000),
        ("params(net) ≤ 50%", (ALL + 410) // 2),
        ("bytes(net, format = csr) ≤ 10 KiB", 10_240),
        ("bytes(net) ≤ 80_000 bits", 10_000),
        ("group_norm0(net.weights, by = row) ≤ 50%", 205),
        ("group_norm0(net.weights, by = column) ≤ 10%", 118),
        ('rank(net["fc1"].weights) ≤ 10%', 30),
        ('tt_rank(net["fc1"].weights, modes = [[15, 28], [20, 28]]) ≤ 10%', 42),
        ("net.weights ∈ sparse(1%)", 2_662),
        ("net.weights ∈ sparse(1000)", 1000),
        ("nll(net) ≤ 0.5", Fraction(1, 2)),
        ("description_length(net) ≤ 1 KB", 8_000),
        ("error(net) ≤ 3%", Fraction(3, 100)),
        ("‖net.weights‖₂² ≤ 100", 100),
        ("‖net.weights‖₀ ≤ min(5%, 10%)", 13_310),
        ("‖net.weights‖₀ ≤ 3% + 2%", 13_310),
    ],
)
def test_upper_bounds(line: str, bound: int) -> None:
    assert upper(line) == bound


@pytest.mark.parametrize(
    ("line", "bound"),
    [
        ("‖net.weights‖₀ ≥ 1.11%", ceil(Fraction(111, 10_000) * ALL)),
        ("5 ≤ ‖net.weights‖₀", 5),
        ("accuracy(net) ≥ 97%", Fraction(97, 100)),
        ("accuracy(net) ≥ 0.97", Fraction(97, 100)),
    ],
)
def test_lower_bounds_round_to_the_stricter_side(line: str, bound: int) -> None:
    assert only(line).set == Interval(bound, None)


def test_chain() -> None:
    assert only("1.11% ≤ ‖net.weights‖₀ ≤ 5%").set == Interval(2955, 13_310)
    assert only("5% ≥ ‖net.weights‖₀ ≥ 1.11%").set == Interval(2955, 13_310)


@pytest.mark.parametrize("share", range(1, 100, 7))
def test_percentages_against_brute_force(share: int) -> None:
    """The largest count whose share does not exceed the percentage."""
    bound = upper(f'‖net["fc3"].weights‖₀ ≤ 0.{share:02}%')
    assert bound == max(n for n in range(FC3 + 1) if Fraction(n, FC3) <= Fraction(share, 10_000))


def test_percentage_of_bytes_is_of_the_dense_file_whatever_the_format() -> None:
    dense = only("bytes(net, format = dense) ≤ 100%").dense
    assert dense is not None
    assert dense > 4 * (ALL + 410)
    assert [upper(f"bytes(net, format = {f}) ≤ 10%") for f in ("best", "bitmask", "csr")] == [dense // 10] * 3


def test_param_of_kind_percentage_and_a_formula_of_it() -> None:
    head = HEAD + "param κ = 5%\nlet half = κ / 2\n"
    plan = plan_of(head + "subject to\n‖net.weights‖₀ ≤ κ\nsolve auto\n")
    assert plan.problem.constraints[0].set == Interval(None, 13_310)
    assert codes(head + "subject to\n‖net.weights‖₀ ≤ half\nsolve auto\n") == ["P211"]


def test_moving_bound_holds_its_final_value() -> None:
    c = only("‖net.weights‖₀ ≤ ramp(100%, 5%, 0, 0.7, shape = cubic)")
    assert c.set == Interval(None, 13_310)
    assert evaluate(c.schedule, {"p": 0.0}) == ALL
    assert evaluate(c.schedule, {"p": 1.0}) == pytest.approx(13_310)
    stepped = constrained("‖net.weights‖₀ ≤ 1000 - 100 * k", solve="solve lc(steps = 5)\n").problem.constraints[0]
    assert stepped.set == Interval(None, 600)


# ── functions ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_resources_as_weighted_counts() -> None:
    biases = 300 + 100 + 10
    assert count("nonzeros(net) ≤ 5%") == Count("nonzeros", KERNELS, biases, "")
    assert count('nonzeros(net["fc2", "fc3"]) ≤ 5%') == Count("nonzeros", {"fc2.weight": 1, "fc3.weight": 1}, 110, "")
    assert count("sparse_flops(net) ≤ 5%").coefficients == dict.fromkeys(KERNELS, 2)
    assert isinstance(only("bytes(net) ≤ 5%").function, Choice)
    assert count("bytes(net, format = bitmask) ≤ 5%").coefficients == dict.fromkeys(KERNELS, 4)
    macs = only("macs(net) ≤ 100%").function
    costs = tuple((f"fc{i}.weight", 1) for i in (1, 2, 3))
    owned = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "fc3.weight")
    assert macs == Structural("macs", ("fc1", "fc2", "fc3"), ALL, "MACs", owned, ("fc1", "fc2"), costs)


def test_convolutions_count_their_positions() -> None:
    head = "model net = lenet_5()\ndata mnist()\nminimize cross_entropy(net)\n"
    plan = constrained("sparse_macs(net) ≤ 50%", head=head)
    function = plan.problem.constraints[0].function
    assert isinstance(function, Count)
    assert function.coefficients == {"conv1.weight": 576, "conv2.weight": 64, "fc1.weight": 1, "fc2.weight": 1}
    assert plan.problem.constraints[0].dense == 2_293_000


def test_tensors_that_the_spec_prunes_by_name_count_by_position() -> None:
    plan = constrained("nonzeros(net) ≤ 50%\n‖net.biases‖₀ ≤ 50%")
    function = plan.problem.constraints[0].function
    assert isinstance(function, Count)
    assert function.constant == 0
    assert set(function.coefficients) == {*KERNELS, "fc1.bias", "fc2.bias", "fc3.bias"}


def test_frozen_tensors_are_constants_of_counts() -> None:
    plan = constrained("‖net.weights‖₀ ≤ 95%\nbytes(net) ≤ 100%", head=HEAD + 'freeze net["fc1"]\n')
    first, second = (c.function for c in plan.problem.constraints)
    assert first == Count("norm0", {"fc2.weight": 1, "fc3.weight": 1}, FC1, "")
    assert isinstance(second, Choice)
    assert set(second.alternatives) == {"fc2.weight", "fc3.weight"}
    assert plan.problem.frozen == {"fc1.weight", "fc1.bias"}


def test_sums_of_counts_are_one_count() -> None:
    assert count("Σ_{l ∈ net.layers} ‖l.weights‖₀ ≤ 100").coefficients == KERNELS
    weighted = count("sum(2 * norm0(l.weights) for l in net.layers) + nonzeros(net) ≤ 5000")
    assert weighted == Count("sum", dict.fromkeys(KERNELS, 3), 410, "")
    assert count('‖net.weights‖₀ - ‖net["fc1"].weights‖₀ ≤ 100').coefficients == {"fc2.weight": 1, "fc3.weight": 1}


def test_fractional_coefficients_scale_both_sides() -> None:
    c = only('0.5 * ‖net["fc1"].weights‖₀ + ‖net["fc2"].weights‖₀ / 3 ≤ 10')
    assert isinstance(c.function, Count)
    assert (c.function.coefficients, c.set) == ({"fc1.weight": 3, "fc2.weight": 2}, Interval(None, 60))


def test_both_sides_may_hold_functions() -> None:
    c = only('‖net["fc1"].weights‖₀ + 3 ≤ 10 - ‖net["fc2"].weights‖₀')
    assert isinstance(c.function, Count)
    assert (c.function.coefficients, c.set) == ({"fc1.weight": 1, "fc2.weight": 1}, Interval(None, 7))
    flipped = only('10 - ‖net["fc1"].weights‖₀ ≥ ‖net["fc2"].weights‖₀')
    assert (flipped.function, flipped.set) == (c.function, Interval(None, 10)) or flipped.set == Interval(None, 10)


def test_a_side_that_mixes_counts_and_file_sizes_is_affine() -> None:
    c = only('bytes(net["fc1"]) + bytes(net["fc2"]) ≤ 100 KB')
    assert isinstance(c.function, Affine)
    assert c.set == Interval(None, 100_000)


def test_norms_penalties_and_matrix_functions() -> None:
    names = tuple(KERNELS)
    assert only("‖net.weights‖₂² ≤ 1").function == VectorNorm("norm2", names, 2)
    assert only("norm2(net.weights)^2 ≤ 1").function == VectorNorm("norm2", names, 2)
    assert only("‖net.weights‖∞ ≤ 1").function == VectorNorm("norminf", names)
    assert only("group_norm1(net.weights, by = row) ≤ 1").function == VectorNorm(
        "group_norm1", names, options=(("by", "row"),)
    )
    assert only("group_norm0(net.weights, row) ≤ 1").function == GroupCount("group_norm0", names, "row")
    assert only('nuclear(net["fc1"].weights) ≤ 1').function == MatrixFunction("nuclear", "fc1.weight")
    moved = only('‖net["fc1"].weights - start(net["fc1"].weights)‖₂ ≤ 1').function
    assert moved == VectorNorm("norm2", ("fc1.weight",), options=(("from", "start"),))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("net.weights ∈ dense", Kept()),
        ("net.weights ∈ n_of_m(2, 4)", NofM(2, 4)),
        ("net.weights ∈ blocks(4, 2)", Blocks(4, 2)),
        ("net.weights ∈ codebook(4)", Named("codebook", (("k", 4),))),
        ("net.weights ∈ {1, -1, 0}", Named("values", (("values", (Fraction(-1), Fraction(0), Fraction(1))),))),
        ("net.weights ∈ box(-0.5, 0.5)", Named("box", (("lo", Fraction(-1, 2)), ("hi", Fraction(1, 2))))),
        ('net["fc1"].weights ∈ low_rank(10)', Named("low_rank", (("r", 10),))),
        (
            'net["fc1"].weights ∈ sparse(1%) + low_rank(4)',
            Named("sum", parts=(Named("sparse", (("n", 2352),)), Named("low_rank", (("r", 4),)))),
        ),
    ],
)
def test_sets(line: str, expected: object) -> None:
    c = only(line)
    assert isinstance(c.function, Entries)
    assert c.set == expected


def test_measured_functions_and_their_default_splits() -> None:
    plan = plan_of(HEAD + "subject to\naccuracy(net) ≥ 90%\nsolve lc()\nreport accuracy(net), error(net, on = train)\n")
    assert plan.problem.objective.terms[0].function.split == "train"  # type: ignore[union-attr]
    assert plan.problem.constraints[0].function.split == "validation"  # type: ignore[union-attr]
    assert not plan.problem.constraints[0].structural
    assert [r.function.split for r in plan.report] == ["test", "train"]  # type: ignore[union-attr]
    assert plan.data.reads_validation


@pytest.mark.parametrize(
    ("line", "expected", "asked"),
    [
        ("accuracy(net) ≥ base - 0.5 pp", Relative("≥", Fraction(1), Fraction(-1, 200)), "≥ base - 0.5 pp"),
        ("base - 1 pp ≤ accuracy(net)", Relative("≥", Fraction(1), Fraction(-1, 100)), "≥ base - 1 pp"),
        ("accuracy(net) ≥ 99.5% * base", Relative("≥", Fraction(199, 200), Fraction(0)), "≥ 0.995 * base"),
        ("cross_entropy(net) ≤ 1.05 * base", Relative("≤", Fraction(21, 20), Fraction(0)), "≤ 1.05 * base"),
        ("2 * cross_entropy(net) + 1 ≤ 3 * base", Relative("≤", Fraction(3), Fraction(1)), "≤ 3 * base"),
        ("‖net.weights‖₁ ≤ base / 2", Relative("≤", Fraction(1, 2), Fraction(0)), "≤ 0.5 * base"),
    ],
)
def test_base(line: str, expected: Relative, asked: str) -> None:
    c = only(line)
    assert (c.set, c.asked) == (expected, asked)


def test_registered_losses_take_their_own_options() -> None:
    plan = plan_of(HEAD.replace("cross_entropy(net)", "focal(net, gamma = 3)") + "solve auto\n")
    assert plan.problem.objective.terms[0].function == Measured("focal", "train", (("gamma", 3.0),))
    assert codes(HEAD.replace("cross_entropy(net)", "focal(net, gama = 3)") + "solve auto\n") == ["P542"]


# ── selectors ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("net.weights", ["fc1", "fc2", "fc3"]),
        ('net["fc?"].weights', ["fc1", "fc2", "fc3"]),
        ('net["fc3", "fc1"].weights', ["fc1", "fc3"]),
        ('net.weights except net["fc2"]', ["fc1", "fc3"]),
        ('net.weights except net["fc2"].weights', ["fc1", "fc3"]),
        ('net["fc1"].weights | net["fc2"].weights', ["fc1", "fc2"]),
        ('(net["fc1"] | net["fc3"]).weights', ["fc1", "fc3"]),
        ('(net.layers except net["fc1"]).weights', ["fc2", "fc3"]),
        ("net.params except net.biases", ["fc1", "fc2", "fc3"]),
    ],
)
def test_selectors(selector: str, names: list[str]) -> None:
    assert list(count(f"‖{selector}‖₀ ≤ 10").coefficients) == [f"{n}.weight" for n in names]


def test_tied_tensors_count_once_for_storage_and_once_per_use_for_operations() -> None:
    head = "model net = tied()\ndata mnist()\nminimize cross_entropy(net)\n"
    lines = """‖net.weights‖₀ ≤ 50%
    sparse_macs(net) ≤ 50%
    macs(net["b"]) ≤ 100%
    params(net) ≤ 100%
    ‖net["b"].weights‖₀ ≤ 40"""
    stored, operations, second, params, alone = (c.function for c in constrained(lines, head=head).problem.constraints)
    assert stored == Count("norm0", {"a.weight": 1}, 0, "")
    assert operations == Count("sparse_macs", {"a.weight": 4}, 100, "MACs")  # both products of the attention stay
    assert second == Structural("macs", ("b",), 3 * 64, "MACs")
    assert params == Structural("params", ("a", "b"), 64 + 8 + 8, "")
    assert alone == stored


def test_forall_makes_one_constraint_a_layer() -> None:
    plan = constrained("layer: ∀ l ∈ net.layers: ‖l.weights‖₀ ≤ 10%")
    assert [c.label for c in plan.problem.constraints] == ["layer[fc1]", "layer[fc2]", "layer[fc3]"]
    assert [c.set for c in plan.problem.constraints] == [Interval(None, n // 10) for n in (FC1, FC2, FC3)]


def test_nested_forall_and_unlabelled_instances() -> None:
    plan = constrained('∀ l ∈ net["fc1", "fc2"]: ∀ m ∈ net["fc3"]: nonzeros(l) + nonzeros(m) ≤ 10%')
    assert [c.label for c in plan.problem.constraints] == [
        "nonzeros(l) + nonzeros(m)[fc1, fc3]",
        "nonzeros(l) + nonzeros(m)[fc2, fc3]",
    ]


def test_unlabelled_constraints_are_named_by_their_left_side_and_stay_apart() -> None:
    plan = constrained("‖net.weights‖₀ ≤ 5%\n1% ≤ ‖net.weights‖₀\nnorm0(net.weights) ≤ 4%")
    names = [c.label for c in plan.problem.constraints]
    assert names[:2] == ["‖net.weights‖₀", "‖net.weights‖₀ (2)"]
    assert len(set(names)) == 3


# ── objective and stages ─────────────────────────────────────────────────────────────────────────────────────────


def test_objective_terms_and_moving_penalties() -> None:
    head = HEAD.replace("cross_entropy(net)", "2 * cross_entropy(net) + 1e-4 * p * ‖net.weights‖₁ + 50% * mse(net)")
    terms = plan_of(head + "solve lc()\n").problem.objective.terms
    assert terms[0].weight == 2
    assert evaluate(terms[1].weight, {"p": 0.5}) == pytest.approx(5e-5)
    assert terms[2].weight == Fraction(1, 2)
    losses = plan_of(head + "solve lc()\n").stages[0].losses
    assert [t.function.name for t in losses] == ["cross_entropy", "mse"]


@pytest.mark.parametrize(
    ("objective", "line", "loss"),
    [
        ("minimize ‖net.weights‖₀", "cross_entropy(net) ≤ 0.1", "cross_entropy"),
        ("minimize ‖net.weights‖₀", "mse(net, on = validation) ≤ 0.1", "mse"),
        ("minimize bytes(net)", "accuracy(net) ≥ base - 1 pp", "cross_entropy"),
        ("maximize accuracy(net)", "‖net.weights‖₀ ≤ 5%", "cross_entropy"),
        ("minimize description_length(net)", "‖net.weights‖₀ ≤ 5%", "nll"),
        ("minimize mse(net) + bytes(net) * 1e-9", "accuracy(net) ≥ 1%", "mse"),
    ],
)
def test_what_a_stage_descends_on(objective: str, line: str, loss: str) -> None:
    head = HEAD.replace("minimize cross_entropy(net)", objective)
    stage = constrained(line, head=head, solve="solve lc()\n").stages[0]
    (term,) = stage.losses
    assert isinstance(term.function, Measured)
    assert (term.weight, term.function.name, term.function.split) == (1, loss, "train")


def test_minimizing_overrides() -> None:
    plan = constrained("‖net.weights‖₀ ≤ 5%", solve="solve lc()\nfinetune minimizing 3 * mse(net)\n")
    assert [(t.weight, t.function.name) for t in plan.stages[1].losses] == [(3, "mse")]


def test_defaults_of_stages() -> None:
    plan = constrained("‖net.weights‖₀ ≤ 5%", solve="pretrain\nsolve lc()\nfinetune for 30 steps\n")
    assert all(s.optimizer == Adam() for s in plan.stages)
    assert [(s.duration.value, s.duration.unit) for s in plan.stages] == [
        (constant(20), "epochs"),
        (constant(5), "epochs"),
        (constant(30), "steps"),
    ]


def test_durations_may_follow_k() -> None:
    plan = constrained("‖net.weights‖₀ ≤ 5%", solve="solve lc() for ramp(40, 20, 0, 1) epochs\n")
    duration = plan.stages[0].duration
    assert (evaluate(duration.value, {"p": 0.0}), evaluate(duration.value, {"p": 1.0})) == (40, 20)
    named = constrained("‖net.weights‖₀ ≤ 5%", head=HEAD + "let E = 20 epochs\n", solve="solve lc() for E\n")
    assert named.stages[0].duration.value == constant(20)


def test_auto_takes_the_first_solver_that_takes_everything_and_says_why() -> None:
    solver = constrained("‖net.weights‖₀ ≤ 5%").stages[0]
    assert solver.solver is not None
    assert solver.solver.word == "lc"
    assert "takes the one constraint" in solver.because
    hard = constrained("entropy(net.weights) ≤ 3").stages[0]
    assert "no solver takes the whole problem" in hard.because


def test_until() -> None:
    solve = "solve lc()\nfinetune until saturated(window = 20 epochs, on = train)\n"
    until = constrained("‖net.weights‖₀ ≤ 5%", solve=solve).stages[1].until
    assert until is not None
    assert (until.name, dict(until.arguments), until.split) == ("saturated", {"window": 20}, "train")


def test_teachers_are_frozen_networks_of_distill() -> None:
    head = HEAD.replace("cross_entropy(net)", "distill(net, teacher, T = 2)")
    head += 'model teacher = lenet_300_100() from "teacher.safetensors" frozen\n'
    plan = constrained("‖net.weights‖₀ ≤ 5%", head=head)
    assert [(t.name, t.weights) for t in plan.teachers] == [("teacher", "teacher.safetensors")]
    function = plan.problem.objective.terms[0].function
    assert function == Measured("distill", "train", (("teacher", "teacher"), ("T", 2)), "nats")


# ── params ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_overrides_of_params() -> None:
    text = HEAD + "param κ = 5% in [1%, 50%]\nsubject to\n‖net.weights‖₀ ≤ κ\nsolve auto\n"
    assert plan_of(text, κ="2%").problem.constraints[0].set == Interval(None, 5_324)
    assert plan_of(text, kappa="2%").parameters == {"kappa": "2%"}
    (error,) = findings(text, {"κ": "0.05"})
    assert error.code == "P221"
    assert error.fixit is not None
    assert error.fixit.text == "5%"
    assert codes(text, {"κ": "60%"}) == ["P222"]
    assert codes(text, {"λ": "60%"}) == ["P220"]
    assert codes(text, {"κ": "5%\nlet x = 3"}) == ["P221"]


# ── recovery, fix-its, proofs ────────────────────────────────────────────────────────────────────────────────────


def test_one_wrong_name_is_one_error() -> None:
    text = """let a = nowhere
let b = a + 1
subject to
    ‖net.weights‖₀ ≤ b
    ∀ l ∈ net.layers: ‖l.weights‖₀ ≤ a
solve auto
"""
    assert codes(HEAD + text) == ["P201"]


def test_a_network_that_cannot_be_built_silences_what_speaks_of_it() -> None:
    head = HEAD.replace("lenet_300_100", "unbuildable")
    assert codes(head + "subject to\n    ‖net.weights‖₀ ≤ 5%\nsolve lcc()\n") == ["P543", "P401"]


FIXABLE = [
    ("flops(net) ≤ 30 kMACs", "flops(net) ≤ 60 kFLOPs"),
    ("macs(net) ≤ 300k", "macs(net) ≤ 300 kMACs"),
    ("bytes(net) ≤ 100k", "bytes(net) ≤ 100 KB"),
    ("accuracy(net) ≥ 95", "accuracy(net) ≥ 95%"),
    ("‖net.weights‖₀ ≤ 1000.5", "‖net.weights‖₀ ≤ 1000"),
    ("‖net‖₀ ≤ 5%", "‖net.weights‖₀ ≤ 5%"),
    ("net.weights ≤ 5%", "‖net.weights‖₀ ≤ 5%"),
    ("net.weights ∈ 5%", "net.weights ∈ sparse(5%)"),
    ("net.weights ∈ n_of_m(4, 2)", "net.weights ∈ n_of_m(2, 4)"),
    ('‖net["fc1"]‖₁ ≤ 5', '‖net["fc1"].weights‖₁ ≤ 5'),
    ("‖net.weights‖₁ ≤ 50%", "‖net.weights‖₁ ≤ 0.5 * base"),
    ("rank(net.weights) ≤ 10", "∀ l ∈ net.layers: rank(l.weights) ≤ 10"),
    ('net["fc1", "fc2"].weights ∈ low_rank(3)', '∀ l ∈ net["fc1", "fc2"]: l.weights ∈ low_rank(3)'),
]


@pytest.mark.parametrize(("wrong", "right"), FIXABLE)
def test_fix_its_mend_the_line(wrong: str, right: str) -> None:
    before, after = f"{HEAD}subject to\n    ", "\nsolve auto\n"
    text = before + wrong + after
    (error,) = (d for d in findings(text) if d.severity == "error")
    assert error.fixit is not None
    span = error.fixit.span
    mended = text[: span.start] + error.fixit.text + text[span.end :]
    assert mended == before + right + after
    assert codes(mended) == []


def test_infeasible_budgets_are_proved() -> None:
    text = HEAD + 'subject to\n‖net.weights‖₀ ≤ 5%\nnet["fc1"].weights ∈ dense\nsolve auto\n'
    assert codes(text) == ["P310"]


# ── the registry ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [*FUNCTIONS, *SETS, *TESTS])
def test_every_example_in_the_registry_is_accepted(name: str) -> None:
    signature = FUNCTIONS.get(name) or SETS.get(name) or TESTS[name]
    example = signature.example
    assert name in example or signature.sign
    head = HEAD.replace("lenet_300_100()", "spiking()") if name in ("synops", "spikes", "energy") else HEAD
    head += 'model teacher = lenet_300_100() from "t.safetensors" frozen\n'
    if example.startswith("minimize"):
        text = head.replace("minimize cross_entropy(net)", example) + "solve lc()\n"
    elif example.startswith(("report", "finetune")):
        text = f"{head}solve lc()\n{example}\n"
    elif example.startswith("sgd"):
        text = f"{head}pretrain with {example}\nsolve lc()\n"
    else:
        text = f"{head}subject to\n{example}\nsolve lc()\n"
    assert codes(text) == []
