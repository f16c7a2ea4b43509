"""Constraints: ∀ unrolled, sides brought to *function in set*, labels given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, cast

from prunelang.compiler.checking import arithmetic
from prunelang.compiler.checking.bounds import FLIP, Bound, Ends, Relation, bound, relative, show_base
from prunelang.compiler.checking.combine import Reduced, reduce
from prunelang.compiler.checking.domains import membership
from prunelang.compiler.checking.expressions import evaluate, members, variable_is_free
from prunelang.compiler.checking.ranks import is_list, listed, with_modes
from prunelang.compiler.checking.splits import with_split
from prunelang.compiler.checking.values import (
    Amount,
    Base,
    Combination,
    Domain,
    Layers,
    Network,
    Tensors,
    Value,
    Wrong,
    kind_of,
)
from prunelang.compiler.checking.world import MAX_INSTANCES, NO_LOCALS, Locals, World, canonical_text
from prunelang.compiler.problem import Affine, Constraint, Function, Interval, Measured, Set
from prunelang.compiler.schedule import Schedule, constant
from prunelang.dsl import tree
from prunelang.dsl.names import to_unicode
from prunelang.dsl.tree import Binary, Comparison, Expr, Membership

OPPOSITE: Final = {"≤": "≥", "≥": "≤"}


@dataclass
class Labels:
    """The labels of a spec, which have their own namespace, and the instances that each stands for."""

    instances: dict[str, list[str]] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def free(self, wanted: str) -> str:
        """`wanted`, or `wanted (2)` and so on where several unlabelled constraints have the same left side."""
        name, count = wanted, 2
        while name in self.taken:
            name, count = f"{wanted} ({count})", count + 1
        self.taken.add(name)
        return name


@dataclass(frozen=True)
class _Found:
    """One canonical condition before it has a label."""

    function: Function
    set: Set
    asked: str = ""
    dense: int | None = None
    schedule: Schedule | None = None


def constraints(world: World, node: tree.Constraint, labels: Labels, ends: Ends) -> list[Constraint]:
    """All instances of one line; those that are wrong are reported and left out."""
    if node.label is not None and node.label in labels.instances:
        where = node.label_span or node.span
        world.report.error(
            "P217", where, f"two constraints are called `{to_unicode(node.label)}`", hint="choose another label"
        )
        return []
    if node.label is not None:
        labels.instances[node.label] = []
        labels.taken.add(node.label)
    world.body = node.body.span
    out: list[Constraint] = []
    text = canonical_text(node.body)
    base = to_unicode(node.label) if node.label is not None else canonical_text(_left(world, node.body))
    world.report.unrolling = bool(node.foralls)
    for names, local in _instances(world, node):
        found = _body(world, node.body, local, ends)
        if found is None:
            continue
        wanted = f"{base}[{', '.join(names)}]" if names else base
        label = wanted if node.label is not None else labels.free(wanted)
        if node.label is not None:
            labels.instances[node.label].append(label)
        out.append(_constraint(world, found, label, node, text))
    world.body, world.report.unrolling = None, False
    return out


def _constraint(world: World, found: _Found, label: str, node: tree.Constraint, text: str) -> Constraint:
    return Constraint(
        label,
        with_modes(world, found.function, found.set),
        found.set,
        span=node.body.span,
        text=text,
        structural=is_structural(found.function),
        asked=found.asked,
        dense=found.dense,
        schedule=found.schedule,
    )


def is_structural(function: Function) -> bool:
    """Whether the stored weights alone decide it; coded bytes are, for the file is made of them."""
    if isinstance(function, Affine):
        return all(is_structural(f) for _, f in function.terms)
    return not isinstance(function, Measured) or function.name == "bytes"


def _left(world: World, body: Comparison | Membership) -> Expr:
    """The side that names an unlabelled constraint: the first that is no literal."""
    if isinstance(body, Membership):
        return body.value
    return next((s for s in body.sides if not isinstance(s, (tree.Number, tree.Negate))), body.sides[0])


# ── ∀ ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _instances(world: World, node: tree.Constraint) -> Iterator[tuple[tuple[str, ...], Locals]]:
    """Names and variables of every instance, the first ∀ outermost."""
    current: list[tuple[tuple[str, ...], Locals]] = [((), NO_LOCALS)]
    for forall in node.foralls:
        following: list[tuple[tuple[str, ...], Locals]] = []
        if not variable_is_free(world, forall.variable, current[0][1], forall):  # type: ignore[arg-type]
            return
        for names, local in current:
            elements = members(world, forall.domain, evaluate(world, forall.domain, local))
            if elements is None:
                return
            if len(following) + len(elements) > MAX_INSTANCES:
                world.report.error("P233", forall.span, f"this unrolls to more than {MAX_INSTANCES} constraints")
                return
            following.extend(((*names, n), {**local, forall.variable: v}) for n, v in elements)
        current = following
    yield from current


def _body(world: World, body: Comparison | Membership, local: Locals, ends: Ends) -> _Found | None:
    if isinstance(body, Membership):
        found = membership(world, body, evaluate(world, body.value, local), evaluate(world, body.domain, local))
        if found is None:
            return None
        return _Found(found.function, found.set, "∈ " + canonical_text(body.domain), found.dense)
    values = [evaluate(world, side, local) for side in body.sides]
    if any(isinstance(v, Wrong) for v in values):
        return None
    if is_list(values):
        trained = listed(world, body, values, local)
        relation = f"≤ {canonical_text(body.sides[1 if isinstance(values[0], Combination) else 0])}"
        return None if trained is None else _Found(trained.function, trained.set, relation)
    if not all(_is_side(world, side, value) for side, value in zip(body.sides, values, strict=True)):
        return None
    if len(values) == 2:
        return _two_sides(world, body, values, ends)
    return _between(world, body, values, ends)


def _is_side(world: World, node: Expr, value: Value) -> bool:
    """Whether a value can stand on a side of a comparison; reports what was probably meant."""
    if isinstance(value, Combination) and any(p.function.name == "energy" for p in value.pieces):
        message, instead = "`energy` is an estimate, and decides nothing", "bound `synops(net)`, which it is made of"
        world.report.error("P476", node.span, message, hint=instead)
        return False
    if isinstance(value, (Amount, Combination, Base)):
        return True
    fix = hint = None
    text = world.text(node)
    if isinstance(value, Tensors):
        fix = f"‖{text}‖₀"
    elif isinstance(value, (Layers, Network)):
        fix = f"‖{text}.weights‖₀"
    elif isinstance(value, Domain):
        hint = "write `∈` before a set"
    message = f"a comparison has a function on one side and a number on the other, not {kind_of(value)}"
    world.report.error("P207", node.span, message, fix=fix, hint=hint)
    return False


# ── comparisons ──────────────────────────────────────────────────────────────────────────────────────────────────


def _two_sides(world: World, body: Comparison, values: list[Value], ends: Ends) -> _Found | None:
    (a, b), (left, right) = values, body.sides
    relation = cast(Relation, body.relations[0])
    match a, b:
        case Combination(), Combination():
            return _both(world, body, a, b, relation, ends)
        case Combination(), Amount() | Base():
            return _one(world, left, a, right, b, relation, ends)
        case Amount() | Base(), Combination():
            return _one(world, right, b, left, a, FLIP[relation], ends)
    hint = None
    if isinstance(a, Base) or isinstance(b, Base):
        hint = "`base` is the value of the other side at the start: `accuracy(net) ≥ base - 0.5 pp`"
    world.report.error("P216", body.span, "nothing here depends on the weights or on data", hint=hint)
    return None


def _one(
    world: World, node: Expr, value: Combination, other: Expr, limit: Amount | Base, relation: Relation, ends: Ends
) -> _Found | None:
    reduced = reduce(world, node, with_split(value, "validation"))
    if reduced is None:
        return None
    dense = _dense(reduced)
    if isinstance(limit, Base):
        around = relative(world, other, limit, reduced, relation)
        return None if around is None else _Found(reduced.function, around, f"{relation} {show_base(limit)}", dense)
    found = bound(world, other, limit, reduced, relation, ends)
    if found is None:
        return None
    return _Found(reduced.function, _interval(found), f"{relation} {found.asked}", dense, found.schedule)


def _dense(reduced: Reduced) -> int | None:
    """The canonical function's own value at full density."""
    if reduced.dense is None or not reduced.integral:
        return None
    return int((reduced.dense - reduced.constant) * reduced.scale)


def _interval(found: Bound) -> Interval:
    return Interval(None, found.value) if found.relation == "≤" else Interval(found.value, None)


def _both(
    world: World, body: Comparison, a: Combination, b: Combination, relation: Relation, ends: Ends
) -> _Found | None:
    """``E ≤ F`` is ``E − F ≤ 0``, constants moved to the right."""
    whole = Binary("-", body.sides[0], body.sides[1], span=body.span)
    summed = arithmetic.total(world, whole, [a, arithmetic.scale(b, constant(-1))])
    if isinstance(summed, Wrong):
        return None
    assert isinstance(summed, Combination)
    reduced = reduce(world, whole, with_split(summed, "validation"))
    if reduced is None:
        return None
    value = -reduced.constant * reduced.scale
    towards = FLIP[relation] if reduced.scale < 0 else relation
    limit: Fraction | int = value
    if reduced.integral:
        limit = value.__floor__() if towards == "≤" else value.__ceil__()
    asked = f"{relation} {canonical_text(body.sides[1])}"
    return _Found(reduced.function, _interval(Bound(towards, limit, asked)), asked, None)


def _between(world: World, body: Comparison, values: list[Value], ends: Ends) -> _Found | None:
    """``const ≤ E ≤ const``."""
    low, middle, high = values[0], values[1], values[2]
    if len(values) > 3 or body.relations[0] != body.relations[1]:
        world.report.error(
            "P216", body.span, "a chain is `const ≤ E ≤ const`, both signs the same way", hint="write two lines"
        )
        return None
    if not isinstance(middle, Combination) or not isinstance(low, Amount) or not isinstance(high, Amount):
        message = "a chain has a function in the middle and constants on both sides"
        hint = "write two lines" if isinstance(low, Base) or isinstance(high, Base) else None
        world.report.error("P216", body.span, message, hint=hint)
        return None
    reduced = reduce(world, body.sides[1], with_split(middle, "validation"))
    if reduced is None:
        return None
    relation = cast(Relation, body.relations[0])
    first = bound(world, body.sides[0], low, reduced, FLIP[relation], ends)
    second = bound(world, body.sides[2], high, reduced, relation, ends)
    if first is None or second is None:
        return None
    if first.schedule is not None or second.schedule is not None:
        world.report.error("P226", body.span, "in a chain no bound can move with the clocks", hint="write two lines")
        return None
    lower, upper = (first, second) if first.relation == "≥" else (second, first)
    if lower.value > upper.value:
        hint = "exchange the two bounds"
        world.report.error("P216", body.span, f"no value lies between {lower.asked} and {upper.asked}", hint=hint)
        return None
    return _Found(
        reduced.function, Interval(lower.value, upper.value), f"{lower.asked} … {upper.asked}", _dense(reduced)
    )
