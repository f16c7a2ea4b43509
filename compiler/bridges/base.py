"""What a bridge is, and `bridge`, which applies them where a solver needs them."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

from prunelang.compiler.pairs import Pair, pair_of
from prunelang.compiler.problem import Constraint, Problem


class AbstractBridge(ABC):
    """A rewriting of one constraint into an equivalent one: the same weights satisfy both.

    Its docstring is its specification: *Rewrites … into …*, **From**, **To**, **Inverse**.
    """

    name: ClassVar[str]

    @abstractmethod
    def accepts(self, constraint: Constraint) -> bool:
        """Whether the constraint has the form **From**."""

    @abstractmethod
    def apply(self, constraint: Constraint) -> Constraint:
        """The constraint in the form **To**; label, span and text stay."""

    @abstractmethod
    def price(self, original: Constraint, price: float) -> float:
        """A price of the rewritten constraint, per unit of the original's bound."""


@dataclass(frozen=True)
class Bridged:
    """A problem as a solver sees it, with the bridge that each rewritten constraint crossed."""

    problem: Problem
    original: Problem
    crossed: Mapping[str, AbstractBridge]  # by label

    def price(self, label: str, price: float) -> float:
        """A price found by the solver, in the user's terms."""
        crossed = self.crossed.get(label)
        return price if crossed is None else crossed.price(self.original.constraint(label), price)


@cache
def bridges() -> tuple[AbstractBridge, ...]:
    """All bridges, in the order of their file names; a duplicate name is an error."""
    found: dict[str, AbstractBridge] = {}
    package = importlib.import_module("prunelang.compiler.bridges")
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda i: i.name):
        module = importlib.import_module(f"prunelang.compiler.bridges.{info.name}")
        for item in vars(module).values():
            if isinstance(item, type) and issubclass(item, AbstractBridge) and "name" in vars(item):
                if item.name in found and type(found[item.name]) is not item:
                    raise RuntimeError(f"two bridges are named `{item.name}`")
                found[item.name] = item()
    return tuple(found.values())


def bridge(problem: Problem, takes: frozenset[Pair]) -> Bridged:
    """`problem` with every constraint that is not among `takes` rewritten where one bridge leads to one that is."""
    crossed: dict[str, AbstractBridge] = {}
    constraints = []
    for c in problem.constraints:
        way = next((b for b in bridges() if b.accepts(c) and pair_of(b.apply(c)) in takes), None)
        if pair_of(c) in takes or way is None:
            constraints.append(c)
            continue
        crossed[c.label] = way
        constraints.append(way.apply(c))
    return Bridged(replace(problem, constraints=tuple(constraints)), problem, crossed)
