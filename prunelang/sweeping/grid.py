"""What a sweep consists of: a run for every combination of values, every solver and every seed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from prunelang.dsl.names import canonical, to_unicode
from prunelang.runtime.files import digest

OWN = "spec"
"""Names the solver that the spec has itself."""
OPENING, CLOSING = "([{", ")]}"
UNSAFE = re.compile(r"[^A-Za-z0-9._=+-]+")


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: params by name in the order they were given, the solver as it was named, the seed."""

    values: tuple[tuple[str, str], ...]
    solver: str
    seed: int

    @property
    def parameters(self) -> dict[str, str]:
        return dict(self.values)

    @property
    def name(self) -> str:
        """``κ = 5%, lc, seed 0``"""
        return ", ".join((*self.point, self.solver, f"seed {self.seed}"))

    @property
    def point(self) -> tuple[str, ...]:
        return tuple(f"{to_unicode(name)} = {value}" for name, value in self.values)

    @property
    def folder(self) -> str:
        """A name for its run directory that every file system takes; of no other cell."""
        said = [*(f"{name}={value}" for name, value in self.values), self.solver, f"seed{self.seed}"]
        plain = [UNSAFE.sub("-", part.replace("%", "pct")).strip("-.") for part in said]
        exact = all(UNSAFE.search(part.replace("%", "pct")) is None and "pct" not in part for part in said)
        short = "_".join(plain)[:80]
        return short if exact and len("_".join(plain)) <= 80 else f"{short}_{digest(repr(said).encode())[:8]}"


@dataclass(frozen=True)
class Grid:
    """The values of each param, the solvers and the seeds, each in the order given."""

    values: tuple[tuple[str, tuple[str, ...]], ...]
    solvers: tuple[str, ...]
    seeds: tuple[int, ...]

    def points(self) -> Iterator[tuple[tuple[str, str], ...]]:
        """Every combination of values; the last param moves fastest."""
        names = [name for name, _ in self.values]
        for chosen in product(*(texts for _, texts in self.values)):
            yield tuple(zip(names, chosen, strict=True))

    def cells(self) -> Iterator[Cell]:
        """All runs: by combination of values, then by solver, then by seed."""
        for point in self.points():
            for solver in self.solvers:
                for seed in self.seeds:
                    yield Cell(point, solver, seed)

    def __len__(self) -> int:
        count = len(self.solvers) * len(self.seeds)
        for _, texts in self.values:
            count *= len(texts)
        return count


def grid_of(values: Mapping[str, Sequence[str]], solvers: Sequence[str] = (OWN,), seeds: Iterable[int] = (0,)) -> Grid:
    """The grid of these values, solvers and seeds. Errors: ValueError for what is empty or given twice."""
    named = [(canonical(name), tuple(t.strip() for t in texts)) for name, texts in values.items()]
    _require_once("params", [name for name, _ in named])
    for name, texts in named:
        _require_once(f"values of {to_unicode(name)}", texts)
    found = Grid(tuple(named), tuple(s.strip() for s in solvers), tuple(seeds))
    _require_once("solvers", found.solvers)
    _require_once("seeds", found.seeds)
    return found


def _require_once(what: str, items: Sequence[object]) -> None:
    if what != "params" and not items:
        raise ValueError(f"there are no {what}")
    if any(item == "" for item in items):
        raise ValueError(f"one of the {what} is empty")
    twice = next((item for i, item in enumerate(items) if item in items[:i]), None)
    if twice is not None:
        raise ValueError(f"{twice} stands twice among the {what}")


def listed(text: str) -> tuple[str, ...]:
    """``10%, 5%`` cut at its commas, except those inside brackets and quotes."""
    parts, depth, quoted = [""], 0, False
    for sign in text:
        quoted ^= sign == '"'
        if not quoted:
            depth += (sign in OPENING) - (sign in CLOSING)
        if sign == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += sign
    return tuple(part.strip() for part in parts)


def settings(given: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """``NAME=V1,V2,…`` of the command line. Errors: ValueError."""
    found: dict[str, tuple[str, ...]] = {}
    for item in given:
        name, sign, texts = item.partition("=")
        if not sign or not name.strip():
            raise ValueError(f"write NAME=VALUE,VALUE,…, not {item!r}")
        if canonical(name.strip()) in map(canonical, found):
            raise ValueError(f"{name.strip()} is given twice: put its values behind one --set")
        found[name.strip()] = listed(texts)
    return found
