"""What each constraint says about counts: one integer ``n_t`` of kept positions for every tensor t, ``0 ≤ n_t ≤ size``.

A constraint becomes a `Line`: a bracket ``below(n) ≤ f ≤ above(n)`` around its function and `Row`s, linear conditions
on n that it implies. Rows of a plain count speak its whole meaning; other constraints imply rows that are sound and
weaker. Frozen tensors are no variables: their unknown non-zeros lie anywhere in ``[0, size]``, and all their positions
count as kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil, floor, gcd
from typing import TypeAlias

from prunelang.compiler.problem import (
    Affine,
    Blocks,
    Choice,
    Constraint,
    Count,
    Entries,
    FactorCost,
    Function,
    GroupCount,
    Interval,
    Kept,
    MatrixFunction,
    Measured,
    Named,
    NofM,
    Structural,
    VectorNorm,
    tensors_of,
)
from prunelang.compiler.proofs.channels import Channelled, channelled
from prunelang.compiler.shapes import ShapeTable, Tensor
from prunelang.compiler.trains import full_ranks

Pieces: TypeAlias = tuple[tuple[int, int], ...]
"""A concave cost of one tensor, ``min over (a, c) of a·n + c`` with a ≥ 0."""

NORMS = frozenset({"norm1", "norm2", "norminf", "group_norm1", "drr"})
SHARES = frozenset({"accuracy", "error"})
NONNEGATIVE = SHARES | {"cross_entropy", "mse", "nll", "synops", "spikes", "description_length"}
FIXED_POINT = 1 << 64  # slopes that are no integers are rounded down to multiples of 2⁻⁶⁴


@dataclass(frozen=True, slots=True)
class Row:
    """``lower ≤ Σ_t coefficient_t · n_t ≤ upper`` with positive coefficients, implied by line `source`."""

    source: int
    coefficients: Mapping[str, int]
    lower: int | None
    upper: int | None

    @property
    def uniform(self) -> bool:
        return all(c == 1 for c in self.coefficients.values())

    @property
    def torn(self) -> bool:
        """Whether no integer lies between its ends."""
        return self.lower is not None and self.upper is not None and self.lower > self.upper


@dataclass(frozen=True, slots=True)
class Linear:
    """``(Σ_t coefficient_t · n_t + constant) / scale``."""

    coefficients: Mapping[str, int]
    constant: int
    scale: int


@dataclass(frozen=True)
class Line:
    """One constraint as the proofs see it: ``low ≤ f ≤ high`` with ``below(n) ≤ f ≤ above(n)``."""

    index: int
    constraint: Constraint
    low: Fraction | int | None = None
    high: Fraction | int | None = None
    below: Mapping[str, Pieces] = field(default_factory=dict)
    below_constant: int | None = None  # None: f has no known lower end
    above: Mapping[str, Pieces] = field(default_factory=dict)
    above_constant: int | None = None  # None: f has no upper end
    per: Mapping[str, int] = field(default_factory=dict)  # groups: f ≥ Σ ⌈n_t / per_t⌉ in place of `below`
    rows: tuple[Row, ...] = ()
    precise: bool = False  # f = below(n) = above(n), and the rows say all that the constraint says about counts
    taints: frozenset[str] = frozenset()  # tensors that it restricts in ways the rows do not show
    channels: Channelled | None = None  # f is this product of kept members: it has corners beside `below` and `above`

    @property
    def label(self) -> str:
        return self.constraint.label

    @property
    def concave(self) -> bool:
        """The function bends, so a linear minorant needs to know how many positions each tensor can keep."""
        return any(len(p) > 1 for p in self.below.values())

    def tensors(self) -> set[str]:
        counted = {*self.below, *self.above, *self.per, *(t for row in self.rows for t in row.coefficients)}
        return counted if self.channels is None else counted | self.channels.tensors


def at(pieces: Pieces, n: int) -> int:
    """Value of a concave cost at n."""
    if len(pieces) == 1:
        return pieces[0][0] * n + pieces[0][1]
    return min(a * n + c for a, c in pieces)


def minorant(line: Line, box: Callable[[str], tuple[int, int]]) -> Linear:
    """The steepest linear function below f that is used here; `box` bounds n_t where f is concave (its chord)."""
    constant = line.below_constant or 0
    if line.per:
        sizes = set(line.per.values())
        scale = sizes.pop() if len(sizes) == 1 else FIXED_POINT
        return Linear({t: scale // s for t, s in line.per.items()}, constant * scale, scale)
    if not line.concave:
        coefficients = {t: p[0][0] for t, p in line.below.items()}
        return Linear(coefficients, constant + sum(p[0][1] for p in line.below.values()), 1)
    slopes: dict[str, int] = {}
    constant *= FIXED_POINT
    for t, pieces in line.below.items():
        lo, hi = box(t)
        slopes[t] = (at(pieces, hi) - at(pieces, lo)) * FIXED_POINT // max(hi - lo, 1)
        constant += at(pieces, lo) * FIXED_POINT - slopes[t] * lo
    return Linear(slopes, constant, FIXED_POINT)


def nm_capacity(tensor: Tensor, n: int, m: int) -> int:
    """The most positions that `n_of_m(n, m)` lets a tensor keep: n of each m along a row, min(n, rest) of the rest."""
    rows, columns = tensor.matrix
    return rows * (columns // m * min(n, m) + min(n, columns % m))


def groups(tensor: Tensor, by: str) -> tuple[int, int]:
    """The number of groups in a tensor and the size of the largest.

    Heads are not part of the shape: no more than rows, none larger than the tensor.
    """
    rows, columns = tensor.matrix
    if by in {"filter", "row"}:
        return rows, columns
    if by == "channel" and len(tensor.shape) > 1:
        return tensor.shape[1], tensor.size // max(tensor.shape[1], 1)
    if by == "column":
        return columns, rows
    return rows, tensor.size


def lines_of(constraints: Iterable[Constraint], table: ShapeTable, frozen: frozenset[str]) -> list[Line]:
    """All constraints as lines; a line's index is its place among `constraints`."""
    return [line_of(i, c, table, frozen) for i, c in enumerate(constraints)]


def line_of(index: int, constraint: Constraint, table: ShapeTable, frozen: frozenset[str]) -> Line:
    bare = Line(index, constraint)
    match constraint.function, constraint.set:
        case Count() as f, Interval() as s:
            return _count(bare, f, s, table, frozen)
        case Choice() as f, Interval() as s:
            return _choice(bare, f, s, table, frozen)
        case GroupCount() as f, Interval() as s:
            return _group_count(bare, f, s, table, frozen)
        case Structural() as f, Interval() as s:
            return _structural(bare, f, s, table, frozen)
        case VectorNorm() as f, Interval() as s:
            free = f.name in NORMS and s.lower is None  # weights may be as small as a norm asks, and still be kept
            taints = frozenset() if free else _names(f, table)
            return replace(bare, low=s.lower, high=s.upper, below_constant=0, taints=taints)
        case MatrixFunction() as f, Interval() as s:
            most = min(table.tensor[f.tensor].matrix) if f.name == "rank" else _largest_train(f)
            taints = _names(f, table)
            return replace(bare, low=s.lower, high=s.upper, below_constant=0, above_constant=most, taints=taints)
        case Measured() as f, Interval() as s:
            least, most = 0 if f.name in NONNEGATIVE else None, 1 if f.name in SHARES else None
            return replace(bare, low=s.lower, high=s.upper, below_constant=least, above_constant=most)
        case Entries() as f, Kept() | NofM() | Blocks() | Named():
            return _entries(bare, f, table, frozen)
    return replace(bare, taints=_names(constraint.function, table))


def _largest_train(f: MatrixFunction) -> int | None:
    """The largest rank that a train of these modes can need."""
    modes = dict(f.options).get("modes")
    return None if f.name != "tt_rank" or modes is None else max(full_ranks(modes), default=1)


def _names(f: Function, table: ShapeTable) -> frozenset[str]:
    """The tensors that a function reads."""
    match f:
        case Count():
            names = tuple(f.coefficients)
        case Choice():
            names = tuple(f.alternatives)
        case Structural():
            names = tuple(table.layer[x].weight for x in f.layers)
        case GroupCount() | VectorNorm() | Entries():
            names = f.tensors
        case FactorCost():
            names = tensors_of(f)
        case MatrixFunction():
            names = (f.tensor,)
        case Affine():
            return frozenset(n for _, term in f.terms for n in _names(term, table))
        case _:
            names = ()
    return frozenset(table.tensor[n].name for n in names)


def _interval(s: Interval) -> tuple[int | None, int | None]:
    """A function that takes integers alone meets the integers inside its interval."""
    return None if s.lower is None else ceil(s.lower), None if s.upper is None else floor(s.upper)


def _row(
    source: int, coefficients: Mapping[str, int], low: int | None, high: int | None, table: ShapeTable
) -> Iterator[Row]:
    """The row with common factors divided out, rounded to the integers it allows; nothing where it says nothing."""
    cost = {t: c for t, c in coefficients.items() if c and table.tensor[t].size}
    if not cost:
        return
    g = gcd(*cost.values())
    cost = {t: c // g for t, c in cost.items()} if g > 1 else cost
    lower = None if low is None or low <= 0 else -(-low // g)
    upper = None if high is None else high // g
    if upper is not None and upper >= sum(c * table.tensor[t].size for t, c in cost.items()):
        upper = None
    if lower is not None or upper is not None:
        yield Row(source, cost, lower, upper)


def _count(bare: Line, f: Count, s: Interval, table: ShapeTable, frozen: frozenset[str]) -> Line:
    free: dict[str, int] = {}
    still = 0
    for name, c in f.coefficients.items():
        t = table.tensor[name]
        if t.name in frozen:
            still += c * t.size
        else:
            free[t.name] = free.get(t.name, 0) + c
    low, high = _interval(s)
    lower = None if low is None else low - f.constant - still
    upper = None if high is None else high - f.constant
    cost = {t: ((c, 0),) for t, c in free.items()}
    return replace(
        bare,
        low=low,
        high=high,
        below=cost,
        below_constant=f.constant,
        above=cost,
        above_constant=f.constant + still,
        rows=tuple(_row(bare.index, free, lower, upper, table)),
        precise=not still,
    )


def _choice(bare: Line, f: Choice, s: Interval, table: ShapeTable, frozen: frozenset[str]) -> Line:
    ways: dict[str, Pieces] = {}
    least = most = f.constant
    for name, alternatives in f.alternatives.items():
        t = table.tensor[name]
        pieces = tuple((a, c) for _, a, c in alternatives)
        if t.name in frozen:
            least, most = least + at(pieces, 0), most + at(pieces, t.size)
        else:
            ways[t.name] = pieces
    low, high = _interval(s)
    line = replace(bare, low=low, high=high, below=ways, below_constant=least, above=ways, above_constant=most)
    if len(ways) != 1:
        return replace(line, taints=frozenset(ways))
    (name, pieces), size = next(iter(ways.items())), table.tensor[next(iter(ways))].size
    lower = None if low is None else _first(lambda n: at(pieces, n) + most >= low, size)
    upper = None if high is None else _first(lambda n: at(pieces, n) + least > high, size) - 1
    return replace(line, rows=tuple(_row(bare.index, {name: 1}, lower, upper, table)), precise=least == most)


def _first(holds: Callable[[int], bool], size: int) -> int:
    """The least n in [0, size + 1] from which on a monotone condition holds (size + 1: nowhere)."""
    lo, hi = 0, size + 1
    while lo < hi:
        mid = (lo + hi) // 2
        lo, hi = (lo, mid) if holds(mid) else (mid + 1, hi)
    return lo


def _group_count(bare: Line, f: GroupCount, s: Interval, table: ShapeTable, frozen: frozenset[str]) -> Line:
    tensors = {table.tensor[n].name: table.tensor[n] for n in f.tensors}
    shape = {n: groups(t, f.by) for n, t in tensors.items() if t.size}
    free = {n: g for n, g in shape.items() if n not in frozen}
    still = sum(number for n, (number, _) in shape.items() if n in frozen)
    low, high = _interval(s)
    line = replace(
        bare,
        low=low,
        high=high,
        below_constant=0,
        per={n: size for n, (_, size) in free.items()},
        above={n: ((1, 0), (0, number)) for n, (number, _) in free.items()},
        above_constant=still,
        taints=frozenset(free),
    )
    kept = minorant(line, lambda _: (0, 0))
    upper = None if high is None else high * kept.scale
    lower = None if low is None else low - still
    rows = (
        *_row(bare.index, kept.coefficients, None, upper, table),
        *_row(bare.index, dict.fromkeys(free, 1), lower, None, table),
    )
    return replace(line, rows=rows)


def _structural(bare: Line, f: Structural, s: Interval, table: ShapeTable, frozen: frozenset[str]) -> Line:
    """What remains holds every kept position, so its cost is at least that of the kept positions alone."""
    if table.channels:
        return _channels(bare, f, s, table)
    cost: dict[str, int] = {}
    for name in f.layers:
        layer = table.layer[name]
        kernel = table.tensor[layer.weight].name
        if f.name in {"macs", "flops"}:
            cost[kernel] = cost.get(kernel, 0) + layer.uses * (2 if f.name == "flops" else 1)
        elif f.name == "params":
            cost.update({table.tensor[n].name: 1 for n in (layer.weight, layer.bias) if n is not None})
    free = {t: c for t, c in cost.items() if t not in frozen}
    low, high = _interval(s)
    return replace(
        bare,
        low=low,
        high=high,
        below={t: ((c, 0),) for t, c in free.items()},
        below_constant=0,
        above_constant=f.dense,
        rows=tuple(_row(bare.index, free, None, high, table)),
        taints=frozenset(free),
    )


def _channels(bare: Line, f: Structural, s: Interval, table: ShapeTable) -> Line:
    """The cost as a polynomial in kept members: at least what no group touches and each kept position once."""
    cost = dict(f.costs)
    still = f.dense - sum(c * table.tensor[t].size for t, c in cost.items())
    low, high = _interval(s)
    return replace(
        bare,
        low=low,
        high=high,
        below={t: ((c, 0),) for t, c in cost.items()},
        below_constant=still,
        above_constant=f.dense,
        rows=tuple(_row(bare.index, cost, None, None if high is None else high - still, table)),
        taints=frozenset(f.tensors),
        channels=channelled(f, table) if f.groups else None,
    )


def _entries(bare: Line, f: Entries, table: ShapeTable, frozen: frozenset[str]) -> Line:
    """Membership of the entries themselves: the function is the number of kept positions."""
    tensors = {table.tensor[n].name: table.tensor[n] for n in f.tensors}
    free = {n: t for n, t in tensors.items() if n not in frozen}
    if isinstance(bare.constraint.set, Named):
        return replace(bare, taints=frozenset(free))  # says nothing of positions
    plain = dict.fromkeys(free, ((1, 0),))
    still = sum(t.size for n, t in tensors.items() if n in frozen)
    line = replace(bare, below=plain, below_constant=0, above=plain, above_constant=still, precise=not still)
    match bare.constraint.set:
        case Kept():
            pins = tuple(Row(bare.index, {n: 1}, t.size, None) for n, t in free.items() if t.size)
            return replace(line, low=sum(t.size for t in free.values()), rows=pins)
        case NofM(n=n, m=m) if m > 0 and n >= 0:
            capacity = {name: nm_capacity(t, n, m) for name, t in free.items()}
            rows = [r for name, cap in capacity.items() for r in _row(bare.index, {name: 1}, None, cap, table)]
            return replace(line, high=sum(capacity.values()) + still, rows=tuple(rows))
    return replace(line, precise=False, taints=frozenset(free))


def extremes(line: Line, sizes: Mapping[str, int]) -> tuple[int | None, int | None]:
    """The least and the greatest value of f over all n: with everything removed, and with everything kept."""
    least, most = line.below_constant, line.above_constant
    if least is not None:
        least += sum(at(p, 0) for p in line.below.values())
    if least is not None and line.channels is not None:
        least = max(least, line.channels.cost.constant)
    if most is not None:
        most += sum(at(p, sizes[t]) for t, p in line.above.items())
    return least, most
