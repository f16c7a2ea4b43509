"""`Writer`: lines of Python, laid out as a formatter leaves them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

WIDTH = 120
INDENT = "    "


@dataclass(frozen=True)
class Group:
    """Something in brackets that may be laid out over several lines: ``head item, item tail``."""

    head: str
    items: tuple[Piece, ...]
    tail: str = ")"

    @property
    def is_call(self) -> bool:
        return re.search(r"[\w\])]\($", self.head) is not None

    def flat(self) -> str:
        inner = ", ".join(map(flat, self.items))
        alone = len(self.items) == 1 and self.head.endswith("(") and not self.is_call
        return f"{self.head}{inner}{',' if alone else ''}{self.tail}"


Piece: TypeAlias = str | Group


def flat(piece: Piece) -> str:
    return piece if isinstance(piece, str) else piece.flat()


class Writer:
    """Text under construction, at a depth of indentation."""

    def __init__(self, depth: int = 0) -> None:
        self.lines: list[str] = []
        self.depth = depth

    def line(self, text: str) -> None:
        """One statement. What does not fit is kept from the formatter, which would break it elsewhere; a part of a
        statement cannot be marked so, and `kept` marks all around it."""
        line = INDENT * self.depth + text
        part = text.endswith((",", "(", "["))
        self.lines.append(line if len(line) <= WIDTH or part else f"{line}  # fmt: skip")

    def comment(self, text: str) -> None:
        indent = INDENT * self.depth
        for paragraph in text.splitlines() or [""]:
            lead = f"{indent}# "
            self.lines += textwrap.wrap(
                paragraph, WIDTH, initial_indent=lead, subsequent_indent=lead, break_long_words=False
            ) or [f"{indent}#"]

    def blank(self) -> None:
        """An empty line, unless there is one or a block has just begun."""
        if self.lines and self.lines[-1] and not self.lines[-1].endswith(":"):
            self.lines.append("")

    def call(self, head: str, items: Sequence[Piece], tail: str = ")") -> None:
        """``head item, item tail`` as one statement."""
        self.piece(Group(head, tuple(items), tail))

    def piece(self, piece: Piece, after: str = "") -> None:
        """On one line if it fits; else what is inside on a line of its own (calls), or a line each."""
        if isinstance(piece, str) or self._fits(piece.flat() + after):
            self.line((piece if isinstance(piece, str) else piece.flat()) + after)
            return
        self.line(piece.head)
        self.depth += 1
        inner = ", ".join(map(flat, piece.items))
        if piece.is_call and self._fits(inner):
            self.line(inner)
        else:
            for item in piece.items:
                self.piece(item, ",")
        self.depth -= 1
        self.line(piece.tail + after)

    def cut(self, head: str) -> None:
        """Takes the statement that begins so, at this depth, out again."""
        indent = INDENT * self.depth
        first = next(i for i, line in enumerate(self.lines) if line.startswith(indent + head))
        last = first
        if self.lines[first].endswith(("(", "[", "{")):
            last = next(i for i in range(first + 1, len(self.lines)) if not self.lines[i].startswith(indent + INDENT))
        del self.lines[first : last + 1]

    def _fits(self, text: str) -> bool:
        return len(INDENT * self.depth + text) <= WIDTH

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """``head`` and what is written inside, one step deeper."""
        self.line(head)
        self.depth += 1
        yield
        self.depth -= 1

    def text(self) -> str:
        return "\n".join(self.lines)


def kept(text: str) -> str:
    """Top-level statements as the formatter leaves them: names made longer in copying may pass the width."""
    if all(len(line) <= WIDTH or line.endswith("# fmt: skip") for line in text.splitlines()):
        return text
    return f"# fmt: off\n{text}\n# fmt: on"
