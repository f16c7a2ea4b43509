"""`Coder`: a range coder whose every symbol is named once, for writing and for reading.

A model says what comes next with ``bits``, ``draw`` or ``uniform`` and works with what it gets back. An `Encoder` is
given the symbols and hands them on, a `Decoder` finds them in the stream, so both directions are the same code and
cannot come apart. Probabilities are made of integer counts by single additions, multiplications and divisions of
float64, which IEEE 754 rounds alike everywhere: a file is the same, and is read the same, on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MODEL = constriction.stream.model
_BERNOULLI = _MODEL.Bernoulli(perfect=False)
_WORD = 4  # bytes that the range coder writes at a time
_PRECISION = 1 << 20


class Damaged(ValueError):
    """The stream cannot come from an encoder of this format."""


class Coder(Protocol):
    """Symbols are integers from 0; `given` is what an encoder writes, and a decoder takes no notice of it."""

    def bits(self, p: Floats, given: Ints | None = None) -> Ints:
        """One of 0 and 1 for each entry of `p`, the probability of 1."""

    def draw(self, weights: Ints, n: int, given: Ints | None = None) -> Ints:
        """`n` symbols below ``len(weights)``, each with a probability in proportion to its weight, which is > 0."""

    def uniform(self, size: int, n: int, given: Ints | None = None) -> Ints:
        """`n` symbols below `size`, 1 ≤ `size` ≤ 2¹⁶, all equally likely."""


class Encoder:
    """Writes a stream."""

    def __init__(self) -> None:
        self._range: Any = constriction.stream.queue.RangeEncoder()

    def bits(self, p: Floats, given: Ints | None = None) -> Ints:
        if p.size:
            self._range.encode(_symbols(given), _BERNOULLI, _dyadic(p))
        return _given(given)

    def draw(self, weights: Ints, n: int, given: Ints | None = None) -> Ints:
        return self._all(_categorical(weights), len(weights), n, given)

    def uniform(self, size: int, n: int, given: Ints | None = None) -> Ints:
        return self._all(_MODEL.Uniform(size) if size > 1 else None, size, n, given)

    def _all(self, model: Any, size: int, n: int, given: Ints | None) -> Ints:
        found = _given(given)
        if len(found) != n or (n and not (found.min() >= 0 and found.max() < size)):
            raise AssertionError("a model was given symbols that it does not have: a bug in prunelang")
        if n and size > 1:
            self._range.encode(_symbols(given), model)
        return found

    def stream(self) -> bytes:
        """All of it; zeros at its end go without saying."""
        words = np.asarray(self._range.get_compressed(), "<u4")
        return words.tobytes().rstrip(b"\0")


class Decoder:
    """Reads what an `Encoder` wrote. Errors: `Damaged`."""

    def __init__(self, stream: bytes) -> None:
        padded = stream.ljust(-(-len(stream) // _WORD) * _WORD, b"\0")
        self._range: Any = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, "<u4").astype(np.uint32))

    def bits(self, p: Floats, given: Ints | None = None) -> Ints:
        return self._next(_BERNOULLI, _dyadic(p)) if p.size else np.zeros(0, np.int64)

    def draw(self, weights: Ints, n: int, given: Ints | None = None) -> Ints:
        return self._next(_categorical(weights), n) if n and len(weights) > 1 else np.zeros(n, np.int64)

    def uniform(self, size: int, n: int, given: Ints | None = None) -> Ints:
        return self._next(_MODEL.Uniform(size), n) if n and size > 1 else np.zeros(n, np.int64)

    def _next(self, model: Any, amount: Any) -> Ints:
        try:
            found: Ints = np.asarray(self._range.decode(model, amount)).astype(np.int64)
        except AssertionError as error:  # how the library says that no encoder can have written this
            raise Damaged(str(error)) from error
        return found

    def done(self) -> bool:
        """Whether the stream may end here."""
        return bool(self._range.maybe_exhausted())


def shortest(ways: list[Callable[[Coder], object]]) -> int:
    """Which of several ways to write gives the shortest stream; ties go to the earlier one."""
    lengths: list[int] = []
    for way in ways:
        scratch = Encoder()
        way(scratch)
        lengths.append(len(scratch.stream()))
    return lengths.index(min(lengths))


def _dyadic(p: Floats) -> Floats:
    """Rounded down to a multiple of 2⁻²⁰, and neither 0 nor 1, so that the coder's own rounding has nothing to do."""
    dyadic: Floats = np.clip(np.floor(p * _PRECISION), 1, _PRECISION - 1) / _PRECISION
    return dyadic


def _categorical(weights: Ints) -> Any:
    return _MODEL.Categorical(weights.astype(np.float64), perfect=False) if len(weights) > 1 else None


def _given(given: Ints | None) -> Ints:
    if given is None:
        raise AssertionError("an encoder was given nothing to write: a bug in prunelang")
    return given


def _symbols(given: Ints | None) -> NDArray[np.int32]:
    return _given(given).astype(np.int32)
