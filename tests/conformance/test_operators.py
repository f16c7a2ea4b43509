"""The laws of proximal operators, for every operator in the folder: a new file is under test as soon as it exists.

PRUNELANG_TEST_DEVICE=cuda puts every point on that device; the numbers are the same, drawn on the CPU.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prunelang.runtime.prox import registry
from prunelang.runtime.prox.base import AbstractOperator, AbstractProjection

OPERATORS = registry.operators()
INSTANCES = [pytest.param(o, id=f"{n}{i}") for n, c in OPERATORS.items() for i, o in enumerate(c.examples())]
CONVEX = [p for p in INSTANCES if p.values[0].convex]  # type: ignore[union-attr]
SETS = [p for p in INSTANCES if isinstance(p.values[0], AbstractProjection)]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
DEVICE = os.environ.get("PRUNELANG_TEST_DEVICE", "cpu")
GAMMA = 0.7
every = pytest.mark.parametrize("f", INSTANCES)


@pytest.fixture(autouse=True)
def any_kernel(repeatable: None) -> None:
    """Accelerators may use what torch calls nondeterministic (`kthvalue`: which index of equal values it returns)."""
    torch.use_deterministic_algorithms(torch.device(DEVICE).type == "cpu")


def normal(shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    """Drawn on the CPU, put on the device."""
    return torch.randn(shape, generator=generator, dtype=dtype).to(DEVICE)


def point(seed: int, dtype: torch.dtype = torch.float64, ties: bool = False) -> list[Tensor]:
    """A matrix, a kernel, an empty tensor, a vector; with `ties`, small integers."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(5, 7), (3, 2, 3, 3), (0, 4), (6,)]
    x = [normal(s, g) for s in shapes]
    return [(2 * v).round().to(dtype) if ties else v.to(dtype) for v in x]


def flat(x: list[Tensor]) -> Tensor:
    return torch.cat([t.detach().double().flatten() for t in x])


def prox(f: AbstractOperator, x: list[Tensor], gamma: float = GAMMA) -> list[Tensor]:
    y = [t.clone() for t in x]
    f.prox_(y, gamma)
    return y


def objective(f: AbstractOperator, z: list[Tensor], x: list[Tensor]) -> float:
    """f(z) + ‖z − x‖² / (2γ)."""
    return f.value(z) + float((flat(z) - flat(x)).square().sum()) / (2 * GAMMA)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_complete(name: str) -> None:
    cls = OPERATORS[name]
    here = Path(__file__).parent.parent / "runtime" / "prox"
    assert Path(inspect.getfile(cls)).stem == name
    assert (here / f"test_{name}.py").exists(), f"tests/runtime/prox/test_{name}.py with a naive oracle is missing"
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert cls.formula
    assert cls.reference
    assert cls.__doc__
    assert cls.indicator == issubclass(cls, AbstractProjection)
    assert cls.examples()


def test_a_second_operator_of_a_name_is_refused() -> None:
    class Impostor(OPERATORS["dense"]):  # type: ignore[misc]
        name = "dense"

    with pytest.raises(ValueError, match="two operators are called dense"):
        registry.register(Impostor)
    with pytest.raises(KeyError, match="l0_ball"):
        registry.operator("l0ball")


@every
@pytest.mark.parametrize("ties", [False, True])
def test_prox_minimises(f: AbstractOperator, ties: bool) -> None:
    x = point(0, ties=ties)
    y = prox(f, x)
    least = objective(f, y, x)
    assert least < float("inf")
    slack = 1e-9 * max(1.0, least)
    rivals = [x, [torch.zeros_like(t) for t in x], [t / 2 for t in y]]
    rivals += [prox(f, point(s)) for s in range(1, 6)]
    g = torch.Generator().manual_seed(7)
    for size in (1e-6, 1e-3, 0.1):
        for _ in range(5):
            rivals.append([t + size * normal(t.shape, g, t.dtype) for t in y])
            rivals.append([t * (1 + size * normal(t.shape, g, t.dtype)) for t in y])
            rivals.append(prox(f, rivals[-1]) if f.indicator else [t * (1 - size) for t in y])
    for z in rivals:
        assert objective(f, z, x) >= least - slack


@pytest.mark.parametrize("f", SETS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_projection_lands_inside_and_stays(f: AbstractProjection, dtype: torch.dtype) -> None:
    for seed in range(5):
        once = prox(f, point(seed, dtype, ties=seed % 2 == 1))
        assert f.contains(once)
        assert f.value(once) == 0.0
        assert all(torch.equal(a, b) for a, b in zip(prox(f, once), once, strict=True))


@pytest.mark.parametrize("f", CONVEX)
def test_firmly_nonexpansive_where_convex(f: AbstractOperator) -> None:
    """``‖p − q‖² ≤ ⟨p − q, x − y⟩`` with p, q the images of x, y."""
    for seed in range(10):
        x, y = point(seed), point(seed + 100)
        p, q = flat(prox(f, x)), flat(prox(f, y))
        assert (p - q).square().sum() <= (p - q) @ (flat(x) - flat(y)) + 1e-9


@every
def test_separable_operators_do_not_care_about_company(f: AbstractOperator) -> None:
    x = point(3)
    together = flat(prox(f, x))
    alone = torch.cat([flat(prox(f, [e])) for t in x for e in t.flatten().split(1)])
    if f.separable:
        assert torch.equal(together, alone)
        assert f.value(x) == pytest.approx(sum(f.value([t]) for t in x))


@every
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_works_in_place_in_every_dtype(f: AbstractOperator, dtype: torch.dtype) -> None:
    x = point(4, dtype)
    y = [t.clone() for t in x]
    places = [t.data_ptr() for t in y]
    f.prox_(y, GAMMA)
    assert [t.data_ptr() for t in y] == places
    assert all(t.dtype == dtype and bool(t.isfinite().all()) for t in y)
    wide = flat(prox(f, [t.double() for t in x]))
    assert torch.allclose(flat(y), wide, rtol=8 * torch.finfo(dtype).eps, atol=8 * torch.finfo(dtype).eps)


@every
def test_layouts_parameters_and_empty_lists(f: AbstractOperator) -> None:
    w = normal((4, 3, 2, 2), torch.Generator().manual_seed(5))
    expected = prox(f, [w])[0]
    other = w.clone().to(memory_format=torch.channels_last)
    parameter = torch.nn.Parameter(w.clone())
    for t in (other, parameter):
        f.prox_([t], GAMMA)
        assert torch.allclose(t.detach(), expected, rtol=1e-14)
    assert parameter.requires_grad
    f.prox_([], GAMMA)
    assert f.value([]) == 0.0


@every
def test_zero_is_where_it_should_be(f: AbstractOperator) -> None:
    """Every operator here fixes 0 or, for a box beside it, moves it to the nearest end."""
    y = flat(prox(f, [torch.zeros(3, 4, device=DEVICE)]))
    lo, hi = (f.lo, f.hi) if hasattr(f, "lo") and hasattr(f, "hi") else (0.0, 0.0)
    assert torch.allclose(y, torch.zeros_like(y).clamp(lo, hi))
