"""Schedules and plain values as Python source, written as people write them."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from prunelang.compiler.codegen.writer import Group, Piece, flat
from prunelang.compiler.schedule import Ramp, Schedule, python

_SIMPLE = r"[\w.]+(?:e[-+]\d+)?"
_POWER = re.compile(rf"(?<![\w.)\]])({_SIMPLE}) \*\* (-?{_SIMPLE})(?![\w.(])")


def source(schedule: Schedule) -> str:
    """The operations of `schedule.python` in the same order, without the brackets that change nothing."""
    plain = ast.unparse(ast.parse(python(schedule), mode="eval")).replace("'", '"')
    return _POWER.sub(r"\1**\2", plain)


def inside(schedule: Schedule) -> str:
    """The same, in brackets where it is more than one name or number."""
    text = source(schedule)
    return text if re.fullmatch(_SIMPLE, text) else f"({text})"


def has_ramp(schedule: Schedule) -> bool:
    """Whether the source calls ``ramp``."""
    return isinstance(schedule, Ramp) or "ramp(" in python(schedule)


def literal(value: Any) -> str:
    """A plain value of a spec on one line."""
    return flat(layout(value))


def layout(value: Any, key: str = "") -> Piece:
    """A plain value of a spec as Python writes it, after ``key: `` in a mapping."""
    lead = f"{key}: " if key else ""
    if isinstance(value, tuple | list):
        return Group(f"{lead}(", tuple(map(layout, value)))
    if isinstance(value, Mapping):
        return Group(f"{lead}{{", tuple(layout(v, literal(k)) for k, v in value.items()), "}")
    if isinstance(value, str):
        return lead + quoted(value)
    if isinstance(value, Fraction):
        return lead + (str(value.numerator) if value.denominator == 1 else repr(float(value)))
    return lead + repr(value)


def quoted(text: str) -> str:
    """A string literal, in double quotes unless single ones spare a backslash."""
    plain = repr(text)
    return plain if '"' in text or "'" in text else f'"{plain[1:-1]}"'
