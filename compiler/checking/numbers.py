"""Arithmetic of schedules that folds constants exactly, so that a bound written as a formula stays an exact number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Final

from prunelang.compiler.schedule import Apply, Constant, Ramp, Schedule, Steps, clocks_of, constant, evaluate

HUGE: Final = Fraction(10) ** 300  # beyond it float64, and so every schedule, gives up
BITS: Final = 4096  # an exact constant is kept exact up to this size


class NoValue(ValueError):
    """A constant expression without a value: division by zero, a logarithm of 0, a number too large."""


def apply(operator: str, *arguments: Schedule) -> Schedule:
    """``operator(arguments)``, folded when all are constants. Raises `NoValue`."""
    values = [a.value for a in arguments if isinstance(a, Constant)]
    if len(values) != len(arguments) or not arguments:
        return _neutral(operator, arguments) or Apply(operator, arguments)
    folded = _fold(operator, values)
    if folded is None:
        return Apply(operator, arguments)
    if abs(folded) > HUGE:
        raise NoValue("the number is too large")
    if folded.numerator.bit_length() + folded.denominator.bit_length() > BITS:
        return Apply(operator, arguments)
    return Constant(folded)


def _neutral(operator: str, arguments: tuple[Schedule, ...]) -> Schedule | None:
    """1 · x, x · 1 and x − 0: what the checker itself makes."""
    if operator not in ("*", "-") or len(arguments) != 2:
        return None
    first, second = arguments
    if operator == "-":
        return first if second == constant(0) else None
    return second if first == constant(1) else first if second == constant(1) else None


def _fold(operator: str, values: list[Fraction]) -> Fraction | None:
    binary: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "min": min,
        "max": max,
    }
    if operator in binary:
        return binary[operator](values[0], values[1])
    match operator, values:
        case "/", [_, b] if b == 0:
            raise NoValue("division by zero")
        case "/", [a, b]:
            return a / b
        case "neg", [a]:
            return -a
        case "floor", [a]:
            return Fraction(math.floor(a))
        case "^", [a, b]:
            return _power(a, b)
    return None


def _power(a: Fraction, b: Fraction) -> Fraction | None:
    if b.denominator != 1 or abs(b) > 512:
        return None
    if a == 0 and b < 0:
        raise NoValue("division by zero")
    if abs(b) * (a.numerator.bit_length() + a.denominator.bit_length()) > BITS:
        return None
    return a ** int(b)


def times(a: Schedule, b: Schedule) -> Schedule:
    return apply("*", a, b)


def exactly(schedule: Schedule, clocks: Mapping[str, float]) -> Fraction:
    """The value at `clocks`: exact where ``+ - * / ^ min max floor``, linear ramps and steps allow, else the float64.

    Raises `NoValue` where there is none, and KeyError for a clock that `clocks` does not hold.
    """
    found = _exact(schedule, clocks)
    if found is None:
        try:
            found = Fraction(evaluate(schedule, clocks))
        except (ValueError, OverflowError) as error:
            raise NoValue(str(error)) from error
    if abs(found) > HUGE:
        raise NoValue("the number is too large")
    return found


def _exact(s: Schedule, clocks: Mapping[str, float]) -> Fraction | None:
    match s:
        case Constant(value):
            return value
        case Apply(operator, arguments):
            values = [_exact(a, clocks) for a in arguments]
            known = [v for v in values if v is not None]
            return _fold(operator, known) if known and len(known) == len(values) else None
        case Ramp(shape="linear"):
            return _ramp(s, clocks)
        case Ramp(first, last, start, end, unit, _):
            now = Fraction(clocks[clock_of(unit)])
            begin, finish = _exact(start, clocks), _exact(end, clocks)
            if begin is None or finish is None or begin < now < finish:
                return None
            return _exact(last if now >= finish else first, clocks)
        case Steps(first, changes, unit):
            now = Fraction(clocks[clock_of(unit)])
            reached = _exact(first, clocks)
            for time, later in changes:
                at = _exact(time, clocks)
                if at is None:
                    return None
                reached = _exact(later, clocks) if now >= at else reached
            return reached
    return Fraction(clocks[s.name])


def _ramp(s: Ramp, clocks: Mapping[str, float]) -> Fraction | None:
    parts = [_exact(x, clocks) for x in (s.first, s.last, s.start, s.end)]
    if any(p is None for p in parts):
        return None
    a, b, start, end = (p for p in parts if p is not None)
    now = Fraction(clocks[clock_of(s.unit)])
    if end <= start:
        return b if now >= end else a
    return a + (b - a) * min(Fraction(1), max(Fraction(0), (now - start) / (end - start)))


def clock_of(unit: str) -> str:
    """The clock that times in `unit` are read from."""
    return {"p": "p", "epochs": "epoch", "steps": "step"}[unit]


def value_of(schedule: Schedule) -> Fraction | None:
    """The value of a constant, None when it moves with the clocks. Raises `NoValue`."""
    return None if clocks_of(schedule) else exactly(schedule, {})
