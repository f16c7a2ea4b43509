"""From the functions of the language to the operators that project onto their balls and apply their penalties."""

from __future__ import annotations

from prunelang.runtime.prox.base import AbstractOperator, AbstractProjection
from prunelang.runtime.prox.registry import operator


def ball(name: str, radius: float) -> AbstractProjection:
    """The projection onto ``{f ≤ radius}``; `name` is norm1, norm2, norm2_squared or norminf."""
    raise KeyError(name)


def penalty(name: str, alpha: float, by: str) -> AbstractOperator:
    """α·f; `name` is norm0, norm1, norm2, norm2_squared, group_norm0 or group_norm1 (with its grouping `by`)."""
    raise KeyError(name)
