"""Which split a measured function reads where the spec does not say."""

from __future__ import annotations

from dataclasses import replace

from prunelang.compiler.checking.values import Combination
from prunelang.compiler.problem import Measured


def with_split(value: Combination, split: str) -> Combination:
    """`value` with every measured function on a split: the one it names, else `split`."""
    pieces = tuple(
        replace(p, function=replace(p.function, split=split))
        if isinstance(p.function, Measured) and not p.function.split
        else p
        for p in value.pieces
    )
    return replace(value, pieces=pieces)
