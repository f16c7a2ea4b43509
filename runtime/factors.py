"""Factors of compressed tensors: their names, their file, and what they multiply out to, with NumPy alone.

A composition ``w = Σ_i Δ_i(Θ_i)`` keeps these arrays, with i the place of the form in the sum:

    form              arrays                                     shapes
    low rank          ``w:i.U``, ``w:i.V``                       m × r, r × n
    tensor train      ``w:i.G1`` … ``w:i.Gd``                    r_{k−1} × m_k × n_k × r_k,  r_0 = r_d = 1
    codebook k        ``w:i.centres``, ``w:i.codes``             k; that of the tensor (uint8 to k = 256, then uint16)
    fixed values      ``w:i.codes`` (and ``w:i.scale``)          that of the tensor; ()
    sparse            ``w:i.values``, ``w:i.indices``            n; n (int64: rising positions in the order of rows)

Centres and scale belong to all tensors of a composition and go by its first. Numbers are of the tensor's own type, so
that a factor takes the bytes that are counted for it (bfloat16 as float32, whose values are exactly those). What the
network holds is the sum of all parts in float64, rounded once: `composed`. Products are added up one by one, in the
order of their index, so that the same factors give the same bits on every machine; another order moves the sum by no
more than `slack`. A tensor is what its factors say if it lies within two units in its last place of the sum, and that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from prunelang.compiler.forms import Codebook, Composition, Fixed, Form, LowRank, Sparse, TensorTrain
from prunelang.compiler.shapes import ShapeTable
from prunelang.runtime.weights import Array, Arrays, without_negative_zero

FACTORS: Final = "factors.safetensors"
BLOCK: Final = 1 << 15  # entries of a product at a time: they stay in the processor's cache
MANTISSA: Final = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}
LEAST: Final = {"float64": -1074, "float32": -149, "float16": -24, "bfloat16": -133}  # exponent of a subnormal


@dataclass(frozen=True)
class Factors:
    """The arrays of several compositions, by their names, each of the shape and type that its form asks for."""

    compositions: tuple[Composition, ...]
    arrays: Arrays

    def of(self, tensor: str) -> Composition | None:
        """The composition that holds a tensor."""
        return next((c for c in self.compositions if tensor in c.tensors), None)


NO_FACTORS: Final = Factors((), {})


def kept(composition: Composition) -> bool:
    """Whether it has factors: a box and a nuclear ball have none, the tensor itself shows them."""
    return all(isinstance(f, LowRank | TensorTrain | Codebook | Fixed | Sparse) for f in composition.forms)


def named(tensor: str, form: int, symbol: str) -> str:
    """``fc1.weight:0.U``."""
    return f"{tensor}:{form}.{symbol}"


def symbols(composition: Composition) -> Iterator[tuple[str, Form, str, int]]:
    """Every array of a composition: its name, its form, its symbol, and which of the tensors it belongs to."""
    for i, form in enumerate(composition.forms):
        for which, tensor in enumerate(composition.tensors):
            for symbol in _symbols(form, which == 0):
                yield named(tensor, i, symbol), form, symbol, which


def _symbols(form: Form, first: bool) -> tuple[str, ...]:
    match form:
        case LowRank():
            return ("U", "V")
        case TensorTrain(modes=modes):
            return tuple(f"G{k}" for k in range(1, len(modes) + 1))
        case Codebook():
            return ("centres", "codes") if first else ("codes",)
        case Fixed(scaled=scaled):
            return ("scale", "codes") if scaled and first else ("codes",)
        case Sparse():
            return ("values", "indices")
    raise ValueError(f"a {type(form).__name__} keeps no factors: the tensor itself shows it")


# ── what factors multiply out to ─────────────────────────────────────────────────────────────────────────────────


def compose64(composition: Composition, arrays: Arrays) -> dict[str, Array]:
    """``Σ_i Δ_i(Θ_i)`` of each tensor in float64."""
    return {t: _summed(composition, which, arrays, False) for which, t in enumerate(composition.tensors)}


def composed(composition: Composition, arrays: Arrays, table: ShapeTable) -> dict[str, Array]:
    """The tensors that the network holds: `compose64`, rounded once to their own types."""
    return {t: rounded(a, table.tensor[t].dtype) for t, a in compose64(composition, arrays).items()}


def slack(composition: Composition, arrays: Arrays) -> dict[str, Array]:
    """``n ε Σ_i Δ_i(|Θ_i|)``: how far sums of n products, in any order, may stray in float64, entry by entry."""
    length = sum(_length(f, composition, i, arrays) for i, f in enumerate(composition.forms)) + len(composition.forms)
    scale = 2 * length * float(np.finfo(np.float64).eps)
    return {t: scale * _summed(composition, which, arrays, True) for which, t in enumerate(composition.tensors)}


def strays(array: Array, total: Array, allowed: Array, dtype: str) -> int:
    """Entries of a stored tensor that are further from the sum of its parts than two units in the last place."""
    wide = array.astype(np.float64)
    exponent = np.frexp(np.maximum(np.abs(wide), np.abs(total)))[1] - 1
    unit = np.ldexp(1.0, np.maximum(exponent - MANTISSA[dtype], LEAST[dtype]))
    with np.errstate(invalid="ignore", over="ignore"):
        return int(np.count_nonzero(~(np.abs(wide - total) <= 2 * unit + allowed)))  # ~(≤): a NaN strays


def rounded(array: Array, dtype: str) -> Array:
    """float64 to the nearest number of a type, ties to even, −0.0 as 0.0; bfloat16 comes as float32."""
    if dtype != "bfloat16":
        return without_negative_zero(array.astype(dtype))
    bits = array.astype(np.float32).view(np.uint32)
    up = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return without_negative_zero(up.view(np.float32))


def _summed(composition: Composition, which: int, arrays: Arrays, magnitudes: bool) -> Array:
    shape = composition.shapes[which]
    total = np.zeros(shape)
    for i, form in enumerate(composition.forms):
        total += _part(form, composition, i, which, arrays, magnitudes).reshape(shape)
    return total


def _part(form: Form, composition: Composition, i: int, which: int, arrays: Arrays, magnitudes: bool) -> Array:
    """``Δ_i`` of one tensor in float64; with `magnitudes` of the absolute values of its factors."""
    own, first = composition.tensors[which], composition.tensors[0]

    def get(symbol: str, tensor: str = own) -> Array:
        wide: Array = arrays[named(tensor, i, symbol)].astype(np.float64)
        return np.abs(wide) if magnitudes else wide

    match form:
        case LowRank():
            return product(get("U"), get("V"))
        case TensorTrain(modes=modes):
            return train64([get(f"G{k}") for k in range(1, len(modes) + 1)])
        case Codebook():
            return get("centres", first)[arrays[named(own, i, "codes")]]
        case Fixed(values=values, scaled=scaled):
            table = np.abs(np.array(values)) if magnitudes else np.array(values)
            codes = arrays[named(own, i, "codes")]
            return (table * get("scale", first) if scaled else table)[codes]
        case Sparse():
            flat = np.zeros(prod(composition.shapes[which]))
            flat[arrays[named(own, i, "indices")]] = get("values")
            return flat
    raise ValueError(f"a {type(form).__name__} keeps no factors: the tensor itself shows it")


def train64(cores: Sequence[Array]) -> Array:
    """``W[(i₁ … i_d), (j₁ … j_d)] = G₁[i₁, j₁] ⋯ G_d[i_d, j_d]`` as a matrix, from left to right."""
    made = np.ones((1, 1, 1))  # rows so far × columns so far × r_k
    for core in cores:
        rows, columns, left = made.shape
        _, m, n, right = core.shape
        flat, kernel = made.reshape(rows * columns, left), core.reshape(left, m * n * right)
        wide = product(flat, kernel).reshape(rows, columns, m, n, right)
        made = wide.transpose(0, 2, 1, 3, 4).reshape(rows * m, columns * n, right)
    return made[:, :, 0]


def product(a: Array, b: Array) -> Array:
    """``Σ_k a_ik b_kj`` with k rising: no library decides the order, and none fuses a product with a sum."""
    total = np.zeros((a.shape[0], b.shape[1]))
    height = max(1, BLOCK // max(1, b.shape[1]))
    for first in range(0, len(a), height):
        some, left = total[first : first + height], a[first : first + height]
        room = np.empty_like(some)
        for k in range(a.shape[1]):
            np.multiply(left[:, k : k + 1], b[k], out=room)
            some += room
    return total


def _length(form: Form, composition: Composition, i: int, arrays: Arrays) -> int:
    """How many roundings lie between the factors and one entry of their product."""
    own = composition.tensors[0]
    match form:
        case LowRank():
            return int(arrays[named(own, i, "U")].shape[1])
        case TensorTrain(modes=modes):
            return int(sum(arrays[named(own, i, f"G{k}")].shape[3] for k in range(1, len(modes) + 1)))
    return 1
