"""Steps that look at data that is not trained on: what `base` is, and the search for the best bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar, Literal

from prunelang.compiler.graph.base import Step, Sync
from prunelang.dsl.numbers import grouped


@dataclass(frozen=True)
class Floor:
    """A measured constraint on the split that choices read: ``name(net, on = split) relation factor · base + offset``.

    The factor is 0 where the bound does not speak of `base`. Both are exact, as texts of fractions.
    """

    label: str
    name: str
    split: str
    relation: Literal["≤", "≥"]
    offset: str
    factor: str = "0"
    arguments: tuple[tuple[str, Any], ...] = ()
    unit: str = ""

    @property
    def relative(self) -> bool:
        return Fraction(self.factor) != 0

    def bound(self, base: float = 0.0) -> float:
        """The bound as a number, given the value of `base`."""
        return float(Fraction(self.factor)) * base + float(Fraction(self.offset))

    def __str__(self) -> str:
        offset = f"{float(Fraction(self.offset)):g}"
        if not self.relative:
            return f"{self.name} on {self.split} {self.relation} {offset}"
        factor = "" if self.factor == "1" else f"{float(Fraction(self.factor)):g} · "
        shift = "" if offset == "0" else f" {'−' if offset.startswith('-') else '+'} {offset.lstrip('-')}"
        return f"{self.name} on {self.split} {self.relation} {factor}base{shift}"


@dataclass(frozen=True)
class Observe(Step):
    """`base`: the value of each function with the weights as they are, which the certificate compares with later.

    `floors` are those on splits that a choice may read; the weights themselves are kept, so that no other split is
    looked at before the end.
    """

    floors: tuple[Floor, ...]
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        return "base ← " + (", ".join(f"{f.name} on {f.split}" for f in self.floors) or "the weights as they are")


@dataclass(frozen=True)
class Search(Step):
    """The body again and again with different values of a level, from the network of the last value that held.

    ``smallest``: the smallest level whose outcome meets all `floors`. Levels fall from `top` by a factor until one
    fails, then the gap is halved in log(level − least), until it is within `tolerance` or `probes` are used up.
    ``largest``: the largest level whose outcome meets them. A floor on `select` is met when its confidence bound is;
    of the outcomes that met them, the last few are tested on `certify`, the safest first, up to the first that fails.
    """

    level: str
    top: int
    least: int
    floors: tuple[Floor, ...]
    body: tuple[Step, ...]
    probes: int
    tolerance: float
    sense: Literal["smallest", "largest"] = "smallest"
    sync: ClassVar[Sync] = "host"

    def line(self) -> str:
        what = " ∧ ".join(map(str, self.floors))
        span = f"{grouped(self.least)} … {grouped(self.top)}"
        rule = f"{self.probes} probes at most, within {self.tolerance:.3g}"
        return f"search the {self.sense} {self.level} in {span}: {what}   [{rule}]"

    def writes(self) -> tuple[str, ...]:
        return (self.level,)

    def bodies(self) -> tuple[tuple[str, tuple[Step, ...]], ...]:
        return (("", self.body),)

    def at(self, value: int) -> tuple[Step, ...]:
        """The body with a value in the place of the level's name: what one probe executes."""
        return tuple(_at(step, self.level, value) for step in self.body)


def _at(node: Any, level: str, value: int) -> Any:
    if is_dataclass(node) and not isinstance(node, type):
        changed = {f.name: _at(getattr(node, f.name), level, value) for f in fields(node)}
        if changed.get("kappa") == level:
            changed["kappa"] = value
        same = all(new is getattr(node, name) for name, new in changed.items())
        return node if same else replace(node, **changed)
    if isinstance(node, Mapping):
        return {**node, "upper": value} if node.get("upper") == level else node
    if isinstance(node, tuple):
        new = tuple(_at(x, level, value) for x in node)
        return node if all(a is b for a, b in zip(new, node, strict=True)) else new
    return node


def named_levels(node: Any) -> Iterator[str]:
    """The levels that stand for numbers in a step: in the bounds of what it projects onto, or as its κ."""
    if is_dataclass(node) and not isinstance(node, type):
        for f in fields(node):
            inner = getattr(node, f.name)
            if f.name == "kappa" and isinstance(inner, str):
                yield inner
            elif not isinstance(inner, Step) and f.name not in ("body", "each_epoch"):
                yield from named_levels(inner)
    elif isinstance(node, Mapping):
        if isinstance(node.get("upper"), str):
            yield node["upper"]
    elif isinstance(node, tuple):
        for x in node:
            yield from named_levels(x)
