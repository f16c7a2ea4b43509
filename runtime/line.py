"""One line of a certificate: what a constraint asks, what stored weights make of it, and what was handed in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import isnan
from typing import Literal

from prunelang.compiler.problem import (
    Affine,
    Constraint,
    Function,
    MatrixFunction,
    Measured,
    Named,
    Relative,
    Set,
    VectorNorm,
)
from prunelang.dsl.spans import NOWHERE, Source
from prunelang.runtime.exact import Number, Value, shown, taken, written
from prunelang.runtime.price import Price, PriceKind
from prunelang.runtime.recount import limits, recount, relation_of
from prunelang.runtime.stored import NotRecounted, Outcome, Relation, Stored, decided


@dataclass(frozen=True)
class Measurement:
    """A measured function on its whole split, evaluated on the saved file. A float stands for its shortest decimal."""

    got: Fraction | int | float
    split_hash: str | None = None
    samples: int | None = None
    statement: str = ""  # confidence, in words
    confirmed: bool | None = None  # result of a one-sided test, where there is one; it can only make things stricter
    split: str | None = None  # where it was measured, if not on the split that the constraint names: `certify`


@dataclass(frozen=True)
class Line:
    """One constraint. Numbers are integers, or decimals or fractions as text; recounted ones of more than 20 digits
    are rounded to 20."""

    label: str
    text: str  # canonical source
    function: str
    relation: Relation
    asked: str  # the bound as written
    bound: Number | list[Number] | None  # [lower, upper] of two-sided ones
    got: Number | None
    counted: str  # what `got` is a number of
    kept: Number | None  # the value on kept positions, which lower bounds on counts ask for
    unit: str
    margin: Number | None
    satisfied: bool | None  # None: neither recounted nor measured
    kind: Literal["structural", "measured"]
    keeps: str  # how `finetune` stays in the set
    line: int | None  # of the spec
    price: float | None = None
    price_kind: PriceKind | None = None
    price_spread: float | None = None
    projection: str | None = None  # "exact", "gap ≤ g" or "approximate", as the last projection reported
    base: Number | None = None  # what a relative bound refers to, measured once
    split: str | None = None
    split_hash: str | None = None
    samples: int | None = None
    statement: str = ""
    confirmed: bool | None = None
    remark: str = ""

    def shown(self) -> tuple[str, str, str, str]:
        """Bound, got, margin and price for a table."""
        ends = self.bound if isinstance(self.bound, list) else [self.bound]
        price = "–" if self.price is None else f"{self.price:.3g} ({self.price_kind})"
        return " … ".join(map(_short, ends)), _short(self.got), _short(self.margin), price


@dataclass(frozen=True)
class Given:
    """What a recount cannot know of one constraint."""

    measured: Measurement | None = None
    base: Fraction | None = None
    price: Price | None = None
    projection: str | None = None


def line_of(constraint: Constraint, stored: Stored, spec: str, given: Given) -> Line:
    """What certificate and verification say of one constraint: both build it here, each from what it has read."""
    m, price = given.measured, given.price
    outcome = recount(constraint, stored, given.base) if constraint.structural else measured_outcome(constraint, given)
    function = constraint.function
    return Line(
        label=constraint.label,
        text=constraint.text,
        function=function.name,
        relation=outcome.relation,
        asked=constraint.asked,
        bound=_bound(outcome),
        got=None if outcome.value is None else (shown if constraint.structural else written)(outcome.value.middle),
        counted=outcome.counted,
        kept=None if outcome.kept is None else shown(outcome.kept.middle),
        unit=function.unit,
        margin=None if outcome.margin is None else shown(outcome.margin),
        satisfied=outcome.satisfied,
        kind="structural" if constraint.structural else "measured",
        keeps=keeps(function, constraint.set),
        line=None if constraint.span == NOWHERE else Source(spec).position(constraint.span.start).line,
        price=None if price is None else float(price.value),
        price_kind=None if price is None else price.kind,
        price_spread=None if price is None else price.spread,
        projection=given.projection,
        base=None if given.base is None or not isinstance(constraint.set, Relative) else written(given.base),
        split=_split(function) if m is None or m.split is None else m.split,
        split_hash=None if m is None else m.split_hash,
        samples=None if m is None else m.samples,
        statement="" if m is None else m.statement,
        confirmed=None if m is None else m.confirmed,
        remark=outcome.remark,
    )


def measured_outcome(constraint: Constraint, given: Given) -> Outcome:
    """The outcome of a measured constraint: by comparison, and where there is a test, only if that confirms it."""
    relation = relation_of(constraint)
    try:
        lower, upper = limits(constraint, given.base)
    except NotRecounted as reason:
        got = None if given.measured is None else Value.exact(taken(given.measured.got))
        return Outcome(relation, "" if got is None else "measured value", value=got, remark=f"not decided: {reason}")
    if given.measured is None:
        return Outcome(relation, "", lower, upper, remark="no finite value of it was measured")
    outcome = decided(Outcome(relation, "measured value", lower, upper, Value.exact(taken(given.measured.got))))
    if outcome.satisfied and given.measured.confirmed is False:
        return replace(outcome, satisfied=False, remark="it holds on the split, not with the confidence that is asked")
    return outcome


def keeps(function: Function, set: Set) -> str:
    """How a stage after the solve stays in the set, by the kind of function and set."""
    match function:
        case Measured():
            return "recheck"
        case VectorNorm(name="entropy"):
            return "assignment"
        case VectorNorm():
            return "project each step"
        case MatrixFunction():
            return "factors"
        case Affine(terms=terms):
            kinds = {keeps(f, set) for _, f in terms}
            return kinds.pop() if len(kinds) == 1 else "project each step"
    match set:
        case Named(name="box"):
            return "project each step"
        case Named(name="codebook" | "values" | "scaled"):
            return "assignment"
        case Named(name="low_rank" | "tt" | "sum"):
            return "factors"
    return "support"


def _short(number: Number | None) -> str:
    """For people: six digits of what is not whole."""
    return "–" if number is None else str(number) if isinstance(number, int) else f"{float(Fraction(number)):.6g}"


def _bound(outcome: Outcome) -> Number | list[Number] | None:
    ends = [written(b) for b in (outcome.lower, outcome.upper) if b is not None]
    return None if not ends else ends[0] if len(ends) == 1 else ends


def _split(function: Function) -> str | None:
    if isinstance(function, Measured):
        return function.split
    splits = {_split(f) for _, f in function.terms} if isinstance(function, Affine) else set()
    return splits.pop() if len(splits) == 1 else None


def projection_text(gap: Fraction | int | float) -> str:
    """A gap that is no number is of a projection without a known bound."""
    if isinstance(gap, float) and isnan(gap):
        return "approximate"
    return "exact" if gap == 0 else f"gap ≤ {written(taken(gap))}"
