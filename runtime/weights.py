"""Weights and supports on disk: dense safetensors, checked name by name, with NumPy and safetensors alone.

Saving is canonical: the same arrays always give the same bytes. Tensors lie by falling entry size, then as the network
lists them; −0.0 is saved as 0.0, since a stored zero is a zero and sparse formats keep no sign of it. NumPy has no
bfloat16: such tensors come and go as float32, whose values are exactly those.

A support file holds one bit per entry for each tensor that has kept positions: bit i of byte j is entry 8j + i, as in
the format bitmask. A kept position may hold a zero; a position that is not kept must.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from prunelang.compiler.shapes import ShapeTable, Tensor
from prunelang.runtime.files import FileProblem, read, write_atomically

Array = NDArray[Any]
Arrays = Mapping[str, Array]

SUPPORT_VERSION = "1"
_CODES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_CODE_OF = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "uint8": "U8", "uint16": "U16", "bool": "BOOL",
}  # fmt: skip


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────


def save_weights(path: Path, tensors: Arrays, table: ShapeTable, metadata: Mapping[str, str] | None = None) -> Path:
    """Save every tensor of `table` as dense safetensors, atomically.

    Tied tensors may come under any of their names and must be equal; they are stored once, under the first, and the
    others go into the metadata as ``alias.NAME``. Errors: `FileProblem` P510, P513, P514, P515, P517; nothing is
    written then.
    """
    untied = _untied(tensors, table, path)
    stored = {t.name: (_CODE_OF[t.dtype], _stored(tensors[untied[t.name]], t, path)) for t in table.tensors}
    notes = {"format": "pt", **(metadata or {})} | {f"alias.{a}": t.name for t in table.tensors for a in t.aliases}
    return write_atomically(path, _file(stored, notes))


def load_weights(path: Path, table: ShapeTable | None = None) -> dict[str, Array]:
    """Every tensor of `table` by each of its names, checked, −0.0 as 0.0; a tied tensor is one array.

    Without a table: all that is in the file, in the file's types, finite. Errors: `FileProblem` P510, P512 to P515 and
    P517.
    """
    raw = read(path)
    if table is not None:
        own = read_weights(raw, table, path)
        return {n: own[t.name] for n, t in table.tensor.items()}
    found = {name: widened(code, array) for name, (code, array) in parts(raw, path).items()}
    for name, array in found.items():
        _check_finite(array, name, path)
    tied = {k.removeprefix("alias."): v for k, v in file_metadata(raw).items() if k.startswith("alias.") and v in found}
    found |= {alias: found[name] for alias, name in tied.items() if alias not in found}
    return {name: without_negative_zero(array) for name, array in found.items()}


def read_weights(raw: bytes, table: ShapeTable, path: Path) -> dict[str, Array]:
    """The tensors of `table` by their first names, from bytes at hand; `path` is what errors call them."""
    found = parts(raw, path)
    untied = _untied({name: array for name, (_, array) in found.items()}, table, path)
    return {t.name: _loaded(*found[untied[t.name]], t, path) for t in table.tensors}


def save_arrays(path: Path, arrays: Mapping[str, tuple[str, Array]], metadata: Mapping[str, str]) -> Path:
    """Save arrays of any shape, each with the type it is stored in, as canonical safetensors. Errors: P510."""
    stored = {n: (_CODE_OF[dtype], narrowed(without_negative_zero(a), dtype)) for n, (dtype, a) in arrays.items()}
    return write_atomically(path, _file(stored, metadata))


def nonzero(array: Array) -> NDArray[np.bool_]:
    """Which entries are ≠ 0, by their bits: a subnormal counts even where the processor flushes it to zero."""
    if array.dtype.kind != "f":
        return np.not_equal(array, 0)
    bits = np.asarray(array, order="C").view(f"u{array.dtype.itemsize}")
    found: NDArray[np.bool_] = np.left_shift(bits, np.array(1, bits.dtype)) != 0  # the sign is shifted out
    return found


def without_negative_zero(array: Array) -> Array:
    """The same values with every −0.0 as 0.0, bit by bit."""
    if array.dtype.kind != "f":
        return array
    bits = np.asarray(array, order="C").view(f"u{array.dtype.itemsize}")
    negative = bits == np.array(1 << (8 * bits.dtype.itemsize - 1), bits.dtype)
    if not negative.any():
        return array
    return np.where(negative, np.array(0, bits.dtype), bits).view(array.dtype)


# ── supports ─────────────────────────────────────────────────────────────────────────────────────────────────────


def save_support(path: Path, kept: Arrays, table: ShapeTable) -> Path:
    """Save kept positions, one boolean array per tensor. Errors: `FileProblem` P510, P513, P514."""
    packed: dict[str, tuple[str, Array]] = {}
    for t in table.tensors:
        if t.name not in kept:
            continue
        mask = kept[t.name]
        if mask.shape != t.shape or mask.dtype != np.bool_:
            raise FileProblem("P514", f"the support of `{t.name}` is {called(mask)}, not bool {list(t.shape)}")
        packed[t.name] = ("U8", np.packbits(mask.reshape(-1), bitorder="little"))
    _check_known(kept, table, path)
    return write_atomically(path, _file(packed, {"prunelang.support": SUPPORT_VERSION}))


def load_support(path: Path, table: ShapeTable) -> dict[str, NDArray[np.bool_]]:
    """Kept positions by tensor. Errors: `FileProblem` P510, P512, P513, P514, P516."""
    return read_support(read(path), table, path)


def read_support(raw: bytes, table: ShapeTable, path: Path) -> dict[str, NDArray[np.bool_]]:
    """`load_support` from bytes at hand."""
    found = parts(raw, path)
    version = file_metadata(raw).get("prunelang.support")
    if version != SUPPORT_VERSION:
        raise FileProblem("P516", f"{path} is no support file of version {SUPPORT_VERSION} (it says {version!r})")
    _check_known(found, table, path)
    kept: dict[str, NDArray[np.bool_]] = {}
    for name, (code, packed) in found.items():
        t = table.tensor[name]
        if code != "U8" or packed.shape != (-(-t.size // 8),):
            raise FileProblem("P514", f"{path}: the support of `{name}` has not one bit for each of {t.size} entries")
        kept[name] = unpack(packed, t.size, f"{path}: the support of `{name}`").reshape(t.shape)
    return kept


def unpack(packed: Array, size: int, what: str) -> NDArray[np.bool_]:
    """The first `size` bits, lowest bit of each byte first. Errors: `FileProblem` P512 if a bit after them is set."""
    bits = np.unpackbits(packed, bitorder="little")
    if bits[size:].any():
        raise FileProblem("P512", f"{what} has bits after its last entry")
    return bits[:size].astype(np.bool_)


# ── safetensors ──────────────────────────────────────────────────────────────────────────────────────────────────


def parts(raw: bytes, path: Path) -> dict[str, tuple[str, Array]]:
    """Each entry of a safetensors file: its type as the file calls it, and its array. Errors: `FileProblem` P512."""
    try:
        entries = safetensors.deserialize(raw)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise FileProblem("P512", f"{path} is not a whole safetensors file: {error}") from error
    found: dict[str, tuple[str, Array]] = {}
    for name, entry in entries:
        code = entry["dtype"]
        if code not in _CODES:
            raise FileProblem("P514", f"{path}: `{name}` is of type {code}, which is not read here")
        if code == "BOOL" and any(b > 1 for b in set(entry["data"])):
            raise FileProblem("P512", f"{path}: `{name}` holds a truth value that is neither 0 nor 1")
        found[name] = (code, np.frombuffer(entry["data"], _CODES[code]).reshape(entry["shape"]))
    return found


def file_metadata(raw: bytes) -> dict[str, str]:
    """The ``__metadata__`` of a file that `parts` has accepted."""
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    found: dict[str, str] = header.get("__metadata__") or {}
    return found


def widened(code: str, array: Array) -> Array:
    """bfloat16 as float32: the upper half of its bits. Anything else as it is."""
    return array if code != "BF16" else (array.astype("<u4") << np.uint32(16)).view("<f4")


def narrowed(array: Array, dtype: str) -> Array:
    """Little-endian bytes in the order of rows; a bfloat16 tensor's float32 values as the upper half of their bits."""
    little = np.asarray(array, order="C").astype(array.dtype.newbyteorder("<"), copy=False)
    return little if dtype != "bfloat16" else (little.view("<u4") >> np.uint32(16)).astype("<u2")


def _file(stored: Mapping[str, tuple[str, Array]], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """A safetensors file in canonical order; the header is padded so that data starts at a multiple of 8."""
    ordered = sorted(stored.items(), key=lambda item: -item[1][1].dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, (code, array) in ordered:
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8, b" ")
    yield len(text).to_bytes(8, "little") + text
    for _, (_, array) in ordered:
        yield array.reshape(-1).view(np.uint8).data


# ── checks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _untied(found: Arrays, table: ShapeTable, path: Path) -> dict[str, str]:
    """For each tensor of the table one of its names that is in `found`. Errors: P513, and P517 where ties differ."""
    chosen: dict[str, str] = {}
    for t in table.tensors:
        first, *others = [n for n in (t.name, *t.aliases) if n in found] or [""]
        if first:
            chosen[t.name] = first
        for other in others:
            if not _same(found[first], found[other]):
                raise FileProblem("P517", f"{path}: `{first}` and `{other}` are one tensor in the network and differ")
    missing = [t.name for t in table.tensors if t.name not in chosen]
    extra = sorted(n for n in found if n not in table.tensor)
    if missing or extra:
        said = [f"lacks {_some(missing)}"] if missing else []
        said += [f"has {_some(extra)}, which the network has not"] if extra else []
        raise FileProblem("P513", f"{path} {' and '.join(said)}", f"The network is {table.model}.")
    return chosen


def _check_known(found: Mapping[str, Any], table: ShapeTable, path: Path) -> None:
    extra = sorted(set(found) - {t.name for t in table.tensors})
    if extra:
        raise FileProblem("P513", f"{path} has {_some(extra)}, which the network has not")


def _some(names: list[str]) -> str:
    shown = ", ".join(f"`{n}`" for n in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _stored(array: Array, t: Tensor, path: Path) -> Array:
    """The bits to write for one tensor."""
    expected = "float32" if t.dtype == "bfloat16" else t.dtype
    if array.shape != t.shape or array.dtype != np.dtype(expected):
        raise FileProblem("P514", f"`{t.name}` is {called(array)}, not {t.dtype} {list(t.shape)}")
    _check_finite(array, t.name, path)
    clean = without_negative_zero(array)
    if t.dtype == "bfloat16" and (np.asarray(clean, order="C").view("u4") & np.uint32(0xFFFF)).any():
        raise FileProblem("P514", f"`{t.name}` holds a number that is no bfloat16")
    return narrowed(clean, t.dtype)


def _loaded(code: str, array: Array, t: Tensor, path: Path) -> Array:
    if code != _CODE_OF[t.dtype] or array.shape != t.shape:
        message = f"{path}: `{t.name}` is {code} {list(array.shape)}, not {_CODE_OF[t.dtype]} {list(t.shape)}"
        raise FileProblem("P514", message)
    values = widened(code, array)
    _check_finite(values, t.name, path)
    return without_negative_zero(values)


def _check_finite(array: Array, name: str, path: Path) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = int(np.flatnonzero(~np.isfinite(array))[0])
        raise FileProblem("P515", f"{path}: `{name}` holds a number that is not finite, first at entry {where}")


def _same(a: Array, b: Array) -> bool:
    """Equal values, or not finite in the same places (which is refused later, with the tensor's name)."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def called(array: Array) -> str:
    """``float32 [3, 4]``, for messages."""
    return f"{array.dtype} {list(array.shape)}"
