"""Tensor trains as shapes: which modes, how many numbers, how many operations, in which order.

A train of modes (m_k, n_k), k = 1 … d, and inner ranks r_1 … r_{d−1} (r_0 = r_d = 1) stores

    P(r) = Σ_k r_{k−1} m_k n_k r_k

numbers for a matrix of ∏ m_k rows and ∏ n_k columns. One sample x is multiplied by absorbing the cores one after
another into it. With the set S absorbed, the state has the modes n_j of the cores j ∉ S, m_j of j ∈ S, and one mode for
every bond between S and the rest; absorbing k is one matrix product of

    ∏_{j ∉ S} n_j · ∏_{j ∈ S ∪ {k}} m_j · ∏ r over the bonds of S's border and of core k

multiply-adds. Every step holds the sample, so a batch of B samples costs exactly B times as much.

Costs are polynomials in the ranks, as plain data. Low rank is the train of modes ``((rows, 1), (1, columns))``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf, log, prod
from typing import TypeAlias

from prunelang.compiler.forms import Modes, TensorTrain

Polynomial: TypeAlias = tuple[tuple[int, tuple[int, ...]], ...]  # Σ coefficient · ∏_{k ∈ bonds} r_k, bonds 1 … d−1

CORES = range(2, 7)  # numbers of cores tried where the modes are left out
FREE_RANK = 8  # the rank at which modes are compared where the ranks are left to the budgets
ALL_ORDERS = 12  # up to so many cores every order is weighed; beyond, those whose absorbed cores stay adjacent


@dataclass(frozen=True)
class Alternative:
    """One way to cut a matrix into modes. `parameters` are the numbers stored at the ranks asked for, as capped."""

    modes: Modes
    ranks: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Contraction:
    """An order of absorbing the cores (0 … d−1) into a sample, and its multiply-adds as a polynomial in the ranks."""

    order: tuple[int, ...]
    terms: Polynomial

    def macs(self, ranks: Sequence[int]) -> int:
        """Multiply-adds of one sample."""
        return evaluate(self.terms, ranks)


@dataclass(frozen=True)
class BreakEven:
    """The largest uniform ranks at which a train costs no more than its dense matrix; 0 where even rank 1 does."""

    parameters: int
    macs: int


def evaluate(terms: Polynomial, ranks: Sequence[int]) -> int:
    """``Σ coefficient · ∏_{k ∈ bonds} r_k`` for ``ranks = (r_1, …, r_{d−1})``."""
    return sum(a * prod(ranks[k - 1] for k in bonds) for a, bonds in terms)


# ── shapes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def matrix_of(modes: Modes) -> tuple[int, int]:
    """(rows, columns) = (∏ m_k, ∏ n_k)."""
    return prod(m for m, _ in modes), prod(n for _, n in modes)


def low_rank_modes(rows: int, columns: int) -> Modes:
    """The modes at which a train of rank r is U V with U rows × r and V r × columns."""
    return ((rows, 1), (1, columns))


def full_ranks(modes: Modes) -> tuple[int, ...]:
    """``r_k = min(∏_{j ≤ k} m_j n_j, ∏_{j > k} m_j n_j)``: ranks at which every matrix is a train."""
    sizes = [m * n for m, n in modes]
    return tuple(min(prod(sizes[:k]), prod(sizes[k:])) for k in range(1, len(sizes)))


def capped(modes: Modes, ranks: int | Sequence[int]) -> tuple[int, ...]:
    """The largest ranks ≤ `ranks` that a train can have: ``r_k ≤ r_{k−1} m_k n_k`` and ``r_{k−1} ≤ m_k n_k r_k``.

    Raises `ValueError` unless there is one rank for every bond.
    """
    d = len(modes)
    wanted = [ranks] * (d - 1) if isinstance(ranks, int) else list(ranks)
    if len(wanted) != d - 1:
        raise ValueError(f"{d} cores have {d - 1} inner ranks, not {len(wanted)}")
    sizes = [m * n for m, n in modes]
    r = [1, *wanted, 1]
    for k in range(1, d):
        r[k] = min(r[k], r[k - 1] * sizes[k - 1])
    for k in range(d - 1, 0, -1):
        r[k] = min(r[k], r[k + 1] * sizes[k])
    return tuple(r[1:-1])


# ── costs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def storage(modes: Modes) -> Polynomial:
    """``Σ_k m_k n_k r_{k−1} r_k``: one term a core."""
    return tuple((m * n, _inner((k, k + 1), len(modes))) for k, (m, n) in enumerate(modes))


def parameters(modes: Modes, ranks: int | Sequence[int]) -> int:
    """Numbers stored at the ranks given, capped."""
    return evaluate(storage(modes), capped(modes, ranks))


def entry_counts(modes: Modes, ranks: Sequence[int]) -> tuple[int, ...]:
    """Numbers stored by each core, ``r_{k−1} m_k n_k r_k``."""
    return tuple(evaluate((term,), ranks) for term in storage(modes))


def macs(modes: Modes, order: Sequence[int]) -> Polynomial:
    """Multiply-adds of one sample that absorbs the cores in the given order: one term a step."""
    return tuple(_step(modes, frozenset(order[:i]), k) for i, k in enumerate(order))


def contraction(modes: Modes, ranks: int | Sequence[int]) -> Contraction:
    """The order with the fewest multiply-adds at the given ranks (capped), by dynamic programming over sets of cores.

    ``best(S) = min_{k ∈ S} best(S ∖ {k}) + cost(k | S ∖ {k})``. Of equally good orders the lexicographically first.
    """
    r, d = capped(modes, ranks), len(modes)
    best: dict[frozenset[int], tuple[int, tuple[int, ...]]] = {frozenset(): (0, ())}
    for _ in range(d):
        longer: dict[frozenset[int], tuple[int, tuple[int, ...]]] = {}
        for absorbed, (cost, order) in best.items():
            for k in _next(absorbed, d):
                found = (cost + evaluate((_step(modes, absorbed, k),), r), (*order, k))
                union = absorbed | {k}
                longer[union] = min(longer.get(union, found), found)
        best = longer
    order = best[frozenset(range(d))][1]
    return Contraction(order, macs(modes, order))


@cache
def order(form: TensorTrain) -> Contraction:
    """The contraction that operations are counted for: the best at the ranks asked for, or at `FREE_RANK`."""
    return contraction(form.modes, capped(form.modes, FREE_RANK) if form.ranks is None else form.ranks)


def break_even(modes: Modes, groups: int = 1) -> BreakEven:
    """Largest uniform ranks whose parameters, and whose operations in the best order, do not exceed the dense ones.

    Each of the groups of a convolution meets the whole train; 0 where that costs more even at rank 1.
    """
    rows, columns = matrix_of(modes)
    top = max(full_ranks(modes), default=1)
    return BreakEven(
        _last(lambda r: parameters(modes, r) <= rows * columns, top),
        _last(lambda r: groups * contraction(modes, r).macs(capped(modes, r)) <= rows * columns, top),
    )


def _inner(bonds: Iterable[int], d: int) -> tuple[int, ...]:
    """The bonds with a rank of their own: r_0 = r_d = 1 drop out."""
    return tuple(b for b in bonds if 0 < b < d)


def _step(modes: Modes, absorbed: frozenset[int], k: int) -> tuple[int, tuple[int, ...]]:
    """The term of absorbing core k (bonds k and k + 1) after the cores in `absorbed`."""
    d = len(modes)
    border = {b for b in range(1, d) if (b - 1 in absorbed) != (b in absorbed)}
    width = prod(m if j in absorbed else n for j, (m, n) in enumerate(modes)) * modes[k][0]
    return width, _inner(sorted(border | {k, k + 1}), d)


def _next(absorbed: frozenset[int], d: int) -> Iterable[int]:
    if d <= ALL_ORDERS or not absorbed:
        return (k for k in range(d) if k not in absorbed)
    return (k for k in (min(absorbed) - 1, max(absorbed) + 1) if 0 <= k < d)


def _last(holds: Callable[[int], bool], top: int) -> int:
    """The largest r ≤ top at which a property that is lost once and for all still holds."""
    lo, hi = 0, top + 1
    while hi - lo > 1:
        middle = (lo + hi) // 2
        lo, hi = (middle, hi) if holds(middle) else (lo, middle)
    return lo


# ── choosing modes ──────────────────────────────────────────────────────────────────────────────────────────────────


def choose_modes(rows: int, columns: int, ranks: int | Sequence[int] | None = None) -> Modes:
    """The alternative with the fewest parameters at the ranks asked for; of equals the one with the fewest cores.

    One rank a bond fixes the number of cores. None (ranks left to budgets) compares at rank `FREE_RANK`.
    """
    return min(alternatives(rows, columns, ranks), key=lambda a: (a.parameters, len(a.modes))).modes


def alternatives(rows: int, columns: int, ranks: int | Sequence[int] | None = None) -> tuple[Alternative, ...]:
    """One balanced interleaved factorisation for each number of cores, fewest cores first.

    Numbers of cores that would leave a core without entries of its own (m_k n_k = 1) are left out, except that there is
    always one alternative. Raises `ValueError` where a list of ranks asks for such a number.
    """
    wanted = FREE_RANK if ranks is None else ranks
    counts = CORES if isinstance(wanted, int) else (len(wanted) + 1,)
    cuts = [cut for cut in (balanced(rows, columns, d) for d in counts) if all(m * n > 1 for m, n in cut)]
    if not cuts and isinstance(wanted, int):
        cuts = [low_rank_modes(rows, columns)]
    if not cuts:
        raise ValueError(f"{rows} × {columns} cannot be cut into {counts[0]} modes")
    return tuple(Alternative(cut, capped(cut, wanted), parameters(cut, wanted)) for cut in cuts)


def balanced(rows: int, columns: int, d: int) -> Modes:
    """d pairs (m_k, n_k), ∏ m_k = rows, ∏ n_k = columns, as equal as the factors permit.

    Factors of least sum each; the largest m meets the smallest n, so that the products m_k n_k are alike; the largest
    products come first and last, where only one rank multiplies them.
    """
    pairs = zip(equal_factors(rows, d), reversed(equal_factors(columns, d)), strict=True)
    largest_first = sorted(pairs, key=lambda p: (-p[0] * p[1], p))
    return (*largest_first[0::2], *reversed(largest_first[1::2]))


@cache
def equal_factors(n: int, d: int) -> tuple[int, ...]:
    """The d factors of n with the least sum, of those the least largest one; rising, 1s first where n has too few."""
    return min(_factorings(n, d, 1), key=lambda f: (sum(f), f[::-1]))


def _factorings(n: int, d: int, least: int) -> list[tuple[int, ...]]:
    """All rising d-tuples of factors ≥ least with product n."""
    if d == 1:
        return [(n,)] if n >= least else []
    return [(f, *rest) for f in _divisors(n) if least <= f and f**d <= n for rest in _factorings(n // f, d - 1, f)]


@cache
def _divisors(n: int) -> tuple[int, ...]:
    low = [f for f in range(1, int(n**0.5) + 1) if n % f == 0]
    return tuple(sorted({*low, *(n // f for f in low)}))


def nearest_modes(modes: Modes, rows: int, columns: int) -> Modes:
    """The modes closest to `modes` with products rows and columns: least ``Σ_k |log m_k/m'_k|``, and so for n_k."""
    m, n = nearest_factors([a for a, _ in modes], rows), nearest_factors([b for _, b in modes], columns)
    return tuple(zip(m, n, strict=True))


def nearest_factors(wanted: Sequence[int], n: int) -> tuple[int, ...]:
    """The factors of n, as many as `wanted` has, with the least ``Σ_k |log f_k/wanted_k|``, by dynamic programming."""
    best: dict[int, tuple[float, tuple[int, ...]]] = {1: (0.0, ())}
    for w in wanted:
        longer: dict[int, tuple[float, tuple[int, ...]]] = {}
        for done, (distance, factors) in best.items():
            for f in _divisors(n // done):
                found = (distance + abs(log(f / max(w, 1))), (*factors, f))
                if found < longer.get(done * f, (inf, ())):
                    longer[done * f] = found
        best = longer
    return best[n][1]
