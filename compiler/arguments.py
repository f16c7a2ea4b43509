"""Signatures of constructors as plain data, and the check of a call against one.

A constructor (a network, a data set, a loss) takes plain values alone: whole numbers, numbers, words, truth values and
lists of whole numbers. So a call in a spec can be checked, completed and printed without importing what it names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import Final, Literal, TypeAlias

from prunelang.dsl.diagnostics import suggest

Value: TypeAlias = int | float | str | bool | Fraction | tuple[int, ...] | None
Kind: TypeAlias = Literal["int", "float", "str", "path", "choice", "bool", "share", "ints"]

KINDS: Final[Mapping[Kind, str]] = {
    "int": "a whole number",
    "float": "a number",
    "str": "a string",
    "path": "a path in quotes",
    "choice": "one of the words",
    "bool": "`true` or `false`",
    "share": "a percentage",
    "ints": "a list of whole numbers",
}


class Required:
    """The default of a parameter that has none."""

    def __repr__(self) -> str:
        return "required"


REQUIRED: Final = Required()


class ArgumentError(Exception):
    """A call that does not fit its signature.

    `argument` is the name at fault (None when it is the call as a whole), `message` a sentence in the user's words,
    `suggestions` the names or words that were probably meant, nearest first.
    """

    def __init__(self, argument: str | None, message: str, suggestions: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.argument = argument
        self.message = message
        self.suggestions = tuple(suggestions)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its kind, default, admissible range (both ends included; of each element for lists) and meaning.

    A parameter whose default is None may be left out; `path` is a file or folder, relative to the spec's own folder.
    """

    name: str
    kind: Kind
    default: Value | Required = REQUIRED
    doc: str = ""
    low: int | float | None = None
    high: int | float | None = None
    choices: tuple[str, ...] = ()
    length: int = 0  # fewest elements of a list

    @property
    def required(self) -> bool:
        return isinstance(self.default, Required)

    def check(self, value: object) -> Value:
        """`value` in the parameter's own Python type, or `ArgumentError`."""
        if value is None and self.default is None:
            return None
        if self.kind == "ints":
            return self._list(value)
        plain = _plain(self.kind, value)
        if plain is None:
            raise ArgumentError(self.name, f"`{self.name}` takes {self.describe()}, not {show(value)}")
        if self.kind == "choice" and plain not in self.choices:
            raise ArgumentError(
                self.name,
                f"`{self.name}` takes {self.describe()}, not {show(value)}",
                suggest(str(plain), self.choices),
            )
        self._in_range(plain)
        return plain

    def describe(self) -> str:
        """What it takes, in words."""
        if self.kind == "choice":
            return " or ".join(f"`{c}`" for c in self.choices)
        return KINDS[self.kind]

    def _list(self, value: object) -> tuple[int, ...]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ArgumentError(self.name, f"`{self.name}` takes {self.describe()}, not {show(value)}")
        if len(value) < self.length:
            raise ArgumentError(self.name, f"`{self.name}` needs at least {self.length} numbers, got {len(value)}")
        items = [_plain("int", x) for x in value]
        for given, item in zip(value, items, strict=True):
            if item is None:
                raise ArgumentError(self.name, f"`{self.name}` takes {self.describe()}; {show(given)} is not one")
            self._in_range(item)
        return tuple(x for x in items if isinstance(x, int))

    def _in_range(self, value: Value) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)):
            return
        if self.low is not None and value < self.low:
            raise ArgumentError(self.name, f"`{self.name}` is at least {show(self.low)}, not {show(value)}")
        if self.high is not None and value > self.high:
            raise ArgumentError(self.name, f"`{self.name}` is at most {show(self.high)}, not {show(value)}")


def _plain(kind: Kind, value: object) -> Value:
    """`value` as a plain value of `kind`, or None where it is of another kind."""
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if kind in ("str", "path", "choice"):
        return value if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)):
        return None
    if not _finite(value):
        return None
    if kind == "int":
        return int(value) if value == int(value) else None
    if kind == "share":
        return Fraction(str(value)) if isinstance(value, float) else Fraction(value)
    return float(value)


def _finite(value: int | float | Fraction) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # a whole number or fraction beyond every float
        return False


def show(value: object) -> str:
    """A value as a spec writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, Fraction):
        return str(value.numerator) if value.denominator == 1 else f"{float(value):g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(show(v) for v in value) + "]"
    return str(value)


Rule: TypeAlias = Callable[[Mapping[str, Value]], ArgumentError | None]


@dataclass(frozen=True)
class Signature:
    """The name, the parameters in order, and one line about what the constructor makes.

    `rule` looks at all arguments together (a width that its heads must divide) and returns what is wrong, or None.
    """

    name: str
    parameters: tuple[Parameter, ...] = ()
    doc: str = ""
    rule: Rule | None = None

    def parameter(self, name: str) -> Parameter:
        """By name; `ArgumentError` with the nearest names if there is none."""
        for p in self.parameters:
            if p.name == name:
                return p
        names = [p.name for p in self.parameters]
        takes = f"it takes {', '.join(f'`{n}`' for n in names)}" if names else "it takes no arguments"
        raise ArgumentError(name, f"`{self.name}` has no argument `{name}`; {takes}", suggest(name, names))

    def bind(self, positional: Sequence[object] = (), named: Mapping[str, object] | None = None) -> dict[str, Value]:
        """All arguments in the order of the signature, checked, defaults filled in.

        Errors: `ArgumentError` for an unknown, doubled, missing, mistyped or out-of-range argument.
        """
        given: dict[str, object] = {}
        if len(positional) > len(self.parameters):
            count = len(self.parameters)
            takes = f"{count} argument{'' if count == 1 else 's'}"
            raise ArgumentError(None, f"`{self.name}` takes {takes}, got {len(positional)}")
        for p, value in zip(self.parameters, positional, strict=False):
            given[p.name] = value
        for name, value in (named or {}).items():
            self.parameter(name)
            if name in given:
                raise ArgumentError(name, f"`{name}` is given twice, by place and by name")
            given[name] = value
        return self._complete(given)

    def _complete(self, given: Mapping[str, object]) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for p in self.parameters:
            if p.name in given:
                values[p.name] = p.check(given[p.name])
            elif isinstance(p.default, Required):
                raise ArgumentError(
                    p.name, f"`{self.name}` needs `{p.name}`: {p.describe()}" + (p.doc and f" ({p.doc})")
                )
            else:
                values[p.name] = p.default
        problem = self.rule(values) if self.rule else None
        if problem is not None:
            raise problem
        return values

    def text(self, values: Mapping[str, Value]) -> str:
        """The canonical call: every argument by name, in order, those that are left out (None) omitted."""
        parts = [f"{p.name} = {self._word(p, values[p.name])}" for p in self.parameters if values[p.name] is not None]
        return f"{self.name}({', '.join(parts)})"

    @staticmethod
    def _word(p: Parameter, value: Value) -> str:
        if p.kind == "choice":
            return str(value)
        if p.kind == "share" and isinstance(value, Fraction):
            percent = 100 * value
            return f"{percent.numerator if percent.denominator == 1 else float(percent)}%"
        return show(value)
