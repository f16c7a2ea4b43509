"""`Schedule`: a scalar as a closed expression of the clocks.

Clocks: ``epoch`` and ``step`` start at 0 with each inner loop, ``k`` counts outer iterations, ``p`` runs 0 … 1 over the
stage, ``lr`` is the optimizer's rate. Trees are built from our own syntax tree and evaluated node by node in float64;
no text is ever evaluated. `python` gives the same operations in the same order as source, so that an emitted
script computes the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, TypeAlias

ClockName = Literal["epoch", "step", "k", "p", "lr"]
CLOCKS: tuple[ClockName, ...] = ("epoch", "step", "k", "p", "lr")
Unit = Literal["p", "epochs", "steps"]
Shape = Literal["linear", "cubic", "cosine"]
Clocks: TypeAlias = Mapping[str, float]

FUNCTIONS: dict[str, tuple[int, Callable[..., float]]] = {
    "pi": (0, lambda: math.pi),
    "sqrt": (1, math.sqrt),
    "exp": (1, math.exp),
    "log": (1, math.log),
    "sin": (1, math.sin),
    "cos": (1, math.cos),
    "floor": (1, lambda x: float(math.floor(x))),
    "min": (2, min),
    "max": (2, max),
}
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "^": 4}
_SIGNS = {"*": " · ", "/": " / ", "+": " + ", "-": " − "}


@dataclass(frozen=True, slots=True)
class Constant:
    value: Fraction

    def __str__(self) -> str:
        return number(self.value)


@dataclass(frozen=True, slots=True)
class Clock:
    name: ClockName

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Apply:
    """`operator` is ``+ - * / ^ neg`` or a key of `FUNCTIONS`."""

    operator: str
    arguments: tuple[Schedule, ...]

    def __str__(self) -> str:
        return _text(self)


@dataclass(frozen=True, slots=True)
class Ramp:
    """``ramp(a, b, start, end, shape)``: from a to b between two times, constant outside.

    With u = (t − start)/(end − start) clipped to [0, 1]: linear a + (b − a)u, cubic b + (a − b)(1 − u)³ (Zhu & Gupta
    2017), cosine b + (a − b)(1 + cos πu)/2.
    """

    first: Schedule
    last: Schedule
    start: Schedule
    end: Schedule
    unit: Unit = "p"
    shape: Shape = "linear"

    def __str__(self) -> str:
        times = f"{self.start}, {self.end}" + ("" if self.unit == "p" else f" {self.unit}")
        return f"ramp({self.first}, {self.last}, {times}{'' if self.shape == 'linear' else ', ' + self.shape})"


@dataclass(frozen=True, slots=True)
class Steps:
    """``steps(v0, [t1, v1], …)``: v0 before t1, then v1 from t1 on, …"""

    first: Schedule
    changes: tuple[tuple[Schedule, Schedule], ...]
    unit: Unit = "p"

    def __str__(self) -> str:
        suffix = "" if self.unit == "p" else f" {self.unit}"
        return f"steps({self.first}, " + ", ".join(f"[{t}{suffix}, {v}]" for t, v in self.changes) + ")"


Schedule: TypeAlias = Constant | Clock | Apply | Ramp | Steps
SCHEDULES = (Constant, Clock, Apply, Ramp, Steps)  # for isinstance
_CLOCK_OF: dict[Unit, str] = {"p": "p", "epochs": "epoch", "steps": "step"}


def constant(value: Fraction | int | str) -> Constant:
    return Constant(Fraction(value))


def number(value: Fraction) -> str:
    """A number as people write it: exact when short, else to 12 significant digits."""
    if value.denominator == 1 and abs(value) < 10**15:
        return str(value.numerator)
    try:
        text = f"{float(value):.12g}"
    except OverflowError:
        return f"{'-' * (value < 0)}1e{len(str(abs(int(value)))) - 1} or more"
    mantissa, e, exponent = text.partition("e")
    return mantissa + (f"e{int(exponent)}" if e else "")


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────


def evaluate(schedule: Schedule, clocks: Clocks) -> float:
    """The value at `clocks`, in float64. Raises ValueError where it is not finite (division by 0, log of 0, …)."""
    try:
        value = _evaluate(schedule, clocks)
    except (ArithmeticError, ValueError) as error:
        raise ValueError(f"{schedule} has no value at {_at(schedule, clocks)}: {error}") from error
    if not math.isfinite(value):
        raise ValueError(f"{schedule} is not finite at {_at(schedule, clocks)}")
    return value


def _at(schedule: Schedule, clocks: Clocks) -> str:
    used = sorted(clocks_of(schedule))
    return ", ".join(f"{c} = {clocks[c]:g}" for c in used if c in clocks) or "any time"


def _evaluate(s: Schedule, clocks: Clocks) -> float:
    match s:
        case Constant(value):
            return float(value)
        case Clock(name):
            return float(clocks[name])
        case Apply("neg", (a,)):
            return -_evaluate(a, clocks)
        case Apply(operator, (a, b)) if operator in _PRECEDENCE:
            x, y = _evaluate(a, clocks), _evaluate(b, clocks)
            match operator:
                case "+":
                    return x + y
                case "-":
                    return x - y
                case "*":
                    return x * y
                case "/":
                    return x / y
            power = x**y
            if isinstance(power, complex):
                raise ValueError("a root of a negative number")
            return float(power)
        case Apply(operator, arguments):
            return float(FUNCTIONS[operator][1](*(_evaluate(a, clocks) for a in arguments)))
        case Ramp(a, b, start, end, unit, shape):
            return ramp(
                float(clocks[_CLOCK_OF[unit]]),
                _evaluate(a, clocks),
                _evaluate(b, clocks),
                _evaluate(start, clocks),
                _evaluate(end, clocks),
                shape,
            )
        case Steps(first, changes, unit):
            now, reached = float(clocks[_CLOCK_OF[unit]]), _evaluate(first, clocks)
            for time, later in changes:
                reached = _evaluate(later, clocks) if now >= _evaluate(time, clocks) else reached
            return reached
    raise TypeError(s)


def ramp(t: float, a: float, b: float, start: float, end: float, shape: str) -> float:
    """The value of `Ramp` at time t."""
    if t >= end:
        return b
    if t <= start:
        return a
    u = (t - start) / (end - start)
    if shape == "cubic":
        return b + (a - b) * (1.0 - u) ** 3
    if shape == "cosine":
        return b + (a - b) * (1.0 + math.cos(math.pi * u)) / 2.0
    return a + (b - a) * u


def clocks_of(s: Schedule) -> frozenset[str]:
    """The clocks that the value depends on."""
    match s:
        case Clock(name):
            return frozenset({name})
        case Apply(_, arguments):
            return frozenset().union(*(clocks_of(a) for a in arguments))
        case Ramp(a, b, start, end, unit, _):
            return frozenset({_CLOCK_OF[unit]}).union(*(clocks_of(x) for x in (a, b, start, end)))
        case Steps(first, changes, unit):
            inner = (clocks_of(x) for change in changes for x in change)
            return frozenset({_CLOCK_OF[unit]}) | clocks_of(first).union(*inner)
    return frozenset()


def is_constant(s: Schedule) -> bool:
    return not clocks_of(s)


def exact(s: Schedule) -> Fraction | None:
    """The exact value of a constant made of ``+ - * /`` alone, else None."""
    match s:
        case Constant(value):
            return value
        case Apply("neg", (a,)):
            inner = exact(a)
            return None if inner is None else -inner
        case Apply(("+" | "-" | "*" | "/") as operator, (a, b)):
            x, y = exact(a), exact(b)
            if x is None or y is None or (operator == "/" and y == 0):
                return None
            return {"+": x + y, "-": x - y, "*": x * y, "/": x / y if y else x}[operator]
    return None


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _text(s: Schedule, outer: int = 0) -> str:
    match s:
        case Constant(value) if value < 0 and outer > _PRECEDENCE["neg"]:
            return f"({number(value)})"
        case Apply("neg", (a,)):
            inner = f"−{_text(a, _PRECEDENCE['neg'])}"
            return f"({inner})" if outer > _PRECEDENCE["neg"] else inner
        case Apply("^", (a, b)):
            inner = f"{_text(a, 5)}^{_text(b, 4)}"
            return f"({inner})" if outer > 4 else inner
        case Apply(operator, (a, b)) if operator in _PRECEDENCE:
            level = _PRECEDENCE[operator]
            inner = f"{_text(a, level)}{_SIGNS[operator]}{_text(b, level + 1)}"
            return f"({inner})" if outer > level else inner
        case Apply("pi"):
            return "π"
        case Apply(operator, arguments):
            return f"{operator}({', '.join(_text(a) for a in arguments)})"
    return str(s)


def python(s: Schedule) -> str:
    """Python source with the same float64 operations in the same order; needs ``math`` and, for ramps, ``ramp``."""
    match s:
        case Constant(value):
            return f"({float(value)!r})" if value < 0 else repr(float(value))
        case Clock(name):
            return name
        case Apply("neg", (a,)):
            return f"(-{python(a)})"
        case Apply(operator, (a, b)) if operator in _PRECEDENCE:
            return f"({python(a)} {'**' if operator == '^' else operator} {python(b)})"
        case Apply("pi"):
            return "math.pi"
        case Apply(operator, arguments):
            inner = ", ".join(python(a) for a in arguments)
            return f"{operator}({inner})" if operator in ("min", "max") else f"float(math.{operator}({inner}))"
        case Ramp(a, b, start, end, unit, shape):
            inner = ", ".join(python(x) for x in (a, b, start, end))
            return f"ramp({_CLOCK_OF[unit]}, {inner}, {shape!r})"
        case Steps(first, changes, unit):
            text = python(first)
            for time, later in changes:
                text = f"({python(later)} if {_CLOCK_OF[unit]} >= {python(time)} else {text})"
            return text
    raise TypeError(s)


# ── as data ──────────────────────────────────────────────────────────────────────────────────────────────────────


def to_json(s: Schedule) -> Any:
    match s:
        case Constant(value):
            return {"number": str(value)}
        case Clock(name):
            return {"clock": name}
        case Apply(operator, arguments):
            return {"op": operator, "args": [to_json(a) for a in arguments]}
        case Ramp(a, b, start, end, unit, shape):
            return {"ramp": [to_json(x) for x in (a, b, start, end)], "unit": unit, "shape": shape}
        case Steps(first, changes, unit):
            return {"steps": to_json(first), "at": [[to_json(t), to_json(v)] for t, v in changes], "unit": unit}
    raise TypeError(s)


def from_json(data: Any) -> Schedule:
    match data:
        case {"number": value}:
            return Constant(Fraction(value))
        case {"clock": name}:
            return Clock(name)
        case {"op": operator, "args": arguments}:
            return Apply(operator, tuple(from_json(a) for a in arguments))
        case {"ramp": [a, b, start, end], "unit": unit, "shape": shape}:
            return Ramp(from_json(a), from_json(b), from_json(start), from_json(end), unit, shape)
        case {"steps": first, "at": changes, "unit": unit}:
            return Steps(from_json(first), tuple((from_json(t), from_json(v)) for t, v in changes), unit)
    raise ValueError(f"not a schedule: {data!r}")


def to_sympy(s: Schedule, symbols: Mapping[str, Any]) -> Any:
    """The same expression in SymPy, over the given symbol per clock. Builds the tree; parses nothing."""
    import sympy as sp  # imported here: 0.35 s that checking does not need

    match s:
        case Constant(value):
            return sp.Rational(value.numerator, value.denominator)
        case Clock(name):
            return symbols[name]
        case Apply("neg", (a,)):
            return -to_sympy(a, symbols)
        case Apply(operator, (a, b)) if operator in _PRECEDENCE:
            x, y = to_sympy(a, symbols), to_sympy(b, symbols)
            return {"+": sp.Add(x, y), "-": sp.Add(x, -y), "*": sp.Mul(x, y), "/": x / y, "^": sp.Pow(x, y)}[operator]
        case Apply("pi"):
            return sp.pi
        case Apply(operator, arguments):
            function = {"min": sp.Min, "max": sp.Max}.get(operator) or getattr(sp, operator)
            return function(*(to_sympy(a, symbols) for a in arguments))
        case Ramp(a, b, start, end, unit, shape):
            now = symbols[_CLOCK_OF[unit]]
            x, y, t0, t1 = (to_sympy(v, symbols) for v in (a, b, start, end))
            u = (now - t0) / (t1 - t0) if t0 != t1 else sp.Integer(0)  # no time between the ends
            between = {
                "linear": x + (y - x) * u,
                "cubic": y + (x - y) * (1 - u) ** 3,
                "cosine": y + (x - y) * (1 + sp.cos(sp.pi * u)) / 2,
            }
            return sp.Piecewise((y, now >= t1), (x, now <= t0), (between[shape], True))
        case Steps(first, changes, unit):
            pieces = [(to_sympy(v, symbols), symbols[_CLOCK_OF[unit]] >= to_sympy(t, symbols)) for t, v in changes]
            return sp.Piecewise(*reversed(pieces), (to_sympy(first, symbols), True))
    raise TypeError(s)
