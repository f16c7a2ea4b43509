"""Constraints as lines of a graph show them."""

from __future__ import annotations

import re
from fractions import Fraction

from prunelang.compiler.measured import is_surrogate
from prunelang.compiler.problem import Constraint, Interval
from prunelang.dsl.numbers import grouped


def shown(c: Constraint) -> str:
    """The constraint with its bound resolved, and what a ∀ stands at: ``‖l.weights‖₀ ≤ 13 310 [fc1]``."""
    if is_surrogate(c):
        return c.text or c.label
    if not isinstance(c.set, Interval) or " ∈ " in c.text:
        return (c.text or c.label) + _at(c, c.text)
    sides = re.split(" [≤≥] ", c.text)
    function = sides[1] if len(sides) == 3 else sides[0] or c.label
    low = "" if c.set.lower is None else f"{_number(c.set.lower)} ≤ "
    high = "" if c.set.upper is None else f" ≤ {_number(c.set.upper)}"
    return low + function + high + _at(c, function)


def _at(c: Constraint, function: str) -> str:
    """`` [fc1]`` where a ∀ stands at it and nothing says so yet."""
    at = re.search(r" ?\[[^][\"]+\]$", c.label)
    return f" {at[0].strip()}" if at and function and not function.endswith(at[0]) else ""


def _number(value: Fraction | int) -> str:
    return grouped(int(value)) if value == int(value) else f"{float(value):g}"
