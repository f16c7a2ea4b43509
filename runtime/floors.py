"""Measured constraints: what their values on a split allow to say, in a search and in the certificate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prunelang.compiler.graph import Floor
from prunelang.compiler.problem import CONFIDENCE, Measured
from prunelang.runtime import statistics
from prunelang.runtime.statistics import Interval

Array = NDArray[np.float64]
Each = Callable[[Measured], Array | None]  # the values of a function, one a sample, on the network as it is now
SHARES = ("accuracy", "error")
COUNTS = ("synops", "spikes")  # sums of whole numbers with a known greatest value


@dataclass(frozen=True)
class Highs:
    """The greatest values that one sample can have: on the network as it is, and on the one at the start."""

    now: float
    start: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """Whether a floor is met, and what is said about it. `confirmed` is None where there is no test: then the value
    itself decides."""

    label: str
    value: float
    limit: float
    met: bool
    margin: float  # of the value, or of its bound where there is one: negative where the floor is not met
    interval: Interval | None = None

    @property
    def confirmed(self) -> bool | None:
        return None if self.interval is None else self.met


def function_of(floor: Floor) -> Measured:
    return Measured(floor.name, floor.split, floor.arguments, floor.unit)


def judge(
    floor: Floor,
    value: float,
    values: Array | None,
    base: float = 0.0,
    start: Array | None = None,
    highs: Highs | None = None,
    again: bool = False,
) -> Verdict:
    """The verdict on `value`, the mean of `values`; `base` and `start` are those of the network that entered the first
    solve. Train is all there is of what is trained on, so that its value decides. `highs` are those of a count;
    a choice asks that its bound is likely to hold `again`, on the samples of the certificate."""
    limit, sign = floor.bound(base), 1.0 if floor.relation == "≥" else -1.0
    found = None if floor.split == "train" or values is None else interval(floor, values, start, highs, again)
    margin = sign * (value - limit)
    if found is not None:  # a bound on E[v − factor·b] is held against the offset
        margin = min(margin, sign * (found.bound - float(Fraction(floor.offset))))
    if math.isnan(margin):  # a value that is no number meets nothing
        margin = -math.inf
    return Verdict(floor.label, value, limit, margin >= 0.0, margin, found)


def interval(
    floor: Floor, values: Array, start: Array | None, highs: Highs | None = None, again: bool = False
) -> Interval | None:
    """The bound on E[v], or on E[v − factor·b] against the network at the start; None without what it needs."""
    if floor.name in COUNTS:
        return _counted(floor, values, start, highs, again)
    binary = floor.name in SHARES and bool(np.isin(values, (0.0, 1.0)).all())
    if not floor.relative:
        return statistics.share(values, floor.relation) if binary else statistics.mean(values, floor.relation)
    if start is None:
        return None
    factor = float(Fraction(floor.factor))
    if binary and bool(np.isin(start, (0.0, 1.0)).all()):
        return statistics.share_against(values, start, factor, floor.relation)
    return statistics.mean_against(values, start, factor, floor.relation)


def _counted(floor: Floor, values: Array, start: Array | None, highs: Highs | None, again: bool) -> Interval | None:
    if highs is None or (floor.relative and start is None):
        return None
    if start is None or not floor.relative:
        return statistics.within(values, highs.now, floor.relation, again)
    factor = float(Fraction(floor.factor))
    return statistics.within_against(values, start, factor, (highs.now, highs.start), floor.relation, again)


def statement(floor: Floor, verdict: Verdict, hits: int | None) -> str:
    """One sentence for people: ``accuracy ≥ 98.21 % with 95 % confidence (Clopper–Pearson, 5912 of 6000 on certify)``.

    The bound is rounded to the side on which the sentence stays true.
    """
    found = verdict.interval
    if found is None:
        return ""
    what = floor.name
    if floor.relative:
        factor = float(Fraction(floor.factor))
        what += " − base" if factor == 1 else f" − {factor:g}·base"
    share = floor.name in SHARES
    digits = 1 if floor.name in COUNTS else 5
    bound = (
        f"{_rounded(100 * found.bound, floor.relation, 2)} {'pp' if floor.relative else '%'}"
        if share
        else (_rounded(found.bound, floor.relation, digits) + (f" {floor.unit}" if floor.unit else ""))
    )
    counted = f"{hits} of {found.samples}" if share and hits is not None and not floor.relative else None
    counted = counted or f"{found.samples} samples"
    asymptotic = ", asymptotic" if found.asymptotic else ""
    level = f"{float(100 * CONFIDENCE):g} %"
    how = f"({found.method}{asymptotic}, {counted} on {floor.split})"
    return f"{what} {floor.relation} {bound} with {level} confidence {how}"


def _rounded(value: float, side: Literal["≤", "≥"], digits: int) -> str:
    scale = 10**digits
    if not np.isfinite(value):
        return "−∞" if value < 0 else "∞"
    exact = Fraction(value) * scale
    whole = exact.__floor__() if side == "≥" else exact.__ceil__()
    return f"{whole / scale:.{digits}f}"
