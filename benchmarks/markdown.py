"""Tables and spreads as the pages show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread_text(found: Mapping[str, Any], digits: int) -> str:
    """The mean, the range where there are several seeds, and how many: "1.61 [1.54, 1.66] (3)"."""
    spread = f" [{found['low']:.{digits}f}, {found['high']:.{digits}f}]" if found["seeds"] > 1 else ""
    return f"{found['mean']:.{digits}f}{spread} ({found['seeds']})"
