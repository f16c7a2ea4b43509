"""Solvers on tensors that are made of factors: where they end, what a descent on factors does, what failures leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from prunelang.compiler.forms import Codebook, Composition, Fixed, Form, LowRank, Sparse, TensorTrain
from prunelang.compiler.graph import Factors
from prunelang.runtime.cores import Cores, numbers, require_made
from prunelang.runtime.descent import Descent
from prunelang.runtime.execute import run
from prunelang.runtime.machine import Event, Interrupted, Machine, NumericalFailure
from prunelang.runtime.prox.compositions import Composer, compose
from tests.runtime.solving import Ran, prepare, quadratic, solve

HEAD = "model net = mlp([64, 16, 10])\ndata digits(batch = 256)\nminimize cross_entropy(net)\nsubject to\n"
SGD = "sgd(lr = 0.1, momentum = 0.9)"


def spec(lines: str, call: str = "lc(steps = 2)", epochs: int = 1) -> str:
    return (
        f"{HEAD} {lines}\npretrain with {SGD} for 1 epochs\nsolve {call} with {SGD} for {epochs} epochs\n"
        f"finetune with sgd(lr = 0.05, momentum = 0.9) for 2 epochs\n"
    )


def compositions(m: Machine) -> tuple[Composition, ...]:
    return next(s.compositions for s in m.graph.state if isinstance(s, Factors))


def made(m: Machine) -> dict[str, Tensor]:
    """Δ(factors) in float64, rounded once to the type of the network."""
    found = {t: v for c in compositions(m) for t, v in compose(c, m.factors, torch.float64).items()}
    return {t: v.detach().to(m.tensors[t].dtype) for t, v in found.items()}


def stands(m: Machine) -> bool:
    """Whether the network is what its factors make."""
    return m.composed and all(torch.equal(m.tensors[t].detach(), v) for t, v in made(m).items())


# ── where solvers end ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def a() -> Tensor:
    return torch.randn(6, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64).float().double()


def truncated(a: Tensor, r: int) -> Tensor:
    u, s, v = torch.linalg.svd(a, full_matrices=False)
    return (u[:, :r] * s[:r]) @ v[:r]


@pytest.mark.parametrize("word", ["lc(μ = 4 * 2^k, steps = 3)", "admm(ρ = 8, steps = 3)"])
@pytest.mark.parametrize(
    ("lines", "rank"),
    [
        ("net.weights ∈ low_rank(2)", 2),
        ('rank(net["fc1"].weights) ≤ 3', 3),
        ("net.weights ∈ low_rank()\n macs(net) ≤ 45 MACs", 3),  # 3 (6 + 8) = 42
        ("net.weights ∈ low_rank()\n macs(net) ≤ 20 MACs", 1),
    ],
)
def test_a_matrix_of_low_rank_is_that_of_eckart_and_young(
    tmp_path: Path, a: Tensor, word: str, lines: str, rank: int
) -> None:
    """min ½‖W − A‖² over rank r is reached from W = A: every step keeps the singular vectors of A."""
    text = f"{quadratic(tmp_path, a)}\nsubject to\n {lines}\npretrain with sgd(lr = 1) for 1 epochs\n"
    ran = solve(text + f"solve {word} with sgd(lr = 0.05) for 3 epochs\n", tmp_path)
    assert torch.allclose(ran.w(), truncated(a, rank), atol=1e-10)
    assert ran.machine.factors["fc1.weight:0.U"].shape == (6, rank)
    assert stands(ran.machine)


@pytest.mark.parametrize("call", ["factors()", "factors(start = random)"])
def test_descent_on_the_factors_reaches_the_same(tmp_path: Path, a: Tensor, call: str) -> None:
    text = (
        f"{quadratic(tmp_path, a)}\nsubject to\n net.weights ∈ low_rank(2)\npretrain with sgd(lr = 0.7) for 1 epochs\n"
    )
    ran = solve(text + f"solve {call} with sgd(lr = 0.05) for 1500 steps\n", tmp_path)
    assert torch.allclose(ran.w(), truncated(a, 2), atol=1e-6)


@pytest.mark.parametrize(("mu", "rank"), [("1e-6", 1), ("1e6", 3)])
def test_a_price_weighs_less_the_closer_the_weights_must_be(tmp_path: Path, a: Tensor, mu: str, rank: int) -> None:
    """``α c(r) + μ/2 ‖W − Δ‖²``: the least rank at a small μ, the one that breaks even, ⌊48/14⌋, at a large one."""
    text = quadratic(tmp_path, a).replace("* mse(net)", "* mse(net) + 0.02 * macs(net)")
    solved = f"solve lc(μ = {mu}, steps = 1) with sgd(lr = 1e-9) for 1 epochs\n"
    ran = solve(
        f"{text}\nsubject to\n net.weights ∈ low_rank()\npretrain with sgd(lr = 1) for 1 epochs\n{solved}", tmp_path
    )
    assert ran.machine.factors["fc1.weight:0.U"].shape == (6, rank)
    assert torch.allclose(ran.w(), truncated(a, rank), atol=1e-2)


@pytest.mark.parametrize(
    ("lines", "allowed"),
    [
        ("net.weights ∈ codebook(3)", lambda w: len(torch.cat([x.flatten() for x in w]).unique()) <= 3),
        ("net.weights ∈ {-0.5, 0, 0.5}", lambda w: all(set(x.unique().tolist()) <= {-0.5, 0.0, 0.5} for x in w)),
        ("∀ l ∈ net.layers: l.weights ∈ scaled({-1, 1})", lambda w: all(len(x.abs().unique()) == 1 for x in w)),
        (
            "∀ l ∈ net.layers: nuclear(l.weights) ≤ 2",
            lambda w: all(float(torch.linalg.svdvals(x.double()).sum()) <= 2 + 1e-5 for x in w),
        ),
        ("∀ l ∈ net.layers: l.weights ∈ low_rank(2)", lambda w: all(int(torch.linalg.matrix_rank(x)) <= 2 for x in w)),
        ("net.weights ∈ box(-0.1, 0.2)", lambda w: all(bool(((x >= -0.1) & (x <= 0.2)).all()) for x in w)),
    ],
)
@pytest.mark.parametrize("word", ["lc(steps = 2)", "admm(steps = 2)"])
def test_every_set_holds_at_the_end_of_every_epoch_of_finetune(word: str, lines: str, allowed: Any) -> None:
    seen: list[bool] = []
    changed: list[Tensor] = []

    def note(m: Machine, event: Event) -> None:
        if event["event"] == "epoch" and event["stage"] == "finetune":
            seen.append(bool(allowed([m.tensors["fc1.weight"].detach(), m.tensors["fc2.weight"].detach()])))
            changed.append(m.tensors["fc1.bias"].detach().clone())

    solve(spec(lines, word), dtype="float32", observe=note)
    assert seen == [True, True]
    assert not torch.equal(*changed)


def test_finetune_keeps_codes_and_moves_centres() -> None:
    boundary: list[tuple[dict[str, Tensor], bool]] = []

    def note(m: Machine, event: Event) -> None:
        if event["event"] in ("epoch", "stage") and m.factors:
            boundary.append(({n: t.detach().clone() for n, t in m.factors.items()}, stands(m)))

    ran = solve(spec("net.weights ∈ codebook(4)"), dtype="float32", observe=note)
    *_, solved, first, last = (f for f, whole in boundary if whole)
    for codes in ("fc1.weight:0.codes", "fc2.weight:0.codes"):
        assert torch.equal(solved[codes], last[codes])
    assert not torch.equal(solved["fc1.weight:0.centres"], first["fc1.weight:0.centres"])
    assert not torch.equal(first["fc1.weight:0.centres"], last["fc1.weight:0.centres"])
    assert len(torch.cat([ran.w().flatten(), ran.w("fc2.weight").flatten()]).unique()) == 4


def test_a_sum_keeps_its_positions_and_fixed_values_stay() -> None:
    lines = ' net["fc1"].weights ∈ low_rank(2) + sparse(1%)\n net["fc2"].weights ∈ {-0.2, 0, 0.2}'
    solved: dict[str, Tensor] = {}

    def note(m: Machine, event: Event) -> None:
        if event["event"] == "stage" and event["stage"] == "solve":
            solved.update({n: t.detach().clone() for n, t in m.factors.items()})

    ran = solve(spec(lines, "factors()"), dtype="float32", observe=note)
    end = ran.machine.factors
    assert stands(ran.machine)
    assert ran.machine.factors["fc1.weight:1.indices"].numel() == 10
    kept = {n for n in end if torch.equal(end[n], solved[n])}
    assert kept == {"fc1.weight:1.indices", "fc2.weight:0.codes"}


# ── gradients ────────────────────────────────────────────────────────────────────────────────────────────────────

TRAIN = TensorTrain(((2, 4), (3, 2)), (3,))
FORMS: list[tuple[Form, ...]] = [
    (LowRank(2),),
    (TRAIN,),
    (Sparse(9),),
    (LowRank(1), Sparse(5)),
    (TRAIN, LowRank(1)),
    (Codebook(3),),
    (Fixed((-1.0, 0.0, 2.0), True),),
    (Codebook(2), Sparse(4)),
]


@pytest.mark.parametrize("forms", FORMS, ids=lambda forms: " + ".join(type(f).__name__ for f in forms))
def test_gradients_of_factors_are_those_of_the_composed_network(forms: tuple[Form, ...]) -> None:
    """Those of a centre and of a scale are divided by how far the weights move with them, squared."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(20, 8, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    c = Composition(("0.weight",), forms, ((6, 8),))
    weights = dict(model.named_parameters())
    factors = Composer([c]).project_({"0.weight": weights["0.weight"]}).factors

    free = {n: f.clone().requires_grad_() for n, f in factors.items() if f.is_floating_point()}
    composed = compose(c, factors | free)
    expected = (functional_call(model, composed, (x,)) - y).square().sum()
    wanted = dict(zip(free, torch.autograd.grad(expected, list(free.values())), strict=True))
    for n in free:
        if n.endswith(".centres"):
            codes = factors[n.replace("centres", "codes")].flatten().long()
            wanted[n] = wanted[n] / torch.bincount(codes, minlength=len(factors[n]))
        elif n.endswith(".scale"):
            values = torch.tensor(forms[0].values, dtype=torch.float64)  # type: ignore[union-attr]
            wanted[n] = wanted[n] / values[factors["0.weight:0.codes"].long()].square().sum()

    trained = numbers(factors)
    cores = Cores((c,), factors, weights)
    assert torch.allclose(weights["0.weight"], composed["0.weight"], atol=1e-14)
    loss = (model(x) - y).square().sum()
    loss.backward()
    cores.hand_over_()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert len(trained) == len(wanted)
    for n, g in wanted.items():
        found = factors[n].grad
        assert found is not None, n
        assert torch.allclose(found, g, rtol=1e-9, atol=1e-12), n


def test_a_step_of_a_centre_is_the_projected_step_of_its_weights() -> None:
    """W − lr·∇W, projected onto the same codes, has the centres that a step of the centres gives."""
    torch.manual_seed(1)
    w = nn.Parameter(torch.randn(6, 8, dtype=torch.float64))
    c = Composition(("w",), (Codebook(3),), ((6, 8),))
    factors = Composer([c]).project_({"w": w}).factors
    numbers(factors)
    cores = Cores((c,), factors, {"w": w})
    target = torch.randn(6, 8, dtype=torch.float64)
    (w - target).square().sum().backward()
    assert w.grad is not None
    moved, codes = (w - 0.1 * w.grad).detach().flatten(), factors["w:0.codes"].flatten().long()
    cores.hand_over_()
    centres = factors["w:0.centres"]
    assert centres.grad is not None
    stepped = (centres - 0.1 * centres.grad).detach()
    assert torch.allclose(stepped, torch.stack([moved[codes == j].mean() for j in range(3)]))


def test_what_is_not_made_as_asked_is_found() -> None:
    c = Composition(("w",), (LowRank(2),), ((6, 8),))
    w = {"w": torch.randn(6, 8)}
    factors = Composer([Composition(("w",), (LowRank(3),), ((6, 8),))]).project_(w).factors
    with pytest.raises(AssertionError, match="LowRank"):
        require_made((c,), (), factors, w)


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────

FACTORED = {
    "lc": spec('net["fc1"].weights ∈ low_rank(2)\n net["fc2"].weights ∈ codebook(3)'),
    "admm": spec("net.weights ∈ codebook(2) + sparse(1%)", "admm(steps = 2)"),
    "factors": spec('net["fc1"].weights ∈ tt(3)\n net["fc2"].weights ∈ low_rank(2)', "factors()", 2),
}


def boundary_of(m: Machine) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """The network, and its factors where it is made of them."""
    held = {n: t.detach().clone() for n, t in m.factors.items()} if m.composed else None
    return {n: t.detach().clone() for n, t in m.tensors.items()}, held


def same(x: Mapping[str, Tensor], y: Mapping[str, Tensor]) -> bool:
    return x.keys() == y.keys() and all(torch.equal(v, y[n]) for n, v in x.items())


@pytest.mark.parametrize("name", FACTORED)
@pytest.mark.parametrize("after", [2, 3, 4, 5])
def test_an_interruption_leaves_weights_and_factors_of_one_moment(name: str, after: int) -> None:
    seen: list[tuple[dict[str, Tensor], dict[str, Tensor] | None]] = []
    machines: list[Machine] = []

    def note(m: Machine, event: Event) -> None:
        machines[:] = [m]
        if event["event"] == "epoch":
            seen.append(boundary_of(m))

    try:
        solve(FACTORED[name], dtype="float32", observe=note, stop=lambda: len(seen) == after)
    except Interrupted:
        assert len(seen) == after
    weights, factors = seen[-1]
    m = machines[0]
    assert same(dict(m.tensors), weights)
    assert m.composed == (factors is not None)
    if factors is not None:
        assert same(m.factors, factors)
        assert stands(m)
    assert stands(m) or name != "factors"


@pytest.mark.parametrize("name", FACTORED)
def test_a_run_that_blows_up_stops_with_weights_and_factors_of_one_moment(name: str) -> None:
    seen: list[tuple[dict[str, Tensor], dict[str, Tensor] | None]] = []
    machines: list[Machine] = []

    def note(m: Machine, event: Event) -> None:
        machines[:] = [m]
        if event["event"] == "epoch" and all(bool(t.isfinite().all()) for t in m.tensors.values()):
            seen.append(boundary_of(m))

    text = FACTORED[name].replace("finetune with sgd(lr = 0.05", "finetune with sgd(lr = 1e30")
    with pytest.raises(NumericalFailure, match=r"not finite|diverged"):
        solve(text, dtype="float32", observe=note)
    m = machines[0]
    assert all(bool(t.isfinite().all()) for t in (*m.tensors.values(), *m.factors.values()))
    assert stands(m), "finetune began with a composed network"


class Poisoned:
    """Batches with NaN inputs at one position of the first epoch, or without that batch."""

    def __init__(self, feed: Any, at: int, drop: bool) -> None:
        self.feed, self.at, self.drop = feed, at, drop

    def __getattr__(self, name: str) -> Any:
        return getattr(self.feed, name)

    def __len__(self) -> int:
        return len(self.feed)

    def epoch(self, index: int) -> Iterator[tuple[Tensor, Tensor]]:
        for i, (x, y) in enumerate(self.feed.epoch(index)):
            if i != self.at:
                yield x, y
            elif not self.drop:
                yield torch.full_like(x, float("nan")), y


@pytest.mark.parametrize("optimizer", ["sgd(lr = 0.1, momentum = 0.9)", "adamw()"])
@pytest.mark.parametrize(
    "lines", ["net.weights ∈ codebook(4)", 'net["fc1"].weights ∈ tt(3)\n net["fc2"].weights ∈ low_rank(2)']
)
def test_a_poisoned_batch_leaves_no_trace_in_the_factors(
    monkeypatch: pytest.MonkeyPatch, optimizer: str, lines: str
) -> None:
    text = f"{HEAD} {lines}\nsolve factors() with {optimizer} for 1 epochs\n"
    histories: list[list[Tensor]] = []
    original = Descent.step

    def flat(m: Machine) -> Tensor:
        held = [t for t in m.factors.values() if t.is_floating_point()]
        return torch.cat([t.detach().flatten().clone() for t in (*held, *m.tensors.values())])

    def record(self: Descent, x: Tensor, y: Tensor, p_after: float) -> None:
        histories[-1].append(flat(self.m))
        original(self, x, y, p_after)

    monkeypatch.setattr(Descent, "step", record)
    for drop in (False, True):
        session = prepare(text, Path(), dtype="float32")
        session.feed = Poisoned(session.feed, 1, drop)  # type: ignore[assignment]
        machine = session.machine(lambda event: None, lambda: False)
        histories.append([])
        if drop:
            run(machine)
            continue
        start = {n: t.detach().clone() for n, t in machine.tensors.items()}
        with pytest.raises(NumericalFailure, match="loss is not finite"):
            run(machine)
        assert all(bool(t.isfinite().all()) for t in machine.tensors.values())
        assert stands(machine) or same(dict(machine.tensors), start)
    poisoned, clean = histories
    assert torch.equal(poisoned[2], poisoned[1]), "the poisoned step changes nothing"
    assert torch.equal(poisoned[3], clean[2]), "nor do its moments"
    assert not torch.equal(poisoned[3], poisoned[2])


def test_the_same_bits_twice() -> None:
    runs: list[Ran] = [solve(FACTORED["lc"], dtype="float32") for _ in range(2)]
    assert same(*(dict(r.machine.tensors) for r in runs))
    assert same(*(r.machine.factors for r in runs))
