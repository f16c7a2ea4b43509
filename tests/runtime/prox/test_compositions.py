"""Projections onto single forms against their definitions, in place; factors that make the tensors; gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from prunelang.compiler.forms import (
    Box,
    Codebook,
    Composition,
    Fixed,
    Form,
    LowRank,
    Nuclear,
    Sparse,
    TensorTrain,
)
from prunelang.runtime.prox.compositions import Composer, Outcome, compose
from prunelang.runtime.prox.scan import NonFinite

SHAPES = {"a": (12, 18), "b": (6, 12), "k": (6, 2, 3, 3)}
TRAIN = TensorTrain(((3, 2), (2, 3), (2, 3)), (3, 4))
SINGLE: list[Form] = [LowRank(3), TRAIN, Codebook(4), Fixed((-1.0, 0.0, 1.0)), Fixed((-1.0, 2.0), True), Sparse(20)]


def drawn(dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {t: torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for t, s in SHAPES.items()}


def over(tensors: str, *forms: Form) -> Composition:
    return Composition(tuple(tensors), forms, tuple(SHAPES[t] for t in tensors))


def distance(x: dict[str, Tensor], y: dict[str, Tensor]) -> float:
    return sum(float((x[t].double() - y[t].double()).square().sum()) for t in x)


def projected(*compositions: Composition, dtype: torch.dtype = torch.float32) -> tuple[dict[str, Tensor], Outcome]:
    tensors = drawn(dtype)
    return tensors, Composer(compositions).project_(tensors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("form", SINGLE, ids=lambda f: type(f).__name__)
def test_the_tensor_is_what_its_factors_make(form: Form, dtype: torch.dtype) -> None:
    c = over("a", form)
    tensors, outcome = projected(c, dtype=dtype)
    made = compose(c, outcome.factors, torch.float64)["a"]
    assert torch.equal(made.to(dtype), tensors["a"])
    assert outcome.loss == pytest.approx(distance(tensors, drawn(dtype)), rel=1e-12)
    assert all(f.dtype in (dtype, torch.uint8, torch.int64) for f in outcome.factors.values())
    assert torch.equal(tensors["b"], drawn(dtype)["b"])  # left alone


@pytest.mark.parametrize("form", SINGLE, ids=lambda f: type(f).__name__)
def test_a_projection_stays_where_it_is(form: Form) -> None:
    tensors, _ = projected(over("a", form), dtype=torch.float64)
    again = {t: v.clone() for t, v in tensors.items()}
    outcome = Composer([over("a", form)]).project_(again)
    assert outcome.loss == pytest.approx(0.0, abs=1e-18)
    assert distance(again, tensors) < 1e-18


def test_low_rank_loses_the_smaller_singular_values() -> None:
    tensors, outcome = projected(over("k", LowRank(2)), dtype=torch.float64)
    sigma = torch.linalg.svdvals(drawn(torch.float64)["k"].flatten(1))
    assert outcome.exact
    assert outcome.loss == pytest.approx(float(sigma[2:].square().sum()), rel=1e-10)
    assert int(torch.linalg.matrix_rank(tensors["k"].flatten(1))) == 2
    assert outcome.factors["k:0.U"].shape == (6, 2)
    assert outcome.factors["k:0.V"].shape == (2, 18)


def test_a_train_is_within_its_gap_of_every_train() -> None:
    """Alternating least squares from many random starts finds none below ``loss − gap``."""
    _, outcome = projected(over("a", TRAIN), dtype=torch.float64)
    assert not outcome.exact
    assert outcome.gap < outcome.loss
    for seed in range(20):
        composer = Composer([over("a", TRAIN)])
        g = torch.Generator().manual_seed(seed)
        for name, core in outcome.factors.items():
            composer.factors[name] = torch.randn(core.shape, generator=g, dtype=torch.float64)
        found = composer.project_(drawn(torch.float64))
        assert outcome.loss - outcome.gap <= found.loss <= outcome.loss + 1e-9  # a start never makes it worse


def test_shared_codebook_scale_and_count() -> None:
    """Vector forms see the concatenation: one codebook, one scale, the largest entries wherever they are."""
    tensors, outcome = projected(over("ab", Codebook(3)))
    assert len(torch.cat([tensors["a"].flatten(), tensors["b"].flatten()]).unique()) == 3
    assert outcome.factors.keys() == {"a:0.centres", "a:0.codes", "b:0.codes"}
    tensors, outcome = projected(over("ab", Fixed((-1.0, 1.0), True)))
    together = torch.cat([t.flatten() for t in (drawn()["a"], drawn()["b"])]).double()
    assert float(outcome.factors["a:0.scale"]) == pytest.approx(float(together.abs().mean()), rel=1e-6)
    tensors, outcome = projected(over("ab", Sparse(30)))
    kept = torch.cat([tensors["a"].flatten(), tensors["b"].flatten()])
    assert int((kept != 0).sum()) == 30
    assert float(kept[kept != 0].abs().min()) >= float(together[kept == 0].abs().max())
    indices = outcome.factors["a:0.indices"]
    assert bool((indices[1:] > indices[:-1]).all())


def test_ties_of_a_sparse_part_go_to_the_first() -> None:
    v = {"a": torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, 2.0]])}
    c = Composition(("a",), (Sparse(3),), ((2, 3),))
    outcome = Composer([c]).project_(v)
    assert v["a"].tolist() == [[1.0, -1.0, 0.0], [0.0, 0.0, 2.0]]
    more = Composer([Composition(("a",), (Sparse(99),), ((2, 3),))]).project_(v)  # zeros are no entries
    assert outcome.factors["a:0.indices"].tolist() == more.factors["a:0.indices"].tolist() == [0, 1, 5]


def test_box_and_nuclear_have_no_factors() -> None:
    tensors, outcome = projected(over("a", Box(-0.5, 0.25)), over("b", Nuclear(3.0)))
    assert not outcome.factors
    assert outcome.exact
    assert torch.equal(tensors["a"], drawn()["a"].clamp(-0.5, 0.25))
    assert float(torch.linalg.svdvals(tensors["b"].double()).sum()) == pytest.approx(3.0, rel=1e-6)
    assert outcome.loss == pytest.approx(distance(tensors, drawn()), rel=1e-12)
    assert compose(over("a", Box(0.0, 1.0)), {}) == {}


@pytest.mark.parametrize("forms", [(f,) for f in SINGLE] + [(LowRank(2), Sparse(9), Codebook(2))], ids=str)
def test_gradients_reach_every_float_factor(forms: tuple[Form, ...]) -> None:
    c = over("a", *forms)
    _, outcome = projected(c, dtype=torch.float64)
    named = {n: f for n, f in outcome.factors.items() if f.is_floating_point()}
    if not named:
        return  # fixed values have none

    def made(*floats: Tensor) -> Tensor:
        return compose(c, outcome.factors | dict(zip(named, floats, strict=True)))["a"]

    assert torch.autograd.gradcheck(made, tuple(f.clone().requires_grad_() for f in named.values()))


def test_rank_zero_is_zero() -> None:
    for form in (LowRank(0), TensorTrain(TRAIN.modes, (0, 0)), Sparse(0)):
        c = over("a", form)
        tensors, outcome = projected(c)
        assert not tensors["a"].any()
        assert outcome.exact
        assert not compose(c, outcome.factors)["a"].any()
        assert compose(c, outcome.factors)["a"].shape == SHAPES["a"]


def test_many_codes_take_two_bytes() -> None:
    v = {"a": torch.arange(600.0).view(2, 300)}
    c = Composition(("a",), (Codebook(300),), ((2, 300),))
    outcome = Composer([c]).project_(v)
    assert outcome.factors["a:0.codes"].dtype == torch.uint16
    assert outcome.loss == pytest.approx(300 * 0.5)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="box or a nuclear ball"):
        Composer([over("a", LowRank(1), Box(0.0, 1.0))])
    tensors = drawn()
    tensors["a"][0, 0] = math.nan
    with pytest.raises(NonFinite):
        Composer([over("a", LowRank(1))]).project_(tensors)
