"""Branches of copied code that a script never enters: those for classes that nothing in it is made of."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Gone = Callable[[ast.expr], bool]  # whether an expression names a class without instances


@dataclass
class Branches:
    """What can be left out of a definition: whole lines, and ``elif`` that have become the first of their chain.

    Cases of a ``match`` go, and branches of an ``if`` that asks for such a class; a body is never left empty.
    """

    gone: Gone
    lines: set[int] = field(default_factory=set)
    firsts: list[tuple[int, int]] = field(default_factory=list)  # (line, column) of an ``elif`` that is to read ``if``

    @classmethod
    def of(cls, definition: ast.stmt, gone: Gone) -> Branches:
        self = cls(gone)
        self._body([definition])
        return self

    def _body(self, body: Sequence[ast.stmt]) -> None:
        left_out = [s for s in body if self._whole(s)]
        for s in body if len(left_out) == len(body) else [s for s in body if s not in left_out]:
            self._inside(s)
        if len(left_out) < len(body):
            for s in left_out:
                self._drop(s.lineno, s.end_lineno)

    def _whole(self, s: ast.stmt) -> bool:
        """Whether nothing of a statement can be entered."""
        if isinstance(s, ast.If):
            return self._never(s.test) and (not s.orelse or (_is_elif(s) and self._whole(s.orelse[0])))
        return isinstance(s, ast.Match) and all(self._unmatched(c.pattern) for c in s.cases)

    def _inside(self, s: ast.stmt) -> None:
        if isinstance(s, ast.If):
            self._chain(s, first=True)
            return
        if isinstance(s, ast.Match):
            entered = [c for c in s.cases if not self._unmatched(c.pattern)] or s.cases
            for c in s.cases:
                if c in entered:
                    self._body(c.body)
                else:
                    self._drop(c.pattern.lineno, c.body[-1].end_lineno)
            return
        for name in ("body", "orelse", "finalbody"):
            inner = getattr(s, name, None)
            if isinstance(inner, list):
                self._body(inner)
        for handler in getattr(s, "handlers", ()):
            self._body(handler.body)

    def _chain(self, s: ast.If, *, first: bool) -> None:
        """``if … elif … else``; `first`: nothing is left before `s`."""
        dead = self._never(s.test) and (not first or _is_elif(s))
        if not dead:
            self._body(s.body)
        if _is_elif(s):
            after = s.orelse[0]
            assert isinstance(after, ast.If)
            if self._whole(after):
                self._drop(after.lineno, after.end_lineno)
            else:
                if dead and first:
                    self.firsts.append((after.lineno, after.col_offset))
                self._chain(after, first=dead and first)
            if dead:
                self._drop(s.lineno, after.lineno - 1)
            return
        self._body(s.orelse)
        if dead and s.orelse:
            self._drop(s.lineno, s.body[-1].end_lineno)

    def _drop(self, first: int, last: int | None) -> None:
        assert last is not None
        self.lines |= set(range(first, last + 1))

    def _never(self, test: ast.expr) -> bool:
        match test:
            case ast.BoolOp(op=ast.And(), values=values):
                return any(map(self._never, values))
            case ast.Call(func=ast.Name("isinstance"), args=[_, kinds]):
                return self._all_gone(kinds)
        return False

    def _all_gone(self, kinds: ast.expr) -> bool:
        match kinds:
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self._all_gone(left) and self._all_gone(right)
            case ast.Tuple(elts=elts):
                return all(map(self._all_gone, elts))
        return self.gone(kinds)

    def _unmatched(self, pattern: ast.pattern) -> bool:
        match pattern:
            case ast.MatchClass(cls=kind):
                return self.gone(kind)
            case ast.MatchOr(patterns=patterns):
                return all(map(self._unmatched, patterns))
            case ast.MatchAs(pattern=ast.pattern() as inner):
                return self._unmatched(inner)
        return False


def left_of_union(definition: ast.stmt, gone: Gone) -> list[ast.expr]:
    """What remains of a type alias ``A | B | C`` without classes that are gone; empty where all of it does."""
    if not isinstance(definition, ast.AnnAssign) or not isinstance(definition.value, ast.BinOp):
        return []
    members = _members(definition.value)
    kept = [m for m in members if not gone(m)]
    return kept if len(kept) < len(members) and all(isinstance(m, ast.Name) for m in members) else []


def _members(union: ast.expr) -> list[ast.expr]:
    match union:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return [*_members(left), *_members(right)]
    return [union]


def _is_elif(s: ast.If) -> bool:
    """Whether the other branch is an ``elif``, which stands where its ``if`` does."""
    return len(s.orelse) == 1 and isinstance(s.orelse[0], ast.If) and s.orelse[0].col_offset == s.col_offset
