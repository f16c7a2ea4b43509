"""Where something stands in a text: offsets, lines and columns, all counted as an editor shows them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open range ``[start, end)`` of character offsets into one text.

    Every node of the syntax tree carries one, and so does every constraint down to the certificate, so that a
    message printed hours after parsing can still point at its line.
    """

    start: int
    end: int

    def to(self, other: Span) -> Span:
        """The smallest span that covers both."""
        return Span(min(self.start, other.start), max(self.end, other.end))


NOWHERE = Span(0, 0)


@dataclass(frozen=True, slots=True)
class Position:
    """A place for people: line and column, both from 1; a column counts characters."""

    line: int
    column: int


@dataclass(frozen=True)
class Source:
    """One text with its name; answers which line an offset is on."""

    text: str
    name: str = "<text>"
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        starts = [0]
        starts.extend(i + 1 for i, c in enumerate(self.text) if c == "\n")
        object.__setattr__(self, "_starts", tuple(starts))

    def position(self, offset: int) -> Position:
        line = bisect_right(self._starts, offset) - 1
        mark = self.text.startswith("\ufeff") and line == 0 and offset > 0  # no editor shows a byte order mark
        return Position(line + 1, offset - self._starts[line] + 1 - mark)

    def line(self, number: int) -> str:
        """The text of line ``number`` (from 1), without its newline; empty past the end."""
        if not 1 <= number <= len(self._starts):
            return ""
        start = self._starts[number - 1]
        end = self._starts[number] - 1 if number < len(self._starts) else len(self.text)
        return self.text[start:end].rstrip("\r").removeprefix("\ufeff")

    def slice(self, span: Span) -> str:
        return self.text[span.start : span.end]
