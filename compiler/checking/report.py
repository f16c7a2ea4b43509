"""Report items: expressions on a split, or a field of a labelled constraint."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Final, Literal, cast

from prunelang.compiler.checking.constraints import Labels
from prunelang.compiler.checking.expressions import evaluate
from prunelang.compiler.checking.numbers import NoValue, value_of
from prunelang.compiler.checking.splits import with_split
from prunelang.compiler.checking.values import ONE, Combination, Tensors, Wrong, kind_of
from prunelang.compiler.checking.world import World, canonical_text
from prunelang.compiler.plan import ReportPlan
from prunelang.compiler.problem import Affine, Function
from prunelang.dsl.diagnostics import did_you_mean
from prunelang.dsl.names import to_unicode
from prunelang.dsl.tree import Attribute, Expr, Name, Report, ReportItem, Select, Text

Field = Literal["value", "bound", "margin", "dual"]
FIELDS: Final = ("value", "bound", "margin", "dual")


def report(world: World, node: Report, labels: Labels) -> list[ReportPlan]:
    return [plan for item in node.items for plan in _item(world, item, labels)]


def _item(world: World, item: ReportItem, labels: Labels) -> Iterator[ReportPlan]:
    title = item.title if item.title is not None else canonical_text(item.value)
    reference = _reference(world, item.value, labels)
    if reference is not None:
        yield from _field(world, *reference, item, title, labels)
        return
    value = evaluate(world, item.value)
    if isinstance(value, Wrong):
        return
    if not isinstance(value, Combination):
        hint = "a norm makes a number of it: ‖net.weights‖₀" if isinstance(value, Tensors) else None
        world.report.error(
            "P207", item.value.span, f"a report shows functions and constraints, not {kind_of(value)}", hint=hint
        )
        return
    function = _function(world, item.value, with_split(value, "test"))
    if function is not None:
        yield ReportPlan(title, function)


def _function(world: World, node: Expr, value: Combination) -> Function | None:
    """One function, or an affine combination of several."""
    if len(value.pieces) == 1 and value.pieces[0].weight == ONE and value.constant is None:
        return value.pieces[0].function
    try:
        weights = [value_of(p.weight) for p in value.pieces]
        constant = None if value.constant is None else value_of(value.constant.schedule)
    except NoValue as error:
        world.report.error("P227", node.span, f"this has no value: {error}")
        return None
    if any(w is None for w in weights) or (value.constant is not None and constant is None):
        world.report.error("P226", node.span, "a report is made at the end: nothing in it moves with the clocks")
        return None
    terms = tuple((cast(Fraction, w), p.function) for w, p in zip(weights, value.pieces, strict=True))
    return Affine(terms, constant or Fraction(0), value.unit or "")


# ── labels ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _reference(world: World, node: Expr, labels: Labels) -> tuple[Name, Select | None, Attribute] | None:
    """``label.field`` or ``label[fc1].field``; anything else is an expression."""
    if not isinstance(node, Attribute):
        return None
    owner = node.value.value if isinstance(node.value, Select) else node.value
    if not isinstance(owner, Name):
        return None
    if owner.id not in labels.instances and (node.name not in FIELDS or owner.id in world.scope):
        return None
    return owner, node.value if isinstance(node.value, Select) else None, node


def _field(
    world: World, owner: Name, chosen: Select | None, node: Attribute, item: ReportItem, title: str, labels: Labels
) -> Iterator[ReportPlan]:
    shown = to_unicode(owner.id)
    instances = labels.instances.get(owner.id)
    if instances is None:
        near = did_you_mean(shown, map(to_unicode, labels.instances))
        world.report.error("P218", owner.span, f"no constraint is called `{shown}`", hint=near)
        return
    if node.name not in FIELDS:
        near = did_you_mean(node.name, FIELDS)
        message = f"a constraint has no `{node.name}`"
        world.report.error("P218", node.span, message, hint=near or f"it has {', '.join(FIELDS)}")
        return
    field = cast(Field, node.name)
    if chosen is not None:
        wanted = f"{shown}[{', '.join(_instance(world, p) for p in chosen.patterns)}]"
        if wanted not in instances:
            if not instances:
                return
            near = did_you_mean(wanted, instances)
            message = f"the constraint `{shown}` has no instance `{wanted}`"
            world.report.error("P218", chosen.span, message, hint=near or f"it has {instances[0]}, …")
            return
        yield ReportPlan(title, label=wanted, field=field)
        return
    for label in instances:
        name = title if len(instances) == 1 or item.title is not None else f"{label}.{field}"
        yield ReportPlan(
            name if len(instances) == 1 or item.title is None else f"{title} {label}", label=label, field=field
        )


def _instance(world: World, pattern: Expr) -> str:
    """The name of an instance: ``fc1``, ``block1.conv``, or a string."""
    return pattern.value if isinstance(pattern, Text) else world.text(pattern).replace(" ", "")
