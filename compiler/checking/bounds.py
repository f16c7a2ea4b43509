"""The constant side of a constraint: units, percentages, rounding to the stricter side, schedules, `base`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Final, Literal

from prunelang.compiler.checking.combine import Reduced
from prunelang.compiler.checking.numbers import NoValue, apply, exactly
from prunelang.compiler.checking.units import OPERATIONS, show, unit_words
from prunelang.compiler.checking.values import Amount, Base
from prunelang.compiler.checking.world import World
from prunelang.compiler.problem import Relative
from prunelang.compiler.schedule import Constant, Schedule, clocks_of, constant, number
from prunelang.dsl.tree import Expr, Number

Relation = Literal["≤", "≥"]
FLIP: Final[dict[Relation, Relation]] = {"≤": "≥", "≥": "≤"}


@dataclass(frozen=True)
class Bound:
    """``function relation value``; `schedule` is the moving bound of which `value` is the end."""

    relation: Relation
    value: Fraction | int
    asked: str
    schedule: Schedule | None = None


@dataclass(frozen=True)
class Ends:
    """The clocks at the start and at the end of what a bound may follow; there is no k without outer iterations."""

    start: Mapping[str, float]
    end: Mapping[str, float]


def bound(world: World, node: Expr, amount: Amount, side: Reduced, relation: Relation, ends: Ends) -> Bound | None:
    """The bound of ``E relation amount`` on the canonical function of E; None after reporting what is wrong."""
    if not _clocks_known(world, node, amount, ends):
        return None
    factor = _unit_factor(world, node, amount, side)
    if factor is None:
        return None
    try:
        first, last = exactly(amount.schedule, ends.start), exactly(amount.schedule, ends.end)
    except NoValue as error:
        world.report.error("P227", node.span, f"this bound has no value: {error}")
        return None
    if not all(_in_range(world, node, amount, side, v) for v in (last, first)):
        return None
    value = (last * factor - side.constant) * side.scale
    if side.integral and _is_fractional(world, node, amount, side, value, relation):
        return None
    relation = FLIP[relation] if side.scale < 0 else relation
    moving = None
    if clocks_of(amount.schedule):
        shifted = apply("-", apply("*", constant(factor), amount.schedule), constant(side.constant))
        moving = apply("*", constant(side.scale), shifted)
    return Bound(relation, _round(value, relation) if side.integral else value, asked(world, node, amount), moving)


def _round(value: Fraction, relation: Relation) -> int:
    """To the stricter side."""
    return floor(value) if relation == "≤" else ceil(value)


def asked(world: World, node: Expr, amount: Amount) -> str:
    """The bound as people write it: ``5%``, ``30 MMACs``; a formula in the clocks as it stands in the spec."""
    if isinstance(node, Number):
        return world.text(node)
    if isinstance(amount.schedule, Constant):
        return show(amount.schedule.value, amount.unit)
    return world.text(node)


def _clocks_known(world: World, node: Expr, amount: Amount, ends: Ends) -> bool:
    used = clocks_of(amount.schedule)
    wrong = sorted(used - {"k", "p"})
    if wrong:
        hint = "use p, which runs from 0 to 1 over the stage, or k"
        world.report.error("P226", node.span, f"a bound may follow `k` and `p`, not `{wrong[0]}`", hint=hint)
        return False
    if "k" in used and "k" not in ends.end:
        hint = "use p, which runs from 0 to 1 over the stage"
        world.report.error(
            "P226", node.span, "there is no `k`: no `solve` of this spec has outer iterations", hint=hint
        )
        return False
    return True


# ── units ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _unit_factor(world: World, node: Expr, amount: Amount, side: Reduced) -> Fraction | None:
    """What one of the amount is worth in the unit of E; None after reporting that they do not go together."""
    if amount.unit == "%" and side.result != "ratio":
        return _percentage_of(world, node, side)
    if amount.unit == "pp":
        if side.result == "ratio" and not side.single:
            return Fraction(1)
        fix = f"{number(node.value)}%" if isinstance(node, Number) and side.result == "ratio" else None
        world.report.error("P208", node.span, "percentage points are a difference, not a bound", fix=fix)
        return None
    if amount.unit == side.unit or (amount.unit in ("", "%") and side.unit in ("nats", "bits", "")):
        return Fraction(1)
    if side.unit == "bits" and amount.unit == "B":
        return Fraction(8)
    _wrong_unit(world, node, amount, side)
    return None


def _percentage_of(world: World, node: Expr, side: Reduced) -> Fraction | None:
    if side.integral and side.dense is not None:
        return side.dense
    share = node.value / 100 if isinstance(node, Number) else None
    reason = "its modes are left out" if side.name == "tt_rank" else "its value depends on weights or data"
    world.report.error(
        "P209",
        node.span,
        f"a percentage of `{side.name}` refers to nothing: {reason}",
        fix=None if share is None else f"{number(share)} * base",
        hint="write `0.5 * base`: a share of the value before the first solve" if share is None else None,
    )
    return None


def _wrong_unit(world: World, node: Expr, amount: Amount, side: Reduced) -> None:
    given, wanted = amount.unit, side.unit
    fix = hint = None
    if isinstance(node, Number):
        if given == "" and wanted in (*OPERATIONS, "B"):
            fix = f"{number(node.value)} {_prefixed(node.unit, wanted)}"
        elif {given, wanted} == {"MACs", "FLOPs"} and node.unit is not None:
            value = node.value * 2 if wanted == "FLOPs" else node.value / 2
            fix = f"{number(value)} {node.unit.replace(given, wanted)}"
            hint = f"1 MAC is 2 FLOPs: write `{fix}`"
    elif {given, wanted} == {"MACs", "FLOPs"}:
        hint = "1 MAC is 2 FLOPs"
    what = f"is counted in {unit_words(wanted)}" if wanted else "is a plain number"
    message = (
        f"`{side.name}` {what}, not in {unit_words(given)}" if given else f"`{side.name}` {what}, not a plain number"
    )
    world.report.error("P208", node.span, message, fix=fix, hint=hint)


def _prefixed(prefix: str | None, unit: str) -> str:
    """``M`` and ``MACs`` → ``MMACs``; bytes write kilo as ``K``."""
    if prefix is None:
        return unit
    return ("K" if unit == "B" and prefix == "k" else prefix) + unit


# ── ranges ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _in_range(world: World, node: Expr, amount: Amount, side: Reduced, value: Fraction) -> bool:
    share = amount.unit == "%" or (side.result == "ratio" and side.single)
    if not share or 0 <= value <= 1:
        return True
    fix = None
    if isinstance(node, Number) and node.unit is None and 1 < value <= 100:
        fix = f"{number(value)}%"
    what = f"`{side.name}` lies" if side.result == "ratio" else "a share of the dense value lies"
    world.report.error("P212", node.span, f"{what} between 0% and 100%", fix=fix)
    return False


def _is_fractional(
    world: World, node: Expr, amount: Amount, side: Reduced, value: Fraction, relation: Relation
) -> bool:
    """Whether the user wrote a fraction as the bound of a bare count, which is an error."""
    if (
        value.denominator == 1
        or amount.unit == "%"
        or abs(side.scale) != 1
        or not isinstance(amount.schedule, Constant)
    ):
        return False
    strict = _round(value, relation)
    fix = str(strict) if amount.unit == "" and strict >= 0 else None
    hint = None
    if 0 < value < 1 and amount.unit == "":
        fix, hint = f"{number(value * 100)}%", f"for a share of the dense value write `{number(value * 100)}%`"
    world.report.error(
        "P211", node.span, f"`{side.name}` is a whole number; {number(value)} is not", fix=fix, hint=hint
    )
    return True


# ── base ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def relative(world: World, node: Expr, base: Base, side: Reduced, relation: Relation) -> Relative | None:
    """``E relation φ·base + o`` on the canonical function f = s(E − c): f relation φ·f₀ + s(φc + o − c)."""
    if base.factor <= 0:
        world.report.error("P225", node.span, "`base` needs a positive factor")
        return None
    if base.offset and base.unit == "pp" and side.result != "ratio":
        world.report.error("P208", node.span, f"percentage points are of accuracy and error, not of `{side.name}`")
        return None
    if base.offset and base.unit not in ("pp", side.unit) and not (base.unit == "" and side.unit in ("nats", "bits")):
        name = unit_words(side.unit)
        world.report.error("P208", node.span, f"`base` is in {name} here; {unit_words(base.unit)} cannot be added")
        return None
    offset = side.scale * (base.factor * side.constant + base.offset - side.constant)
    return Relative(FLIP[relation] if side.scale < 0 else relation, base.factor, offset)


def show_base(base: Base) -> str:
    """``base``, ``1.05 * base``, ``base - 0.5 pp``: as a spec would write it."""
    text = "base" if base.factor == 1 else f"{number(base.factor)} * base"
    if not base.offset:
        return text
    return f"{text} {'-' if base.offset < 0 else '+'} {show(abs(base.offset), base.unit)}"
