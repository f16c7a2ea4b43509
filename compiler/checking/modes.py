"""Mode factorisations of a matrix: ``[[m1, n1], …]`` with ∏m = rows and ∏n = columns, and what to write instead."""

from __future__ import annotations

from math import prod

from prunelang.compiler.checking.arithmetic import as_fraction
from prunelang.compiler.checking.values import Amount, Items, Value, Wrong, kind_of
from prunelang.compiler.checking.world import Locals, World
from prunelang.dsl.tree import Expr

Modes = tuple[tuple[int, int], ...]
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
    """Whether the modes multiply to the matrix; reports with the nearest factorisation of as many cores if not."""
    m, n = prod(a for a, _ in modes), prod(b for _, b in modes)
    if (m, n) == (rows, columns):
        return True
    near = balanced(rows, columns, len(modes))
    fix = "[" + ", ".join(f"[{a}, {b}]" for a, b in near) + "]"
    wrong = [f"the first factors multiply to {m}, the matrix has {rows} rows"] if m != rows else []
    wrong += [f"the second factors multiply to {n}, the matrix has {columns} columns"] if n != columns else []
    world.report.error(
        "P224",
        node.span,
        f"the modes do not fit the {rows} × {columns} matrix",
        notes=tuple(wrong),
        hint=f"for example `{fix}`",
    )
    return False


def balanced(rows: int, columns: int, cores: int) -> Modes:
    """Factors of both dimensions over `cores`, as even as their primes allow, rows rising against columns falling."""
    a, b = _spread(rows, cores), _spread(columns, cores)
    return tuple(zip(sorted(a), sorted(b, reverse=True), strict=True))


def _spread(value: int, count: int) -> list[int]:
    """`value` as a product of `count` factors: its primes, largest first, each to the smallest factor so far."""
    factors = [1] * count
    for p in sorted(_primes(value), reverse=True):
        i = min(range(count), key=lambda j: factors[j])
        factors[i] *= p
    return factors


def _primes(value: int) -> list[int]:
    out: list[int] = []
    p = 2
    while p * p <= value:
        while value % p == 0:
            out.append(p)
            value //= p
        p += 1
    return out + ([value] if value > 1 else [])


def largest_tt_rank(modes: Modes) -> int:
    """The largest rank that any matrix of these modes can need: max_k min(∏_{i≤k} mᵢnᵢ, ∏_{i>k} mᵢnᵢ)."""
    sizes = [a * b for a, b in modes]
    return max((min(prod(sizes[:k]), prod(sizes[k:])) for k in range(1, len(sizes))), default=1)
