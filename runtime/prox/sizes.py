"""Ranks of factors and counts of sparse parts that budgets leave free: what each would cost and lose, and the choice.

A size x of one form of one composition loses ``‖v − Δ(x)‖²``: the discarded energies of a matrix (low rank), between
the greatest and the sum of those of its unfoldings (train), the energy of the smallest entries (sparse). With integer
costs of x the choice over all forms is a multiple-choice knapsack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunelang.compiler.forms import Composition, LowRank, Modes, Sparse, TensorTrain, even, least
from prunelang.compiler.problem import Budget, FactorCost, FactorTerm
from prunelang.runtime.prox.codebook import ascending
from prunelang.runtime.prox.fitting import matrix_of
from prunelang.runtime.prox.low_rank import spectrum
from prunelang.runtime.prox.ranks import choose_many, train_ranks
from prunelang.runtime.prox.tensor_train import unfolding_tails

Key: TypeAlias = tuple[str, int]  # tensor, place of the form in its composition
Integers: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """The sizes that one form may have, smallest first: ``low ≤`` least squared distance ``≤ high``, one array if it
    is known."""

    sizes: Integers  # n × q
    low: Floats
    high: Floats

    @property
    def least(self) -> Options:
        """The smallest size alone."""
        low = self.low[:1]
        return Options(self.sizes[:1], low, low if self.low is self.high else self.high[:1])


@dataclass(frozen=True)
class Chosen:
    """A size for each key; `bound` is below the total of any other choice, where options are independent, and that of
    this one where it is `exact`."""

    sizes: dict[Key, tuple[int, ...]]
    bound: float
    exact: bool


class Costs:
    """What sizes cost: one row for each budget, for each bound on the entries of several tensors, and the price's."""

    def __init__(
        self, compositions: Sequence[Composition], budgets: Sequence[Budget], priced: FactorCost | None
    ) -> None:
        self.priced = priced
        costs = [b.cost for b in budgets] + ([priced] if priced else [])
        named = {(e.tensor, e.form) for c in costs for e in c.entries}
        self.free = {key: c for c in compositions for keys in _keys(c) if named & set(keys) for key in keys}
        for t, i in sorted(named - self.free.keys()):
            raise ValueError(f"a budget counts form {i} of {t}, which no composition has")
        self.rows: list[tuple[tuple[FactorTerm, ...], int]] = [
            (b.cost.entries, b.most - b.cost.constant) for b in budgets
        ]
        for c in compositions:
            for i, form in enumerate(c.forms):
                if isinstance(form, Sparse) and form.count is not None and (c.tensors[0], i) in self.free:
                    counted = tuple(FactorTerm(t, i, ((1, (0,)),)) for t in c.tensors)
                    self.rows.append((counted, form.count))

    def chooses(self, composition: Composition, i: int | None = None) -> bool:
        """Whether sizes of the composition, or of its form i, are chosen here."""
        forms = range(len(composition.forms)) if i is None else (i,)
        return any((t, k) in self.free for t in composition.tensors for k in forms)

    def price(self, sizes: Mapping[Key, Sequence[int]]) -> int:
        """The priced cost at given sizes, beside its constant."""
        return sum(e.value(sizes[e.tensor, e.form]) for e in self._priced())

    def met(self, sizes: Mapping[Key, Sequence[int]]) -> bool:
        """Whether every row is kept."""
        return all(sum(e.value(sizes[e.tensor, e.form]) for e in entries) <= most for entries, most in self.rows)

    def choose(self, offered: Mapping[Key, Options], price: float) -> Chosen:
        """The sizes of least ``Σ high + price · cost`` in all rows. Raises `ranks.Infeasible`."""
        fees = [price * _values(self._priced(), key, o.sizes) if price else 0.0 for key, o in offered.items()]
        high = [o.high + fee for o, fee in zip(offered.values(), fees, strict=True)]
        low = [o.low + fee for o, fee in zip(offered.values(), fees, strict=True)]
        known = all(o.low is o.high for o in offered.values())
        if not self.rows:
            picks, bound, gap = tuple(int(h.argmin()) for h in high), sum(float(e.min()) for e in low), 0.0
        else:
            costs = [np.stack([_values(e, key, o.sizes) for e, _ in self.rows], axis=1) for key, o in offered.items()]
            limits = [most for _, most in self.rows]
            best = choose_many(high, costs, limits)
            least = best if known else choose_many(low, costs, limits)
            picks, bound, gap = best.picks, least.loss - least.gap, best.gap
        chosen = zip(offered.items(), picks, strict=True)
        return Chosen({key: tuple(map(int, o.sizes[j])) for (key, o), j in chosen}, bound, known and gap == 0.0)

    def _priced(self) -> tuple[FactorTerm, ...]:
        return self.priced.entries if self.priced else ()


def options(composition: Composition, i: int, targets: Sequence[Tensor], dtype: torch.dtype) -> dict[Key, Options]:
    """What form i may be, for given targets (float64): one key, or one for each tensor of a sparse form."""
    low = least(composition, i)
    match composition.forms[i]:
        case LowRank(rank):
            tails = spectrum(matrix_of(targets[0]).to(dtype)).tails.cpu().numpy()
            return {
                (composition.tensors[0], i): _counted(tails, low, even(composition.shapes[0]) if rank is None else rank)
            }
        case TensorTrain(modes=modes, ranks=ranks):
            tails_of = [t.cpu().numpy() for t in unfolding_tails(matrix_of(targets[0]).to(dtype), modes)]
            family = np.maximum(train_ranks(tails_of, modes).ranks, low)
            sizes = _no_dearer(family, modes) if ranks is None else np.minimum(family, np.array(ranks))
            lost = np.stack([t[r] for t, r in zip(tails_of, sizes.T, strict=True)])
            return {(composition.tensors[0], i): Options(sizes, lost.max(axis=0), lost.sum(axis=0))}
        case Sparse(count):
            found = {}
            for t, v in zip(composition.tensors, targets, strict=True):
                energy = np.cumsum(ascending(v.square()))[::-1]
                tails = np.append(energy, 0.0)
                found[t, i] = _counted(tails, low, len(tails) if count is None else count)
            return found
    return {}


def _counted(tails: Floats, low: int, high: int) -> Options:
    """Sizes from `low` to `high`, with what is lost at each of them from 0 on."""
    sizes = np.arange(low, min(high, len(tails) - 1) + 1)
    lost = tails[sizes]
    return Options(sizes[:, None], lost, lost)


def _no_dearer(family: Integers, modes: Modes) -> Integers:
    """The ranks at which a train stores no more numbers than the matrix; the smallest in any case."""
    ends = np.ones((len(family), 1), np.int64)
    wide = np.concatenate([ends, family, ends], axis=1)
    cores = np.array([m * n for m, n in modes])
    fits: NDArray[np.bool_] = (wide[:, :-1] * wide[:, 1:] * cores).sum(axis=1) <= cores.prod()
    fits[0] = True
    kept: Integers = family[fits]
    return kept


def _keys(composition: Composition) -> list[list[Key]]:
    """The keys that a size belongs to, those of one form together."""
    found = []
    for i, form in enumerate(composition.forms):
        if isinstance(form, Sparse):
            found.append([(t, i) for t in composition.tensors])
        elif isinstance(form, LowRank | TensorTrain):
            found.append([(composition.tensors[0], i)])
    return found


def _values(entries: Sequence[FactorTerm], key: Key, sizes: Integers) -> Integers:
    """The cost of every size of one key: `FactorTerm.value` of all rows of sizes at once."""
    total = np.zeros(len(sizes), np.int64)
    for e in entries:
        if (e.tensor, e.form) == key:
            total += e.constant
            for c, places in e.monomials:
                total += c * sizes[:, list(places)].prod(axis=1)
            if e.ways:
                total += np.min([a * sizes[:, 0] + b for _, a, b in e.ways], axis=0)
    return total
