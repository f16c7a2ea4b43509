"""Whole iterations: the value of L against a plain sum, decrease block by block, chunks, stores and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prunelang.runtime.blocks.chunks import Store
from prunelang.runtime.blocks.compressed import Compression, LowRank, Sparse, Train
from prunelang.runtime.blocks.cores import balanced
from prunelang.runtime.blocks.decrease import Penalties, constants, least
from prunelang.runtime.blocks.iteration import ALLOWANCE, Splitting, Step
from prunelang.runtime.blocks.layers import Convolution, Layer, Linear
from tests.runtime.blocks.generic import normal, square

MLP: list[Layer] = [Linear(6, 8), Linear(8, 4), Linear(4, 3)]
CNN: list[Layer] = [
    Convolution((1, 6, 6), 3, (3, 3)),
    Convolution((3, 4, 4), 4, (2, 2), (2, 2)),
    Linear(16, 5),
    Linear(5, 3),
]


def network(layers: list[Layer], seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    return [
        (normal(*x.weight_shape, seed=seed + k) * x.features**-0.5, normal(x.weight_shape[0], seed=40 + seed + k) / 9)
        for k, x in enumerate(layers)
    ]


def data(layers: list[Layer], samples: int = 30) -> tuple[Tensor, Tensor]:
    X = normal(samples, *layers[0].input_shape, seed=70)
    return X, torch.eye(3, dtype=torch.float64)[torch.arange(samples) % 3]


def compressions(layers: list[Layer], kind: str) -> list[Compression]:
    weights = network(layers)
    if kind == "dense":
        return []
    if kind == "sparse":
        zeros = {i: torch.zeros_like(weights[i][0]) for i in range(len(layers) - 1)}
        return [Sparse(20, zeros)]
    if kind == "low rank":
        return [
            LowRank(i, normal(len(W), 2, seed=5), normal(2, W[0].numel(), seed=6)) for i, (W, _) in enumerate(weights)
        ]
    modes = ((2, 4), (2, 2)) if layers is CNN else ((2, 2), (4, 3))
    shapes = [(1, *modes[0], 3), (3, *modes[1], 1)]
    layer = 0 if layers is MLP else 2
    if layers is CNN:
        modes, shapes = ((5, 4), (1, 4)), [(1, 5, 4, 3), (3, 1, 4, 1)]
    return [Train(layer, modes, tuple(balanced([normal(*s, seed=k) for k, s in enumerate(shapes)])))]


def made(layers: list[Layer], kind: str = "dense", samples: int = 30, **options: object) -> Splitting:
    X, Y = data(layers, samples)
    settings = {"dtype": torch.float64, "tolerance": 1e-10, "most": 300} | options
    return Splitting(layers, network(layers), X, Y, compressions(layers, kind), **settings)  # type: ignore[arg-type]


def read(splitting: Splitting, kind: str, i: int) -> Tensor:
    chunks = getattr(splitting, kind)[i]
    return torch.cat([chunks.old(j) for j in range(len(chunks))]).double()


def plain_value(s: Splitting, p: Penalties, layers: list[Layer]) -> float:
    """L term by term, over all samples at once."""
    X, Y = data(layers, s.samples)
    V, total = X, 0.0
    for i, (layer, (W, b)) in enumerate(zip(layers, s.weights, strict=True)):
        U, after = read(s, "U", i), read(s, "V", i)
        activated = U if i == len(layers) - 1 else U.clamp(min=0)
        total += (
            p.gamma[i] / 2 * square(after - activated).item() + p.rho[i] / 2 * square(U - layer.apply(W, b, V)).item()
        )
        V = after
    total = (total + square(V - Y).item() / 2) / s.samples
    total += sum(omega / 2 * square(W).item() for omega, (W, _) in zip(p.omega, s.weights, strict=True))
    return total + sum(p.tau[i] / 2 * square(s.weights[i][0] - T).item() for i, T in s.targets().items())


KINDS = ["dense", "train", "low rank", "sparse"]


@pytest.mark.parametrize("layers", [MLP, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("kind", KINDS)
def test_value_and_decrease(layers: list[Layer], kind: str) -> None:
    """Every iteration falls by more than its blocks promise, and by λ‖ΔP‖²; the value is the plain sum."""
    s = made(layers, kind, rows=7)
    p = replace(Penalties.uniform(len(layers), 0.5, 0.7, 0.3, 0.1), omega=(0.02, *(0.0,) * (len(layers) - 1)))
    value = s.value(p)
    assert value == pytest.approx(plain_value(s, p, layers), rel=1e-12)
    for _ in range(12):
        step = s.iterate(p)
        assert step.accepted
        assert step.before == value
        assert step.decrease == least(p, [(c.layers, c.convex) for c in s.compressions]) > 0
        assert step.promised >= step.decrease * step.moved > 0
        assert step.objective <= step.before - step.promised + ALLOWANCE * value
        assert step.residual <= 1e-9
        value = step.objective
        assert value == pytest.approx(plain_value(s, p, layers), rel=1e-12)
    assert value < 0.7 * s_start(layers, kind, p)


def s_start(layers: list[Layer], kind: str, p: Penalties) -> float:
    return made(layers, kind).value(p)


positive = st.floats(1e-2, 1e2)


@settings(max_examples=25)
@given(st.lists(positive, min_size=18, max_size=18), st.sampled_from(KINDS), st.integers(0, 5))
def test_decrease_with_any_penalties(numbers: list[float], kind: str, rows: int) -> None:
    p = Penalties(*(tuple(numbers[3 * k : 3 * k + 3]) for k in range(6)))
    s = made(MLP, kind, rows=rows + 5)
    for _ in range(3):
        step = s.iterate(p)
        assert step.accepted
        assert step.objective <= step.before - step.promised + 1e3 * ALLOWANCE * step.before


@pytest.mark.parametrize("kind", KINDS)
def test_every_block_keeps_its_promise(kind: str) -> None:
    """Blocks one by one: freezing all others' proximal weights at a huge number leaves one block free to move."""
    layers = MLP
    s = made(layers, kind)
    p = Penalties.uniform(3, 0.5, 0.7, 0.3, 0.1)
    for _ in range(2):
        s.iterate(p)
    huge = (1e9,) * 3
    for free in ("activations", "weights", "factors"):
        for i in range(3):
            alphas = dict.fromkeys(("activations", "weights", "factors"), huge)
            alphas[free] = tuple(0.1 if k == i else 1e9 for k in range(3))
            only = replace(p, **alphas)
            step = made_like(s, layers, kind).iterate(only)
            assert step.objective <= step.before - step.promised + 1e4 * ALLOWANCE * step.before


def made_like(s: Splitting, layers: list[Layer], kind: str) -> Splitting:
    fresh = made(layers, kind)
    fresh.weights, fresh.compressions = list(s.weights), s.compressions
    return fresh


def run(layers: list[Layer], iterations: int = 5, **options: object) -> tuple[Splitting, list[Step]]:
    s = made(layers, "sparse", **options)
    p = Penalties.uniform(len(layers), 0.5, 0.7, 0.3, 0.1)
    return s, [s.iterate(p) for _ in range(iterations)]


@pytest.mark.parametrize("layers", [MLP, CNN], ids=["mlp", "cnn"])
def test_chunks_change_nothing(layers: list[Layer]) -> None:
    whole, steps = run(layers, rows=30)
    for rows in (1, 11):
        parts, others = run(layers, rows=rows)
        for a, b in zip(steps, others, strict=True):
            assert a.objective == pytest.approx(b.objective, rel=1e-11)
        for (W, b), (W2, b2) in zip(whole.weights, parts.weights, strict=True):
            torch.testing.assert_close(W, W2, rtol=1e-8, atol=1e-9)
            torch.testing.assert_close(b, b2, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("store", ["host", "disk"])
def test_stores_change_nothing(store: Store, tmp_path: Path) -> None:
    here, steps = run(CNN, rows=8)
    there, others = run(CNN, rows=8, store=store, folder=tmp_path)
    assert steps == others
    assert all(torch.equal(a[0], b[0]) for a, b in zip(here.weights, there.weights, strict=True))


def test_a_refused_iteration_leaves_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an update that is wrong the value rises: the iteration is refused, and the next one starts where it was."""
    s, _ = run(MLP, 3)
    twin, _ = run(MLP, 3)
    p = Penalties.uniform(3, 0.5, 0.7, 0.3, 0.1)
    before = s.value(p)
    with monkeypatch.context() as patch:
        patch.setattr("prunelang.runtime.blocks.iteration.u_hidden", lambda V, Z, U, **_: U + 1)
        refused = s.iterate(p)
    assert not refused.accepted
    assert refused.objective > refused.before == before
    assert s.value(p) == before
    assert [s.iterate(p) for _ in range(3)] == [twin.iterate(p) for _ in range(3)]


def test_nan_is_refused() -> None:
    assert not Step(1.0, float("nan"), 0.0, 0.1, 0.0, 0.0, {}).accepted


def test_the_size_of_the_data_changes_nothing() -> None:
    """All samples twice: the same iterates of the weights, the same values."""
    X, Y = data(MLP)
    p = Penalties.uniform(3, 0.5, 0.7, 0.3, 0.1)
    once = Splitting(MLP, network(MLP), X, Y, dtype=torch.float64)
    twice = Splitting(MLP, network(MLP), torch.cat([X, X]), torch.cat([Y, Y]), dtype=torch.float64)
    for _ in range(4):
        a, b = once.iterate(p), twice.iterate(p)
        assert a.objective == pytest.approx(b.objective, rel=1e-11)
        assert a.moved == pytest.approx(b.moved, rel=1e-9)


def test_float32_activations() -> None:
    """200 iterations with activations in float32: no iteration is refused, no promise broken."""
    s = made(MLP, "train", dtype=torch.float32)
    p = Penalties.uniform(3, 0.5, 0.7, 0.3, 0.1)
    assert all(s.iterate(p).accepted for _ in range(200))


def test_penalties() -> None:
    p = Penalties.uniform(2, 0.5, 0.7, 0.3, 0.1)
    assert p.raised(2.0) == replace(p, activations=(0.2,) * 2, weights=(0.2,) * 2, factors=(0.2,) * 2)
    with pytest.raises(ValueError, match="positive"):
        Penalties.uniform(2, 0.5, 0.7, 0.3, 0.0)
    with pytest.raises(ValueError, match="each layer"):
        replace(p, gamma=(0.5,))
    found = constants(p, [((0,), False)])
    expected = {
        "V1": 0.35, "U1": 0.05, "W1": 0.25, "b1": 0.1, "V2": 0.85, "U2": 0.7, "W2": 0.1, "b2": 0.1, "Θ1": 0.05,
    }  # fmt: skip
    assert found == pytest.approx(expected)
    assert least(p, [((0,), False)]) == pytest.approx(0.05)


def test_penalties_of_the_weights_themselves() -> None:
    p = replace(Penalties.uniform(2, 0.5, 0.7, 0.3, 0.1), omega=(0.4, 0.0))
    found = constants(p, [((0,), True)])
    assert (found["W1"], found["W2"]) == pytest.approx((0.45, 0.1))
    assert p.raised(2.0).omega == (0.4, 0.0)
    with pytest.raises(ValueError, match="not negative"):
        replace(p, omega=(0.4, -0.1))


def test_turns_within_an_iteration_share_its_constant() -> None:
    p = Penalties.uniform(2, 0.5, 0.7, 0.3, 0.1)
    found = constants(p, [((0,), True)], inner=4)
    assert (found["W1"], found["b1"], found["Θ1"], found["W2"]) == pytest.approx((0.05, 0.05, 0.025, 0.1))
    joint = constants(p, [((0, 1), False)], inner=4)
    assert (joint["W1"], joint["Θ1"]) == pytest.approx((0.25, 0.05)), "shared by layers: no turns"


@pytest.mark.parametrize("kind", ["train", "low rank", "sparse"])
@pytest.mark.parametrize("inner", [2, 7])
def test_turns_keep_every_promise(kind: str, inner: int) -> None:
    s = made(MLP, kind, dtype=torch.float64, inner=inner)
    p = replace(Penalties.uniform(3, 0.5, 0.7, 0.3, 0.1), omega=(0.2, 0.0, 0.1))
    for _ in range(8):
        step = s.iterate(p)
        assert step.accepted
        assert step.objective <= step.before - step.promised + ALLOWANCE * step.before


def test_turns_bring_a_layer_and_its_factors_together() -> None:
    """Many turns at a large τ: W − Δ(Θ) is what one joint minimisation leaves, less than after a single turn."""
    gaps = []
    for inner in (1, 50):
        s = made(MLP, "train", dtype=torch.float64, inner=inner)
        s.iterate(Penalties.uniform(3, 0.5, 0.7, 5.0, 0.01))
        gaps.append(float(square(s.weights[0][0] - s.targets()[0])))
    assert gaps[1] < gaps[0]


def test_the_last_layer_is_fitted() -> None:
    X, Y = data(MLP)
    s = Splitting(MLP, network(MLP), X, Y, dtype=torch.float64, rows=7)
    s.fit_last()
    V = torch.cat([s.V[1].old(j) for j in range(len(s.X))])
    W, b = s.weights[-1]
    residual = V @ W.T + b - Y
    torch.testing.assert_close(residual.mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-10)
    ridge = 1e-4 * V.square().mean() * W  # of the optimality condition
    torch.testing.assert_close(residual.T @ V / len(V), -ridge, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(torch.cat([s.U[2].old(j) for j in range(len(s.X))]), V @ W.T + b)
