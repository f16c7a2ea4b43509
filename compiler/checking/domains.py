"""Membership: a set meets its tensors and becomes a set of the Problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import cast

from prunelang.compiler.checking.arithmetic import as_fraction
from prunelang.compiler.checking.binding import single
from prunelang.compiler.checking.modes import modes_fit, train
from prunelang.compiler.checking.values import (
    Amount,
    Combination,
    Domain,
    Items,
    Layers,
    Network,
    Tensors,
    Value,
    Wrong,
    kind_of,
)
from prunelang.compiler.checking.world import World
from prunelang.compiler.forms import Modes, even
from prunelang.compiler.problem import Blocks, Count, Entries, Function, Interval, Kept, Named, NofM, Set
from prunelang.dsl.spans import Span
from prunelang.dsl.tree import Call, Expr, Membership


@dataclass(frozen=True)
class Member:
    """``function ∈ set`` with what the report says of the bound."""

    function: Function
    set: Set
    dense: int | None = None


def membership(world: World, node: Membership, value: Value, domain: Value) -> Member | None:
    """The canonical form of ``E ∈ set``; None after reporting what is wrong."""
    if isinstance(value, Wrong) or isinstance(domain, Wrong) or world.selectors is None:
        return None
    if not isinstance(value, Tensors):
        _no_tensors(world, node, value)
        return None
    if value.start or value.moved:
        world.report.error("P207", node.value.span, "sets hold tensors themselves, not their values at the start")
        return None
    if not isinstance(domain, Domain):
        _no_set(world, node, domain)
        return None
    if _needs_one(domain) and not single(world, f"`{_name(domain)}`", node.value, value):
        return None
    return _member(world, domain, value, node.domain)


def _no_tensors(world: World, node: Membership, value: Value) -> None:
    if isinstance(value, (Layers, Network)):
        fix = f"{world.text(node.value)}.weights"
        world.report.error("P207", node.value.span, f"sets hold tensors, not {kind_of(value)}", fix=fix)
        return
    hint = "a function is compared: `E ≤ bound`" if isinstance(value, Combination) else None
    world.report.error("P207", node.value.span, f"sets hold tensors, not {kind_of(value)}", hint=hint)


def _no_set(world: World, node: Membership, domain: Value) -> None:
    fix = None
    text = world.text(node.domain)
    if isinstance(domain, Amount) and domain.unit in ("%", ""):
        fix = f"sparse({text})"
    elif isinstance(domain, Items) and len(domain.items) == 2:
        fix = f"box({', '.join(world.text(x) for x in domain.items)})"
    world.report.error("P207", node.domain.span, f"right of ∈ stands a set, not {kind_of(domain)}", fix=fix)


def _name(domain: Domain) -> str:
    if domain.signature is not None:
        return domain.signature.name
    return next(_name(p) for p in domain.parts if _needs_one(p))


def _needs_one(domain: Domain) -> bool:
    if domain.signature is None:
        return any(_needs_one(p) for p in domain.parts)
    return domain.signature.reach == "matrix"


def _member(world: World, domain: Domain, tensors: Tensors, node: Expr) -> Member | None:
    selectors = world.selectors
    assert selectors is not None
    if domain.signature is not None and domain.signature.name == "sparse" and dict(domain.values)["n"] is not None:
        size = selectors.size(tensors.names)
        n = _entries(world, dict(domain.values)["n"], size, node)
        coefficients = {t.name: 1 for t in selectors.get(tensors.names)}
        return None if n is None else Member(Count("norm0", coefficients, 0, ""), Interval(None, n), size)
    found = _set(world, domain, tensors, node)
    return None if found is None else Member(Entries(tensors.names), found)


def _entries(world: World, n: object, size: int, node: Expr) -> int | None:
    """The size argument of `sparse`: a percentage is rounded down, to the stricter side."""
    if isinstance(n, int):
        return n
    share = as_fraction(world, node, cast(Amount, n))
    return None if share is None else floor(share * size)


def _set(world: World, domain: Domain, tensors: Tensors, node: Expr) -> Set | None:
    if domain.signature is None:
        return _sum(world, domain, tensors, node)
    values = dict(domain.values)
    match domain.signature.name:
        case "dense":
            return Kept()
        case "n_of_m":
            return _n_of_m(world, values, domain.span)
        case "blocks":
            return Blocks(cast(int, values["rows"]), cast(int, values["columns"]))
        case "sparse":
            assert world.selectors is not None
            if values["n"] is None:
                return Named("sparse")
            n = _entries(world, values["n"], world.selectors.size(tensors.names), node)
            return None if n is None else Named("sparse", (("n", n),))
        case "low_rank" | "tt":
            return _ranked(world, domain.signature.name, values, tensors, domain.span, node)
        case "box":
            return _box(world, values, domain.span)
    return Named(domain.signature.name, tuple(values.items()))


def _n_of_m(world: World, values: Mapping[str, object], span: Span) -> Set | None:
    n, m = cast(int, values["n"]), cast(int, values["m"])
    if n <= m:
        return NofM(n, m)
    world.report.error("P223", span, f"{n} of every {m} entries cannot be non-zero", fix=f"n_of_m({m}, {n})")
    return None


def _box(world: World, values: Mapping[str, object], span: Span) -> Set | None:
    low, high = cast(Fraction, values["lo"]), cast(Fraction, values["hi"])
    if low <= high:
        return Named("box", (("lo", low), ("hi", high)))
    world.report.error("P223", span, "the lower end of the box lies above the upper", hint="exchange them")
    return None


def _ranked(
    world: World, name: str, values: Mapping[str, object], tensors: Tensors, span: Span, node: Expr
) -> Set | None:
    selectors = world.selectors
    assert selectors is not None
    (tensor,) = selectors.get(tensors.names)
    rows, columns = tensor.matrix
    if name == "tt":
        return _train(world, values, rows, columns, span, node)
    rank = cast(int | None, values["r"])
    if rank is not None and rank > min(rows, columns):
        message = f"a {rows} × {columns} matrix has rank at most {min(rows, columns)}"
        hint = f"factors store no more than the matrix up to rank {even((rows, columns))}"
        world.report.error("P223", span, message, hint=hint)
        return None
    return Named(name, () if rank is None else (("r", rank),))


def _train(world: World, values: Mapping[str, object], rows: int, columns: int, span: Span, node: Expr) -> Set | None:
    ranks, modes = cast("int | tuple[int, ...] | None", values["r"]), cast(Modes | None, values.get("modes"))
    where = next((a.value for a in node.arguments if a.name == "modes"), node) if isinstance(node, Call) else node
    if modes is not None and not modes_fit(world, where, modes, rows, columns):
        return None
    return train(world, span, ranks, modes, rows, columns)


def _sum(world: World, domain: Domain, tensors: Tensors, node: Expr) -> Set | None:
    parts: list[Set] = []
    for part in domain.parts:
        found = _set(world, part, tensors, node)
        if found is None:
            return None
        if isinstance(found, Kept):
            world.report.error(
                "P223",
                part.span if part.span.end else node.span,
                "every tensor is `dense` plus something: this sum says nothing",
            )
            return None
        if not isinstance(found, Named) or found.name == "box":
            message = f"`{_name(part)}` has no place in a sum: it bounds the tensor itself, not a part of it"
            hint = "a sum is of low_rank, tt, codebook, sparse, {…} and scaled({…})"
            world.report.error("P238", part.span if part.span.end else node.span, message, hint=hint)
            return None
        parts.append(found)
    return Named("sum", parts=tuple(parts))


def frozen_among(names: Iterable[str], frozen: frozenset[str]) -> list[str]:
    return [n for n in names if n in frozen]
