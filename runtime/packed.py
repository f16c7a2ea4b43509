"""Exported files that hold factors: arrays to bytes and back, with codes of ⌈log₂ k⌉ bits.

What is read back are the composed tensors, rounded once to their types; `composed` adds up in an order of its own, so
that the file gives the same bits on every machine. A sparse part comes back as a tensor called ``t:i``.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from prunelang.compiler.formats import Layout
from prunelang.compiler.forms import Codebook, Composition, Fixed, Form, LowRank, Sparse, TensorTrain, from_json
from prunelang.compiler.packing import code_bits, packed, packed_bytes, packed_layout
from prunelang.compiler.shapes import ITEMSIZE, ShapeTable, Tensor
from prunelang.runtime.factor_files import check_factors
from prunelang.runtime.factors import Factors, composed, named, symbols
from prunelang.runtime.files import FileProblem, parse_json
from prunelang.runtime.weights import Array, Arrays, nonzero, unpack


def pack(table: ShapeTable, weights: Arrays, factors: Factors, path: Path) -> tuple[Layout, dict[str, int], Arrays]:
    """The layout of a file of `weights`, the entries of what it stores as tensors, and what to write for every part.

    Errors: `FileProblem` P517 for a tensor that its factors do not give bit for bit.
    """
    held = packed(factors.compositions, weights)
    content = dict(weights)
    entries: dict[tuple[str, int], tuple[int, ...]] = {}
    for c in held:
        for name, array in composed(c, factors.arrays, table).items():
            if array.tobytes() != np.ascontiguousarray(weights[name]).tobytes():
                said = f"`{name}` is not bit for bit what its factors make, so that they cannot stand for it"
                raise FileProblem("P517", f"{path}: {said}", "Export it as dense, or finish the run with this version.")
        for name, form, symbol, which in symbols(c):
            content[name] = factors.arrays[name]
            if symbol == "codes":
                content[name] = pack_codes(factors.arrays[name], _count(form))
            if symbol == "values":
                content[name.removesuffix(".values")] = _dense(name, c.shapes[which], factors.arrays)
        for i, form in enumerate(c.forms):
            for tensor in c.tensors if isinstance(form, Sparse) else c.tensors[:1]:
                entries[tensor, i] = _sizes(form, tensor, i, factors.arrays)
    for name, array in weights.items():
        entries[name, -1] = (int(np.count_nonzero(nonzero(array))),)
    file, counts = packed_layout(table, weights, held, entries)
    return file, counts, content


def unpack_factors(note: str, found: dict[str, Array], path: Path) -> dict[str, Array]:
    """The tensors of a file, its factors in `found` replaced by what they make. Errors: `FileProblem` P512 to P517."""
    tensors, compositions = _read(note, path)
    arrays = dict(found)
    taken: dict[str, Array] = {}
    for c in compositions:
        for name, form, symbol, which in symbols(c):
            part = name.removesuffix(f".{symbol}")
            if symbol in ("values", "indices"):
                whole = _part(arrays, part, path).reshape(-1)
                where = np.flatnonzero(nonzero(whole))
                taken[name] = whole[where] if symbol == "values" else where.astype(np.int64)
            elif symbol == "codes":
                size, raw = prod(c.shapes[which]), _part(arrays, name, path)
                if raw.dtype != np.uint8 or raw.shape != (packed_bytes(size, _count(form)),):
                    raise FileProblem("P514", f"{path}: `{name}` has not the bits of {size} codes")
                codes = unpack_codes(raw, size, _count(form), f"{path}: `{name}`")
                taken[name] = codes.reshape(c.shapes[which])
            else:
                taken[name] = _part(arrays, name, path)
    for c in compositions:
        for name, _, symbol, _ in symbols(c):
            arrays.pop(name.removesuffix(f".{symbol}") if symbol in ("values", "indices") else name, None)
    table = ShapeTable("an exported network", (), (), tensors)
    check_factors(Factors(compositions, taken), table, path)
    try:
        for c in compositions:
            arrays |= composed(c, taken, table)
    except (MemoryError, ValueError) as error:  # no rank takes no bytes, whatever the shape
        raise FileProblem("P512", f"{path} composes a tensor that does not fit in memory") from error
    return arrays


def pack_codes(codes: Array, count: int) -> Array:
    """⌈log₂ count⌉ bits each, lowest first, in the order of rows."""
    bits = code_bits(count)
    wide = np.ascontiguousarray(codes.reshape(-1).astype("<u2")).view(np.uint8).reshape(-1, 2)
    return np.packbits(np.unpackbits(wide, axis=1, bitorder="little")[:, :bits].reshape(-1), bitorder="little")


def unpack_codes(raw: Array, size: int, count: int, what: str) -> Array:
    """`size` codes of the type that they are kept in. Errors: `FileProblem` P512 if a bit after them is set."""
    bits = code_bits(count)
    table = np.zeros((size, 16), dtype=np.uint8)
    table[:, :bits] = unpack(raw, size * bits, what).reshape(size, bits)
    wide = np.packbits(table, axis=1, bitorder="little").reshape(-1).view("<u2")
    return wide.astype(np.uint8 if count <= 1 << 8 else np.uint16)


def described(factors: Factors) -> dict[str, str]:
    """What each tensor is stored as, for people: ``low rank 10 + sparse``."""
    found: dict[str, str] = {}
    everything = [t for c in factors.compositions for t in c.tensors]
    for c in packed(factors.compositions, everything):
        for tensor in c.tensors:
            found[tensor] = " + ".join(_called(f, tensor, i, factors.arrays) for i, f in enumerate(c.forms))
    return found


def _called(form: Form, tensor: str, i: int, arrays: Arrays) -> str:
    match form:
        case LowRank():
            return f"low rank {_sizes(form, tensor, i, arrays)[0]}"
        case TensorTrain():
            return f"train {'-'.join(map(str, _sizes(form, tensor, i, arrays)))}"
        case Codebook(size=size):
            return f"codebook {size}"
        case Fixed(values=values):
            return f"{len(values)} values"
    return f"sparse {_sizes(form, tensor, i, arrays)[0]}"


def _sizes(form: Form, tensor: str, i: int, arrays: Arrays) -> tuple[int, ...]:
    """The sizes x of one form."""
    match form:
        case LowRank():
            return (int(arrays[named(tensor, i, "U")].shape[1]),)
        case TensorTrain(modes=modes):
            return tuple(int(arrays[named(tensor, i, f"G{k}")].shape[3]) for k in range(1, len(modes)))
        case Sparse():
            return (int(arrays[named(tensor, i, "values")].size),)
    return ()


def _count(form: Form) -> int:
    return form.size if isinstance(form, Codebook) else len(form.values) if isinstance(form, Fixed) else 0


def _dense(values: str, shape: tuple[int, ...], arrays: Arrays) -> Array:
    flat = np.zeros(prod(shape), arrays[values].dtype)
    flat[arrays[f"{values.removesuffix('values')}indices"]] = arrays[values]
    return flat.reshape(shape)


def _part(arrays: Mapping[str, Array], name: str, path: Path) -> Array:
    if name not in arrays:
        raise FileProblem("P512", f"{path} lacks `{name}`")
    return arrays[name]


def _read(note: str, path: Path) -> tuple[tuple[Tensor, ...], tuple[Composition, ...]]:
    """What the metadata says is composed: the tensors, with their types, and the compositions."""
    try:
        data: Any = parse_json(note, path)
        found = tuple(map(from_json, data))
        tensors = tuple(
            Tensor(name, shape, "weight", str(dtype))
            for item, c in zip(data, found, strict=True)
            for name, shape, dtype in zip(c.tensors, c.shapes, item["dtypes"], strict=True)
        )
        if any(t.dtype not in ITEMSIZE or not t.dtype.lstrip("b").startswith("float") for t in tensors):
            raise ValueError("a composed tensor is of no floating type")
        return tensors, found
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileProblem("P512", f"{path} does not say what its factors compose: {error!r:.200}") from error
