"""Constraints that data decides: which there are, which split they read, and which half of it serves for what.

The validation split of a problem with such constraints is cut in two. Everything that chooses (a search, keeping the
best epoch) reads `select`; the certificate measures on `certify`, which nothing has seen before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

from prunelang.compiler.problem import CONFIDENCE, Affine, Constraint, Count, Function, Measured, Problem

SELECT: Final = "select"
CERTIFY: Final = "certify"


def parts_of(function: Function) -> Iterator[Measured]:
    """The measured functions in a function, combinations included."""
    if isinstance(function, Measured):
        yield function
    elif isinstance(function, Affine):
        for _, term in function.terms:
            yield from parts_of(term)


def is_measured(constraint: Constraint) -> bool:
    """Whether the constraint is one that the certificate measures: a loss, a metric, or another number of a run.

    Coded bytes are not: the certificate recounts them, from the stored weights alone.
    """
    function = constraint.function
    return isinstance(function, Measured) and not constraint.structural


def is_surrogate(constraint: Constraint) -> bool:
    """Whether a constraint is a count that stands beside a measured one, with numbers that a calibration gives."""
    return isinstance(constraint.function, Count) and bool(dict(constraint.function.options).get("measured"))


def measured_constraints(problem: Problem) -> tuple[Constraint, ...]:
    """The constraints that the certificate measures, in the order of the spec."""
    return tuple(c for c in problem.constraints if is_measured(c))


def halves_validation(problem: Problem) -> bool:
    """Whether validation is cut into `select` and `certify`: a constraint reads it."""
    return any(f.split == "validation" for c in problem.constraints for f in parts_of(c.function))


def watched(problem: Problem, split: str) -> str:
    """The split that a choice reads where the spec says `split`: `select` for a validation that is cut in two."""
    return SELECT if split == "validation" and halves_validation(problem) else split


def certified_on(problem: Problem, split: str) -> str:
    """The split that the certificate measures on where the spec says `split`."""
    return CERTIFY if split == "validation" and halves_validation(problem) else split


def fewest_samples(floor: Fraction) -> int | None:
    """The fewest samples on which a share of at least `floor` can be confirmed, all of them being hits:
    the least n with (1 − CONFIDENCE)^{1/n} ≥ floor. None for a floor of 1, which no sample confirms; 1 for 0."""
    if floor >= 1:
        return None
    if floor <= 0:
        return 1
    n = max(1, math.ceil(math.log(float(1 - CONFIDENCE)) / math.log(float(floor))) - 1)
    while (1 - CONFIDENCE) < floor**n:
        n += 1
    return n
