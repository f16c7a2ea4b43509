"""The objective: data terms and penalties with their weights."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from prunelang.compiler.checking.bounds import Ends
from prunelang.compiler.checking.expressions import evaluate
from prunelang.compiler.checking.numbers import NoValue, exactly, value_of
from prunelang.compiler.checking.splits import with_split
from prunelang.compiler.checking.values import Base, Combination, Layers, Network, Piece, Tensors, Value, Wrong, kind_of
from prunelang.compiler.checking.world import World
from prunelang.compiler.problem import Measured, Objective, Term
from prunelang.compiler.schedule import Schedule, clocks_of
from prunelang.dsl import tree
from prunelang.dsl.tree import Expr

UNTRAINED = ("synops", "spikes", "energy")
WEIGHT_CLOCKS = ("k", "p", "epoch", "step")


def objective(world: World, node: tree.Objective, ends: Ends) -> Objective | None:
    """The checked objective, or None after reporting what is wrong."""
    found = terms(world, node.value, evaluate(world, node.value), ends)
    if found is None:
        return None
    if not all(_pulls_down(world, node, term, ends) for term in found):
        return None
    return Objective(node.sense, found, node.span)


def terms(world: World, node: Expr, value: Value, ends: Ends) -> tuple[Term, ...] | None:
    """The terms of a sum of weighted functions."""
    if isinstance(value, Wrong):
        return None
    if not isinstance(value, Combination):
        _no_function(world, node, value)
        return None
    found = [_term(world, piece, ends) for piece in with_split(value, "train").pieces]
    whole = [t for t in found if t is not None]
    return tuple(_merged(whole)) if len(whole) == len(found) else None


def _no_function(world: World, node: Expr, value: Value) -> None:
    hint = None
    if isinstance(value, Base):
        hint = "`base` is known in constraints only"
    elif isinstance(value, (Tensors, Layers, Network)):
        hint = "a norm makes a number of it: ‖net.weights‖₀"
    code = "P225" if isinstance(value, Base) else "P231"
    world.report.error(
        code, node.span, f"an objective is a function of weights and data, not {kind_of(value)}", hint=hint
    )


def _term(world: World, piece: Piece, ends: Ends) -> Term | None:
    function = piece.function
    if function.name in UNTRAINED:
        code = "P476" if function.name == "energy" else "P479"
        hint = "bound it: `synops(net) ≤ 0.3 * base`"
        world.report.error(code, piece.span, f"`{function.name}` is counted, and nothing can descend on it", hint=hint)
        return None
    if isinstance(function, Measured) and function.split != "train":
        world.report.error(
            "P229", piece.span, f"the objective is trained on, and `{function.split}` is kept apart from training"
        )
        return None
    try:
        weight = value_of(piece.weight)
    except NoValue as error:
        world.report.error("P227", piece.span, f"this coefficient has no value: {error}")
        return None
    if weight is None and not _known_clocks(world, piece, ends):
        return None
    text = world.source.slice(piece.span) or piece.signature.name
    return Term(piece.weight if weight is None else weight, function, piece.span, text)


def _known_clocks(world: World, piece: Piece, ends: Ends) -> bool:
    used = clocks_of(piece.weight)
    if "lr" in used:
        world.report.error("P226", piece.span, "`lr` is for options of solvers only")
        return False
    if "k" in used and "k" not in ends.end:
        world.report.error("P226", piece.span, "there is no `k`: no `solve` of this spec has outer iterations")
        return False
    return True


def _merged(found: Iterable[Term]) -> list[Term]:
    """Equal functions with constant weights become one term."""
    out: list[Term] = []
    for term in found:
        at = next(
            (i for i, t in enumerate(out) if t.function == term.function and _constant(t) and _constant(term)), None
        )
        if at is None:
            out.append(term)
        else:
            out[at] = Term(out[at].weight + term.weight, term.function, out[at].span, out[at].text)
    return out


def _constant(term: Term) -> bool:
    return isinstance(term.weight, Fraction)


def _pulls_down(world: World, node: tree.Objective, term: Term, ends: Ends) -> bool:
    """A penalty must not reward what it measures: its coefficient is ≥ 0 when minimising, ≤ 0 when maximising."""
    if isinstance(term.function, Measured):
        return True
    sign = 1 if node.sense == "minimize" else -1
    try:
        values = weight_range(term.weight, ends)
    except NoValue as error:
        world.report.error("P227", term.span, f"this coefficient has no value: {error}")
        return False
    if all(sign * v >= 0 for v in values):
        return True
    what = "minimises" if node.sense == "minimize" else "maximises"
    rule = "≥ 0" if node.sense == "minimize" else "≤ 0"
    world.report.error(
        "P232", term.span, f"a spec that {what} needs the coefficient of `{term.function.name}` to be {rule}"
    )
    return False


def weight_range(weight: Fraction | Schedule, ends: Ends) -> tuple[Fraction, ...]:
    """The weight at the start and at the end of its clocks."""
    if isinstance(weight, Fraction):
        return (weight,)
    late = {"epoch": 0.0, "step": 0.0, **ends.end}
    return exactly(weight, {"epoch": 0.0, "step": 0.0, **ends.start}), exactly(weight, late)
