"""`Writer`: lines of Python, laid out as a formatter leaves them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

WIDTH = 120
INDENT = "    "


class Writer:
    """Text under construction, at a depth of indentation."""

    def __init__(self, depth: int = 0) -> None:
        self.lines: list[str] = []
        self.depth = depth

    def line(self, text: str) -> None:
        """One statement. What does not fit is kept from the formatter, which would break it elsewhere."""
        line = INDENT * self.depth + text
        self.lines.append(line if len(line) <= WIDTH else f"{line}  # fmt: skip")

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

    def call(self, head: str, items: Sequence[str], tail: str = ")") -> None:
        """``head(item, item)``: on one line, or the items on one line of their own, or a line each."""
        inner = ", ".join(items)
        if self._fits(head + inner + tail):
            self.line(head + inner + tail)
            return
        self.line(head)
        self.depth += 1
        if self._fits(inner) and head.endswith("("):
            self.line(inner)
        else:
            for item in items:
                self.line(f"{item},")
        self.depth -= 1
        self.line(tail)

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
