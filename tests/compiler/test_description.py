"""Description length: the penalty form that solvers descend on, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import log2

import pytest

from prunelang.compiler.description import (
    alpha,
    bits_per_weight,
    coefficient,
    explained,
    penalised,
    penalty_form,
    predictions_of,
)
from prunelang.compiler.graph import Prox, walk
from prunelang.compiler.lowering import lower
from prunelang.compiler.problem import Count, Measured
from prunelang.compiler.runnability import runnability
from tests.compiler.checking import HEAD, plan_of

KERNELS = ("fc1.weight", "fc2.weight", "fc3.weight")
DESCRIBED = HEAD.replace("cross_entropy", "description_length")


@pytest.mark.parametrize("density", [Fraction(1, 2), Fraction(1, 20), Fraction(1, 100)])
def test_bits_of_a_weight_are_those_of_its_value_and_of_its_place(density: Fraction) -> None:
    n, z = 10**6, int(10**6 * density)
    entropy = z * log2(n / z) + (n - z) * log2(n / (n - z))
    assert bits_per_weight(density) == pytest.approx(8 + entropy / z, rel=1e-12)
    assert bits_per_weight() == pytest.approx(13.7279, abs=1e-4)


def test_the_penalty_form_is_nll_and_a_count() -> None:
    plan = plan_of(
        DESCRIBED.replace("description_length(net)", "3 * description_length(net)") + "solve lc(steps = 3)\n"
    )
    assert coefficient(plan.problem) == 3
    nll, count = penalty_form(plan.problem, plan.table, 60_000).objective.terms
    assert nll.function == Measured("nll", "train", (), "bits")
    assert (nll.weight, nll.text) == (1, "nll(net)")
    assert count.function == Count("norm0", dict.fromkeys(KERNELS, 1), 0, "")
    assert float(count.weight) == pytest.approx(3 * bits_per_weight() / 60_000, rel=1e-12)  # type: ignore[arg-type]
    assert alpha(plan.problem, 1) == 60_000 * alpha(plan.problem, 60_000)


@pytest.mark.parametrize("text", [HEAD, HEAD.replace("cross_entropy(net)", "nll(net) + 0.1 * ‖net.weights‖₀")])
def test_other_objectives_stay_as_they_are(text: str) -> None:
    plan = plan_of(text + "subject to net.biases ∈ dense\nsolve lc(steps = 3)\n")
    assert penalty_form(plan.problem, plan.table) is plan.problem
    assert not list(explained(plan))


def test_a_tensor_under_a_constraint_has_its_count_from_there() -> None:
    some = plan_of(f'{DESCRIBED}subject to ‖net["fc1"].weights‖₀ ≤ 5%\nsolve lc(steps = 3)\n')
    assert penalised(some.problem, some.table) == KERNELS[1:]
    assert not runnability(some)
    every = plan_of(f"{DESCRIBED}subject to ‖net.weights‖₀ ≤ 5%\nsolve lc(steps = 3)\n")
    (only,) = penalty_form(every.problem, every.table, 100).objective.terms
    assert only.function.name == "nll"
    assert "constraints decide" in "".join(explained(every))
    assert not runnability(every)


def test_the_graph_holds_the_coefficient_for_the_data_at_hand() -> None:
    plan = plan_of(DESCRIBED + "solve lc(steps = 3) with sgd(lr = 0.1)\n")
    graph = lower(plan, train_size=1000)
    (prox,) = [s for s in walk(graph.program) if isinstance(s, Prox)]
    assert float(str(prox.weight)) == pytest.approx(bits_per_weight() / 1000, rel=1e-9)
    assert set(prox.tensors) == set(KERNELS)


def test_a_sequence_has_a_prediction_at_every_position() -> None:
    plan = plan_of(DESCRIBED + "solve lc(steps = 2)\n")
    assert predictions_of(plan) == 1
    table = replace(plan.table, input_shape=(32,))
    assert predictions_of(replace(plan, data=replace(plan.data, constructor="text"), table=table)) == 32


def test_explain_states_the_bits() -> None:
    first, second = explained(plan_of(DESCRIBED + "solve lc(steps = 2)\n"))
    assert "α = 13.73 bits a weight / predictions of train" in first
    assert "5.73 a position at ρ = 0.05" in second


@pytest.mark.parametrize(
    ("objective", "lines", "codes"),
    [
        ("minimize description_length(net)", "", set()),
        ("minimize description_length(net) + nll(net)", "", {"P458"}),
        ("maximize description_length(net)", "", {"P458"}),
        ("minimize description_length(net) * (1 + p)", "", {"P458"}),
        ("minimize nll(net)", "bytes(net, format = coded) ≤ 9 KB", {"P457"}),
        ("minimize nll(net)", "bytes(net, format = coded) ≤ 9 KB\n    ‖net.weights‖₀ ≤ 2%", set()),
        ("minimize nll(net) + 1e-4 * ‖net.weights‖₀", "bytes(net, format = coded) ≤ 9 KB", set()),
        ("minimize description_length(net)", "bytes(net, format = coded) ≤ 9 KB", set()),
        ("minimize nll(net)", "description_length(net) ≤ 9 KB\n    ‖net.weights‖₀ ≤ 2%", set()),
    ],
)
def test_what_is_refused(objective: str, lines: str, codes: set[str]) -> None:
    below = f"subject to\n    {lines}\n" if lines else ""
    text = HEAD.replace("minimize cross_entropy(net)", objective) + below + "solve lc(steps = 2)\n"
    assert {d.code for d in runnability(plan_of(text))} == codes
