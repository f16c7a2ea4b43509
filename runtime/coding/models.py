"""Adaptive models: what has been coded so far says what is likely to come.

Learning happens between blocks that grow with what is known, so that the work is a few array operations however long
the input is: a block is ⅛ of all that came before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from prunelang.runtime.coding.coder import Coder, Ints, shortest

FIRST, SHARE = 8, 8
ORDERS = (1, 16, 256, 1024)  # how much an observation counts after 0, 1, 2 and 3 bytes of the same context


def growing(n: int, first: int, share: int, most: int = 1 << 20) -> Iterator[tuple[int, int]]:
    """0 … n in blocks of max(`first`, begin/`share`) and at most `most` (≥ 1)."""
    begin = 0
    while begin < n:
        end = min(n, begin + min(most, max(first, begin // share)))
        yield begin, end
        begin = end


class Histogram:
    """Symbols that are alike independent: weight 1 for each at first, and for every one seen a triangle around it.

    A triangle of half-width h (1, 2, …, h + 1, …, 2, 1) says that neighbours on a scale are about as frequent; h = 0 is
    for symbols without an order, and adds 2 (Krichevsky–Trofimov). What was learnt on one tensor is a start for the
    next: `relax` shrinks it to the weight of a few observations.
    """

    def __init__(self, size: int, half_width: int = 0) -> None:
        h = half_width
        self._triangle = np.array([*range(1, h + 2), *range(h, 0, -1)], np.int64) if h else np.array([2], np.int64)
        self._h = h
        self.weights = np.ones(size, np.int64)

    def code(self, coder: Coder, n: int, given: Ints | None = None) -> Ints:
        found = np.zeros(n, np.int64)
        for begin, end in growing(n, FIRST, SHARE):
            part = None if given is None else given[begin:end]
            found[begin:end] = coder.draw(self.weights, end - begin, part)
            self.learn(found[begin:end])
        return found

    def learn(self, seen: Ints) -> None:
        counts = np.bincount(seen, minlength=len(self.weights))
        spread = np.convolve(counts, self._triangle)
        self.weights += spread[self._h : self._h + len(self.weights)]

    def relax(self, observations: int) -> None:
        """Keep the shape of what was learnt at the weight of so many observations, if it has more."""
        learnt, most = self.weights - 1, observations * int(self._triangle.sum())
        if (total := int(learnt.sum())) > most:
            self.weights = 1 + learnt * most // total

    def copy(self) -> Histogram:
        twin = Histogram(0, self._h)
        twin.weights = self.weights.copy()
        return twin


class Text:
    """Bytes of text, each after up to three bytes before it."""

    def __init__(self) -> None:
        self._after: dict[bytes, Ints] = {}
        self._start = np.ones(256, np.int64)
        self._start[32:127] = 4

    def code(self, coder: Coder, n: int, given: bytes | None = None) -> bytes:
        text = bytearray()
        for i in range(n):
            contexts = [bytes(text[len(text) - order :]) for order in range(min(len(ORDERS), len(text) + 1))]
            weights = self._start.copy()
            for factor, context in zip(ORDERS, contexts, strict=False):
                if context in self._after:
                    weights += factor * self._after[context]
            (byte,) = coder.draw(weights, 1, None if given is None else np.array([given[i]], np.int64))
            for context in contexts:
                self._after.setdefault(context, np.zeros(256, np.int64))[byte] += 1
            text.append(int(byte))
        return bytes(text)


class Planes:
    """Numbers of w bytes as they are: all highest bytes, then the next, each plane learnt or taken as noise."""

    def __init__(self) -> None:
        self._planes: dict[tuple[int, int], Histogram] = {}

    def code(self, coder: Coder, n: int, width: int, given: bytes | None = None) -> bytes:
        """`n` little-endian numbers of `width` bytes."""
        planes = np.zeros((n, width), np.uint8)
        own = None if given is None else np.frombuffer(given, np.uint8).reshape(n, width)
        for i in reversed(range(width)):
            planes[:, i] = self._plane(coder, n, (width, i), None if own is None else own[:, i].astype(np.int64))
        return planes.tobytes()

    def _plane(self, coder: Coder, n: int, which: tuple[int, int], given: Ints | None) -> Ints:
        learnt = self._planes.setdefault(which, Histogram(256, 1))
        learnt.relax(64)
        choice = None
        if given is not None:
            ways: list[Callable[[Coder], object]] = [
                lambda c: c.uniform(256, n, given),
                lambda c: learnt.copy().code(c, n, given),
            ]
            choice = np.array([shortest(ways)], np.int64)
        adaptive = int(coder.uniform(2, 1, choice)[0])
        return learnt.code(coder, n, given) if adaptive else coder.uniform(256, n, given)


def number(coder: Coder, given: int | None = None) -> int:
    """A whole number below 2³²: its length in bits, then those bits."""
    length = int(coder.uniform(33, 1, None if given is None else np.array([given.bit_length()], np.int64))[0])
    value = 0
    for shift in range(0, length, 16):
        size = 1 << min(16, length - shift)
        part = None if given is None else np.array([given >> shift & size - 1], np.int64)
        value |= int(coder.uniform(size, 1, part)[0]) << shift
    return value
