"""The minimax under budgets: residuals and prices, whole solves, and the graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prunelang import compile
from prunelang.compiler.graph import (
    Batches,
    Confine,
    Graph,
    InvalidGraph,
    Items,
    Multipliers,
    Phase,
    Resource,
    Saddle,
    Select,
    Shrink,
    Sparsity,
    Step,
    from_json,
    listing,
    to_json,
    verify,
    walk,
)
from prunelang.compiler.lowering import lower
from prunelang.runtime.budgets import Budgets
from prunelang.runtime.machine import Event, Machine
from tests.runtime.solving import Ran, quadratic, solve

# ── budgets ──────────────────────────────────────────────────────────────────────────────────────────────────────

BUDGETS = (
    Resource("count", "norm0", ((1, (0,)), (1, (2,))), (), 0, 40, 120),
    Resource("macs", "macs", ((7, (0, 1)), (3, (1, 2)), (2, (1,)), (5, ())), (), 11, 900, 5000),
    Resource("bytes", "bytes", (), ((2, (("csr", 6, 10), ("bitmask", 4, 90), ("dense", 0, 200))),), 50, 100, 250),
)


@pytest.mark.parametrize("k", [(10, 20, 30), (1, 1, 1), (50, 3, 45), (40, 40, 2)])
def test_residuals_and_prices_are_those_of_the_exact_functions(k: tuple[int, ...]) -> None:
    budgets = Budgets(BUDGETS, 3, torch.device("cpu"))
    at = torch.tensor(k, dtype=torch.float64)
    expected = [(r.value(k) - r.bound) / r.dense for r in BUDGETS]
    assert budgets.residual(at).tolist() == pytest.approx(expected)
    slopes = budgets.derivative(at)
    for i in range(3):
        more = tuple(x + (j == i) for j, x in enumerate(k))
        for r, slope in zip(BUDGETS, slopes[:, i].tolist(), strict=True):
            assert slope == pytest.approx((r.value(more) - r.value(k)) / r.dense)
    z = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert budgets.price(z, at).tolist() == pytest.approx((z @ slopes).tolist())


# ── whole solves ─────────────────────────────────────────────────────────────────────────────────────────────────

A = torch.tensor([[3.0, -0.5, 1.5, 0.2], [-0.8, 2.5, -0.1, 1.0], [0.6, -2.0, 0.3, -1.25]])
LONG = "with sgd(lr = 0.05, momentum = 0.5) for 400 steps"


def quadratic_run(folder: Path, solver: str, constraints: str = "", penalty: str = "") -> Ran:
    """½‖W − A‖² from W = A: whatever is removed costs half its square."""
    text = f"{quadratic(folder, A, A)}{penalty}\n"
    text += f"subject to\n {constraints}\n" if constraints else ""
    text += f"solve {solver} {LONG}\n"
    return solve(text.replace('from "start', f'from "{folder}/start'), folder)


@pytest.mark.parametrize("options", ["", "hard = true", "granularity = global"])
def test_under_a_count_the_largest_stay(tmp_path: Path, options: str) -> None:
    ran = quadratic_run(tmp_path, f"gda({options})", "‖net.weights‖₀ ≤ 5")
    w, kept = ran.w(), A.abs() >= 1.25
    assert torch.equal(w != 0, kept)
    assert torch.allclose(w[kept], A[kept].double(), atol=0.01)
    assert ran.machine.values["s"][0].item() == pytest.approx(7, abs=0.25)


@pytest.mark.parametrize("order", ["simultaneous", "extragradient", "nupi"])
def test_every_order_ends_at_the_same_support(tmp_path: Path, order: str) -> None:
    ran = quadratic_run(tmp_path, f"gda(update = {order})", "‖net.weights‖₀ ≤ 5")
    assert torch.equal(ran.w() != 0, A.abs() >= 1.25)


def test_the_penalty_form_keeps_what_is_worth_its_price(tmp_path: Path) -> None:
    """Keeping w costs α, removing it w²/2."""
    alpha = 0.4
    ran = quadratic_run(tmp_path, "gda()", penalty=f" + {alpha}·‖net.weights‖₀")
    worth, w = A.square() / 2, ran.w()
    assert bool((w[worth > 4 * alpha] != 0).all())
    assert bool((w[worth < alpha / 4] == 0).all())
    assert torch.allclose(w[worth > 4 * alpha], A[worth > 4 * alpha].double(), atol=0.05)
    assert int((w == 0).sum()) >= 5


def test_the_sequential_mode_projects_first_and_trains_on_the_support(tmp_path: Path) -> None:
    seen: list[Tensor] = []
    text = f"{quadratic(tmp_path, A.flip(0), A)}\nsubject to\n ‖net.weights‖₀ ≤ 5\n"
    text += f"solve gda(mode = sequential) {LONG}\n"
    text = text.replace('from "start', f'from "{tmp_path}/start')

    def note(machine: Machine, event: Event) -> None:
        seen.append(machine.tensors["fc1.weight"].detach().clone())

    ran = solve(text, tmp_path, observe=note)
    kept = A.abs() >= 1.25
    assert all(bool((w[~kept] == 0).all()) for w in seen[1:])
    assert torch.allclose(ran.w()[kept], A.flip(0)[kept].double(), atol=1e-3), "the targets of another support"


DIGITS = """model net = mlp([64, 32, 10])
data digits(batch = 64)
minimize cross_entropy(net)
subject to
 {constraints}
pretrain with sgd(lr = 0.1, momentum = 0.9) for 3 epochs
solve gda({options}) with {optimizer} for 10 epochs
"""
SGD = "sgd(lr = 0.1, momentum = 0.9)"


def digits(constraints: str, options: str = "", optimizer: str = SGD, **more: object) -> Ran:
    return solve(DIGITS.format(constraints=constraints, options=options, optimizer=optimizer), dtype="float32", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("optimizer", [SGD, "adam(lr = 3e-3)"])
def test_the_levels_arrive_and_next_to_nothing_is_left_to_cut(optimizer: str) -> None:
    ran = digits("sparsity: ‖net.weights‖₀ ≤ 10%", optimizer=optimizer)
    end = ran.stages("stage")[-1]
    assert 0.9 * 236 <= 2368 - sum(end["levels"]["s"]) <= 1.1 * 236
    assert end["cuts"]["sparsity"] < 0.1
    assert end["loss"] < 0.6
    duals = [e["levels"] for e in ran.stages("epoch") if e["stage"] == "solve"]
    assert all("s" not in e["levels"] for e in ran.stages("epoch") if e["stage"] != "solve"), "nothing is played there"
    assert all(0 < v < 1e6 for d in duals for v in (*d["y"], *d["z"].values()))
    assert set(duals[0]["z"]) == {"sparsity"}


def test_each_budget_has_its_multiplier_and_each_layer_its_level() -> None:
    bounds = "a: ‖net.weights‖₀ ≤ 20%\n b: bytes(net, format = csr) ≤ 2 KB\n c: sparse_macs(net) ≤ 90%"
    ran = digits(bounds, "granularity = layer")
    end = ran.stages("stage")[-1]
    assert len(end["levels"]["s"]) == 2
    assert set(end["levels"]["z"]) == {"a", "b", "c"}
    assert all(x["value"] <= x["bound"] for x in end["constraints"])


def test_budgets_of_each_layer_are_met_by_their_own_levels() -> None:
    ran = digits("∀ l ∈ net.layers: ‖l.weights‖₀ ≤ 10%")
    s = ran.stages("stage")[-1]["levels"]["s"]
    for gone, n in zip(s, (2048, 320), strict=True):
        assert 0.8 * n / 10 <= n - gone <= 1.2 * n / 10


def test_a_lower_bound_caps_the_level_and_a_pinned_tensor_has_none() -> None:
    ran = digits('‖net.weights‖₀ ≤ 250\n ‖net["fc2"].weights‖₀ ≥ 200')
    levels = ran.machine.nodes["s"]
    assert isinstance(levels, Sparsity)
    assert [(x.tensors, x.least) for x in levels.items] == [(("fc1.weight",), 0), (("fc2.weight",), 200)]
    assert ran.machine.values["s"][0][1] <= 120
    pinned = digits('‖net.weights‖₀ ≤ 30%\n net["fc2"].weights ∈ dense')
    levels = pinned.machine.nodes["s"]
    assert isinstance(levels, Sparsity)
    assert [x.tensors for x in levels.items] == [("fc1.weight",)]


def test_frozen_tensors_have_no_level_and_cost_what_they_cost_in_full() -> None:
    text = DIGITS.format(constraints="‖net.weights‖₀ ≤ 30%", options="", optimizer=SGD)
    ran = solve(text.replace("minimize", 'freeze net["fc2"].weights\nminimize'), dtype="float32")
    (s,) = ran.machine.values["s"][0].tolist()
    assert 2048 - s == pytest.approx(710 - 320, rel=0.05)


def test_without_a_budget_of_items_the_end_of_the_stage_projects() -> None:
    ran = digits('net["fc1"].weights ∈ n_of_m(2, 4)')
    assert not [s for s in walk(ran.machine.graph.program) if isinstance(s, Saddle)]
    cells = (ran.w().view(32, 16, 4) != 0).sum(2)
    assert int(cells.max()) <= 2


# ── the graph ────────────────────────────────────────────────────────────────────────────────────────────────────


def graph_of(constraints: str = "sparsity: ‖net.weights‖₀ ≤ 5%", options: str = "", more: str = "") -> Graph:
    text = DIGITS.format(constraints=constraints, options=options, optimizer=SGD)
    text = text.replace("10 epochs", f"10 epochs{more}")
    return lower(compile(text).plan, train_size=60_000)


def test_the_listing_reads_as_the_algorithm() -> None:
    graph = graph_of()
    text = listing(graph)
    at = 0
    for line in (
        "level   s_l of W: fc1.weight [0, 2 048], fc2.weight [0, 320]",
        "dual    y like s ≥ 0",
        "dual    z ≥ 0: sparsity ≤ 118 of 2 368",
        "descend W, rest: cross_entropy(net)  by O_solve; guard",
        "select I: the ⌈s⌉ smallest of W², τ′ = W²₍⌈s⌉₊₁₎, Σ = ‖W‖²_{⌈s⌉,2}",
        "prox W: η y‖·‖² on I, η of O_solve",
        "in turn:",
        "W ← Π{‖net.weights‖₀ ≤ 118}(W)",
        "finish W",
    ):
        assert text.find(line, at) >= at, line
        at = text.find(line, at)
    for line in ("descend s: φ y τ′ + Σ z ∂R/∂s / D", "ascend y: Σ/(1 + 2ηy)²/‖·‖²", "ascend z: (R(n − s) − B(p))/D"):
        assert line in text
    assert from_json(to_json(graph)) == graph


def test_each_tensor_has_a_level_or_all_of_them_one() -> None:
    def tensors(constraints: str, options: str = "") -> list[tuple[str, ...]]:
        node = graph_of(constraints, options).node("s")
        assert isinstance(node, Sparsity)
        return [x.tensors for x in node.items]

    both, apart = [("fc1.weight", "fc2.weight")], [("fc1.weight",), ("fc2.weight",)]
    assert tensors("‖net.weights‖₀ ≤ 5%") == apart
    assert tensors("‖net.weights‖₀ ≤ 5%", "granularity = global") == both
    assert tensors("sparse_macs(net) ≤ 5%", "granularity = global") == both
    assert tensors("‖net.weights‖₀ ≤ 5%", "granularity = layer") == apart
    assert tensors('‖net["fc1"].weights‖₀ ≤ 3%') == [("fc1.weight",)]


def edited(step: Step, change: Callable[[tuple[Step, ...]], tuple[Step, ...]]) -> Step:
    """The step with the bodies of its batch loops changed."""
    if isinstance(step, Batches):
        return replace(step, body=change(step.body))
    return replace(step, body=tuple(edited(x, change) for x in step.body)) if isinstance(step, Phase) else step


def broken(change: Callable[[Step], Step]) -> Graph:
    graph = graph_of()
    return replace(graph, program=tuple(edited(x, lambda body: tuple(map(change, body))) for x in graph.program))


def late(body: tuple[Step, ...]) -> tuple[Step, ...]:
    """Selections after everything else."""
    return tuple(sorted(body, key=lambda x: isinstance(x, Select)))


def test_what_does_not_belong_together_is_refused() -> None:
    whole = graph_of()
    cases: list[tuple[str, Graph]] = [
        ("which was not selected in this step", replace(whole, program=tuple(edited(x, late) for x in whole.program))),
        ("different levels", broken(lambda x: replace(x, dual="W") if isinstance(x, Shrink) else x)),
        ("remembers 0 of y and z", broken(lambda x: replace(x, order="nupi") if isinstance(x, Saddle) else x)),
    ]
    levels, costs = whole.node("s"), whole.node("z")
    assert isinstance(levels, Sparsity)
    assert isinstance(costs, Multipliers)
    for text, node in (
        ("which is not in `W`", replace(levels, items=(Items("a", ("fc9.weight",), 5),))),
        ("keeps 7 of 5 items", replace(levels, items=(Items("a", ("fc1.weight",), 5, 7),))),
        ("a level that `s` does not have", replace(costs, resources=(BUDGETS[1],))),
        ("has 2 weights for 1 costs", replace(costs, weights=(None, None))),
    ):
        cases.append((text, replace(whole, state=tuple(node if x.name == node.name else x for x in whole.state))))
    for text, graph in cases:
        with pytest.raises(InvalidGraph, match=text):
            verify(graph)


def test_until_counts_from_where_the_budgets_have_arrived() -> None:
    graph = graph_of(more=" until saturated(window = 4 epochs)")
    loop = next(s for s in walk(graph.program) if isinstance(s, Batches) and s.until)
    assert loop.until is not None
    assert loop.until.since == 0.8


def test_hard_projects_instead_of_shrinking() -> None:
    kinds = [type(s) for s in walk(graph_of(options="hard = true").program)]
    assert Confine in kinds
    assert Shrink not in kinds
