"""How thresholds rise: every shape against its closed form, and the ℓ1 problem that `explain` says is solved."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest

from prunelang.compiler import implied
from prunelang.compiler.optimizers import Sgd
from prunelang.compiler.options import number
from prunelang.compiler.schedule import Apply, Clock, Ramp, Schedule, constant, evaluate
from prunelang.compiler.thresholds import between, lats, pgh, prefix_sums, s_lats, shape_of, stds_linear, stds_sine

XS = [i / 997 for i in range(998)]
EXACT = 1e-12


def test_s_lats_is_its_formula_and_its_steps_follow_a_cosine() -> None:
    for x in XS:
        assert s_lats(x) == pytest.approx(x + math.sin(math.pi * x) / math.pi, abs=EXACT)
    n = 1000
    for i in range(n):  # mean of 1 + cos πx over the step, in closed form by its midpoint and width
        step = s_lats((i + 1) / n) - s_lats(i / n)
        width = math.sin(math.pi / (2 * n)) / (math.pi / (2 * n))
        assert step * n == pytest.approx(1 + math.cos(math.pi * (i + 0.5) / n) * width, abs=1e-11)


def test_stds_sine_and_linear_are_their_formulas() -> None:
    for x in XS:
        assert stds_sine(x) == pytest.approx((1 + math.sin(math.pi * (x - 0.5))) / 2, abs=EXACT)
        assert stds_linear(x) == x


def published_pgh(x: float, beta: float) -> float:
    """The closed form as the authors' code has it."""
    ell, pi = math.log(beta), math.pi
    power = beta**x
    top = pi**2 * (power - 1) + (power - 2) * ell**2 + power * ell * (ell * math.cos(pi * x) + pi * math.sin(pi * x))
    return top / (pi**2 * (beta - 1) - 2 * ell**2)


@pytest.mark.parametrize("beta", [1e-12, 0.001, 0.1, 0.5, 0.9])
def test_pgh_is_the_published_closed_form(beta: float) -> None:
    for x in XS:
        assert pgh(x, beta) == pytest.approx(published_pgh(x, beta), abs=EXACT)


def test_pgh_at_one_is_s_lats_and_nothing_cancels_on_the_way_there() -> None:
    for x in XS:
        assert pgh(x, 1.0) == pytest.approx(s_lats(x), abs=EXACT)
        assert pgh(x, 1 - 1e-13) == pytest.approx(s_lats(x), abs=EXACT)


def test_pgh_prunes_early() -> None:
    assert pgh(0.25, 0.1) == pytest.approx(0.65, abs=0.005)
    assert pgh(0.25, 0.001) == pytest.approx(0.87, abs=0.005)
    assert pgh(0.01, 1e-300) > 0.99


def published_lats(epoch: int, batch: int, epochs: int, batches: int) -> float:
    """The closed form of d/D under a cosine that falls by epochs, after `batch` steps of `epoch`."""
    e, n = epoch, epochs
    start = (1 + 2 * e + math.sin(math.pi * (e - 0.5) / n) / math.sin(math.pi / (2 * n))) / 2 / (n + 1)
    return start + batch * (1 + math.cos(math.pi * e / n)) / (batches * (n + 1))


@pytest.mark.parametrize(("epochs", "batches"), [(1, 3), (5, 7), (100, 50)])
def test_lats_is_the_published_closed_form_under_a_cosine_by_epochs(epochs: int, batches: int) -> None:
    def rate(epoch: float, step: float, p: float) -> float:
        return 0.256 * (1 + math.cos(math.pi * epoch / epochs)) / 2

    sums = prefix_sums(rate, epochs * batches, batches)
    for e in range(epochs):
        for b in range(batches):
            x = (e * batches + b) / (epochs * batches)
            assert lats(x, sums, 1.0) == pytest.approx(published_lats(e, b, epochs, batches), abs=EXACT)
    assert lats(1.0, sums, 1.0) == 1.0


EPOCH = Clock("epoch")
RATES: dict[str, Schedule] = {
    "constant": constant("0.1"),
    "geometric by epochs": Apply("*", (constant("0.1"), Apply("^", (constant("0.9"), EPOCH)))),
    "warm-up by steps": Ramp(constant("0.001"), constant("0.1"), constant(0), constant(40), "steps"),
    "cosine over the stage": Ramp(constant("0.1"), constant("0.001"), constant(0), constant(1), "p", "cosine"),
}


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("reach", [0.5, 1.0, 0.37])
def test_lats_keeps_the_coefficient_constant_under_any_rate(name: str, reach: float) -> None:
    total, batches = 200, 20
    sums = implied.table(RATES[name], total, batches)
    x = [t / total / reach for t in range(int(total * reach) + 1)]
    ratios = []
    for i, (a, b) in enumerate(pairwise(x)):
        eta = evaluate(RATES[name], {"epoch": float(i // batches), "step": float(i), "p": i / total})
        ratios.append((lats(b, sums, reach) - lats(a, sums, reach)) / eta)
    assert max(ratios) - min(ratios) < 1e-11 * max(ratios)
    assert lats(x[-1], sums, reach) == pytest.approx(1.0, abs=1e-2)
    assert lats(1.0, sums, reach) == 1.0


def test_sums_are_compensated() -> None:
    sums = prefix_sums(lambda epoch, step, p: 0.1, 100_000, 7)
    assert all(s == pytest.approx(0.1 * t, rel=1e-15) for t, s in enumerate(sums))
    assert between(sums, 0.5) == pytest.approx(5000.0, rel=1e-15)


SHAPES: dict[str, Callable[[float], float]] = {
    "s_lats": s_lats,
    "stds_sine": stds_sine,
    "stds_linear": stds_linear,
    "pgh": shape_of("pgh", 1.0, 0.01),
    "lats": shape_of("lats", 0.5, None, [0.0, 3.0, 4.0, 4.5, 9.0]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_runs_from_0_to_1_and_never_falls(name: str) -> None:
    f = SHAPES[name]
    assert f(0.0) == pytest.approx(0.0, abs=EXACT)
    assert f(1.0) == pytest.approx(1.0, abs=EXACT)
    assert (f(-0.5), f(1.5)) == (f(0.0), f(1.0)), "constant outside"
    assert all(b >= a - EXACT for a, b in pairwise(f(x) for x in XS))


# ── what explain says ────────────────────────────────────────────────────────────────────────────────────────────


def sgd(lr: str = "0.1", momentum: str = "0.9", decay: str = "0") -> Sgd:
    return Sgd(lr=number(lr), momentum=number(momentum), weight_decay=number(decay))


def test_the_coefficient_of_lats_is_the_one_asked_for_and_decay_adds_its_part() -> None:
    optimizer = sgd(decay="1e-3")
    sums = implied.table(optimizer.lr, 100, 10)
    end = 0.02 * between(sums, 1.0) / (1 - 0.9)  # μ·Σ η/(1 − β)
    found = list(implied.coefficients(optimizer, sums, shape_of("lats", 1.0, None, sums), 1.0, end))
    assert [c.mu for c in found] == pytest.approx([0.02] * 5, rel=1e-11)
    assert [c.decay for c in found] == pytest.approx([1e-3 * end * t / 100 for t in (0, 25, 50, 75, 99)], rel=1e-11)


def test_the_coefficient_of_s_lats_under_a_cosine_is_nearly_constant() -> None:
    lr = RATES["cosine over the stage"]
    optimizer = Sgd(lr=lr, momentum=number("0"))
    sums = implied.table(lr, 10_000, 100)
    found = [c.mu for c in implied.coefficients(optimizer, sums, s_lats, 1.0, 1.0, (0.0, 0.25, 0.5, 0.75))]
    assert max(found) / min(found) < 1.06, "up to the floor of the rate"


def test_lines_say_the_formula_the_end_and_both_parts() -> None:
    optimizer = sgd(decay="1e-3")
    sums = implied.table(optimizer.lr, 100, 10)
    said = list(implied.lines(optimizer, sums, shape_of("lats", 1.0, None, sums), 1.0, 0.5))
    assert said[0].endswith("μ = (1 − 0.9)·Δd/η")
    assert said[1] == "d rises until p = 1 to D = 0.5"
    assert said[2].startswith("μ = 0.005 (p = 0)")
    assert said[3].startswith("weight decay on θ adds 0.001·d to μ: 0, 0.000125")
    steered = list(implied.lines(sgd(momentum="0"), sums, s_lats, 0.5, None))
    assert "the threshold that leaves the count" in steered[1]
    assert steered[2].startswith("μ = ")
    assert "·D (p = 0)" in steered[2]
    assert len(steered) == 3
