"""``format_spec``: the canonical layout of a spec, with every comment kept.

A statement or constraint becomes one *row*: pieces of text (printer.py) that are wrapped where they are too wide.
Comments are put back by where they stood: above the row, at its end, or inside it where a line can be broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from prunelang.dsl.parser import parse
from prunelang.dsl.printer import Piece, Style, format_expr
from prunelang.dsl.rows import Row, rows_of
from prunelang.dsl.tree import Comment, Spec
from prunelang.dsl.wrapping import wrap

__all__ = ["Style", "format_expr", "format_spec"]


def format_spec(text_or_spec: str | Spec, *, style: Style = "unicode", width: int = 100) -> str:
    """A spec in its canonical layout; formatting the result again changes nothing.

    From a text, blank lines are kept (never more than one in a row); from a `Spec` they separate groups of statements.
    Raises `SpecError` if the text has syntax errors.
    """
    if isinstance(text_or_spec, Spec):
        spec, has_blank = text_or_spec, None
    else:
        spec, has_blank = parse(text_or_spec), _blank_lines(text_or_spec)
    placed = _place(rows_of(spec, style), spec.comments)
    lines = [line for block in placed for line in block.lines(width, has_blank)]
    return "".join(line + "\n" for line in _align_comments(lines))


@dataclass
class _Block:
    """One row with the comments that go with it; `row` is None for the comments after the last one."""

    row: Row | None
    above: list[Comment] = field(default_factory=list)
    inside: list[Comment] = field(default_factory=list)
    after: list[Comment] = field(default_factory=list)
    previous_end: int | None = None  # in the source; None for the first block

    def lines(self, width: int, has_blank: Callable[[int, int], bool] | None) -> Iterable[_Line]:
        end = self.previous_end
        indent = self.row.indent if self.row else 0
        starts_group = self.row is not None and self.row.starts_group and end is not None
        for comment in self.above:
            if end is not None and (has_blank(end, comment.span.start) if has_blank else starts_group):
                yield _Line("")
            starts_group = False
            yield _Line(" " * indent + comment.text)
            end = comment.span.end
        if self.row is None:
            return
        if end is not None and (has_blank(end, self.row.start) if has_blank else starts_group):
            yield _Line("")
        yield from self._row_lines(self.row, width)

    def _row_lines(self, row: Row, width: int) -> Iterable[_Line]:
        breaks, unplaced = _forced_breaks(row.pieces, self.inside)
        ending = [*unplaced, *self.after]
        yield from (_Line(" " * row.indent + c.text) for c in ending[:-1])
        for first, stop in pairwise([0, *sorted(breaks), len(row.pieces)]):
            indent = row.hang if first else row.indent
            trailing, own = _first_trailing(breaks[stop]) if stop in breaks else (ending[-1:], [])
            *texts, last = wrap(row.pieces[first:stop], indent, row.hang, width)
            yield from (_Line(text) for text in texts)
            yield _Line(last, trailing[0].text if trailing else None)
            yield from (_Line(" " * row.hang + c.text) for c in own)


@dataclass(frozen=True)
class _Line:
    text: str
    comment: str | None = None


def _place(rows: Sequence[Row], comments: Sequence[Comment]) -> list[_Block]:
    """Every comment to the row that it stands above, in or after."""
    blocks: list[_Block] = []
    left = sorted(comments, key=lambda c: c.span.start)
    end: int | None = None
    for row in rows:
        block = _Block(row, previous_end=end)
        while left and left[0].span.start < row.start:
            comment = left.pop(0)
            if not comment.own_line and blocks:
                blocks[-1].after.append(comment)
                block.previous_end = comment.span.end
            else:
                block.above.append(comment)
        while left and left[0].span.start < row.end:
            block.inside.append(left.pop(0))
        blocks.append(block)
        end = row.end
    final = _Block(None, previous_end=end)
    for comment in left:
        if not comment.own_line and blocks and not final.above:
            blocks[-1].after.append(comment)
            final.previous_end = comment.span.end
        else:
            final.above.append(comment)
    return [*blocks, final]


def _forced_breaks(
    pieces: Sequence[Piece], comments: Iterable[Comment]
) -> tuple[dict[int, list[Comment]], list[Comment]]:
    """Index of the piece that must start a line → the comments before it; and the comments for which none is found."""
    breaks: dict[int, list[Comment]] = {}
    rest = []
    for comment in comments:
        known = [i for i, p in enumerate(pieces) if p.at is not None and p.at < comment.span.start]
        after = known[-1] if known else 0
        place = next((i for i in range(after + 1, len(pieces)) if pieces[i].rank is not None), None)
        if place is None:
            rest.append(comment)
        else:
            breaks.setdefault(place, []).append(comment)
    return breaks, rest


def _first_trailing(comments: Sequence[Comment]) -> tuple[list[Comment], list[Comment]]:
    """The first comment at the end of a line, if any, and the rest: one line ends with one comment."""
    first = next((i for i, c in enumerate(comments) if not c.own_line), len(comments))
    return list(comments[first : first + 1]), [*comments[:first], *comments[first + 1 :]]


def _blank_lines(text: str) -> Callable[[int, int], bool]:
    """Whether a blank line stands between two offsets."""
    lines = text.replace("\r\n", " \n").replace("\r", "\n")

    def has_blank(start: int, end: int) -> bool:
        between = lines[start:end].split("\n")
        return any(not line.strip() for line in between[1:-1])

    return has_blank


def _align_comments(lines: Iterable[_Line]) -> Iterable[str]:
    """Comments at the ends of lines that follow each other start in one column."""
    run: list[_Line] = []
    for line in [*lines, None]:
        if line is not None and line.comment is not None:
            run.append(line)
            continue
        column = max((len(r.text) for r in run), default=0) + 2
        yield from (f"{r.text:<{column}}{r.comment}" for r in run)
        run.clear()
        if line is not None:
            yield line.text
