"""(function, set) pairs: the words in which solvers declare what they take."""

from __future__ import annotations

from typing import TypeAlias

from prunelang.compiler.problem import (
    Affine,
    Blocks,
    Choice,
    Constraint,
    Count,
    Entries,
    FactorCost,
    Function,
    GroupCount,
    Interval,
    Kept,
    MatrixFunction,
    Measured,
    Named,
    NofM,
    Relative,
    Structural,
    VectorNorm,
)

Pair: TypeAlias = tuple[str, str]


def family(function: Function) -> str:
    """The kind of a function: ``count`` for ‖·‖₀ itself, ``weighted count`` for other costs of kept positions."""
    match function:
        case Count(coefficients=coefficients, constant=constant):
            return "count" if constant == 0 and set(coefficients.values()) <= {1} else "weighted count"
        case Choice():
            return "weighted count"
        case GroupCount():
            return "group count"
        case VectorNorm(name=name, options=options) if ("from", "start") in options:
            return f"{name} from start"  # of w − start(w): another ball than that of w
        case Structural(name=name) | VectorNorm(name=name) | MatrixFunction(name=name) | Measured(name=name):
            return name
        case FactorCost():
            return "factor cost"  # whatever it counts: the ranks decide it
        case Entries():
            return "entries"
        case Affine():
            return "combination"


def set_family(constraint: Constraint) -> str:
    """The kind of a constraint's set."""
    match constraint.set:
        case Interval(lower, upper):
            return "both" if lower is not None and upper is not None else "upper" if upper is not None else "lower"
        case Relative():
            return "relative"
        case Kept():
            return "dense"
        case NofM():
            return "n_of_m"
        case Blocks():
            return "blocks"
        case Named(name=name):
            return name


def pair_of(constraint: Constraint) -> Pair:
    return family(constraint.function), set_family(constraint)
