"""What an expression can be: the kinds of the language, as data."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeAlias

from prunelang.compiler.functions import Signature
from prunelang.compiler.problem import Function
from prunelang.compiler.schedule import Schedule, constant
from prunelang.dsl.spans import NOWHERE, Span
from prunelang.dsl.tree import Expr


@dataclass(frozen=True, slots=True)
class Wrong:
    """The value of an expression whose error is already reported; whatever meets it stays silent."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A number, possibly moving with the clocks, and its unit.

    `unit` is "" (plain), "%" and "pp" (held as shares: 5 % is 1/20), "MACs", "FLOPs", "SynOps", "B", "s", "epochs" or
    "steps"; multiples such as MMACs or KiB are already multiplied out.
    """

    schedule: Schedule
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Words:
    text: str


@dataclass(frozen=True, slots=True)
class Flag:
    value: bool


@dataclass(frozen=True, slots=True)
class Items:
    """A list in brackets; its elements stay expressions, for whoever takes the list knows their kind."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Tensors:
    """Tensors by name, each once, in the order of the table.

    `start` is w as it entered `solve`; `moved` is w − start(w).
    """

    names: tuple[str, ...]
    start: bool = False
    moved: bool = False


@dataclass(frozen=True, slots=True)
class Layers:
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Network:
    name: str
    frozen: bool


@dataclass(frozen=True, slots=True)
class Base:
    """``factor · base + offset``."""

    factor: Fraction
    offset: Fraction = Fraction(0)
    unit: str = ""  # of the offset


@dataclass(frozen=True, slots=True)
class Domain:
    """A set before it meets its tensors: `values` by parameter, or the `parts` of a sum."""

    signature: Signature | None
    values: tuple[tuple[str, object], ...] = ()
    parts: tuple[Domain, ...] = ()
    span: Span = NOWHERE


@dataclass(frozen=True, slots=True)
class Piece:
    """``weight · function``. `dense` is the function's value at full density, where percentages refer to."""

    weight: Schedule
    function: Function
    signature: Signature
    dense: int | None = None
    span: Span = NOWHERE


@dataclass(frozen=True, slots=True)
class Combination:
    """``Σ weight · function + constant``: what a constraint bounds and an objective sums."""

    pieces: tuple[Piece, ...]
    constant: Amount | None = None

    @property
    def unit(self) -> str | None:
        """The common unit, or None where the functions have different ones."""
        units = {p.signature.unit for p in self.pieces}
        return units.pop() if len(units) == 1 else None


Value: TypeAlias = Wrong | Amount | Words | Flag | Items | Tensors | Layers | Network | Base | Domain | Combination

WRONG: Final = Wrong()
ZERO: Final = constant(0)
ONE: Final = constant(1)


def kind_of(value: Value) -> str:
    """What a value is, in words: ``a percentage``, ``a set of tensors``."""
    match value:
        case Amount(unit=""):
            return "a number"
        case Amount(unit="%"):
            return "a percentage"
        case Amount(unit="pp"):
            return "a number of percentage points"
        case Amount(unit=unit):
            return f"an amount in {unit}"
        case Words():
            return "a string"
        case Flag():
            return "true or false"
        case Items():
            return "a list"
        case Tensors(names=(name,)):
            return f"the tensor {name}"
        case Tensors():
            return "a set of tensors"
        case Layers(names=(name,)):
            return f"the layer {name}"
        case Layers():
            return "a set of layers"
        case Network():
            return "a network"
        case Base():
            return "the base value"
        case Domain():
            return "a set"
        case Combination(pieces=(piece,), constant=None) if piece.weight == ONE:
            return f"the function `{piece.signature.name}`"
        case Combination():
            return "a combination of functions"
    return "something that is already wrong"
