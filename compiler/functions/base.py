"""What the language knows of a function, set or stopping test: one `Signature`, for checking, completion and docs."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal

Kind = Literal[
    "network",  # a model
    "teacher",  # a frozen model
    "owners",  # a network, a layer or a layer set
    "tensors",  # a set of tensors
    "matrix",  # one tensor, seen as a matrix with the output dimension first
    "number",  # a plain number; a percentage is its value
    "integer",
    "ranks",  # a whole number, or a list of them
    "size",  # a whole number, or a percentage of the tensors' size
    "split",  # train | validation | test
    "choice",  # a member of an enumeration
    "modes",  # [[m1, n1], …]
    "values",  # {-1, 0, 1}
    "epochs",  # a number of epochs
    "scalar",  # an expression of the clocks
    "time",  # a point in time: epochs, steps, or p
    "change",  # [time, value]
]
Group = Literal["data term", "metric", "norm", "matrix function", "resource", "tensor set", "schedule", "set", "test"]
Result = Literal["loss", "ratio", "count", "cost", "value", "number", "tensors", "schedule", "set", "test"]
Reach = Literal["vector", "inside", "matrix"]

REQUIRED: Final = object()
SPLITS: Final = ("train", "validation", "test")

KIND_WORDS: Final[dict[Kind, str]] = {
    "network": "a network",
    "teacher": "a frozen network",
    "owners": "a network, a layer or a layer set",
    "tensors": "a set of tensors",
    "matrix": "one tensor",
    "number": "a number",
    "integer": "a whole number",
    "ranks": "a whole number, or a list of them",
    "size": "a whole number or a percentage",
    "split": "train, validation or test",
    "choice": "one of its members",
    "modes": "a list of pairs [[m1, n1], …]",
    "values": "a set of values {…}",
    "epochs": "a number of epochs",
    "scalar": "a number, or an expression of the clocks",
    "time": "a time: epochs, steps, or a share of the stage",
    "change": "a pair [time, value]",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter. `low` and `high` bound a number, both included unless `above` says that `low` is not."""

    name: str
    kind: Kind
    doc: str
    default: Any = REQUIRED
    choices: tuple[str, ...] = ()
    low: Fraction | int | None = None
    high: Fraction | int | None = None
    above: bool = False
    many: bool = False  # takes all further positional arguments

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    def range_text(self) -> str:
        if self.low is None and self.high is None:
            return ""
        if self.high is None:
            return f"{'>' if self.above else '≥'} {self.low}"
        return f"in {'(' if self.above else '['}{self.low}, {self.high}]"


@dataclass(frozen=True)
class Signature:
    """A function, set or test of the language.

    `result` decides how a bound is read: a *count* or *cost* takes percentages of its structural value, a *ratio* is a
    plain number in [0, 1], a *loss* or *value* depends on weights or data and takes no percentage. `reach` says how it
    treats several tensors: *vector* acts on the concatenation, *inside* on each and sums, *matrix* on a single one.
    """

    name: str
    group: Group
    result: Result
    parameters: tuple[Parameter, ...]
    doc: str
    formula: str = ""
    example: str = ""
    unit: str = ""
    reach: Reach | None = None
    structural: bool = True  # decided by the stored weights alone; otherwise measured on a split
    differentiable: bool = False
    sign: str = ""  # the mathematical spelling where there is one

    def parameter(self, name: str) -> Parameter | None:
        return next((p for p in self.parameters if p.name == name), None)

    def text(self) -> str:
        """The signature as a line of documentation, e.g. ``bytes(x, format = best | dense | …)``."""
        return (
            f"{self.name}({', '.join(_parameter_text(p) for p in self.parameters)})" if self.parameters else self.name
        )


def _parameter_text(p: Parameter) -> str:
    if p.many:
        return f"{p.name}, …"
    if p.choices:
        members = [c for c in p.choices if c != p.default]
        shown = members if p.required or p.default is None else [str(p.default), *members]
        return f"{p.name} = {' | '.join(shown)}"
    if p.required or p.default is None:
        return p.name
    return f"{p.name} = {p.default}"
