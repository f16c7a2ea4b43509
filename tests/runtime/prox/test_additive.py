"""Sums by alternation: what every step keeps, against brute force, and against the parts alone."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations, permutations
from typing import Any

import pytest
import torch
from torch import Tensor

from prunelang.compiler.forms import Codebook, Composition, Fixed, Form, LowRank, Sparse, TensorTrain
from prunelang.runtime.prox.additive import PROGRESS, ROUNDS, Alternation, Parts
from prunelang.runtime.prox.compositions import Composer, compose

SHAPE = (12, 12)
TRAIN = TensorTrain(((2, 3), (3, 2), (2, 2)), (3, 2))
SUMS: list[tuple[Form, ...]] = [
    (Codebook(2), Sparse(10)),
    (Sparse(10), Codebook(3)),
    (LowRank(2), Sparse(12)),
    (Sparse(12), LowRank(2)),
    (LowRank(1), Codebook(2)),
    (Fixed((-1.0, 0.0, 1.0)), Sparse(6)),
    (Fixed((-1.0, 1.0), True), LowRank(1)),
    (TRAIN, Sparse(8)),
    (TRAIN, LowRank(1)),
    (LowRank(2), Sparse(9), Codebook(2)),
]
sums = pytest.mark.parametrize("forms", SUMS, ids=lambda forms: " + ".join(type(f).__name__ for f in forms))


def made_of(*forms: Form, shape: tuple[int, ...] = SHAPE) -> Composition:
    return Composition(("a",), forms, (shape,))


def drawn(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> dict[str, Tensor]:
    """Something of every kind: low rank, a few large entries, noise."""
    g = torch.Generator().manual_seed(seed)
    u, v = torch.randn(shape[0], 2, generator=g), torch.randn(2, shape[1], generator=g)
    few = torch.randn(shape, generator=g) * (torch.rand(shape, generator=g) < 0.1) * 4
    return {"a": (u @ v + few + 0.5 * torch.randn(shape, generator=g)).double()}


def alone(form: Form, v: Mapping[str, Tensor]) -> float:
    return Composer([made_of(form, shape=tuple(v["a"].shape))]).project_({"a": v["a"].clone()}).loss


@sums
@pytest.mark.parametrize("seed", range(3))
def test_no_step_raises_the_loss(forms: tuple[Form, ...], seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the factors of a first round on, whatever the order of the parts."""
    seen: list[float] = []
    measured = Alternation.measured

    def noted(self: Alternation, *arguments: Any) -> Parts:
        parts = measured(self, *arguments)
        rest = self.targets[0] - sum(p.made[0] for p in parts.fitted)
        assert parts.loss == pytest.approx(float(rest.square().sum()), rel=1e-12)
        return parts

    monkeypatch.setattr(Alternation, "measured", noted)
    at = Alternation.of(made_of(*forms), drawn(seed))
    for order in permutations(range(len(forms))):
        parts = at.rounds(at.nothing(), order, 1)
        start = parts.loss
        for _ in range(8):
            after = at.rounds(parts, order, 2)  # the first of them fits every part to its size again
            seen.append(after.loss / parts.loss)
            parts = after
        assert parts.loss <= start
    assert max(seen) <= 1 + 1e-9


@sums
@pytest.mark.parametrize("seed", range(3))
def test_a_sum_is_no_further_than_the_best_of_its_parts(forms: tuple[Form, ...], seed: int) -> None:
    v = drawn(seed)
    outcome = Composer([made_of(*forms)]).project_(w := {"a": v["a"].clone()})
    assert outcome.loss <= min(alone(f, v) for f in forms) * (1 + 1e-9)
    assert outcome.loss == pytest.approx(float((w["a"] - v["a"]).square().sum()), rel=1e-12)
    assert torch.equal(w["a"], compose(made_of(*forms), outcome.factors, torch.float64)["a"])
    assert outcome.gap != outcome.gap, "no bound is known of a sum"


@sums
def test_projected_again_from_its_own_factors_it_is_no_worse(forms: tuple[Form, ...]) -> None:
    composer, v = Composer([made_of(*forms)]), drawn()
    first = composer.project_({"a": v["a"].clone()})
    again = composer.project_({"a": v["a"].clone()})
    assert again.loss <= first.loss * (1 + 1e-9)
    moved = {"a": v["a"] + 1e-3 * drawn(7)["a"]}
    cold = Composer([made_of(*forms)]).project_({"a": moved["a"].clone()})
    warm = composer.project_({"a": moved["a"].clone()})
    assert warm.loss <= cold.loss * 1.05
    assert warm.loss <= first.loss * 1.05


@sums
def test_it_ends_where_no_part_gets_further(forms: tuple[Form, ...]) -> None:
    at = Alternation.of(made_of(*forms), drawn())
    parts, order = at.solve({})
    assert sorted(order) == list(range(len(forms)))
    assert at.rounds(parts, order, ROUNDS).loss >= parts.loss * (1 - ROUNDS * PROGRESS)
    for k in range(len(forms)):
        assert at.step(parts, k).loss >= parts.loss * (1 - 10 * PROGRESS)


def test_codebook_and_correction_against_every_choice() -> None:
    """min over supports S of the codebook's loss off S, since the correction makes up for all of S. The alternation may
    end in a local optimum: in most draws it is the best."""
    best_of_all = 0
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        v = {"a": torch.randn(3, 3, generator=g, dtype=torch.float64) ** 3}
        flat = v["a"].flatten()
        best = min(coded(flat[[i for i in range(9) if i not in s]], 2) for s in combinations(range(9), 2))
        outcome = Composer([made_of(Codebook(2), Sparse(2), shape=(3, 3))]).project_({"a": v["a"].clone()})
        assert best * (1 - 1e-9) <= outcome.loss
        best_of_all += outcome.loss <= best * (1 + 1e-9) + 1e-12
    assert best_of_all >= 14


def coded(v: Tensor, k: int) -> float:
    """Least squares of k values on a line: every cut of the sorted entries into k runs."""
    s = v.sort().values
    cuts = combinations(range(1, len(s)), k - 1)
    runs = ([s[a:b] for a, b in zip((0, *c), (*c, len(s)), strict=True)] for c in cuts)
    return min(sum(float((r - r.mean()).square().sum()) for r in parts) for parts in runs)


def test_a_sum_that_can_be_made_is_found() -> None:
    """A codebook of two values with four corrected entries, among them corrections that are close to nothing."""
    g = torch.Generator().manual_seed(5)
    base = torch.where(torch.rand(10, 10, generator=g) < 0.5, -0.7, 0.4).double()
    base.view(-1)[[3, 40, 41, 99]] += torch.tensor([5.0, -4.0, 3.0, 6.0], dtype=torch.float64)
    outcome = Composer([made_of(Codebook(2), Sparse(4), shape=(10, 10))]).project_({"a": base.clone()})
    assert outcome.loss < 1e-20
    assert outcome.factors["a:1.indices"].tolist() == [3, 40, 41, 99]


def test_several_tensors_share_codes_and_corrections() -> None:
    c = Composition(("a", "b"), (Codebook(2), Sparse(5)), (SHAPE, (4, 4)))
    v = drawn() | {"b": drawn(1, (4, 4))["a"]}
    outcome = Composer([c]).project_(w := {t: x.clone() for t, x in v.items()})
    assert outcome.factors["a:1.indices"].numel() + outcome.factors["b:1.indices"].numel() <= 5
    base = torch.cat([outcome.factors["a:0.centres"][outcome.factors[f"{t}:0.codes"].long()].flatten() for t in "ab"])
    together = torch.cat([w[t].flatten() for t in "ab"])
    assert len(base.unique()) == 2
    assert int((together != base).sum()) <= 5
