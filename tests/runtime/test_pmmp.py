"""`pmmp`: its gradients against autograd, its inner minimum, problems whose ℓ0 answer is known, its controller."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prunelang.compiler.graph import (
    Batches,
    Descend,
    Graph,
    InvalidGraph,
    Optimizer,
    SteerGates,
    from_json,
    listing,
    to_json,
    verify,
    walk,
)
from prunelang.compiler.lowering import lower
from prunelang.compiler.runnability import runnability
from prunelang.compiler.schedule import evaluate
from prunelang.runtime.coupling import FALL, LEAST, RISE, clip_, couple_, pressures, ranked, rise_
from tests.compiler.checking import HEAD, plan_of
from tests.runtime.solving import Ran, quadratic, solve

SHAPES = [(3, 4), (5,), (2, 2, 2)]


def variables(layerwise: bool) -> list[list[Tensor]]:
    """θ, w, γ, u at a random point inside their ranges."""
    generator = torch.Generator().manual_seed(0)

    def draw(shape: tuple[int, ...], positive: bool = False) -> Tensor:
        x = torch.rand(shape, generator=generator, dtype=torch.float64)
        return x if positive else 2 * x - 1

    shapes: list[tuple[int, ...]] = [() if layerwise else s for s in SHAPES]
    signed = [[draw(s) for s in SHAPES] for _ in range(2)]
    return [*signed, [draw(s, True) for s in SHAPES], [draw(s, True) for s in shapes]]


def objective(theta: Tensor, w: Tensor, gamma: Tensor, u: Tensor, alpha: float) -> Tensor:
    """αΣγ + Σ u[(θ − wγ)² + w²γ(1 − γ)], as Corollary 2.4 states it."""
    return alpha * gamma.sum() + (u * ((theta - w * gamma) ** 2 + w**2 * gamma * (1 - gamma))).sum()


# ── the gradients ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("layerwise", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_all_gradients_are_those_of_autograd(layerwise: bool, alpha: float) -> None:
    theta, w, gamma, u = variables(layerwise)
    leaves = [[x.clone().requires_grad_() for x in group] for group in (theta, w, gamma, u)]
    terms = [objective(t, v, z, m, alpha) for t, v, z, m in zip(*leaves, strict=True)]
    torch.stack(terms).sum().backward()  # type: ignore[no-untyped-call]
    data = [torch.full_like(x, 0.5) for x in theta]
    grads = [g.clone() for g in data]
    rise_(u, couple_(grads, theta, w, gamma, u, alpha))
    for mine, own, leaf in zip(grads, data, leaves[0], strict=True):
        assert torch.allclose(mine - own, leaf.grad, rtol=1e-13, atol=1e-14)  # type: ignore[arg-type]
    for group, expected, sign in ((w, leaves[1], 1), (gamma, leaves[2], 1), (u, leaves[3], -1)):
        for x, leaf in zip(group, expected, strict=True):
            assert x.grad is not None
            assert leaf.grad is not None
            assert torch.allclose(x.grad, sign * leaf.grad, rtol=1e-13, atol=1e-14)


def test_one_expectation_over_gates_is_the_bracket() -> None:
    """E(θ − wz)² over z ~ Bernoulli(γ), by its two outcomes."""
    theta, w, gamma, _ = variables(False)
    for t, v, z in zip(theta, w, gamma, strict=True):
        expected = z * (t - v) ** 2 + (1 - z) * t**2
        residual = couple_([torch.zeros_like(t)], [t], [v], [z], [torch.ones_like(t)], 0.0)[0]
        assert torch.allclose(residual, expected, rtol=1e-13, atol=1e-15)


def test_the_inner_minimum_is_a_capped_square() -> None:
    """min over w is θ²(1 − γ) at w = θ; then over γ ∈ [0, 1] it is min(uθ², α) at γ = 1[uθ² > α]."""
    grid, w = torch.linspace(0, 1, 101, dtype=torch.float64), torch.linspace(-2, 2, 4001, dtype=torch.float64)
    for theta, u, alpha in itertools.product([-0.9, 0.3, 1.2], [0.1, 0.5, 4.0], [0.05, 0.4]):
        t = torch.tensor(theta, dtype=torch.float64)
        bracket = (t - w[:, None] * grid) ** 2 + w[:, None] ** 2 * grid * (1 - grid)
        least, where = bracket.min(0)
        assert torch.allclose(least, t**2 * (1 - grid), atol=1e-6)
        assert torch.allclose(w[where[1:]], t, atol=1e-3)
        value, best = (u * least + alpha * grid).min(0)
        assert float(value) == pytest.approx(min(u * theta**2, alpha), abs=1e-6)
        assert float(grid[best]) == float(u * theta**2 > alpha)
    theta_, u_ = torch.tensor([-1.2, 0.5]).double(), torch.tensor([4.0, 0.25]).double()
    assert pressures([theta_], [u_])[0].tolist() == pytest.approx([2.4, 0.25])


def test_the_optimistic_ascent_extrapolates_and_remembers() -> None:
    u, past = [torch.zeros(2)], [torch.tensor([1.0, 2.0])]
    rise_(u, [torch.tensor([3.0, 3.0])], past)
    assert u[0].grad is not None
    assert u[0].grad.tolist() == [1.0 - 6.0, 2.0 - 6.0]
    assert past[0].tolist() == [3.0, 3.0]


def test_gates_and_multipliers_stay_in_their_ranges() -> None:
    gates, duals = [torch.tensor([-0.5, 0.5, 1.5])], [torch.tensor([-1.0, 1.0, 9.0])]
    clip_(gates, duals, None)
    assert gates[0].tolist() == [0.0, 0.5, 1.0]
    assert duals[0].tolist() == [0.0, 1.0, 9.0]
    clip_(gates, duals, 2.5)
    assert duals[0].tolist() == [0.0, 1.0, 2.5]


# ── problems with a known answer ─────────────────────────────────────────────────────────────────────────────────


def brute_force(a: Tensor, alpha: float) -> tuple[bool, ...]:
    """The support that minimises ½‖W − A‖² + α‖W‖₀, among all of them."""
    values = a.flatten().tolist()

    def cost(kept: tuple[bool, ...]) -> float:
        return sum(alpha if k else v * v / 2 for k, v in zip(kept, values, strict=True))

    return min(itertools.product((False, True), repeat=len(values)), key=cost)


A = torch.tensor([[1.5, -0.0625, 0.125, -1.0, 0.09375, 2.0, -0.03125, 1.25]], dtype=torch.float64)
LONG = "with adam(lr = 0.02) for 500 steps"


def gates_of(ran: Ran) -> Tensor:
    return torch.cat([g.flatten() for g in ran.machine.values["γ_1"]])


@pytest.mark.parametrize("options", ["", "update = simultaneous", "granularity = layerwise", "cap = 2"])
def test_the_penalty_form_finds_the_best_support(tmp_path: Path, options: str) -> None:
    """No count: the gates end at the brute force's answer, kept weights at A, the others next to 0."""
    alpha = 0.05
    text = f"{quadratic(tmp_path, A)} + {alpha}·‖net.weights‖₀\nsolve pmmp({options}) {LONG}\n"
    ran = solve(text.replace('from "start', f'from "{tmp_path}/start'), tmp_path)
    best = torch.tensor(brute_force(A, alpha))
    assert (gates_of(ran) > 0.5).tolist() == best.tolist()
    w = ran.w().flatten()
    assert torch.allclose(w[best], A.flatten()[best], atol=0.02)
    assert bool((w[~best].abs() < A.flatten()[~best].abs()).all())


@pytest.mark.parametrize("options", ["", "update = simultaneous", "granularity = layerwise"])
def test_a_steered_weight_ends_at_the_count_with_next_to_no_cut(tmp_path: Path, options: str) -> None:
    text = f"{quadratic(tmp_path, A, A)}\nsubject to\n  ‖net.weights‖₀ ≤ 3\nsolve pmmp({options}) {LONG}\n"
    ran = solve(text.replace('from "start', f'from "{tmp_path}/start'), tmp_path)
    w = ran.w().flatten()
    assert (w != 0).tolist() == [abs(v) >= 1.25 for v in A.flatten().tolist()]
    (cut,) = ran.stages("stage")[-1]["cuts"].values()
    assert cut < 0.25


# ── the controller ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_rank_goes_from_all_to_the_count_and_is_pressed_while_the_cut_is_late() -> None:
    def at(p: float, share: float = 1.0, cut: float = 0.5, last: float = 0.5) -> tuple[float, int]:
        return ranked(10_000, 100, share, cut, last, p, 9, 0.5, 0.02)

    assert [at(p)[1] for p in (0.0, 0.25, 0.5)] == [10_000, 1_000, 90]
    assert at(0.3, share=0.6) == (1.0, round(10_000 ** (1 - 0.6) * 100**0.6))
    assert at(0.6, share=0.8, cut=0.01) == (0.8 * RISE, 88), "there already"
    assert at(0.6, share=1.0, cut=0.01) == (1.0, 100)
    assert at(0.6, share=0.8, cut=0.3, last=0.5) == (0.8, 80), "falls fast enough"
    assert at(0.6, share=0.8, cut=0.49, last=0.5) == (0.8 * FALL, 72), "too slowly"
    assert at(0.6, share=LEAST, cut=0.5, last=0.5)[0] == LEAST


# ── the graph ────────────────────────────────────────────────────────────────────────────────────────────────────

SPARSE = "subject to\n  ‖net.weights‖₀ ≤ 5%\n"


def graph_of(text: str) -> Graph:
    return lower(plan_of(text), train_size=60_000)


def test_the_listing_reads_as_the_algorithm() -> None:
    graph = graph_of(f"{HEAD}{SPARSE}solve pmmp(cap = 2) with adam() for 3 epochs\n")
    text = listing(graph)
    for line in (
        "gates   γ of W ∈ [0, 1]",
        "dual    u like W ≥ 0",
        "w ← W",
        "α Σγ + ⟨u, (W − wγ)² + w²γ(1 − γ)⟩",
        "ascend u along 2r − r₋ by O_u; clip γ: [0, 1], u: [0, 2]",
    ):
        assert line in text
    assert from_json(to_json(graph)) == graph
    layers = graph_of(f"{HEAD}{SPARSE}solve pmmp(granularity = layerwise) with adam() for 3 epochs\n")
    assert "dual    u like W ≥ 0, one for each tensor" in listing(layers)


def test_what_moves_a_gate_has_to_hold_it() -> None:
    graph = graph_of(f"{HEAD}{SPARSE}solve pmmp() with adam() for 3 epochs\n")
    state = tuple(replace(s, of=("w",)) if isinstance(s, Optimizer) and s.name == "O_γ" else s for s in graph.state)
    with pytest.raises(InvalidGraph, match="moves `γ`, which `O_γ` does not hold"):
        verify(replace(graph, state=state))


def test_rates_fit_the_length_of_the_stage_unless_given() -> None:
    def rates(options: str) -> list[float]:
        graph = graph_of(f"{HEAD}{SPARSE}solve pmmp({options}) with adam() for 1000 steps\n")
        nodes = [graph.node(n) for n in ("O_γ", "O_u")]
        return [evaluate(n.options["lr"], {}) for n in nodes if isinstance(n, Optimizer)]  # type: ignore[arg-type]

    assert rates("") == [0.004, 0.004]
    assert rates("rate = 0.1, dual_rate = 0.2") == [0.1, 0.2]


def test_a_given_weight_is_not_steered() -> None:
    graph = graph_of(f"{HEAD}{SPARSE}solve pmmp(α = 1e-3 * p) with adam() for 3 epochs\n")
    assert not [s for s in walk(graph.program) if isinstance(s, SteerGates)]
    loop = next(s for s in walk(graph.program) if isinstance(s, Batches))
    head = loop.body[0]
    assert isinstance(head, Descend)
    (coupling,) = head.couplings
    assert evaluate(coupling.weight, {"p": 0.5}) == 5e-4  # type: ignore[arg-type]


def test_budgets_of_each_layer_have_their_own_weights() -> None:
    each = "subject to\n  ∀ l ∈ net.layers: ‖l.weights‖₀ ≤ 5%\n"
    graph = graph_of(f"{HEAD}{each}solve pmmp(reach = 0.3, residue = 0.1) with adam() for 3 epochs\n")
    steers = [s for s in walk(graph.program) if isinstance(s, SteerGates)]
    assert {s.level for s in steers} == {"α_1", "α_2", "α_3"}
    assert {(s.reach, s.residue) for s in steers} == {(0.3, 0.1)}


def test_a_weight_that_is_said_twice_is_refused() -> None:
    text = f"{HEAD.rstrip()} + 1e-3·‖net.weights‖₀\nsolve pmmp(α = 1e-3) with adam() for 3 epochs\n"
    assert "P435" in [d.code for d in runnability(plan_of(text))]
