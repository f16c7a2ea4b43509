"""Mode factorisations of a matrix: ``[[m1, n1], …]`` with ∏m = rows and ∏n = columns, and what to write instead."""

from __future__ import annotations

from typing import cast

from prunelang.compiler.checking.arithmetic import as_fraction
from prunelang.compiler.checking.values import Amount, Items, Value, Wrong, kind_of
from prunelang.compiler.checking.world import Locals, World
from prunelang.compiler.forms import Modes
from prunelang.compiler.problem import Named
from prunelang.compiler.trains import balanced, choose_modes, full_ranks, matrix_of, nearest_modes
from prunelang.dsl.spans import Span
from prunelang.dsl.tree import Expr

WANTED = "modes are pairs of whole numbers, a row and a column factor each: [[m1, n1], [m2, n2], …]"


def read_modes(world: World, node: Expr, local: Locals) -> Modes | None:
    """The pairs; None after reporting what is none."""
    value = world.evaluate(node, local)
    if isinstance(value, Wrong):
        return None
    if not isinstance(value, Items) or not value.items:
        world.report.error("P207", node.span, f"{WANTED}; here is {kind_of(value)}")
        return None
    pairs: list[tuple[int, int]] = []
    for item in value.items:
        inner = world.evaluate(item, local)
        if isinstance(inner, Wrong):
            return None
        if not isinstance(inner, Items) or len(inner.items) != 2:
            world.report.error("P207", item.span, WANTED)
            return None
        factors = [_factor(world, x, world.evaluate(x, local)) for x in inner.items]
        if factors[0] is None or factors[1] is None:
            return None
        pairs.append((factors[0], factors[1]))
    return tuple(pairs)


def _factor(world: World, node: Expr, value: Value) -> int | None:
    if isinstance(value, Wrong):
        return None
    if isinstance(value, Amount) and value.unit == "":
        number = as_fraction(world, node, value)
        if number is None:
            return None
        if number.denominator == 1 and number >= 1:
            return int(number)
    world.report.error("P223", node.span, "a mode is a whole number ≥ 1")
    return None


def modes_fit(world: World, node: Expr, modes: Modes, rows: int, columns: int) -> bool:
    """Whether the modes multiply to the matrix; reports with factorisations that do if not, the nearest first."""
    m, n = matrix_of(modes)
    if (m, n) == (rows, columns):
        if len(modes) > 1:
            return True
        message = "a tensor train has two cores or more"
        world.report.error("P224", node.span, message, hint=f"for example {_shown(choose_modes(rows, columns))}")
        return False
    wrong = [f"the first factors multiply to {m}, the matrix has {rows} rows"] if m != rows else []
    wrong += [f"the second factors multiply to {n}, the matrix has {columns} columns"] if n != columns else []
    world.report.error(
        "P224",
        node.span,
        f"the modes do not fit the {rows} × {columns} matrix",
        notes=tuple(wrong),
        hint=f"for example {' or '.join(map(_shown, suggestions(modes, rows, columns)))}",
    )
    return False


def suggestions(modes: Modes, rows: int, columns: int) -> tuple[Modes, ...]:
    """The factorisation nearest to `modes`, the balanced one of as many cores, and the one with the fewest numbers."""
    near = (nearest_modes(modes, rows, columns), balanced(rows, columns, len(modes)), choose_modes(rows, columns))
    return tuple(dict.fromkeys(cut for cut in near if len(cut) > 1))


def _shown(modes: Modes) -> str:
    return "`[" + ", ".join(f"[{a}, {b}]" for a, b in modes) + "]`"


def train(
    world: World, span: Span, ranks: int | tuple[int, ...] | None, modes: Modes | None, rows: int, columns: int
) -> Named | None:
    """The set of tensor trains, with modes chosen where none are given; None after reporting ranks that do not fit."""
    try:
        given = choose_modes(rows, columns, ranks) if modes is None else modes
    except ValueError:
        cores = len(cast("tuple[int, ...]", ranks)) + 1
        world.report.error("P237", span, f"a {rows} × {columns} matrix cannot be cut into {cores} cores")
        return None
    bonds = len(given) - 1
    if isinstance(ranks, tuple) and len(ranks) != bonds:
        message = f"{len(given)} cores have {bonds} inner rank{'' if bonds == 1 else 's'}, not {len(ranks)}"
        world.report.error("P237", span, message, hint="give one for each bond, or one number for all of them")
        return None
    size = () if ranks is None else (("r", ranks),)
    chosen = (("chosen", True),) if modes is None else ()
    return Named("tt", (*size, ("modes", given), *chosen))


def largest_tt_rank(modes: Modes) -> int:
    """The largest rank that any matrix of these modes can need: max_k min(∏_{i≤k} mᵢnᵢ, ∏_{i>k} mᵢnᵢ)."""
    return max(full_ranks(modes), default=1)
