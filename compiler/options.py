"""Options of solvers and optimisers: one frozen pydantic model each, the single source for checking, help and docs.

Every field states its range and, when it may follow the clocks, which ones. The checker builds plain values
(`int`, `bool`, `str`, `Schedule`) from the syntax tree; the models validate them strictly.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from types import NoneType
from typing import Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from prunelang.compiler.schedule import Schedule, constant, exact

Numeric = float | int | str


class Options(BaseModel):
    """Base of all option models: frozen, strict, nothing extra."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True)

    word: ClassVar[str]  # the name in the language
    kind: ClassVar[Literal["solver", "optimizer", "pruner"]]
    doc: ClassVar[str]  # one line
    reference: ClassVar[str] = ""


def option(
    doc: str,
    default: Any = ...,
    *,
    gt: Numeric | None = None,
    ge: Numeric | None = None,
    lt: Numeric | None = None,
    le: Numeric | None = None,
    clocks: tuple[str, ...] = (),
    unit: str = "",
    aliases: tuple[str, ...] = (),
    last: bool = False,
) -> Any:
    """A field. `clocks` are those that a schedule may use; numeric defaults of schedules are given as numbers.

    `aliases` are other spellings of the same option (``mu`` is also ``μ`` by the rule for names, no alias needed).
    An option of a base class that is `last` stands behind all of the class's own.
    """
    limits = {"gt": gt, "ge": ge, "lt": lt, "le": le}
    extra: dict[str, Any] = {k: str(v) for k, v in limits.items() if v is not None}
    extra |= {
        k: v for k, v in {"clocks": list(clocks), "unit": unit, "aliases": list(aliases), "last": last}.items() if v
    }
    if default is ...:
        return Field(description=doc, json_schema_extra=extra)
    return Field(default=default, description=doc, json_schema_extra=extra)


@dataclass(frozen=True)
class OptionFacts:
    """What the language knows of one option."""

    name: str
    kind: Literal["integer", "schedule", "truth", "choice"]
    choices: tuple[str, ...]
    optional: bool  # None is allowed: the compiler chooses
    default: Any
    required: bool
    doc: str
    gt: Fraction | None
    ge: Fraction | None
    lt: Fraction | None
    le: Fraction | None
    clocks: tuple[str, ...]
    unit: str

    def range_text(self) -> str:
        """The admissible range in words, e.g. ``> 0``, ``in [0, 1)``; empty when there is none."""
        low = self.ge if self.ge is not None else self.gt
        high = self.le if self.le is not None else self.lt
        if low is not None and high is not None:
            opening, closing = "[" if self.ge is not None else "(", "]" if self.le is not None else ")"
            return f"in {opening}{_short(low)}, {_short(high)}{closing}"
        if low is not None:
            return f"{'≥' if self.ge is not None else '>'} {_short(low)}"
        if high is not None:
            return f"{'≤' if self.le is not None else '<'} {_short(high)}"
        return ""

    def admits(self, value: Fraction | float) -> bool:
        return (
            (self.gt is None or value > self.gt)
            and (self.ge is None or value >= self.ge)
            and (self.lt is None or value < self.lt)
            and (self.le is None or value <= self.le)
        )


def _short(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):g}"


def facts(model: type[Options]) -> dict[str, OptionFacts]:
    """The options of a model, by name, in order."""
    fields = sorted(model.model_fields.items(), key=lambda item: _is_last(item[1]))
    return {name: _facts(name, field) for name, field in fields}


def _is_last(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("last"))


def _facts(name: str, field: FieldInfo) -> OptionFacts:
    extra: dict[str, Any] = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    members = _members(field.annotation)
    optional = NoneType in members
    choices = tuple(str(c) for m in members if get_origin(m) is Literal for c in get_args(m))
    kind: Literal["integer", "schedule", "truth", "choice"]
    if choices:
        kind = "choice"
    elif bool in members:
        kind = "truth"
    elif int in members:
        kind = "integer"
    else:
        kind = "schedule"

    def limit(key: str) -> Fraction | None:
        return None if extra.get(key) is None else Fraction(str(extra[key]))

    return OptionFacts(
        name=name,
        kind=kind,
        choices=choices,
        optional=optional,
        default=None if field.is_required() else field.default,
        required=field.is_required(),
        doc=field.description or "",
        gt=limit("gt"),
        ge=limit("ge"),
        lt=limit("lt"),
        le=limit("le"),
        clocks=tuple(extra.get("clocks", ())),
        unit=str(extra.get("unit", "")),
    )


def _members(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal or not get_args(annotation):
        return (annotation,)
    return tuple(m for a in get_args(annotation) for m in _members(a))


def number(text: str) -> Schedule:
    """A constant schedule for defaults, written as a decimal so that it is exact: ``number("0.9")``."""
    return constant(Fraction(text))


def value_of(schedule: Schedule) -> Fraction | None:
    """The exact value of a constant option, else None."""
    return exact(schedule)
