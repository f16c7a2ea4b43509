"""Length of an exported file that holds factors, counted from the arrays with the checker's own arithmetic."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from prunelang.compiler.forms import Codebook, Composition, Fixed, Form, LowRank, Sparse, TensorTrain
from prunelang.compiler.shapes import Tensor
from prunelang.runtime.costs import FRAME, code_of, header_of, item_bytes, layouts, length_of, width_of
from prunelang.runtime.exact import Array
from prunelang.runtime.factors import named
from prunelang.runtime.stored import Stored


@dataclass(frozen=True)
class Piece:
    """One entry of the file, with its shape and the largest that it could have had."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    full: tuple[int, ...]

    def bytes(self, shape: tuple[int, ...]) -> int:
        return width_of(self.dtype) * prod(shape)


def factored_length(scope: Sequence[Tensor], made: Sequence[Composition], stored: Stored) -> int:
    """Bytes of a safetensors file with factors in the place of the tensors of `scope` that they make.

    What is stored as a tensor is so in its shortest layout, and a sparse part is a tensor of its own; a sparse form
    alone is no more than its tensor.
    """
    within = {t.name for t in scope}
    kept = [c for c in made if len(c.forms) > 1 or not isinstance(c.forms[0], Sparse)]
    composed = [stored.table.tensor[t] for c in kept for t in c.tensors if t in within]
    whole = [(t, stored.nonzeros[t.name]) for t in scope if t not in composed]
    pieces: list[Piece] = []
    for c in kept:
        names = [t for t in c.tensors if t in within]
        for i, form in enumerate(c.forms):
            for t in names:
                own = stored.table.tensor[t]
                if isinstance(form, Sparse):
                    part = Tensor(f"{t}:{i}", own.shape, "weight", own.dtype)
                    whole.append((part, int(stored.factors.arrays[named(t, i, "values")].size)))
                else:
                    pieces += _pieces(form, i, own, t == names[0], stored.factors.arrays)
    ways = [(t, n, layouts(t, "best")) for t, n in whole]
    data = sum(min(length_of(t, w, n) for w in ws) for t, n, ws in ways) + sum(p.bytes(p.shape) for p in pieces)
    end = sum(max(length_of(t, w, t.size) for w in ws) for t, _, ws in ways) + sum(p.bytes(p.full) for p in pieces)
    header = FRAME + item_bytes({"factors": _note(kept, within, stored)})
    header += sum(max(header_of(t, w, end) for w in ws) for t, _, ws in ways)
    header += sum(item_bytes({f"alias.{a}": t.name}) for t in composed for a in t.aliases)
    for p in pieces:
        header += item_bytes({p.name: {"dtype": code_of(p.dtype), "shape": p.full, "data_offsets": [end, end]}})
    return 8 + (header + 7) // 8 * 8 + data


def _pieces(form: Form, i: int, t: Tensor, first: bool, arrays: Mapping[str, Array]) -> Iterator[Piece]:
    def piece(symbol: str, full: Sequence[int]) -> Piece:
        name = named(t.name, i, symbol)
        return Piece(name, t.dtype, tuple(arrays[name].shape), tuple(full))

    rows, columns = t.matrix
    match form:
        case LowRank():
            r = min(rows, columns)
            yield from (piece("U", (rows, r)), piece("V", (r, columns)))
        case TensorTrain(modes=modes):
            sizes = [m * n for m, n in modes]
            for k, (m, n) in enumerate(modes):
                left = min(prod(sizes[:k]), prod(sizes[k:])) if k else 1
                right = min(prod(sizes[: k + 1]), prod(sizes[k + 1 :])) if k + 1 < len(modes) else 1
                yield piece(f"G{k + 1}", (left, m, n, right))
        case Codebook(size=size):
            if first:
                yield Piece(f"{t.name}:{i}.centres", t.dtype, (size,), (size,))
            yield _codes(t, i, size)
        case Fixed(values=values, scaled=scaled):
            if first and scaled:
                yield Piece(f"{t.name}:{i}.scale", t.dtype, (), ())
            yield _codes(t, i, len(values))


def _codes(t: Tensor, i: int, count: int) -> Piece:
    """So many bits each that `count` values can be told apart."""
    bits = next(b for b in range(64) if 1 << b >= count)
    length = (t.size * bits + 7) // 8
    return Piece(f"{t.name}:{i}.codes", "uint8", (length,), (length,))


def _note(kept: Sequence[Composition], within: set[str], stored: Stored) -> str:
    """The metadata that says what composes what."""
    said = []
    for c in kept:
        names = [t for t in c.tensors if t in within]
        tensors = [stored.table.tensor[t] for t in names]
        said.append(
            {
                "tensors": names,
                "shapes": [list(t.shape) for t in tensors],
                "forms": [_said(f) for f in c.forms],
                "dtypes": [t.dtype for t in tensors],
            }
        )
    return json.dumps(said, separators=(",", ":"), ensure_ascii=False)


def _said(form: Form) -> dict[str, object]:
    match form:
        case LowRank():
            return {"form": "low_rank", "rank": None}
        case TensorTrain(modes=modes):
            return {"form": "tt", "modes": modes, "ranks": None}
        case Codebook(size=size):
            return {"form": "codebook", "size": size}
        case Fixed(values=values, scaled=scaled):
            return {"form": "values", "values": values, "scaled": scaled}
    return {"form": "sparse", "count": None}
