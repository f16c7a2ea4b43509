"""The moves of a game against known saddle points, primal and dual; levels under budgets against the LP behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from prunelang.compiler.graph import Resource
from prunelang.compiler.solvers.gda import GAIN
from prunelang.runtime import saddle
from prunelang.runtime.game import Entries, Game, Rates
from prunelang.runtime.saddle import ORDERS, Field, Move, Order, Rule, step_

cvxpy = pytest.importorskip("cvxpy", reason="the independent solver is CVXPY")


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def play(field: Field, rule: Rule, s: Tensor, y: Tensor, z: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    past = (torch.zeros_like(y), torch.zeros_like(z))
    for _ in range(steps):
        step_(s, y, z, field, rule, past)
    return s, y, z


# ── convex programs ──────────────────────────────────────────────────────────────────────────────────────────────


class Program:
    """``min ½ sᵀQs + cᵀs`` subject to ``As ≤ a`` (multiplier y), ``Bs ≤ b`` (multiplier z) and bounds on s."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        root = random.normal(size=(4, 4))
        self.q, self.c = root @ root.T / 4 + np.eye(4), random.normal(size=4) - 1.5
        self.a, self.b = random.uniform(0.2, 1.0, (2, 4)), random.uniform(0.2, 1.0, (1, 4))
        self.upper_a, self.upper_b = np.array([0.4, 50.0]), np.array([0.3])  # one binds, one does not, one may
        self.high = 1.0

    def solved(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        s = cvxpy.Variable(4)
        limits = [self.a @ s <= self.upper_a, self.b @ s <= self.upper_b, s >= 0, s <= self.high]
        cvxpy.Problem(cvxpy.Minimize(cvxpy.quad_form(s, cvxpy.psd_wrap(self.q)) / 2 + self.c @ s), limits).solve()
        return s.value, limits[0].dual_value, limits[1].dual_value

    def field(self) -> Field:
        q, c, a, b = (torch.from_numpy(x) for x in (self.q, self.c, self.a, self.b))
        upper_a, upper_b = torch.from_numpy(self.upper_a), torch.from_numpy(self.upper_b)
        return Field(
            s=lambda s, y, z: q @ s + c + y @ a + z @ b,
            y=lambda s, y, z: a @ s - upper_a,
            z=lambda s, y, z: b @ s - upper_b,
        )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_quadratic_program_is_solved_with_its_multipliers(order: Order, mirror: bool, seed: int) -> None:
    program = Program(seed)
    dual = Move(0.1, 1e-9 if mirror else 0.0, mirror=mirror)
    rule = Rule(Move(0.1, 0.0, program.high), dual, dual, order, nu=0.5, kappa=2.0)
    found = play(program.field(), rule, vector(0, 0, 0, 0), vector(1, 1), vector(1), 4000)
    for ours, theirs in zip(found, program.solved(), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-4)


# ── a game that turns around its saddle ──────────────────────────────────────────────────────────────────────────


def bilinear(regular: float) -> Field:
    """``Φ = (s − 1)(z − 2) + regular/2 ((s − 1)² − (z − 2)²)``, whose saddle is (1, 2)."""
    return Field(
        s=lambda s, y, z: (z - 2) + regular * (s - 1),
        y=lambda s, y, z: torch.zeros_like(y),
        z=lambda s, y, z: (s - 1) - regular * (z - 2),
    )


def distances(order: Order, regular: float, kappa: float = 1.0) -> list[float]:
    s, y, z = vector(1.5), vector(0), vector(2)
    still, moves = Move(0.0), Move(0.1, -100.0)
    rule, past = Rule(moves, still, Move(0.1), order, kappa=kappa), (torch.zeros(1).double(), torch.zeros(1).double())
    found = []
    for _ in range(1500):
        step_(s, y, z, bilinear(regular), rule, past)
        found.append(math.hypot(float(s) - 1, float(z) - 2))
    return found


def test_simultaneous_steps_move_away_from_a_bilinear_saddle() -> None:
    apart = distances("simultaneous", 0.0)
    assert all(b > a for a, b in pairwise(apart[:200]))  # by √(1 + η²) a step
    assert apart[199] == pytest.approx(0.5 * (1 + 0.1**2) ** 100, rel=1e-6)
    assert min(apart) > 0.5


@pytest.mark.parametrize(("order", "kappa"), [("extragradient", 0.0), ("alternating", 0.0), ("nupi", 10.0)])
def test_looking_ahead_finds_it(order: Order, kappa: float) -> None:
    assert distances(order, 0.0, kappa)[-1] < 1e-3


def test_regular_games_are_found_by_all_and_sooner_by_looking_ahead() -> None:
    weak = 0.06  # simultaneous steps of 0.1 need a curvature above 0.05
    last = {order: distances(order, weak)[400] for order in ORDERS}
    assert all(distances(order, weak)[-1] < 0.2 for order in ORDERS)
    assert last["extragradient"] < 0.05 * last["simultaneous"]


def test_nupi_is_what_its_paper_says() -> None:
    """``ξ_t = ν ξ_{t−1} + (1 − ν) e_t`` and ``θ_{t+1} = θ_t + κ_i e_t + κ_p (ξ_t − ξ_{t−1})``, with κ_p = η κ."""
    errors, nu, eta, kappa = [1.0, -0.5, 0.25, 2.0], 0.3, 0.2, 4.0
    xi, theta, expected = 0.0, 5.0, []
    for e in errors:
        new = nu * xi + (1 - nu) * e
        theta, xi = theta + eta * e + eta * kappa * (new - xi), new
        expected.append(theta)
    given = iter(errors)
    zero = lambda s, y, z: torch.zeros_like(s)  # noqa: E731
    field = Field(s=zero, y=lambda s, y, z: vector(next(given)), z=lambda s, y, z: torch.zeros_like(z))
    rule = Rule(Move(1.0), Move(eta), Move(1.0), "nupi", nu, kappa)
    s, y, z, past, found = vector(0), vector(5), vector(0), (vector(0), vector(0)), []
    for _ in errors:
        step_(s, y, z, field, rule, past)
        found.append(float(y))
    assert found == pytest.approx(expected)
    with pytest.raises(ValueError, match="past"):
        step_(s, y, z, field, rule)


def test_nupi_without_its_proportional_part_is_simultaneous() -> None:
    assert distances("nupi", 0.0, 0.0) == pytest.approx(distances("simultaneous", 0.0))


# ── moves ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_counter_loses_no_step_among_thirty_million() -> None:
    move = Move(0.25, 0.0, 3.6e7)
    s, narrow = vector(3e7), torch.tensor([3e7])
    for _ in range(1000):
        move.apply_(s, vector(1))
        move.apply_(narrow, torch.ones(1))
    assert float(s) == 3e7 + 250
    assert float(narrow) == 3e7  # what single precision makes of it


def test_bounds_are_kept_and_mirror_steps_are_relative() -> None:
    x = vector(1.0, 1e-6)
    Move(0.5, 1e-9, 2.0, mirror=True).apply_(x, vector(1.0, -2.0))
    torch.testing.assert_close(x, vector(math.exp(0.5), 1e-6 * math.exp(-1.0)))
    Move(0.5, vector(0.5, 1e-6), 1.5, mirror=True).apply_(x, vector(9.0, -9.0))
    torch.testing.assert_close(x, vector(1.5, 1e-6))
    Move(vector(1.0, 2.0), 0.0).apply_(x, vector(3.0, 3.0), -1.0)
    torch.testing.assert_close(x, vector(0.0, 0.0))


def test_numbers_without_a_unit() -> None:
    torch.testing.assert_close(saddle.balance(vector(3, 0, 0, 1), vector(1, 0, 2, 1)), vector(0.5, 0, -1, 0))
    x, low, high = vector(0.5, 1, 2, 6, 0), vector(1, 1, 1, 1, 0), vector(2, 2, 2, 2, 0)
    torch.testing.assert_close(saddle.beyond(x, low, high), vector(-1 / 3, 0, 0, 0.5, 0))
    torch.testing.assert_close(saddle.saturated(vector(0, 1, -3), 1.0), vector(0, 0.5, -0.75))
    assert [saddle.course(p, 0.5) for p in (0.0, 0.25, 0.5, 1.0)] == [1.0, 0.125, 0.0, 0.0]


# ── how fast a threshold passes by items ─────────────────────────────────────────────────────────────────────────


def tails(values: Tensor, s: float, pace: float = 1e-4) -> float:
    energies = values.double().square().sort().values
    c, n = math.ceil(s), len(values)
    sums = (energies[c], energies[:c].sum(), energies.sum())
    return float(saddle.spread(vector(s), vector(n), *(x.view(1) for x in sums), pace, 1e-3))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("draw", [torch.randn, lambda n: torch.randn(n).exp(), lambda n: torch.rand(n) + 0.5])
def test_the_tails_tell_the_density(draw: Callable[[int], Tensor], share: float) -> None:
    torch.manual_seed(0)
    values = draw(200_000)
    s = share * len(values)
    near = values.double().square().log().sort().values
    width = near[int(s) + 1000] - near[int(s) - 1000]
    measured = float(2000 / width / len(values))
    assert measured / 4 < tails(values, s) < 4 * measured + 0.01


def test_a_gap_and_no_items_at_all_leave_a_pace() -> None:
    values = torch.cat([torch.full((900,), 1e-4), torch.ones(100)])
    assert 1e-3 < tails(values, 900, pace=0.01) < 3e-3  # 0.01 of what stays, and one item
    for s in (0.0, 450.0, 999.0):
        assert 0.0 < tails(torch.zeros(1000), s) < 0.6


# ── levels under budgets: the linear program behind the game ─────────────────────────────────────────────────────

SIZES, COSTS = (800, 500, 300), (1, 4, 9)


def resources(bounds: Sequence[float]) -> list[Resource]:
    """Of entries, of multiply-adds, and of the first level; each at a share of its dense cost."""
    rows = [(1, 1, 1), COSTS, (1, 0, 0)]
    found = []
    for name, (row, share) in zip(("count", "macs", "first"), zip(rows, bounds, strict=False), strict=False):
        dense = sum(c * n for c, n in zip(row, SIZES, strict=True))
        terms = tuple((c, (i,)) for i, c in enumerate(row) if c)
        found.append(Resource(name, name, terms, bound=int(share * dense), dense=dense))
    return found


class Still:
    """A game on weights that do not move."""

    def __init__(
        self, bounds: Sequence[float], order: Order = "alternating", steps: int = 600, scale: float = 1
    ) -> None:
        random = torch.Generator().manual_seed(4)
        drawn = (torch.randn(n, generator=random, dtype=torch.float64) for n in SIZES)
        self.weights = [w * a * scale for w, a in zip(drawn, (0.05, 0.1, 0.2), strict=True)]
        self.resources, zeros = resources(bounds), torch.zeros
        s, y, z = zeros(3).double(), zeros(3).double(), zeros(len(self.resources)).double()
        selection, past = [zeros(3).double() for _ in range(4)], (torch.zeros_like(y), torch.zeros_like(z))
        levels = [Entries([w]) for w in self.weights]
        self.game = Game(levels, [[w] for w in self.weights], [0, 0, 0], s, y, z, selection, past)
        self.game.enter(torch.optim.SGD(self.weights, lr=0.1, momentum=0.9))
        self.game.start(self.resources, [True] * len(self.resources), 0.05)
        gain = GAIN[order] / len(self.resources)
        least = min(r.bound / r.dense for r in self.resources)
        rates = Rates(0.5, 4 / (0.8 * steps), 0.1 * least, 0.0, 1e-3, 0.05, 0.05, gain, 0.8, order)
        self.courses: list[list[float]] = []
        self.prices: list[list[float]] = []
        for t in range(steps):
            self.game.select()
            self.game.play(rates, (t + 1) / steps)
            kept = self.kept()
            self.courses.append([r.value(kept) for r in self.resources])
            self.prices.append(self.game.z.tolist())

    def kept(self) -> list[int]:
        return [n - math.ceil(s) for n, s in zip(SIZES, self.game.s.tolist(), strict=True)]

    def importance(self) -> list[np.ndarray]:
        """What the items of each level cost the Lagrangian: φ y w², ascending."""
        factors = (self.game.scales() * self.game.y).tolist()
        return [np.sort((w.square() * f).numpy()) for w, f in zip(self.weights, factors, strict=True)]

    def program(self) -> tuple[float, np.ndarray]:
        """min Σ importance removed s.t. the budgets over their dense costs, by CVXPY: its value and its multipliers."""
        gone = [cvxpy.Variable(n, bounds=[0, 1]) for n in SIZES]
        limits = []
        for r in self.resources:
            spent = sum(c * (SIZES[i] - cvxpy.sum(gone[i])) for c, (i,) in r.terms)
            limits.append(spent / r.dense <= r.bound / r.dense)
        removed = sum(e @ x for e, x in zip(self.importance(), gone, strict=True))
        problem = cvxpy.Problem(cvxpy.Minimize(removed), limits)
        problem.solve(solver=cvxpy.HIGHS if "HIGHS" in cvxpy.installed_solvers() else None)
        return float(problem.value), np.array([float(x.dual_value) for x in limits])

    def removed(self) -> float:
        return sum(float(e[: n - k].sum()) for e, n, k in zip(self.importance(), SIZES, self.kept(), strict=True))


@pytest.mark.parametrize("bounds", [(0.5,), (0.1,), (0.02,), (0.1, 0.05), (0.1, 0.5), (0.3, 0.2, 0.05)])
def test_levels_and_prices_are_those_of_the_linear_program(bounds: tuple[float, ...]) -> None:
    still = Still(bounds)
    value, duals = still.program()
    assert still.removed() == pytest.approx(value, rel=0.02)
    most = duals.max()
    for ours, theirs in zip(still.prices[-1], duals, strict=True):
        assert ours == pytest.approx(theirs, rel=0.1, abs=0.02 * most)


@pytest.mark.parametrize("bounds", [(0.5,), (0.05,), (0.1, 0.05), (0.3, 0.2, 0.05), (0.0,), (0.1, 0.0)])
@pytest.mark.parametrize("steps", [200, 2000])
def test_budgets_are_met_at_reach_without_overshoot(bounds: tuple[float, ...], steps: int) -> None:
    still = Still(bounds, steps=steps)
    after = np.array(still.courses[int(0.82 * steps) :])
    most = np.array([r.bound for r in still.resources])
    grain = 2 * max(COSTS) + 3 * sum(COSTS) * (min(bounds) == 0.0)  # an item or two; and each level keeps one at least
    assert (after.max(0) - most <= 0.02 * most + grain).all()
    assert ((most - after.min(0)) / np.maximum(most, 1)).min() <= 0.02 + grain / max(most.max(), 1)
    assert np.isfinite(still.prices).all()


def test_costs_come_down_on_the_course() -> None:
    still = Still((0.1,), steps=1000)
    (r,) = still.resources
    first = sum(SIZES) - sum(int(0.05 * (n - 1)) for n in SIZES)
    for t in (200, 400, 600):
        allowed = r.bound + (first - r.bound) * (1 - (t + 1) / 800) ** 3
        assert still.courses[t][0] == pytest.approx(allowed, rel=0.01, abs=3)


def test_multipliers_are_bounded_by_what_levels_answer_to() -> None:
    still = Still((0.1, 0.05))
    top = max(float(e[-1]) for e in still.importance())
    slope = np.array([max(c for c, _ in r.terms) / r.dense for r in still.resources])
    least = np.array([min(c for c, _ in r.terms) / r.dense for r in still.resources])
    assert (np.array(still.prices) <= 4.5 * top / least).all()
    assert (np.array(still.prices) * slope > 0).all()


def test_the_scale_of_all_weights_changes_nothing() -> None:
    one, other = Still((0.1, 0.05)), Still((0.1, 0.05), scale=1024)
    assert one.kept() == other.kept()
    np.testing.assert_allclose(np.array(one.prices) * 1024**2, other.prices, rtol=1e-6)


@pytest.mark.parametrize("order", ORDERS[1:])
def test_every_order_comes_near_the_budget(order: Order) -> None:
    still = Still((0.1,), order, steps=2000)
    assert still.courses[-1][0] == pytest.approx(still.resources[0].bound, rel=0.05)
