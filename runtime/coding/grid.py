"""The values of a coded kernel: a symmetric grid without a zero.

With b bits and M the largest magnitude, a kept value is one of

    o M / (2ᵇ − 1),     o ∈ {±1, ±3, …, ±(2ᵇ − 1)},

the one nearest to it. So M itself is met exactly, zero stays zero because it is not kept, no kept value becomes zero,
and nothing moves by more than M / (2ᵇ − 1). Where a type has fewer significant bits than the grid asks for, the grid
has one bit less than the type: so its numbers tell the points apart, and quantising twice is quantising once.
"""

from __future__ import annotations

import numpy as np

from prunelang.runtime.coding.coder import Floats, Ints
from prunelang.runtime.weights import Array

MOST_BITS = {"float64": 16, "float32": 16, "float16": 10, "bfloat16": 7}
_SMALLEST = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}


def fits(largest: float, dtype: str, bits: int) -> bool:
    """Whether every point of the grid is a normal number of the type; below that, points would fall together."""
    return bool(largest / (2**bits - 1) >= _SMALLEST[dtype])


def quantised(values: Array, largest: float, bits: int) -> tuple[Ints, Ints]:
    """Of each value ≠ 0 its magnitude (|o| − 1)/2, from 0 to 2ᵇ⁻¹ − 1, and whether it is negative."""
    share = np.abs(values.astype(np.float64)) / largest
    magnitude = np.minimum(np.floor(share * (2**bits - 1) / 2), 2 ** (bits - 1) - 1)
    return magnitude.astype(np.int64), (values < 0).astype(np.int64)


def points(magnitude: Ints, negative: Ints, largest: float, dtype: str, bits: int) -> Array:
    """The values back, in NumPy's type for `dtype`: the product is taken in float64 and rounded to the type."""
    odd = (2 * magnitude + 1) * (1 - 2 * negative)
    return _rounded(largest * (odd / (2**bits - 1)), dtype)


def _rounded(values: Floats, dtype: str) -> Array:
    if dtype != "bfloat16":
        return values.astype(dtype)
    words = values.astype(np.float32).view(np.uint32)  # to the nearest upper half, ties to even
    return ((words + np.uint32(0x7FFF) + (words >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
