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


def spoken(function: Function) -> str:
    """The kind of a function in messages: ``weighted count``, ``macs of factors``."""
    return f"`{function.name}` of factors" if isinstance(function, FactorCost) else f"`{family(function)}`"


def asked(constraint: Constraint) -> str:
    """The pair of a constraint in messages: ``upper bounds on `count` ``, ``the set `low_rank` ``."""
    kind, of = set_family(constraint), spoken(constraint.function)
    match constraint.set:
        case Interval():
            return f"bounds on both sides of {of}" if kind == "both" else f"{kind} bounds on {of}"
        case Relative():
            return f"bounds on {of} relative to `base`"
    return "sums of sets" if kind == "sum" else f"the set `{kind}`"
