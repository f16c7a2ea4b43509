"""Pieces of text → lines no wider than asked, broken at the best places that the language allows."""

from __future__ import annotations

from collections.abc import Sequence

from prunelang.dsl.printer import Piece


def wrap(pieces: Sequence[Piece], indent: int, hang: int, width: int) -> list[str]:
    """Lines, the first indented by `indent`, the others by `hang`.

    A line that is too wide is broken at the place of the lowest rank that fits, the last of several; where none fits,
    at the first there is. What cannot be broken stays wide.
    """
    lines = []
    start = 0
    while start < len(pieces):
        stop = _line_end(pieces, start, width - indent)
        lines.append(" " * indent + _text(pieces[start:stop]))
        start, indent = stop, hang
    return lines


def _line_end(pieces: Sequence[Piece], start: int, room: int) -> int:
    """Index after the last piece of the line that starts at `start`."""
    best: int | None = None
    used = 0
    for i in range(start, len(pieces)):
        rank = pieces[i].rank
        if i > start and rank is not None:
            if used > room and best is None:
                return i
            if used <= room and (best is None or rank <= _rank(pieces[best])):
                best = i
        used += len(pieces[i].text) + (pieces[i].gap and i > start)
        if used > room and best is not None:
            return best
    return len(pieces)


def _rank(piece: Piece) -> int:
    assert piece.rank is not None
    return piece.rank


def _text(pieces: Sequence[Piece]) -> str:
    return "".join(" " + p.text if p.gap and i else p.text for i, p in enumerate(pieces))
