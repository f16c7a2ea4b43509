"""Ranks and counts that budgets and prices choose, against the enumeration of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

import pytest
import torch
from torch import Tensor

from prunelang.compiler.compositions import largest, smallest
from prunelang.compiler.forms import Codebook, Composition, Form, LowRank, Sparse, TensorTrain, even
from prunelang.compiler.problem import Budget, FactorCost, FactorTerm
from prunelang.runtime.prox.compositions import Composer, Outcome
from prunelang.runtime.prox.fitting import sizes_of
from prunelang.runtime.prox.ranks import Infeasible
from prunelang.runtime.prox.sizes import Costs

SHAPES = {"a": (6, 5), "b": (4, 9), "c": (8, 3)}
MODES = ((2, 3), (3, 2), (2, 2))
CONSTANT = 11


def drawn(shapes: dict[str, tuple[int, ...]] | None = None, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {t: torch.randn(s, generator=g, dtype=torch.float64) for t, s in (shapes or SHAPES).items()}


def made_of(tensor: str, *forms: Form, shape: tuple[int, ...] | None = None) -> Composition:
    return Composition((tensor,), forms, (shape or SHAPES[tensor],))


def cost(compositions: Sequence[Composition], each: int = 1) -> FactorCost:
    """Numbers stored, and `each` for an entry of a sparse part."""
    entries = []
    for c in compositions:
        m, n = c.shapes[0][0], prod(c.shapes[0][1:])
        for i, form in enumerate(c.forms):
            match form:
                case LowRank():
                    entries.append(FactorTerm(c.tensors[0], i, ((m + n, (0,)),)))
                case TensorTrain(modes=modes):
                    (a, b), (d, e), (f, g) = modes
                    entries.append(FactorTerm(c.tensors[0], i, ((a * b, (0,)), (d * e, (0, 1)), (f * g, (1,)))))
                case Sparse():
                    entries.append(FactorTerm(c.tensors[0], i, ways=(("csr", 2 * each, 3), ("bitmask", each, 7))))
    return FactorCost("numbers", "", CONSTANT, tuple(entries), 10**6)


def chosen(compositions: Sequence[Composition], outcome: Outcome) -> dict[tuple[str, int], tuple[int, ...]]:
    return {k: x for c in compositions for k, x in sizes_of(c, outcome.factors).items()}


def tails(v: Tensor) -> list[float]:
    s = torch.linalg.svdvals(v)
    return [float(s[r:].square().sum()) for r in range(len(s) + 1)]


def every_rank(compositions: Sequence[Composition], v: dict[str, Tensor]) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Loss and ranks of every choice over matrices of low rank."""
    lost = [tails(v[c.tensors[0]]) for c in compositions]
    spans = []
    for c in compositions:
        (low,), (high,) = smallest(c, 0), largest(c.forms[0], c.shapes[0], prod(c.shapes[0]))
        spans.append(range(low, high + 1))
    for ranks in product(*spans):
        yield sum(e[r] for e, r in zip(lost, ranks, strict=True)), ranks


RANKS = [made_of(t, LowRank()) for t in SHAPES]


@pytest.mark.parametrize("most", [47, 48, 55, 60, 75, 90, 500])
@pytest.mark.parametrize("seed", range(3))
def test_one_budget_over_ranks_is_met_at_the_least_loss(most: int, seed: int) -> None:
    f = cost(RANKS)
    v = drawn(seed=seed)
    best = min(
        e for e, r in every_rank(RANKS, v) if f.value({(t, 0): (x,) for t, x in zip("abc", r, strict=True)}) <= most
    )
    outcome = Composer(RANKS, [Budget("b", f, most)]).project_(v)
    assert outcome.exact
    assert outcome.loss == pytest.approx(best, rel=1e-9)
    assert f.value(chosen(RANKS, outcome)) <= most


@pytest.mark.parametrize("seed", range(3))
def test_two_budgets_are_met_within_the_gap_of_the_least_loss(seed: int) -> None:
    f = cost(RANKS)
    weights = {"a": 7, "b": 2, "c": 5}
    g = FactorCost("other", "", 0, tuple(FactorTerm(t, 0, ((w, (0,)),)) for t, w in weights.items()), 10**6)
    v = drawn(seed=seed)
    best = min(
        e
        for e, r in every_rank(RANKS, v)
        if f.value(x := {(t, 0): (k,) for t, k in zip("abc", r, strict=True)}) <= 80 and g.value(x) <= 22
    )
    outcome = Composer(RANKS, [Budget("f", f, 80), Budget("g", g, 22)]).project_(v)
    sizes = chosen(RANKS, outcome)
    assert f.value(sizes) <= 80
    assert g.value(sizes) <= 22
    assert outcome.loss - outcome.gap <= best * (1 + 1e-9)
    assert best <= outcome.loss * (1 + 1e-9)


@pytest.mark.parametrize("price", [0.0, 1e-3, 0.05, 0.2, 1.0, 1e6])
def test_a_price_weighs_every_rank_against_what_it_loses(price: float) -> None:
    f, v = cost(RANKS), drawn()
    totals = [
        e + price * (f.value({(t, 0): (x,) for t, x in zip("abc", r, strict=True)}) - CONSTANT)
        for e, r in every_rank(RANKS, v)
    ]
    outcome = Composer(RANKS, (), f).project_(v, price)
    assert outcome.exact
    assert outcome.loss == pytest.approx(min(totals), rel=1e-9)


def test_ranks_stay_between_one_and_where_they_break_even() -> None:
    wide, f = Composer(RANKS, (), cost(RANKS)), cost(RANKS)
    free = chosen(RANKS, wide.project_(drawn(), 0.0))
    assert free == {(t, 0): (even(s),) for t, s in SHAPES.items()}
    assert all(even(s) * sum(s) <= prod(s) < (even(s) + 1) * sum(s) for s in SHAPES.values())
    dear = chosen(RANKS, wide.project_(drawn(), 1e9))
    assert set(dear.values()) == {(1,)}
    least = f.value(dear)
    met = Composer(RANKS, [Budget("b", f, least)]).project_(drawn())
    assert chosen(RANKS, met) == dear
    with pytest.raises(Infeasible):
        Composer(RANKS, [Budget("b", f, least - 1)]).project_(drawn())


def test_ranks_that_are_asked_for_are_bounds_under_a_budget() -> None:
    own = [made_of("a", LowRank(5)), made_of("b", LowRank(1)), made_of("c", LowRank(0))]
    found = chosen(own, Composer(own, [Budget("b", cost(own), 10**6)]).project_(drawn()))
    assert found == {("a", 0): (5,), ("b", 0): (1,), ("c", 0): (0,)}


def test_nothing_but_zeros_is_projected_too() -> None:
    for form, shape in ((LowRank(), (6, 5)), (TensorTrain(MODES), (12, 12))):
        c = made_of("a", form, shape=shape)
        v = {"a": torch.zeros(shape, dtype=torch.float64)}
        outcome = Composer([c], [Budget("b", cost([c]), 10**6)]).project_(v)
        assert not v["a"].any()
        assert outcome.loss == 0.0


@pytest.mark.parametrize("most", [40, 60, 90])
def test_ranks_beside_entries_are_within_the_gap_of_the_least_loss(most: int) -> None:
    own = [made_of("a", LowRank()), made_of("b", Sparse())]
    f, v = cost(own), drawn()
    energy = [*torch.cumsum(v["b"].flatten().square().sort().values, 0).flip(0).tolist(), 0.0]
    best = min(
        lost + energy[n]
        for r, lost in enumerate(tails(v["a"]))
        for n in range(len(energy))
        if 1 <= r <= even(SHAPES["a"]) and f.value({("a", 0): (r,), ("b", 0): (n,)}) <= most
    )
    outcome = Composer(own, [Budget("b", f, most)]).project_(v)
    assert f.value(chosen(own, outcome)) <= most
    assert outcome.loss - outcome.gap <= best * (1 + 1e-9)
    assert best <= outcome.loss * (1 + 1e-9)


def test_a_train_is_within_its_gap_of_every_train_that_the_budget_allows() -> None:
    c = made_of("a", TensorTrain(MODES), shape=(12, 12))
    f, v = cost([c]), drawn({"a": (12, 12)})
    found = {}
    for most in (40, 80, 130, 10**6):
        best = float("inf")
        for r, s in product(range(1, 7), range(1, 5)):
            if f.value({("a", 0): (r, s)}) <= min(most, CONSTANT + 144):  # no dearer than the matrix
                fixed = made_of("a", TensorTrain(MODES, (r, s)), shape=(12, 12))
                best = min(best, Composer([fixed]).project_({"a": v["a"].clone()}).loss)
        outcome = Composer([c], [Budget("b", f, most)]).project_({"a": v["a"].clone()})
        found[most] = f.value(chosen([c], outcome))
        assert found[most] <= most
        assert 0.0 < outcome.gap < outcome.loss
        assert outcome.loss - outcome.gap <= best * (1 + 1e-9)
        assert outcome.loss <= 2.0 * best  # TT-SVD at the family's ranks: within d − 1 of the best
    assert 100 < found[10**6] - CONSTANT <= 144


def test_a_sum_under_a_budget_is_no_worse_than_its_parts() -> None:
    g = torch.Generator().manual_seed(3)
    low = torch.randn(20, 2, generator=g, dtype=torch.float64) @ torch.randn(2, 16, generator=g, dtype=torch.float64)
    few = torch.zeros(320, dtype=torch.float64)
    few[torch.randperm(320, generator=g)[:15]] = 9.0
    target = low + few.view(20, 16)
    both = made_of("a", Sparse(), LowRank(), shape=(20, 16))
    f = cost([both])
    most = CONSTANT + 2 * 36 + 7 + 15
    outcome = Composer([both], [Budget("b", f, most)]).project_({"a": target.clone()})
    assert f.value(chosen([both], outcome)) <= most
    assert outcome.loss < 1e-3 * float(target.square().sum())  # that sum is found
    for form in (Sparse(), LowRank()):
        alone = made_of("a", form, shape=(20, 16))
        found = Composer([alone], [Budget("b", cost([alone]), most)]).project_({"a": target.clone()})
        assert outcome.loss < found.loss
    assert outcome.gap != outcome.gap  # no bound is known


@pytest.mark.parametrize(("first", "second"), [(Sparse(), LowRank()), (LowRank(), Sparse())])
def test_the_first_part_of_a_sum_is_never_nothing(first: Form, second: Form) -> None:
    c = made_of("a", first, second)
    f = cost([c])
    least = f.value({("a", i): smallest(c, i) for i in range(2)})
    outcome = Composer([c], [Budget("b", f, least)]).project_(drawn())
    assert chosen([c], outcome) == {("a", 0): (1,), ("a", 1): (0,)}
    with pytest.raises(Infeasible):
        Composer([c], [Budget("b", f, least - 1)]).project_(drawn())
    coded = made_of("a", second, Codebook(2))
    nothing = Composer([coded], [Budget("b", cost([coded]), cost([coded]).value({("a", 0): (0,)}))]).project_(drawn())
    assert chosen([coded], nothing) == {("a", 0): (0,)}  # codes are something


def test_a_bound_on_entries_holds_beside_a_budget() -> None:
    own = [Composition(("a", "b"), (Sparse(9),), (SHAPES["a"], SHAPES["b"]))]
    terms = tuple(FactorTerm(t, 0, ways=(("csr", 8, 3), ("bitmask", 4, 9))) for t in "ab")
    f = FactorCost("bytes", "B", 0, terms, 10**6)
    outcome = Composer(own, [Budget("b", f, 10**6)]).project_(v := drawn())
    both = torch.cat([drawn()["a"].flatten(), drawn()["b"].flatten()]).abs()
    kept = torch.cat([v["a"].flatten(), v["b"].flatten()])
    assert int((kept != 0).sum()) == 9
    assert float(kept[kept != 0].abs().min()) == float(both.sort().values[-9])
    assert outcome.loss == pytest.approx(float(both.square().sort().values[:-9].sum()))


def test_a_budget_over_something_else_is_refused() -> None:
    for term in (FactorTerm("z", 0, ((1, (0,)),)), FactorTerm("a", 1, ((1, (0,)),))):
        f = FactorCost("numbers", "", 0, (term,), 10)
        with pytest.raises(ValueError, match=f"form {term.form} of {term.tensor}, which no composition has"):
            Costs(RANKS, [Budget("b", f, 5)], None)
