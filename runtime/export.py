"""`export`: the weights of a run in the formats dense, bitmask, csr or best, and back, bit for bit; or coded.

What is written has the layout of `compiler.formats`, so its length is the number that `bytes(net)` counts: that is
asserted on the file before it takes its name, and so is that reading it back gives the same tensors. Every file is a
plain safetensors file; names and metadata alone say how to decode it. In `best`, tensors that are made of factors are
stored as these (`runtime.packed`). Only `coded` has a format of its own, and rounds the values of kernels
(`runtime.coded`): what is read back are exactly the rounded ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from prunelang.compiler.formats import FORMATS, VERSION, Format, Layout, Part, header_bytes, layout
from prunelang.compiler.packing import FACTORED, packed
from prunelang.compiler.shapes import ShapeTable, Tensor
from prunelang.runtime.coded import BITS, decode, encode, is_coded, on_grid
from prunelang.runtime.factors import NO_FACTORS, Factors
from prunelang.runtime.files import FileProblem, read, write_atomically
from prunelang.runtime.packed import described, pack, unpack_factors
from prunelang.runtime.weights import (
    Array,
    Arrays,
    file_metadata,
    load_weights,
    narrowed,
    nonzero,
    parts,
    unpack,
    widened,
)

Target: TypeAlias = Format | Literal["best", "coded"]


@dataclass(frozen=True)
class Exported:
    """A written file: its length in bytes, which is also what was predicted, and how each tensor is stored."""

    path: Path
    bytes: int
    formats: Mapping[str, str]
    predicted: int
    rounding: float = 0.0  # the largest |w − ŵ| of a coded file
    entropy: int | None = None  # of a coded file, what positions and values would take by their entropies, in bytes


def export(
    weights_file: Path,
    table: ShapeTable,
    out: Path,
    format: Target = "best",
    bits: int | None = None,
    factors: Factors = NO_FACTORS,
) -> Exported:
    """Write the dense safetensors `weights_file` to `out` in `format`; `best` takes each kernel's cheapest.

    With `factors`, `best` writes these for the tensors that they make; every other format has the tensors themselves.

    `bits` is of `coded` alone: a value of a kernel is on a grid of so many bits, 8 if left out. Errors: `FileProblem`
    where the weights are not those of the network or `out` cannot be written; ValueError for a format that does not
    exist, and for bits that it does not have.
    """
    if format not in (*FORMATS, "best", "coded"):
        raise ValueError(f"unknown format {format!r}, expected one of {', '.join(FORMATS)}, coded or best")
    if bits is not None and format != "coded":
        raise ValueError(f"`bits` is of the format coded alone, not of {format}")
    arrays = load_weights(weights_file, table)
    if format == "coded":
        return _coded(arrays, table, out, BITS if bits is None else bits)
    nnz = {n: int(np.count_nonzero(nonzero(a))) for n, a in arrays.items()}
    content: Arrays = arrays
    if format == "best" and packed(factors.compositions, arrays):
        file, nnz, content = pack(table, arrays, factors, weights_file)
    else:
        file = layout(table, arrays, format, nnz)
    predicted = file.nbytes(nnz)

    def check(path: Path) -> None:
        length = path.stat().st_size
        if length != predicted:
            raise AssertionError(f"{out} has {length} bytes and {predicted} were counted: a bug in prunelang")
        back = load_export(path)
        for name, a in arrays.items():
            if not np.array_equal(_bits(back[name]), _bits(a)) or back[name].shape != a.shape:
                raise AssertionError(f"`{name}` does not come back from {out} as it was: a bug in prunelang")

    path = write_atomically(out, _content(file, nnz, content), check=check)
    formats = {s.tensor.name: s.format for s in file.stored if s.tensor.name in arrays}
    return Exported(path, predicted, {**formats, **(described(factors) if file.notes else {})}, predicted)


def _coded(arrays: Arrays, table: ShapeTable, out: Path, bits: int) -> Exported:
    done = encode(table, arrays, bits)

    def check(path: Path) -> None:
        raw = read(path)
        if raw != done.content:
            raise AssertionError(f"{out} is not what was written: the file system lost bytes")
        found = decode(raw, path)[2]
        for name, a in done.tensors.items():
            if not np.array_equal(_bits(found[name]), _bits(a)) or found[name].shape != a.shape:
                raise AssertionError(f"`{name}` does not come back from {out} as it was: a bug in prunelang")

    path = write_atomically(out, done.content, check=check)
    formats = {t.name: "coded" if on_grid(t) else "dense" for t in table.tensors}
    return Exported(path, len(done.content), formats, len(done.content), done.rounding, done.entropy)


def load_export(path: Path) -> dict[str, Array]:
    """The dense tensors of an exported file, in any format, by name; an alias stands beside its tensor.

    Errors: `FileProblem` P510, P512, P516.
    """
    raw = read(path)
    if is_coded(raw):
        _, tensors, values = decode(raw, path)
        return {name: values[t.name] for t in tensors for name in (t.name, *t.aliases)}
    stored = parts(raw, path)
    metadata = file_metadata(raw)
    version = metadata.get("prunelang")
    if version not in (VERSION, FACTORED):
        said = f"{path} is no exported file of version {VERSION} or {FACTORED} (it says {version!r})"
        raise FileProblem("P516", said)
    found: dict[str, Array] = {}
    for key, text in metadata.items():
        if key.startswith("sparse."):
            name = key.removeprefix("sparse.")
            found[name] = _decoded(name, text, stored, path)
    found |= {name: widened(*part) for name, part in stored.items()}
    if version == FACTORED:
        found = unpack_factors(metadata.get("factors", "[]"), found, path)
    for key, name in metadata.items():
        if key.startswith("alias."):
            if name not in found:
                raise FileProblem("P512", f"{path}: `{key}` stands for `{name}`, which is not there")
            found[key.removeprefix("alias.")] = found[name]
    return found


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _content(file: Layout, nnz: Mapping[str, int], arrays: Arrays) -> Iterator[bytes | memoryview]:
    yield header_bytes(file, nnz)
    tensors = {s.tensor.name: s.tensor for s in file.stored}
    factored = {s.tensor.name for s in file.stored if s.format == "factors"}
    for part, _, _ in file.offsets(nnz):
        if part.tensor in factored:
            yield narrowed(arrays[part.name], part.dtype).reshape(-1).view(np.uint8).data
            continue
        yield _encoded(part, tensors[part.tensor], arrays[part.tensor]).reshape(-1).view(np.uint8).data


def _encoded(part: Part, tensor: Tensor, array: Array) -> Array:
    """One part of a tensor as it stands in the file."""
    suffix = part.name.removeprefix(tensor.name)
    if not suffix:
        return narrowed(array, tensor.dtype)
    kept = nonzero(array)
    if suffix == ".values":
        return narrowed(array[kept], tensor.dtype)
    if suffix == ".mask":
        return np.packbits(kept.reshape(-1), bitorder="little")
    rows = kept.reshape(tensor.matrix)
    numbers = np.nonzero(rows)[1] if suffix == ".indices" else np.concatenate([[0], np.cumsum(rows.sum(axis=1))])
    return numbers.astype(np.dtype(part.dtype).newbyteorder("<"))


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _decoded(name: str, text: str, stored: dict[str, tuple[str, Array]], path: Path) -> Array:
    """Take the parts of one sparse tensor out of `stored` and put the tensor together."""
    what = f"{path}: `{name}`"
    format, *dims = text.split(" ")
    suffixes = {"bitmask": (".values", ".mask"), "csr": (".values", ".indices", ".indptr")}.get(format)
    if suffixes is None or not all(d.isascii() and d.isdigit() for d in dims):
        raise FileProblem("P512", f"{what} is stored as {text!r}, which is not understood")
    if not all(name + s in stored for s in suffixes):
        raise FileProblem("P512", f"{what} lacks one of its parts {', '.join(suffixes)}")
    shape = tuple(map(int, dims))
    code, values = stored.pop(name + ".values")
    others = [stored.pop(name + s)[1] for s in suffixes[1:]]
    if any(o.ndim != 1 or o.dtype.kind != "u" for o in others) or values.ndim != 1:
        raise FileProblem("P512", f"{what} has parts that are no vectors of their type")
    where = _from_mask(others[0], shape, what) if format == "bitmask" else _from_csr(others[0], others[1], shape, what)
    if len(where) != len(values):
        raise FileProblem("P512", f"{what} has {len(values)} values for {len(where)} positions")
    try:
        dense = np.zeros(prod(shape), values.dtype)
    except (MemoryError, ValueError) as error:
        raise FileProblem("P512", f"{what} claims the shape {list(shape)}, which does not fit in memory") from error
    dense[where] = values
    return widened(code, dense).reshape(shape)


def _from_mask(mask: Array, shape: tuple[int, ...], what: str) -> Array:
    size = prod(shape)
    if len(mask) != -(-size // 8):
        raise FileProblem("P512", f"{what} has a mask of {len(mask)} bytes for {size} entries")
    return np.flatnonzero(unpack(mask, size, what))


def _from_csr(indices: Array, indptr: Array, shape: tuple[int, ...], what: str) -> Array:
    """Flat positions; within a row they rise strictly, so no position is written twice."""
    rows, columns = (shape[0], prod(shape[1:])) if shape else (1, 1)
    starts, column = indptr.astype(np.int64), indices.astype(np.int64)
    lengths = np.diff(starts)
    if len(indptr) != rows + 1 or starts[0] != 0 or starts[-1] != len(indices) or (lengths < 0).any():
        raise FileProblem("P512", f"{what} has row pointers that do not fit its {rows} rows and {len(indices)} entries")
    if rows * columns >= 1 << 62 or (column >= columns).any():
        raise FileProblem("P512", f"{what} has a column index outside its {columns} columns")
    flat: Array = np.repeat(np.arange(rows, dtype=np.int64), lengths) * columns + column
    if (np.diff(flat) <= 0).any():
        raise FileProblem("P512", f"{what} has column indices that do not rise within a row")
    return flat


def _bits(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
