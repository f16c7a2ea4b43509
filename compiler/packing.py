"""Byte-exact layout of files that hold factors: what `export` writes and `bytes` counts where tensors are composed.

A form of a composition takes, with b bytes a number of its tensor's type,

    low rank r        b·r(m + n)                     ``w:i.U``, ``w:i.V``
    tensor train      b·Σ_k r_{k−1} m_k n_k r_k      ``w:i.G1`` … ``w:i.Gd``
    codebook k        b·k + Σ_t ⌈N_t ⌈log₂ k⌉ / 8⌉   ``w:i.centres``, and ``t:i.codes`` of every tensor t, bit-packed
    fixed values      Σ_t ⌈N_t ⌈log₂ k⌉ / 8⌉         ``t:i.codes``, and b bytes for ``w:i.scale`` if there is one
    sparse            the cheapest format            ``t:i`` as a tensor of its own, dense, as bitmask or csr

All other tensors are stored as in the format best. What composes what stands in the metadata, without the bounds that
the shapes show themselves; the header has room for full ranks, so its length depends on forms and dense shapes alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Final, TypeAlias, TypeVar

from prunelang.compiler.formats import FORMATS, Layout, Part, Stored, cheapest, header_room, layout, store, stored_once
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
    to_json,
    unbounded,
)
from prunelang.compiler.problem import FactorCost, FactorTerm
from prunelang.compiler.shapes import ITEMSIZE, ShapeTable, Tensor

T = TypeVar("T")
FACTORED: Final = "2"
Sizes: TypeAlias = Mapping[tuple[str, int], Sequence[int]]
"""The sizes x of every (tensor, form), as in `FactorTerm`; (its non-zero entries,) of every (kernel, −1)."""


def packed_bytes(size: int, values: int) -> int:
    """Bytes of `size` codes of ⌈log₂ values⌉ bits each."""
    return -(-size * code_bits(values) // 8)


def code_bits(values: int) -> int:
    """⌈log₂ values⌉: no bits for a single value."""
    return max(0, values - 1).bit_length()


def packed(compositions: Iterable[Composition], tensors: Iterable[str]) -> tuple[Composition, ...]:
    """The compositions that a file of `tensors` holds as factors, restricted to those.

    A box, a nuclear ball and a sparse form alone are shown by the tensor itself.
    """
    names = set(tensors)
    found = []
    for c in compositions:
        here = [k for k, t in enumerate(c.tensors) if t in names]
        if here and (len(c.forms) > 1 or not isinstance(c.forms[0], Box | Nuclear | Sparse)):
            found.append(replace(c, tensors=_picked(c.tensors, here), shapes=_picked(c.shapes, here)))
    return tuple(found)


def packed_layout(
    table: ShapeTable, tensors: Iterable[str], compositions: Iterable[Composition], sizes: Sizes
) -> tuple[Layout, dict[str, int]]:
    """The file that holds `tensors`, those of compositions as factors of the given sizes, and the entries z of each of
    its parts that is stored as a tensor of its own, for `Layout.nbytes`."""
    chosen, held = _split(table, tensors, compositions)
    composed = {t for c in held for t in c.tensors}
    entries = {t.name: sizes[t.name, -1][0] for t in chosen if t.role == "weight" and t.name not in composed}
    rest = (t for t in chosen if t.name not in composed)
    stored = [store(t, cheapest(t, entries[t.name]) if t.role == "weight" else "dense") for t in rest]
    for c in held:
        for part in _parts(c, table, sizes):
            if isinstance(part, Stored):
                stored.append(part)
            else:
                entries[part.name] = sizes[part.name.rpartition(":")[0], int(part.name.rpartition(":")[2])][0]
                stored.append(store(part, cheapest(part, entries[part.name])))
    return Layout(tuple(stored), _room(chosen, held, table), FACTORED, _notes(held, table)), entries


def factor_bytes(table: ShapeTable, tensors: Iterable[str], compositions: Iterable[Composition]) -> FactorCost:
    """Length of that file in bytes, as a function of the sizes. A sparse form alone is its tensors, by entries.

    Kernels in no composition are counted by their non-zero entries, under form −1.
    """
    tensors, compositions = tuple(tensors), tuple(compositions)
    chosen, held = _split(table, tensors, compositions)
    composed = {t for c in held for t in c.tensors}
    alone = {t for c in compositions if len(c.forms) == 1 and isinstance(c.forms[0], Sparse) for t in c.tensors}
    constant, entries = 8 + _room(chosen, held, table), []
    for t in (t for t in chosen if t.name not in composed):
        if t.role == "weight":
            entries.append(FactorTerm(t.name, 0 if t.name in alone else -1, ways=_ways(t)))
        else:
            constant += store(t, "dense").fixed
    for c in held:
        for i, form in enumerate(c.forms):
            fixed, terms = _cost(form, c, i, table)
            constant += fixed
            entries += terms
    dense = layout(table, tensors, "dense").nbytes({})
    return FactorCost("bytes", "B", constant, tuple(entries), dense, (("format", "best"),))


def _cost(form: Form, c: Composition, i: int, table: ShapeTable) -> tuple[int, list[FactorTerm]]:
    first = c.tensors[0]
    width, sizes = ITEMSIZE[table.tensor[first].dtype], [prod(s) for s in c.shapes]
    match form:
        case LowRank():
            m, n = c.shapes[0][0], prod(c.shapes[0][1:])
            return 0, [FactorTerm(first, i, ((width * (m + n), (0,)),))]
        case TensorTrain(modes=modes):
            d = len(modes)
            cores = ((width * m * n, tuple(b for b in (k - 1, k) if 0 <= b < d - 1)) for k, (m, n) in enumerate(modes))
            return 0, [FactorTerm(first, i, tuple(cores))]
        case Codebook(size=k):
            return width * k + sum(packed_bytes(n, k) for n in sizes), []
        case Fixed(values=values, scaled=scaled):
            return width * scaled + sum(packed_bytes(n, len(values)) for n in sizes), []
        case Sparse():
            own = (_own(t, i, table) for t in c.tensors)
            return 0, [FactorTerm(t, i, ways=_ways(part)) for t, part in zip(c.tensors, own, strict=True)]
    raise TypeError(f"a {type(form).__name__} is stored as the tensor")


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _split(
    table: ShapeTable, tensors: Iterable[str], compositions: Iterable[Composition]
) -> tuple[list[Tensor], tuple[Composition, ...]]:
    chosen = stored_once(table, tensors)
    return chosen, packed(compositions, (t.name for t in chosen))


def _parts(c: Composition, table: ShapeTable, sizes: Sizes | None) -> Iterator[Stored | Tensor]:
    """What a composition is stored as: factors of the sizes given (full ones without), and sparse parts as tensors."""
    for which, name in enumerate(c.tensors):
        t = table.tensor[name]
        parts: list[Part] = []
        for i, form in enumerate(c.forms):
            if isinstance(form, Sparse):
                yield _own(name, i, table)
                continue
            x = None if sizes is None else sizes.get((name, i))
            arrays = _arrays(form, c, which, t.dtype, x)
            parts += [Part(f"{name}:{i}.{symbol}", name, dtype, shape) for symbol, dtype, shape in arrays]
        yield Stored(t, "factors", tuple(parts))


def _arrays(
    form: Form, c: Composition, which: int, dtype: str, x: Sequence[int] | None
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Symbol, type and shape of what a form keeps for one tensor; full ranks where no sizes are given."""
    shape = c.shapes[which]
    match form:
        case LowRank():
            m, n = shape[0], prod(shape[1:])
            r = min(m, n) if x is None else x[0]
            yield from (("U", dtype, (m, r)), ("V", dtype, (r, n)))
        case TensorTrain(modes=modes):
            entries = [m * n for m, n in modes]
            full = (min(prod(entries[:k]), prod(entries[k:])) for k in range(1, len(modes)))
            ranks = (1, *(full if x is None else x), 1)
            for k, (m, n) in enumerate(modes):
                yield f"G{k + 1}", dtype, (ranks[k], m, n, ranks[k + 1])
        case Codebook(size=size):
            if which == 0:
                yield "centres", dtype, (size,)
            yield "codes", "uint8", (packed_bytes(prod(shape), size),)
        case Fixed(values=values, scaled=scaled):
            if which == 0 and scaled:
                yield "scale", dtype, ()
            yield "codes", "uint8", (packed_bytes(prod(shape), len(values)),)


def _own(name: str, i: int, table: ShapeTable) -> Tensor:
    """A sparse part as a tensor of its own."""
    return replace(table.tensor[name], name=f"{name}:{i}", role="weight", aliases=())


def _ways(t: Tensor) -> tuple[tuple[str, int, int], ...]:
    return tuple((s.format, s.per_nonzero, s.fixed) for s in (store(t, f) for f in FORMATS))


def _room(chosen: list[Tensor], held: Sequence[Composition], table: ShapeTable) -> int:
    composed = {t for c in held for t in c.tensors}
    parts: list[Stored | Tensor] = [t for t in chosen if t.name not in composed]
    parts += [part for c in held for part in _parts(c, table, None)]
    ways = [[p] if isinstance(p, Stored) else [store(p, f) for f in FORMATS] for p in parts]
    return header_room(ways, _notes(held, table))


def _notes(held: Sequence[Composition], table: ShapeTable) -> tuple[tuple[str, str], ...]:
    """``factors``: the compositions and the types of their tensors, as JSON."""
    said = []
    for c in held:
        forms = tuple(map(unbounded, c.forms))
        said.append(to_json(replace(c, forms=forms)) | {"dtypes": [table.tensor[t].dtype for t in c.tensors]})
    return (("factors", json.dumps(said, separators=(",", ":"), ensure_ascii=False)),)


def _picked(items: Sequence[T], places: Sequence[int]) -> tuple[T, ...]:
    return tuple(items[k] for k in places)
