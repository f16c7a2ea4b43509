"""The LALR(1) automaton: tables.json, a stack, and what the stack would accept next.

Text comes in as tokens that each name one or several terminals; the first that the current state knows is taken. That
is what makes the lexer contextual: ``validation:`` is a label where a constraint may start and nothing else elsewhere.
"""

from __future__ import annotations

import json
import os.path
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeAlias

from prunelang.dsl.spans import Span

END = "$END"
MAX_DEPTH = 128
"""Levels of the deepest tree that is built: every walk of a tree may recurse."""

_NOT_A_LEVEL = frozenset({"", "+", "parentheses", "application"})
_EMPTY = -1

Action: TypeAlias = Callable[[Span, list[Any]], Any]


class Rule(NamedTuple):
    """A production; `children` as build.py writes them. `passes`: its one value goes on unchanged, under a new name."""

    origin: str
    length: int
    action: str
    children: tuple[int | None, ...]
    passes: bool


@dataclass(frozen=True)
class Tables:
    """`states[s][symbol]` is the state to go to, or ``~r``: reduce by rule r."""

    grammar: str
    end: int
    patterns: dict[str, str]
    words: dict[str, str]
    rules: tuple[Rule, ...]
    states: tuple[dict[str, int], ...]

    def accepts(self, stack: Iterable[int], *terminals: str) -> bool:
        """Whether an automaton with these states would shift these terminals in turn (for `END`: would end)."""
        states = list(stack)
        return all(self._shift(states, terminal) for terminal in terminals)

    def _shift(self, states: list[int], terminal: str) -> bool:
        while True:
            code = self.states[states[-1]].get(terminal)
            if code is None:
                return False
            if code >= 0:
                states.append(code)
                return True
            rule = self.rules[~code]
            if rule.length:
                del states[-rule.length :]
            states.append(self.states[states[-1]][rule.origin])
            if states[-1] == self.end:
                return terminal == END

    def expected(self, stack: list[int]) -> frozenset[str]:
        """The terminals that could come next, exactly (the state alone would name some that fail after reductions)."""
        known = (s for s in self.states[stack[-1]] if s == END or s.isupper())
        return frozenset(s for s in known if self.accepts(stack, s))


@cache
def tables() -> Tables:
    with open(os.path.join(os.path.dirname(__file__), "tables.json"), encoding="utf-8") as file:
        raw = json.load(file)
    rules = tuple(Rule(o, n, a, tuple(c), not (a or o[0] == "_") and n == 1) for o, n, a, c in raw["rules"])
    return Tables(raw["grammar"], raw["end"], raw["patterns"], raw["words"], rules, tuple(raw["states"]))


class TooDeep(Exception):
    """A tree would pass `MAX_DEPTH`; `start` and `end` bound the text of the part that does."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__(start, end)
        self.start, self.end = start, end


class _Entry(NamedTuple):
    state: int
    value: Any
    start: int  # _EMPTY for a rule that matched nothing
    end: int
    depth: int


class _Repeat(NamedTuple):
    """The values of a repetition so far, last one first; never changed, so that a stack can be kept and put back."""

    before: _Repeat | None
    items: tuple[Any, ...]


class Automaton:
    """A stack of states and values. `feed` moves it by one terminal."""

    def __init__(self, actions: Callable[[str], Action]) -> None:
        self._tables = tables()
        self._action = cache(actions)
        self.stack: list[_Entry] = [_Entry(0, None, _EMPTY, _EMPTY, 0)]

    @property
    def actions(self) -> dict[str, int]:
        """What the current state knows."""
        return self._tables.states[self.stack[-1].state]

    @property
    def states(self) -> list[int]:
        return [entry.state for entry in self.stack]

    def feed(self, terminal: str, value: Any, start: int, end: int) -> bool:
        """Shift one terminal, after the reductions that it calls for; False, with part of them done, if it cannot be.

        Raises `TooDeep`.
        """
        states, rules, stack = self._tables.states, self._tables.rules, self.stack
        while True:
            code = states[stack[-1].state].get(terminal)
            if code is None:
                return False
            if code >= 0:
                stack.append(_Entry(code, value, start, end, 0))
                return True
            rule = rules[~code]
            if rule.passes:  # most reductions by far: expr ← union ← sum ← product ← …
                entry = stack.pop()
                stack.append(_Entry(states[stack[-1].state][rule.origin], *entry[1:]))
            else:
                self._reduce(rule)
            if stack[-1].state == self._tables.end:
                return terminal == END

    def result(self) -> Any:
        return self.stack[-1].value

    def _reduce(self, rule: Rule) -> None:
        cut = len(self.stack) - rule.length
        parts = self.stack[cut:]
        del self.stack[cut:]
        start, end, depth = _EMPTY, _EMPTY, 0
        for part in parts:
            if part.start != _EMPTY:
                start = part.start if start == _EMPTY else start
                end = part.end
            depth = max(depth, part.depth)
        if rule.action not in _NOT_A_LEVEL:
            depth += 1
            if depth > MAX_DEPTH:
                raise TooDeep(start, end)
        value = self._value(rule, [part.value for part in parts], start, end)
        state = self._tables.states[self.stack[-1].state][rule.origin]
        self.stack.append(_Entry(state, value, start, end, depth))

    def _value(self, rule: Rule, values: list[Any], start: int, end: int) -> Any:
        if rule.action == "+":
            first = values[0]
            if isinstance(first, _Repeat):
                return _Repeat(first, tuple(_children(rule.children[1:], values)))
            return _Repeat(None, tuple(_children(rule.children, values)))
        children = _children(rule.children, values)
        if rule.action:
            return self._action(rule.action)(Span(max(start, 0), max(end, 0)), children)
        return tuple(children) if rule.origin.startswith("_") else children[0]


def _children(plan: Iterable[int | None], values: list[Any]) -> list[Any]:
    out: list[Any] = []
    for i in plan:
        if i is None:
            out.append(None)
        elif i >= 0:
            out.append(values[i])
        else:
            out.extend(_spliced(values[~i]))
    return out


def _spliced(value: Any) -> list[Any]:
    if not isinstance(value, _Repeat):
        return list(value)
    groups = []
    repeat: _Repeat | None = value
    while repeat is not None:
        groups.append(repeat.items)
        repeat = repeat.before
    return [item for group in reversed(groups) for item in group]
