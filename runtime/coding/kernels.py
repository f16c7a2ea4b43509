"""One kernel in a stream: how it is coded, where it is not zero, and what stands there.

Values are the grid's where it fits, else the numbers as they are. Signs go as changes from one kept value to the next
in a row, since neighbours often share theirs; of a magnitude of more than 7 bits only the highest 7 are learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from prunelang.compiler.shapes import Tensor
from prunelang.runtime.coding import grid
from prunelang.runtime.coding.coder import Coder, Damaged, Ints, shortest
from prunelang.runtime.coding.models import Histogram, Planes
from prunelang.runtime.coding.positions import PRIORS, Bits, positions
from prunelang.runtime.weights import Array, narrowed, nonzero, widened

LEARNT_BITS = 7
SMALL = 1 << 20  # entries up to which every way to code positions is tried
_WAYS = 2 * 2 * 2 * len(PRIORS)
CODES = {"float64": ("F64", "<f8"), "float32": ("F32", "<f4"), "float16": ("F16", "<f2"), "bfloat16": ("BF16", "<u2")}


@dataclass(frozen=True)
class Way:
    """How a kernel is coded: one symbol of the stream."""

    on_grid: bool
    zeros: bool  # zeros are the rarer kind
    by_columns: bool
    prior: int

    def number(self) -> int:
        return ((self.on_grid * 2 + self.zeros) * 2 + self.by_columns) * len(PRIORS) + self.prior

    @staticmethod
    def of(number: int) -> Way:
        rest, prior = divmod(number, len(PRIORS))
        return Way(bool(rest >> 2 & 1), bool(rest >> 1 & 1), bool(rest & 1), prior)


@dataclass
class Kernels:
    """What kernels of one file share: magnitudes of one look like those of the next, and so do their bytes."""

    bits: int
    planes: Planes = field(default_factory=Planes)
    _magnitudes: dict[int, Histogram] = field(default_factory=dict)

    def code(self, coder: Coder, tensor: Tensor, given: Array | None = None) -> Array:
        """The kernel as it is read back: quantised where a grid fits."""
        code, raw_type = CODES[tensor.dtype]
        dtype = widened(code, np.zeros(0, raw_type)).dtype
        if not tensor.size:
            return np.zeros(tensor.shape, dtype)
        bits = min(self.bits, grid.MOST_BITS[tensor.dtype])
        kept = None if given is None else nonzero(given).reshape(tensor.matrix)
        way = self._way(coder, tensor, bits, given, kept)
        found = _where(coder, tensor.matrix, way, kept)
        n = int(np.count_nonzero(found))
        values = None if given is None else given.reshape(tensor.matrix)[found]
        dense = np.zeros(tensor.matrix, dtype)
        if n:
            values_of = self._on_grid if way.on_grid else self._as_they_are
            dense[found] = values_of(coder, tensor.dtype, bits, n, values)
        if not np.array_equal(nonzero(dense), found):
            raise Damaged("a kept value is zero")
        return dense.reshape(tensor.shape)

    def _way(self, coder: Coder, tensor: Tensor, bits: int, given: Array | None, kept: Bits | None) -> Way:
        chosen = None
        if given is not None and kept is not None:
            largest = float(np.max(np.abs(given), initial=0))
            on_grid = largest == 0 or grid.fits(largest, tensor.dtype, bits)
            zeros = 2 * int(np.count_nonzero(kept)) > tensor.size
            ways = [Way(on_grid, zeros, c, p) for c in (False, True) for p in range(len(PRIORS))]
            best = shortest([_writing(tensor.matrix, w, kept) for w in ways]) if tensor.size <= SMALL else 0
            chosen = np.array([ways[best].number()], np.int64)
        return Way.of(int(coder.uniform(_WAYS, 1, chosen)[0]))

    def _on_grid(self, coder: Coder, dtype: str, bits: int, n: int, given: Array | None) -> Array:
        code, raw_type = CODES[dtype]
        top = None if given is None else np.abs(given).max(keepdims=True)
        raw = self.planes.code(coder, 1, np.dtype(raw_type).itemsize, None if top is None else _raw(top, dtype))
        largest = float(widened(code, np.frombuffer(raw, raw_type))[0])
        if not (np.isfinite(largest) and largest > 0 and grid.fits(largest, dtype, bits)):
            raise Damaged("a largest magnitude that no kernel on a grid has")
        own = None if given is None else grid.quantised(given, largest, bits)
        magnitude = self._magnitude(coder, bits, n, None if own is None else own[0])
        negative = _signs(coder, n, None if own is None else own[1])
        return grid.points(magnitude, negative, largest, dtype, bits)

    def _magnitude(self, coder: Coder, bits: int, n: int, given: Ints | None) -> Ints:
        high = min(bits - 1, LEARNT_BITS)
        low = bits - 1 - high
        learnt = self._magnitudes.setdefault(high, Histogram(1 << high, 1 << high >> 5))
        learnt.relax(64)
        upper = learnt.code(coder, n, None if given is None else given >> low)
        return upper << low | coder.uniform(1 << low, n, None if given is None else given & (1 << low) - 1)

    def _as_they_are(self, coder: Coder, dtype: str, bits: int, n: int, given: Array | None) -> Array:
        code, raw_type = CODES[dtype]
        raw = self.planes.code(coder, n, np.dtype(raw_type).itemsize, None if given is None else _raw(given, dtype))
        return widened(code, np.frombuffer(raw, raw_type))


def _writing(matrix: tuple[int, int], way: Way, kept: Bits) -> Callable[[Coder], object]:
    return lambda coder: _where(coder, matrix, way, kept)


def _where(coder: Coder, matrix: tuple[int, int], way: Way, kept: Bits | None) -> Bits:
    shape = (matrix[1], matrix[0]) if way.by_columns else matrix
    rare = None if kept is None else (kept ^ way.zeros)
    if way.by_columns and rare is not None:
        rare = rare.T
    found = positions(coder, shape, PRIORS[way.prior], rare) ^ way.zeros
    return found.T if way.by_columns else found


def _signs(coder: Coder, n: int, given: Ints | None) -> Ints:
    changes = None if given is None else given ^ np.concatenate([[0], given[:-1]])
    return np.cumsum(Histogram(2).code(coder, n, changes)) & 1


def _raw(values: Array, dtype: str) -> bytes:
    return narrowed(values, dtype).tobytes()
