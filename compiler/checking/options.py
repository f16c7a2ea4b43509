"""Options of solvers, optimizers and pruners, read through their facts: kinds, ranges, clocks, members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from prunelang.compiler.checking.calls import function_span
from prunelang.compiler.checking.expressions import evaluate
from prunelang.compiler.checking.numbers import NoValue, exactly
from prunelang.compiler.checking.units import show
from prunelang.compiler.checking.values import Amount, Flag, Wrong, kind_of
from prunelang.compiler.checking.world import World
from prunelang.compiler.optimizers import OPTIMIZERS
from prunelang.compiler.options import OptionFacts, Options, facts
from prunelang.compiler.pruners.base import pruners
from prunelang.compiler.schedule import Schedule, clocks_of
from prunelang.compiler.solvers.base import solvers
from prunelang.dsl.diagnostics import did_you_mean
from prunelang.dsl.names import to_unicode
from prunelang.dsl.tree import Argument, Call, Expr, Name, Text

M = TypeVar("M", bound=Options)


@dataclass(frozen=True)
class Available:
    """The clocks of a stage at its start and at its end; a clock that is missing does not run there."""

    start: Mapping[str, float]
    end: Mapping[str, float]


def read_options(world: World, model: type[M], node: Call, clocks: Available) -> M | None:
    """The options of a call as its model, or None after reporting everything that does not fit."""
    known = facts(model)
    placed, good = _place(world, model, known, node)
    values: dict[str, Any] = {}
    for name, expr in placed.items():
        value = _value(world, model, known[name], expr, clocks)
        if value is None:
            good = False
        else:
            values[name] = value
    missing = [f.name for f in known.values() if f.required and f.name not in placed]
    if missing and good:
        names = " and ".join(f"`{to_unicode(m)}`" for m in missing)
        hint = f"`{model.word}({missing[0]} = …)`: {known[missing[0]].doc}"
        world.report.error("P407", node.span, f"`{model.word}` needs {names}", hint=hint)
        good = False
    return model(**values) if good else None


def _place(
    world: World, model: type[Options], known: dict[str, OptionFacts], node: Call
) -> tuple[dict[str, Expr], bool]:
    """The expressions by option, and whether every argument found its option."""
    aliases = _aliases(model)
    placed: dict[str, Expr] = {}
    order = list(known)
    good = True
    for argument in node.arguments:
        if argument.name is None:
            left = [n for n in order if n not in placed]
            if not left:
                world.report.error("P403", argument.span, f"`{model.word}` takes fewer options", hint=_all(known))
                return placed, False
            name = left[0]
        else:
            name = aliases.get(argument.name, argument.name)
        if name not in known:
            _unknown(world, model, known, argument)
            good = False
        elif name in placed:
            world.report.error("P403", argument.span, f"`{to_unicode(name)}` is given twice")
            good = False
        else:
            placed[name] = argument.value
    return placed, good


def _aliases(model: type[Options]) -> dict[str, str]:
    out: dict[str, str] = {}
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict):
            out.update({str(a): name for a in _strings(extra.get("aliases"))})
    return out


def _strings(value: Any) -> Sequence[str]:
    return value if isinstance(value, (list, tuple)) else ()


def _all(known: dict[str, OptionFacts]) -> str:
    return "its options are " + ", ".join(f"`{to_unicode(n)}`" for n in known) if known else "it has no options"


def _unknown(world: World, model: type[Options], known: dict[str, OptionFacts], argument: Argument) -> None:
    assert argument.name is not None
    others: dict[str, type[Options]] = {**OPTIMIZERS, **solvers(), **pruners()}
    owners = [word for word, other in others.items() if other is not model and argument.name in other.model_fields]
    hint = did_you_mean(argument.name, known)
    if hint is None and owners:
        *most, last = (f"`{o}`" for o in owners)
        hint = f"it is an option of {', '.join(most)} and {last}" if most else f"it is an option of {last}"
    shown = to_unicode(argument.name)
    world.report.error(
        "P403", argument.span, f"`{model.word}` has no option `{shown}`", hint=hint, notes=(_all(known),)
    )


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _value(world: World, model: type[Options], fact: OptionFacts, node: Expr, clocks: Available) -> Any | None:
    if fact.kind == "choice":
        return _member(world, fact, node)
    value = evaluate(world, node)
    if isinstance(value, Wrong):
        return None
    shown = to_unicode(fact.name)
    if fact.kind == "truth":
        if isinstance(value, Flag):
            return value.value
        world.report.error("P405", node.span, f"`{shown}` is true or false, not {kind_of(value)}")
        return None
    if not isinstance(value, Amount) or value.unit not in ("", "%"):
        what = "a whole number" if fact.kind == "integer" else "a number"
        world.report.error("P405", node.span, f"`{shown}` is {what}, not {kind_of(value)}")
        return None
    if not _clocks(world, model, fact, node, value.schedule, clocks):
        return None
    if not _in_range(world, fact, node, value.schedule, clocks):
        return None
    return _integer(world, fact, node, value.schedule) if fact.kind == "integer" else value.schedule


def _member(world: World, fact: OptionFacts, node: Expr) -> str | None:
    word = node.id if isinstance(node, Name) else node.value if isinstance(node, Text) else None
    if word in fact.choices:
        return word
    near = did_you_mean(word, fact.choices) if word else None
    message = f"`{to_unicode(fact.name)}` is one of {', '.join(fact.choices)}"
    world.report.error("P405", node.span, message, hint=near)
    return None


def _integer(world: World, fact: OptionFacts, node: Expr, schedule: Schedule) -> int | None:
    value = exactly(schedule, {})
    if value.denominator == 1:
        return int(value)
    world.report.error("P405", node.span, f"`{to_unicode(fact.name)}` is a whole number")
    return None


def _clocks(
    world: World, model: type[Options], fact: OptionFacts, node: Expr, schedule: Schedule, clocks: Available
) -> bool:
    used = sorted(clocks_of(schedule))
    shown = to_unicode(fact.name)
    if used and not fact.clocks:
        world.report.error("P406", node.span, f"`{shown}` cannot move with the clocks")
        return False
    for clock in used:
        if clock not in fact.clocks:
            hint = f"it may follow {', '.join(f'`{c}`' for c in fact.clocks)}"
            if clock == "lr":
                hint = "`lr` is for options of solvers only"
            world.report.error("P406", node.span, f"`{shown}` cannot follow `{clock}`", hint=hint)
            return False
        if clock == "k" and "k" not in clocks.end:
            where = f"`{model.word}`" if model.kind == "solver" else "this stage"
            world.report.error(
                "P406", node.span, f"there is no `k` here: {where} has no outer iterations", hint="use `epoch` or `p`"
            )
            return False
    return True


def _in_range(world: World, fact: OptionFacts, node: Expr, schedule: Schedule, clocks: Available) -> bool:
    """Constants exactly; schedules at the start and at the end of their clocks."""
    used = clocks_of(schedule)
    if used - clocks.end.keys():
        return True  # it follows `lr` or `step`, whose end nobody knows here
    for when, at in (("", clocks.start), (" at the end", clocks.end)):
        try:
            value = exactly(schedule, at)
        except NoValue as error:
            world.report.error("P227", node.span, f"this option has no value: {error}")
            return False
        if not fact.admits(value):
            _out_of_range(world, fact, node, value, when if used else "")
            return False
        if not used:
            break
    return True


def _out_of_range(world: World, fact: OptionFacts, node: Expr, value: Fraction, when: str) -> None:
    shown = to_unicode(fact.name)
    world.report.error(
        "P404",
        node.span,
        f"`{shown}` must be {fact.range_text()}; it is {show(value, '')}{when}",
        hint=fact.doc,
    )


def optimizer_conditions(world: World, node: Call, options: Options) -> bool:
    """Rules between options: Nesterov's step needs momentum."""
    momentum = getattr(options, "momentum", None)
    if not getattr(options, "nesterov", False) or momentum is None or exactly(momentum, {}) > 0:
        return True
    where = next((a.span for a in node.arguments if a.name == "nesterov"), function_span(node))
    world.report.error("P412", where, "Nesterov's step needs momentum", hint="for example `momentum = 0.9`")
    return False
