"""The format `coded`: one file, entropy-coded as a whole, with kernels and embeddings on a grid of a few bits.

    PRC1            4 bytes, with the version of the format
    crc32           4 bytes, little-endian, of the stream
    stream          one range-coded stream; zero bytes at its end are left out

The stream holds the number of bits of the grid, a line of text for each tensor (name, aliases, type, shape), and the
tensors in the network's order. Kernels and embeddings are quantised (`coding.grid`), all other tensors are as they are
to the last bit. What is read back are the quantised tensors, and writing those gives the same file: precision is lost
once.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from prunelang.compiler.problem import Measured
from prunelang.compiler.shapes import ITEMSIZE, ShapeTable, Tensor
from prunelang.runtime.coding.coder import Coder, Damaged, Decoder, Encoder
from prunelang.runtime.coding.kernels import CODES as FLOATS
from prunelang.runtime.coding.kernels import Kernels
from prunelang.runtime.coding.models import Text, number
from prunelang.runtime.files import FileProblem
from prunelang.runtime.weights import Array, Arrays, narrowed, nonzero, widened, without_negative_zero

MAGIC = b"PRC1"
BITS, MOST = 8, 16
_HEAD = 8
_LETTERS = {
    "float32": "f", "float64": "d", "float16": "h", "bfloat16": "b", "int64": "l", "int32": "i", "uint8": "u",
    "bool": "o",
}  # fmt: skip
_WHOLE = {"int64": "<i8", "int32": "<i4", "uint8": "|u1", "bool": "|b1"}


@dataclass(frozen=True)
class Coded:
    """A coded file: its content, the tensors it gives back, and what it is to be measured by."""

    content: bytes
    tensors: Mapping[str, Array]  # by first name, as they are read back
    rounding: float  # the largest |w − ŵ|
    entropy: int  # bytes, rounded up: see `entropy`


def encode(table: ShapeTable, arrays: Arrays, bits: int = BITS) -> Coded:
    """The tensors of `table` in a file, with kernels and embeddings on a grid of `bits` bits, 1 ≤ `bits` ≤ 16.

    A type of fewer significant bits takes a coarser grid; kernels so small that the grid would leave the normal numbers
    of their type stay as they are. −0.0 is a zero. Errors: ValueError for `bits` out of range; `FileProblem` P515 for a
    number that is not finite.
    """
    if not 1 <= bits <= MOST:
        raise ValueError(f"a coded file has 1 to {MOST} bits a value, not {bits}")
    own = {t.name: without_negative_zero(np.asarray(arrays[t.name])) for t in table.tensors}
    for name, array in own.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FileProblem("P515", f"`{name}` holds a number that is not finite")
    coder = Encoder()
    coder.uniform(MOST, 1, np.array([bits - 1], np.int64))
    _lines(coder, "".join(map(_line, table.tensors)), 0)
    found = _values(coder, bits, table.tensors, own)
    stream = coder.stream()
    content = MAGIC + zlib.crc32(stream).to_bytes(4, "little") + stream
    return Coded(content, found, _rounding(own, found), entropy(table, found))


def coded(function: Measured, table: ShapeTable, arrays: Arrays) -> Coded:
    """The file that `bytes(x, format = coded)` speaks of: of a layer or layer set, with their tensors alone."""
    named = dict(function.arguments).get("tensors")
    if named is None:
        return encode(table, arrays)
    own = {table.tensor[n].name for n in named}
    return encode(replace(table, tensors=tuple(t for t in table.tensors if t.name in own)), arrays)


def decode(raw: bytes, path: Path) -> tuple[int, tuple[Tensor, ...], dict[str, Array]]:
    """Bits of the grid, the tensors that the file speaks of, and their values by first name.

    Errors: `FileProblem` P512 for anything that `encode` did not write, P516 for another version.
    """
    if raw[:3] != MAGIC[:3]:
        raise FileProblem("P512", f"{path} is no coded file")
    if raw[:4] != MAGIC:
        raise FileProblem("P516", f"{path} is a coded file of another version than {MAGIC[3:].decode()}")
    stream = raw[_HEAD:]
    if len(raw) < _HEAD or zlib.crc32(stream) != int.from_bytes(raw[4:_HEAD], "little"):
        raise FileProblem("P512", f"{path} is damaged: its checksum differs")
    coder = Decoder(stream)
    try:
        bits = int(coder.uniform(MOST, 1)[0]) + 1
        tensors = _tensors(_lines(coder, None, len(raw)), len(raw))
        found = _values(coder, bits, tensors, None)
    except (Damaged, MemoryError, OverflowError) as error:
        raise FileProblem("P512", f"{path} is damaged: {error}") from error
    if not coder.done():
        raise FileProblem("P512", f"{path} is damaged: it goes on after its last tensor")
    return bits, tensors, found


def is_coded(raw: bytes) -> bool:
    return raw[:3] == MAGIC[:3]


def entropy(table: ShapeTable, arrays: Arrays) -> int:
    """What positions and values would take by their entropies, all other tensors in full: bytes, rounded up.

        Σ_kernels (N H₂(z/N) + z H(values)) + Σ_others 8 · size,     in bits

    with z of N entries kept and H of the values' own frequencies. It is a yardstick, not a limit: it leaves out names,
    shapes and frequencies, which a file has to hold, and knows nothing of rows and columns, which the coder learns.
    """
    total = 0.0
    for t in table.tensors:
        if not on_grid(t):
            total += 8 * t.itemsize * t.size
            continue
        kept = nonzero(arrays[t.name])
        z = int(np.count_nonzero(kept))
        total += _entropy(np.array([z, t.size - z])) + _entropy(np.unique(arrays[t.name][kept], return_counts=True)[1])
    return int(np.ceil(total / 8 - 1e-9))


def _entropy(counts: Array) -> float:
    """n·H in bits, of n observations with these counts."""
    seen = counts[counts > 0].astype(np.float64)
    return float((seen * np.log2(seen.sum() / seen)).sum())


def _rounding(own: Arrays, found: Arrays) -> float:
    errors = [np.abs(own[n].astype(np.float64) - found[n].astype(np.float64)) for n in own if own[n].dtype.kind == "f"]
    return max((float(e.max(initial=0)) for e in errors), default=0.0)


# ── the stream ───────────────────────────────────────────────────────────────────────────────────────────────────


def _values(coder: Coder, bits: int, tensors: tuple[Tensor, ...], given: Arrays | None) -> dict[str, Array]:
    kernels = Kernels(bits)
    found: dict[str, Array] = {}
    for t in tensors:
        own = None if given is None else given[t.name]
        found[t.name] = kernels.code(coder, t, own) if on_grid(t) else _as_it_is(coder, kernels, t, own)
    return found


def _as_it_is(coder: Coder, kernels: Kernels, t: Tensor, given: Array | None) -> Array:
    code, raw_type = FLOATS.get(t.dtype) or ("", _WHOLE[t.dtype])
    raw = kernels.planes.code(coder, t.size, t.itemsize, None if given is None else narrowed(given, t.dtype).tobytes())
    if t.dtype == "bool" and max(raw, default=0) > 1:
        raise Damaged(f"`{t.name}` holds a truth value that is neither 0 nor 1")
    values = widened(code, np.frombuffer(raw, raw_type)).reshape(t.shape)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Damaged(f"`{t.name}` holds a number that is not finite")
    return values


def on_grid(t: Tensor) -> bool:
    """Kernels and embeddings: the tensors of many values, which stand a grid."""
    return t.role in ("weight", "embedding") and t.dtype in FLOATS


# ── names, types and shapes ──────────────────────────────────────────────────────────────────────────────────────


def _line(t: Tensor) -> str:
    """``name=alias=alias F300,784`` and a new line; a kernel's type is a capital."""
    names = "=".join(json.dumps(n, ensure_ascii=False)[1:-1].replace("=", "\\u003d") for n in (t.name, *t.aliases))
    letter = _LETTERS[t.dtype].upper() if on_grid(t) else _LETTERS[t.dtype]
    return f"{names}\t{letter}{','.join(map(str, t.shape))}\n"


def _lines(coder: Coder, given: str | None, length: int) -> str:
    text = None if given is None else given.encode()
    n = number(coder, None if text is None else len(text))
    if text is None and n > (1 << 16) + (length << 8):
        raise Damaged(f"{n} bytes of names in a file of {length}")
    try:
        return Text().code(coder, n, text).decode()
    except UnicodeDecodeError as error:
        raise Damaged("names that are not UTF-8") from error


def _tensors(text: str, length: int) -> tuple[Tensor, ...]:
    """From their lines. Errors: `Damaged` for what no network has, or what no file of `length` bytes stands for."""
    found = tuple(_tensor(line) for line in text.removesuffix("\n").split("\n") if text)  # names may hold U+2028
    names = [n for t in found for n in (t.name, *t.aliases)]
    if len(set(names)) != len(names):
        raise Damaged("a name that stands twice")
    entries = sum(t.size for t in found)
    if entries > (1 << 28) + (length << 16):
        raise Damaged(f"{entries} entries in a file of {length} bytes")
    return found


def _tensor(line: str) -> Tensor:
    try:
        names, kind = line.split("\t")
        name, *aliases = (str(json.loads(f'"{n}"')) for n in names.split("="))
        dtype = next(d for d, letter in _LETTERS.items() if letter == kind[0].lower())
        shape = tuple(map(int, kind[1:].split(","))) if kind[1:] else ()
    except (ValueError, StopIteration, IndexError) as error:
        raise Damaged(f"a tensor that is called {line[:40]!r}") from error
    gridded = kind[0].isupper()
    if min(shape, default=0) < 0 or max(shape, default=0) > 1 << 40 or (gridded and dtype not in FLOATS):
        raise Damaged(f"`{name}` cannot be of this type and shape")
    return Tensor(name, shape, "weight" if gridded else "buffer", dtype, tuple(aliases))


assert set(_LETTERS) == set(ITEMSIZE)  # a type that networks may have has a letter
