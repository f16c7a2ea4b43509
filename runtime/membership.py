"""Whether the entries of stored tensors lie in a set, as a number that the set bounds.

    dense                  kept positions                                       ≥ all of them
    n_of_m(n, m)           most non-zeros of m consecutive entries of a row     ≤ n
    blocks(p, q)           blocks of which a part is kept                       ≤ 0
    sparse(n)              non-zero values                                      ≤ n
    codebook(k)            different values                                     ≤ k
    {…}, box(lo, hi)       entries outside                                      ≤ 0
    scaled({…})            entries outside for the best scale                   ≤ 0
    low_rank, tt, sums     what their factors show (`runtime.made`)

A fixed value stands for the number of the tensor's type that is nearest to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from prunelang.compiler.problem import Blocks, Entries, Kept, Named, NofM, Set
from prunelang.runtime.exact import Array, Value
from prunelang.runtime.made import composed_of
from prunelang.runtime.stored import NotRecounted, Outcome, Stored, distinct


def membership(function: Entries, set: Set, stored: Stored) -> Outcome:
    """Raises `NotRecounted` for sets that are not in the table above."""
    names = tuple(dict.fromkeys(map(stored.name, function.tensors)))
    match set:
        case Kept():
            size = sum(stored.table.tensor[n].size for n in names)
            return _at_least("kept positions", sum(stored.kept[n] for n in names), size)
        case NofM(n=n, m=m):
            most = max((_fullest(stored.mask(t, "non-zero values"), m) for t in names), default=0)
            return _at_most(f"most non-zeros of {m} consecutive entries", most, n)
        case Blocks(rows=p, columns=q):
            broken = sum(_broken(stored.mask(t, "kept positions"), p, q) for t in names)
            return _at_most(f"{p} × {q} blocks of which a part is kept", broken, 0)
        case Named(name="sum" | "low_rank" | "tt" | "scaled"):
            found = composed_of(names, set, stored)
            return found if found is not None else _named(set.name, dict(set.arguments), names, stored)
        case Named(name="sparse", arguments=arguments) if not [v for _, v in arguments if v is not None]:
            return Outcome("∈", "non-zero values", value=Value.exact(sum(stored.nonzeros[t] for t in names)))
        case Named(name=name, arguments=arguments, parts=()):
            return _named(name, dict(arguments), names, stored)
    raise NotRecounted("membership in a set of this kind")


def _named(name: str, arguments: Mapping[str, Any], names: tuple[str, ...], stored: Stored) -> Outcome:
    arrays = [stored.arrays[n] for n in names]
    match name, arguments:
        case "sparse", {"n": int(n), **rest} if not rest:
            return _at_most("non-zero values", sum(stored.nonzeros[t] for t in names), n)
        case "codebook", {"k": int(k), **rest} if not rest:
            return _at_most("different values", len(distinct(arrays)[0]), k)
        case "box", {"lo": lo, "hi": hi, **rest} if not rest:
            low, high = _number(lo), _number(hi)
            return _at_most("entries outside", sum(_outside_box(a, low, high) for a in arrays), 0)
        case "values", {"values": tuple() | list() as values, **rest} if not rest:
            numbers = [_number(v) for v in values]
            return _at_most("entries outside", sum(_outside(a, numbers) for a in arrays), 0)
        case "scaled", {"values": tuple() | list() as values, **rest} if not rest:
            return _scaled(arrays, [_number(v) for v in values])
    raise NotRecounted(f"the set `{name}`")


def _at_most(counted: str, value: int, bound: int) -> Outcome:
    return Outcome("∈", counted, upper=Fraction(bound), value=Value.exact(value))


def _at_least(counted: str, value: int, bound: int) -> Outcome:
    return Outcome("∈", counted, lower=Fraction(bound), value=Value.exact(value))


def _rows(mask: Array) -> Array:
    return mask.reshape(mask.shape[0], -1) if mask.ndim else mask.reshape(1, 1)


def _fullest(mask: Array, m: int) -> int:
    """Non-zeros in the fullest window; windows start at multiples of m in each row, the last may be shorter."""
    if mask.size == 0:
        return 0
    rows = _rows(mask)
    short = -rows.shape[1] % m
    windows = np.pad(rows, ((0, 0), (0, short))).reshape(rows.shape[0], -1, m)
    return int(np.count_nonzero(windows, axis=2).max())


def _broken(mask: Array, p: int, q: int) -> int:
    """Blocks that are neither kept as a whole nor empty; those at the edges are smaller."""
    if mask.size == 0:
        return 0
    rows = _rows(mask)
    margins = ((0, -rows.shape[0] % p), (0, -rows.shape[1] % q))
    full = np.pad(rows, margins, constant_values=True).reshape(-(-rows.shape[0] // p), p, -(-rows.shape[1] // q), q)
    some = np.pad(rows, margins).reshape(full.shape)
    return int(np.count_nonzero(some.any(axis=(1, 3)) & ~full.all(axis=(1, 3))))


def _number(value: Any) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        raise NotRecounted(f"a set with the argument {value!r}")
    return Fraction(value)


def _nearest(value: Fraction, dtype: np.dtype[Any]) -> Any:
    return np.array(float(value)).astype(dtype)[()]


def _outside_box(array: Array, low: Fraction, high: Fraction) -> int:
    """Entries below `low` or above `high`, compared without rounding either."""
    values, times = distinct([array])
    return sum(int(n) for v, n in zip(values.tolist(), times, strict=True) if not low <= Fraction(v) <= high)


def _outside(array: Array, values: list[Fraction]) -> int:
    allowed = np.array([_nearest(v, array.dtype) for v in values], array.dtype)
    return int(np.count_nonzero(~np.isin(array, allowed)))


def _scaled(arrays: list[Array], values: list[Fraction]) -> Outcome:
    """Some scale takes the largest magnitude to one of the values; products that had to be rounded decide nothing."""
    stored, times = distinct(arrays)
    found = {Fraction(v): int(n) for v, n in zip(stored.tolist(), times, strict=True)}
    top = max(found, key=abs, default=Fraction(0))
    scales = [top / v for v in values if v] or [Fraction(0)]
    outside = min(sum(n for w, n in found.items() if w not in {s * v for v in values}) for s in scales)
    if outside:
        raise NotRecounted("the set `scaled` where a value times the scale had to be rounded")
    return _at_most("entries outside", 0, 0)
