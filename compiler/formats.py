"""Byte-exact layouts of exported files, as integers: what `export` writes and what `bytes(net)` counts.

Every file is a safetensors file, ``8 bytes (length of the header) + header + data``. Kernels (role "weight") with N
entries, R × C as a matrix, b bytes an entry and z non-zero values are stored in one of three formats:

    dense      b·N                               one part, the tensor under its own name
    bitmask    b·z + ⌈N/8⌉                       ``name.values``, ``name.mask`` (bit i of byte j is entry 8j + i)
    csr        (b + w)·z + 4·(R + 1)             ``name.values``, ``name.indices``, ``name.indptr``

with w = 1, 2 or 4 bytes for a column index below C, and row pointers of 8 bytes once N ≥ 2³². All other tensors are
dense. The header is padded with spaces to a length that depends on names and dense shapes alone, so the length of a
file is affine in z. Parts are laid out by falling entry size, so that each one is aligned to it.

The fourth format, ``coded``, is a file of its own whose length the values decide: it is measured, never counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias, get_args

from prunelang.compiler.problem import Choice, Count
from prunelang.compiler.shapes import ITEMSIZE, ShapeTable, Tensor

Format: TypeAlias = Literal["dense", "bitmask", "csr"]
FORMATS: tuple[Format, ...] = get_args(Format)
VERSION = "1"

_SIZE = {**ITEMSIZE, "uint16": 2, "uint32": 4, "uint64": 8}
_CODE = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """One entry of the file; a `shape` of None is a vector with one element per non-zero value of `tensor`."""

    name: str
    tensor: str
    dtype: str  # as torch names it, without "torch."
    shape: tuple[int, ...] | None

    def dims(self, nnz: int) -> tuple[int, ...]:
        return (nnz,) if self.shape is None else self.shape

    def nbytes(self, nnz: int) -> int:
        return _SIZE[self.dtype] * prod(self.dims(nnz))


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor in one format: ``per_nonzero · z + fixed`` bytes of data."""

    tensor: Tensor
    format: Format | Literal["factors"]  # factors: as parts of a composition (compiler.packing)
    parts: tuple[Part, ...]

    @property
    def per_nonzero(self) -> int:
        """Bytes that one more non-zero value costs."""
        return sum(_SIZE[p.dtype] for p in self.parts if p.shape is None)

    @property
    def fixed(self) -> int:
        """Bytes at z = 0."""
        return sum(p.nbytes(0) for p in self.parts)

    def nbytes(self, nnz: int) -> int:
        return self.per_nonzero * nnz + self.fixed


@dataclass(frozen=True)
class Layout:
    """One file: how each tensor is stored, and the padded length of its header in bytes."""

    stored: tuple[Stored, ...]
    header_length: int
    version: str = VERSION
    notes: tuple[tuple[str, str], ...] = ()  # further metadata

    def parts(self) -> tuple[Part, ...]:
        """In the order of the data: by falling entry size, then as the network lists its tensors."""
        parts = [p for s in self.stored for p in s.parts]
        return tuple(sorted(parts, key=lambda p: -_SIZE[p.dtype]))

    def offsets(self, nnz: Mapping[str, int]) -> Iterator[tuple[Part, int, int]]:
        """Each part with where its bytes begin and end, counted from the end of the header."""
        begin = 0
        for part in self.parts():
            end = begin + part.nbytes(_nonzeros(part, nnz))
            yield part, begin, end
            begin = end

    def nbytes(self, nnz: Mapping[str, int]) -> int:
        """Length of the file."""
        return 8 + self.header_length + sum(p.nbytes(_nonzeros(p, nnz)) for s in self.stored for p in s.parts)


def store(tensor: Tensor, format: Format) -> Stored:
    """The parts of `tensor` in `format`; whatever is no kernel is dense in all of them."""
    name, dtype = tensor.name, tensor.dtype
    if format == "dense" or tensor.role != "weight":
        return Stored(tensor, "dense", (Part(name, name, dtype, tensor.shape),))
    values = Part(f"{name}.values", name, dtype, None)
    if format == "bitmask":
        return Stored(tensor, format, (values, Part(f"{name}.mask", name, "uint8", (-(-tensor.size // 8),))))
    if format != "csr":
        raise ValueError(f"unknown format {format!r}, expected one of {', '.join(FORMATS)} or best")
    rows, columns = tensor.matrix
    index = "uint8" if columns <= 1 << 8 else "uint16" if columns <= 1 << 16 else "uint32"
    pointer = "uint32" if tensor.size < 1 << 32 else "uint64"
    indices = Part(f"{name}.indices", name, index, None)
    return Stored(tensor, format, (values, indices, Part(f"{name}.indptr", name, pointer, (rows + 1,))))


def cheapest(tensor: Tensor, nnz: int) -> Format:
    """The format with the fewest bytes of data at `nnz` non-zero values; ties go to the earlier of `FORMATS`."""
    return min(FORMATS, key=lambda f: store(tensor, f).nbytes(nnz))


def layout(
    table: ShapeTable,
    tensors: Iterable[str],
    format: Format | Literal["best"],
    nnz: Mapping[str, int] | None = None,
) -> Layout:
    """The file that holds `tensors` (an alias stands for its tensor, each is stored once) in `format`.

    ``best`` takes the cheapest format of each kernel at the `nnz` given; its header has room for any choice.
    """
    chosen = stored_once(table, tensors)
    if format == "best":
        if nnz is None:
            raise ValueError("the format best depends on the non-zero values: pass `nnz`")
        kinds = [cheapest(t, nnz[t.name]) if t.role == "weight" else "dense" for t in chosen]
    else:
        kinds = [format] * len(chosen)
    stored = tuple(store(t, kind) for t, kind in zip(chosen, kinds, strict=True))
    names = [p.name for s in stored for p in s.parts]
    if len(names) != len(set(names)):
        raise ValueError(f"two parts of the file would be called {next(n for n in names if names.count(n) > 1)!r}")
    return Layout(stored, _header_length(chosen, _candidates(format)))


def header_bytes(layout: Layout, nnz: Mapping[str, int]) -> bytes:
    """The first ``8 + header_length`` bytes of the file. `nnz` is read for tensors in a sparse format only."""
    notes = [f"{_quote(key)}:{_quote(value)}" for key, value in layout.notes]
    metadata = ",".join([_preamble(layout.version), *notes, *(m for s in layout.stored for m in _metadata(s))])
    entries = [_entry(p, p.dims(_nonzeros(p, nnz)), begin, end) for p, begin, end in layout.offsets(nnz)]
    text = "{" + ",".join([f'"__metadata__":{{{metadata}}}', *entries]) + "}"
    data = text.encode()
    return layout.header_length.to_bytes(8, "little") + data.ljust(layout.header_length, b" ")


def affine_bytes(table: ShapeTable, tensors: Iterable[str], format: Format) -> Count:
    """Length of the file in one fixed format as a weighted count of non-zero values, in bytes."""
    file = layout(table, tensors, format)
    return Count(
        name="bytes",
        coefficients={s.tensor.name: s.per_nonzero for s in file.stored if s.per_nonzero},
        constant=8 + file.header_length + sum(s.fixed for s in file.stored),
        unit="B",
        options=(("format", format),),
    )


def best_bytes(table: ShapeTable, tensors: Iterable[str]) -> Choice:
    """Length of the file with each kernel in its cheapest format, in bytes."""
    chosen = stored_once(table, tensors)
    kernels = [t for t in chosen if t.role == "weight"]
    rest = sum(store(t, "dense").fixed for t in chosen if t.role != "weight")
    ways = {t.name: tuple((s.format, s.per_nonzero, s.fixed) for s in map(store, [t] * 3, FORMATS)) for t in kernels}
    return Choice("bytes", ways, 8 + _header_length(chosen, FORMATS) + rest, "B", (("format", "best"),))


# ── the header ───────────────────────────────────────────────────────────────────────────────────────────────────


def stored_once(table: ShapeTable, tensors: Iterable[str]) -> list[Tensor]:
    """The tensors behind names, each once, as the network lists them."""
    names = {table.tensor[n].name for n in tensors}
    return [t for t in table.tensors if t.name in names]


def _candidates(format: Format | Literal["best"]) -> tuple[Format, ...]:
    return FORMATS if format == "best" else (format,)


def _nonzeros(part: Part, nnz: Mapping[str, int]) -> int:
    return nnz[part.tensor] if part.shape is None else 0


def _preamble(version: str = VERSION) -> str:
    return f'"format":"pt","prunelang":"{version}"'


def _metadata(stored: Stored) -> Iterator[str]:
    """What a reader needs beyond the parts: format and shape of sparse tensors, and which names share storage."""
    t = stored.tensor
    if stored.format not in ("dense", "factors"):
        yield f"{_quote(f'sparse.{t.name}')}:{_quote(' '.join([stored.format, *map(str, t.shape)]))}"
    for alias in t.aliases:
        yield f"{_quote(f'alias.{alias}')}:{_quote(t.name)}"


def _entry(part: Part, dims: tuple[int, ...], begin: int, end: int) -> str:
    shape = ",".join(map(str, dims))
    return f'{_quote(part.name)}:{{"dtype":"{_CODE[part.dtype]}","shape":[{shape}],"data_offsets":[{begin},{end}]}}'


def _header_length(tensors: list[Tensor], formats: tuple[Format, ...]) -> int:
    """Room for every format in `formats` at full density."""
    return header_room([[store(t, f) for f in formats] for t in tensors])


def header_room(ways: Sequence[Sequence[Stored]], notes: Iterable[tuple[str, str]] = ()) -> int:
    """A header for any choice of one way each, at the most bytes it may take: each offset as wide as the largest.

    A multiple of 8 bytes. Further notes stand in the metadata.
    """
    widest = sum(max(s.nbytes(s.tensor.size) for s in of_tensor) for of_tensor in ways)
    length = len(f'{{"__metadata__":{{{_preamble()}}}}}')
    length += sum(len(f",{_quote(key)}:{_quote(value)}".encode()) for key, value in notes)
    length += sum(max(_text_length(s, widest) for s in of_tensor) for of_tensor in ways)
    return -(-length // 8) * 8


def _text_length(stored: Stored, widest: int) -> int:
    """Bytes of header that one tensor can need, a comma before each item included."""
    entries = [_entry(p, p.dims(stored.tensor.size), widest, widest) for p in stored.parts]
    return sum(1 + len(item.encode()) for item in [*_metadata(stored), *entries])


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
