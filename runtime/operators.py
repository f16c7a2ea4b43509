"""From the functions of the language to the operators that project onto their balls and apply their penalties."""

from __future__ import annotations

from prunelang.runtime.prox.base import AbstractOperator, AbstractProjection
from prunelang.runtime.prox.box import Box
from prunelang.runtime.prox.group_l1 import GroupL1
from prunelang.runtime.prox.l0_penalty import L0Penalty
from prunelang.runtime.prox.l1_ball import L1Ball
from prunelang.runtime.prox.l1_penalty import L1Penalty
from prunelang.runtime.prox.l2_ball import L2Ball
from prunelang.runtime.prox.l2_penalty import L2Penalty


def ball(name: str, bound: float) -> AbstractProjection:
    """The projection onto ``{f ≤ bound}``; `name` is norm1, norm2, norm2_squared or norminf."""
    match name:
        case "norm1":
            return L1Ball(bound)
        case "norm2":
            return L2Ball(bound, 1)
        case "norm2_squared":
            return L2Ball(bound, 2)
        case "norminf":
            return Box(-bound, bound)
    raise KeyError(name)


def penalty(name: str, alpha: float, by: str) -> AbstractOperator:
    """``α·f``; `name` is norm0, norm1, norm2, norm2_squared or group_norm1 (with its grouping `by`)."""
    match name:
        case "norm0":
            return L0Penalty(alpha)
        case "norm1":
            return L1Penalty(alpha)
        case "norm2":
            return L2Penalty(alpha, 1)
        case "norm2_squared":
            return L2Penalty(alpha, 2)
        case "group_norm1":
            return GroupL1(alpha, by)
    raise KeyError(name)
