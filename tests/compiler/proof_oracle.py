"""The obvious oracle for proofs: small random problems, and every mask of every tensor tried one after another."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from prunelang.compiler.problem import (
    Blocks,
    Choice,
    Constraint,
    Count,
    Entries,
    GroupCount,
    Interval,
    Kept,
    NofM,
    Objective,
    Problem,
    Structural,
)
from prunelang.compiler.shapes import Layer, ShapeTable, Tensor

OBJECTIVE = Objective("minimize", ())
Profile = tuple[Any, ...]


def table_of(shapes: Iterable[tuple[int, ...]], uses: Iterable[int]) -> ShapeTable:
    """A network of kernels ``a, b, c …`` without biases."""
    tensors = tuple(Tensor(f"{letter}.weight", s, "weight") for letter, s in zip("abcdefgh", shapes, strict=False))
    layers = tuple(Layer(t.name[0], "linear", t.name, None, u) for t, u in zip(tensors, uses, strict=True))
    return ShapeTable("toy()", (1,), layers, tensors)


def problem_of(*constraints: Constraint) -> Problem:
    return Problem(OBJECTIVE, constraints)


@dataclass(frozen=True)
class Oracle:
    """All values that the constraints of one problem take together, over all masks."""

    problem: Problem
    table: ShapeTable

    @cached_property
    def points(self) -> set[tuple[tuple[int, bool], ...]]:
        """For every mask of the whole network: the value of each constraint and whether it holds."""
        per_tensor = [
            {
                tuple(self._profile(c, t, mask) for c in self.problem.constraints)
                for mask in product((0, 1), repeat=t.size)
            }
            for t in self.table.tensors
        ]
        found = set()
        for combination in product(*per_tensor):
            found.add(
                tuple(self._total(c, parts) for c, *parts in zip(self.problem.constraints, *combination, strict=True))
            )
        return found

    def values(self, which: int, given: Iterable[int]) -> list[int]:
        """Values of one constraint at all points where the given ones hold."""
        chosen = list(given)
        return sorted({p[which][0] for p in self.points if all(p[g][1] for g in chosen)})

    def holds_everywhere(self, which: int, given: Iterable[int]) -> bool:
        chosen = list(given)
        return all(p[which][1] for p in self.points if all(p[g][1] for g in chosen))

    def feasible(self, given: Iterable[int]) -> bool:
        chosen = list(given)
        return any(all(p[g][1] for g in chosen) for p in self.points)

    def _profile(self, c: Constraint, t: Tensor, mask: tuple[int, ...]) -> tuple[int, bool]:
        """What one tensor adds to the function, and whether its own part of the set is met."""
        rows, columns = t.matrix
        grid = [mask[r * columns : (r + 1) * columns] for r in range(rows)]
        n, f = sum(mask), c.function
        match f:
            case Count():
                return f.coefficients.get(t.name, 0) * n, True
            case Choice():
                ways = f.alternatives.get(t.name)
                return (min(a * n + b for _, a, b in ways) if ways else 0), True
            case GroupCount():
                if t.name not in f.tensors:
                    return 0, True
                along = grid if f.by in {"filter", "row"} else list(zip(*grid, strict=True))
                return sum(map(any, along)), True
            case Structural():
                uses = sum(x.uses for x in self.table.layers if x.name in f.layers and x.weight == t.name)
                return uses * sum(map(any, grid)) * sum(map(any, zip(*grid, strict=True))), True
            case Entries():
                if t.name not in f.tensors:
                    return 0, True
                return n, _member(c.set, grid)
        raise AssertionError(f)

    def _total(self, c: Constraint, parts: list[tuple[int, bool]]) -> tuple[int, bool]:
        value = sum(v for v, _ in parts) + getattr(c.function, "constant", 0)
        held = all(ok for _, ok in parts)
        if isinstance(c.set, Interval):
            low, high = c.set.lower, c.set.upper
            held = held and (low is None or value >= low) and (high is None or value <= high)
        return value, held


def _member(s: Any, grid: list[tuple[int, ...]]) -> bool:
    columns = len(grid[0])
    match s:
        case Kept():
            return all(map(all, grid))
        case NofM(n=n, m=m):
            return all(sum(row[i : i + m]) <= n for row in grid for i in range(0, columns, m))
        case Blocks(rows=p, columns=q):
            corners = product(range(0, len(grid), p), range(0, columns, q))
            blocks = ([x for row in grid[r : r + p] for x in row[c : c + q]] for r, c in corners)
            return all(len(set(b)) == 1 for b in blocks)
    raise AssertionError(s)


# ── random problems ──────────────────────────────────────────────────────────────────────────────────────────────


def random_table(rng: random.Random) -> ShapeTable:
    shapes = [(1, 1), (1, 2), (2, 1), (1, 3), (1, 4), (2, 2), (4, 1)]
    k = rng.randint(1, 4)
    return table_of([rng.choice(shapes) for _ in range(k)], [rng.randint(1, 4) for _ in range(k)])


def random_interval(rng: random.Random, most: int) -> Interval:
    a, b = sorted((rng.randint(0, most), rng.randint(0, most)))
    return rng.choice([Interval(None, b), Interval(None, a), Interval(a, None), Interval(a, b)])


def laminar_family(rng: random.Random, names: list[str]) -> list[list[str]]:
    """Nested sets: the whole, random halves, single tensors."""
    if not names or rng.random() < 0.2:
        return []
    cut = rng.randint(0, len(names))
    halves = [names[:cut], names[cut:]] if 0 < cut < len(names) else []
    return [names, *(s for h in halves for s in laminar_family(rng, h))]


def random_constraint(rng: random.Random, kind: str, names: list[str], table: ShapeTable, label: str) -> Constraint:
    size = sum(table.tensor[n].size for n in names)
    make: dict[str, Callable[[], Constraint]] = {
        "count": lambda: _count(rng, label, dict.fromkeys(names, 2 if rng.random() < 0.3 else 1), size),
        "weighted": lambda: _count(rng, label, _uneven(rng, names), 3 * size, ends=1),
        "band": lambda: _count(rng, label, _uneven(rng, names), 3 * size, ends=2),
        "kept": lambda: Constraint(label, Entries(tuple(names)), Kept()),
        "n_of_m": lambda: Constraint(label, Entries(tuple(names)), rng.choice([NofM(1, 2), NofM(2, 3), NofM(1, 4)])),
        "blocks": lambda: Constraint(label, Entries(tuple(names)), Blocks(rng.randint(1, 2), rng.randint(1, 3))),
        "groups": lambda: Constraint(
            label,
            GroupCount("group_norm0", tuple(names), rng.choice(["filter", "column"])),
            random_interval(rng, 1 + len(names)),
        ),
        "macs": lambda: _macs(rng, label, names, table),
        "best": lambda: Constraint(
            label,
            Choice("bytes", {n: (("dense", 0, 12), ("csr", rng.randint(2, 6), 1)) for n in names}, rng.randint(0, 2)),
            random_interval(rng, 12 * len(names) + 2),
        ),
    }
    return make[kind]()


def _count(rng: random.Random, label: str, cost: dict[str, int], most: int, ends: int = 0) -> Constraint:
    interval = random_interval(rng, most)
    while ends and ends != (interval.lower is not None) + (interval.upper is not None):
        interval = random_interval(rng, most)
    return Constraint(label, Count("norm0", cost, rng.choice([0, 0, 1]), ""), interval)


def _uneven(rng: random.Random, names: list[str]) -> dict[str, int]:
    """Positive weights that are not all the same."""
    return {n: rng.randint(1, 3) + (3 if i == 0 else 0) for i, n in enumerate(names)}


def _macs(rng: random.Random, label: str, names: list[str], table: ShapeTable) -> Constraint:
    layers = [x for x in table.layers if x.weight in names]
    whole = sum(x.uses * table.tensor[x.weight].size for x in layers)
    f = Structural("macs", tuple(x.name for x in layers), whole, "MACs")
    return Constraint(label, f, Interval(None, rng.randint(0, whole)))


def random_problem(
    rng: random.Random, kinds: str = "", weighted: int = 0, crossing: bool = False
) -> tuple[Problem, ShapeTable]:
    """Counts over nested sets and pins, `weighted` costs, and constraints of further `kinds`."""
    table = random_table(rng)
    names = [t.name for t in table.tensors]
    rng.shuffle(names)
    sets = [("count", s) for s in laminar_family(rng, names)]
    sets += [(rng.choice(["kept", "count", "n_of_m"]), [n]) for n in names if rng.random() < 0.4]

    def some() -> list[str]:
        return rng.sample(names, rng.randint(1, len(names)))

    sets += [("weighted", some()) for _ in range(weighted)]
    sets += [("count", some()) for _ in range(2 if crossing else 0)]
    sets += [(kind, some()) for kind in kinds.split() if rng.random() < 0.6]
    rng.shuffle(sets)
    return problem_of(*(random_constraint(rng, k, s, table, f"c{i}") for i, (k, s) in enumerate(sets))), table
