"""The neurons: against the equations one neuron and one step at a time, and against spikingjelly's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

pytest.importorskip("spikingjelly", reason="spiking networks need the extra `snn`")
from spikingjelly.activation_based import neuron, surrogate

from prunelang.runtime.spiking.lif import LIF, versions


def naive(x: list[list[float]], tau: float) -> list[list[int]]:
    """Spikes of independent neurons, from currents [step][neuron]."""
    v = [0.0] * len(x[0])
    out: list[list[int]] = []
    for currents in x:
        row = []
        for j, current in enumerate(currents):
            h = v[j] + (current - v[j]) / tau
            row.append(1 if h >= 1.0 else 0)
            v[j] = 0.0 if h >= 1.0 else h
        out.append(row)
    return out


def naive_gradient(x: list[float], weights: list[float], tau: float) -> list[float]:
    """∂(Σ_t weights_t s_t)/∂x of one neuron, forwards: each ∂v/∂x_i is carried from step to step."""
    found = [0.0] * len(x)
    v, dv = 0.0, [0.0] * len(x)
    for t, current in enumerate(x):
        h = v + (current - v) / tau
        dh = [d * (1.0 - 1.0 / tau) for d in dv]
        dh[t] += 1.0 / tau
        slope = 1.0 / (1.0 + (math.pi * (h - 1.0)) ** 2)
        found = [f + weights[t] * slope * d for f, d in zip(found, dh, strict=True)]
        fires = h >= 1.0
        v, dv = (0.0, [0.0] * len(x)) if fires else (h, dh)
    return found


def currents(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(shape, generator=generator, dtype=dtype) + 0.5


def theirs(tau: float, detach_reset: bool = True) -> neuron.LIFNode:
    return neuron.LIFNode(tau, True, 1.0, 0.0, surrogate.ATan(), detach_reset, "m")


@pytest.mark.parametrize("tau", [2.0, 1.3, 5.0])
def test_spikes_are_those_of_the_equations(tau: float) -> None:
    x = currents(9, 4, 5)
    spikes = LIF(tau)(x)
    assert spikes.flatten(1).to(torch.int64).tolist() == naive(x.flatten(1).tolist(), tau)
    assert 0 < float(spikes.mean()) < 1


@pytest.mark.parametrize("tau", [2.0, 3.7])
def test_gradients_are_those_of_the_equations(tau: float) -> None:
    x = currents(6, 7).requires_grad_()
    weights = currents(6, 7, seed=1)
    (LIF(tau)(x) * weights).sum().backward()
    assert x.grad is not None
    for j in range(7):
        expected = naive_gradient(x[:, j].tolist(), weights[:, j].tolist(), tau)
        torch.testing.assert_close(x.grad[:, j], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [2.0, 1.3, 5.0])
def test_values_and_gradients_are_spikingjellys(tau: float, dtype: torch.dtype) -> None:
    x, y = currents(8, 16, 20, dtype=dtype).requires_grad_(), currents(8, 16, 20, dtype=dtype).requires_grad_()
    weights = currents(8, 16, 20, seed=1, dtype=dtype)
    ours, expected = LIF(tau)(x), theirs(tau)(y)
    assert torch.equal(ours, expected)
    (ours * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_the_reset_is_a_constant_to_the_gradient() -> None:
    """What `detach_reset` means: without it spikingjelly's gradient is another one."""
    x, y = currents(8, 40).requires_grad_(), currents(8, 40).requires_grad_()
    LIF()(x).sum().backward()
    theirs(2.0, detach_reset=False)(y).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert not torch.allclose(x.grad, y.grad)


def test_a_threshold_that_is_just_met_fires_and_rest_is_silent() -> None:
    assert LIF(2.0)(torch.tensor([[2.0], [1.999999], [0.0]])).tolist() == [[1.0], [0.0], [0.0]]
    assert not bool(LIF()(torch.zeros(5, 3)).any())


def test_a_constant_current_may_be_a_view() -> None:
    """As direct encoding makes it: the same numbers at every step, without a copy; its gradient sums over the steps."""
    x = currents(3, 4).requires_grad_()
    copied = x.detach().expand(6, 3, 4).clone().requires_grad_()
    ours, expected = LIF()(x.expand(6, 3, 4)), LIF()(copied)
    assert torch.equal(ours, expected)
    ours.sum().backward()
    expected.sum().backward()
    assert copied.grad is not None
    torch.testing.assert_close(x.grad, copied.grad.sum(0))


def test_nothing_is_remembered() -> None:
    """The same currents give the same spikes whatever came before, of another shape too."""
    node, x, y = LIF(), currents(5, 3), currents(5, 3, seed=2)
    first, second = node(x), node(y)
    node(currents(2, 9))
    assert torch.equal(node(y), second)
    assert torch.equal(node(x), first)
    assert list(node.state_dict()) == []


def test_where_spikingjelly_is_faster_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """That path gives the same spikes: here on the CPU, as if there were a kernel for it."""
    x, expected = currents(8, 5, dtype=torch.float32), LIF(3.0)(currents(8, 5, dtype=torch.float32))
    assert versions("cpu")["neurons"] == "torch"
    monkeypatch.setattr("prunelang.runtime.spiking.lif.FASTER", frozenset({"cpu"}))
    assert torch.equal(LIF(3.0)(x), expected)
    assert versions("cpu")["neurons"] == "torch-reference"
