"""The structural constraints of a problem as a product of independent parts, each with a projection.

Two constraints that share a trained tensor belong to one part. A part is projected exactly or with a certified gap, or
is refused here, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prunelang.compiler.channels import pinned_groups, polynomial, trained
from prunelang.compiler.composed import composed_parts
from prunelang.compiler.compositions import Clash
from prunelang.compiler.description import is_coded
from prunelang.compiler.graph import Feasible, Part
from prunelang.compiler.joint import (
    BlockBound,
    Bound,
    ChannelBound,
    ChannelGroup,
    ChoiceBound,
    CountBound,
    GroupBound,
    NofMBound,
    Pinned,
    check_laminar,
    exactness,
    to_json,
)
from prunelang.compiler.problem import (
    Blocks,
    Choice,
    Constraint,
    Count,
    Entries,
    FactorCost,
    GroupCount,
    Interval,
    Kept,
    NofM,
    Problem,
    Structural,
    VectorNorm,
    tensors_of,
)
from prunelang.compiler.shapes import Channels, ShapeTable
from prunelang.compiler.wording import shown


class NoProjection(Exception):
    """Constraints on shared tensors whose intersection has no projection here; names them and says why."""

    def __init__(self, constraints: tuple[Constraint, ...], reason: str) -> None:
        super().__init__(f"{', '.join(f'`{c.label}`' for c in constraints)}: {reason}")
        self.constraints = constraints
        self.reason = reason


def feasible_set(problem: Problem, table: ShapeTable) -> Feasible:
    """The parts, in the order of their first constraint. Raises `NoProjection`."""
    structural = [c for c in problem.constraints if c.structural and not is_coded(c)]
    try:
        composed = composed_parts(structural, problem, table)
    except Clash as error:
        raise NoProjection(error.constraints, error.reason) from error
    taken = {label for part in composed for label in part.labels}
    left = [c for c in structural if c.label not in taken and not isinstance(c.function, FactorCost)]
    parts = (_part(members, problem, table) for members in _components(left, problem.frozen))
    place = {c.label: i for i, c in enumerate(structural)}
    found = [*composed, *(p for p in parts if p is not None)]
    return Feasible(tuple(sorted(found, key=lambda p: min(place[label] for label in p.labels))))


def _components(constraints: list[Constraint], frozen: frozenset[str]) -> list[tuple[Constraint, ...]]:
    """Constraints joined by shared trained tensors (union-find over tensors)."""
    parent: dict[str, str] = {}

    def root(t: str) -> str:
        while parent.setdefault(t, t) != t:
            parent[t] = parent[parent[t]]
            t = parent[t]
        return t

    for c in constraints:
        first, *others = [t for t in tensors_of(c.function) if t not in frozen] or [""]
        for t in others:
            parent[root(t)] = root(first)
    groups: dict[str, list[Constraint]] = {}
    for c in constraints:
        trained = [t for t in tensors_of(c.function) if t not in frozen]
        if trained:
            groups.setdefault(root(trained[0]), []).append(c)
    return [tuple(g) for g in groups.values()]


def _part(members: tuple[Constraint, ...], problem: Problem, table: ShapeTable) -> Part | None:
    named = {t for c in members for t in tensors_of(c.function)} - problem.frozen
    tensors = tuple(t.name for t in table.tensors if t.name in named)
    try:
        held = pinned_groups(problem, table)
        bounds = (*(b for c in members for b in _bounds(c)), *_channel_bounds(members, held, table))
        check_laminar(bounds)
    except ValueError as error:  # a bound that cannot be stated, or two that cross
        raise NoProjection(members, str(error)) from error
    balls = [(c, *ball) for c in members for ball in _balls(c)]
    if not bounds and not balls:
        raise NoProjection(members, "no projection is known for this kind of constraint")
    if all(isinstance(b, Pinned) for b in bounds) and not balls:
        return None  # nothing to project: every position is kept
    if balls:
        _check_balls(members, [c for c, _, _ in balls], bounds, tensors)
    return Part(
        tensors=tensors,
        labels=tuple(c.label for c in members),
        text=", ".join(shown(c) for c in members),
        bounds=_frozen(to_json(bounds)),
        balls=tuple((name, radius) for _, name, radius in balls),
        exactness=exactness(bounds),
        keeps="project each step" if balls else "support",
    )


def _bounds(c: Constraint) -> Iterator[Bound]:
    """The count constraints that `c` states."""
    match c.function, c.set:
        case Count() as f, Interval(lower, upper):
            low, high = (None if b is None else int(b) for b in (lower, upper))
            measured = str(dict(f.options).get("measured", ""))
            yield CountBound(c.label, dict(f.coefficients), f.constant, low, high, measured)
        case Choice() as f, Interval(_, upper) if upper is not None:
            yield ChoiceBound(c.label, dict(f.alternatives), int(upper), f.constant)
        case GroupCount() as f, Interval(_, upper) if upper is not None:
            yield GroupBound(c.label, f.tensors, f.by, int(upper))
        case Entries(tensors=tensors), NofM(n, m):
            yield NofMBound(c.label, tensors, n, m)
        case Entries(tensors=tensors), Blocks(rows, columns):
            yield BlockBound(c.label, tensors, rows, columns)
        case Entries(tensors=tensors), Kept():
            yield Pinned(c.label, tensors)


def _channel_bounds(members: tuple[Constraint, ...], held: frozenset[str], table: ShapeTable) -> Iterator[ChannelBound]:
    """Structural budgets over the groups whose members may go: those that own a pinned tensor keep all."""
    for c in members:
        if not isinstance(c.function, Structural) or not isinstance(c.set, Interval) or c.set.upper is None:
            continue
        cost = polynomial(c.function, table).holding(held)
        yield ChannelBound(
            c.label, tuple(_group(g, table) for g in cost.groups), cost.terms, int(c.set.upper), cost.constant
        )


def _group(group: Channels, table: ShapeTable) -> ChannelGroup:
    """A coupling group in the tensors that are trained, each by its first name and each place once."""
    own = trained(group, table)
    places = ((table.tensor[s.tensor].name, s.dim, s.start, s.repeat) for s in group.slices)
    return ChannelGroup(group.name, group.size, tuple(dict.fromkeys(p for p in places if p[0] in own)))


def _frozen(value: Any) -> Any:
    """Lists as tuples all the way down, so that a part equals its copy read back from JSON."""
    if isinstance(value, Mapping):
        return {k: _frozen(v) for k, v in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _balls(c: Constraint) -> Iterator[tuple[str, float]]:
    """The norm ball that `c` states: ‖·‖_p ≤ radius (of ‖·‖₂² ≤ κ the radius is √κ, applied to the square)."""
    match c.function, c.set:
        case VectorNorm(name=name, power=power), Interval(_, upper) if upper is not None:
            yield (f"{name}_squared" if power == 2 else name), float(upper)


def _check_balls(
    members: tuple[Constraint, ...], owners: list[Constraint], bounds: tuple[Bound, ...], tensors: tuple[str, ...]
) -> None:
    """One ball, alone or with one plain count over the same tensors: then keeping the largest κ and projecting those
    onto the ball is exact, since both sets are invariant under signs and permutations (Beck & Hallak 2016)."""
    if len(owners) > 1:
        raise NoProjection(members, "several norm balls on shared tensors have no closed projection")
    if not set(tensors_of(owners[0].function)) <= set(tensors):
        raise NoProjection(members, "a norm of frozen tensors cannot be projected")
    if not bounds:
        return
    counts = [b for b in bounds if isinstance(b, CountBound)]
    plain = len(bounds) == len(counts) == 1 and set(counts[0].coefficients.values()) == {1} and counts[0].lower is None
    same = plain and set(counts[0].coefficients) == set(tensors) == set(tensors_of(owners[0].function))
    if not same:
        raise NoProjection(
            members, "a norm ball is projected together with one plain ‖·‖₀ bound over the same tensors only"
        )
