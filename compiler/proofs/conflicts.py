"""Which lines cannot hold together: minimal sets of them, and the smallest change to each line that helps.

A set is minimal if dropping any line leaves a set that is not provably infeasible, with respect to the bounds of
`System`. Where the lines in a conflict ask for disjoint sets of positions, their least costs add up, and the heaviest
ones that suffice are a minimal set. Otherwise a minimal set is found by adding lines until the last one added breaks
the set, which makes that line necessary, and starting over from it: k·log n questions for k lines out of n.
Reference: U. Junker, QuickXplain (AAAI 2004).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from prunelang.compiler.problem import Interval, Kept, NofM
from prunelang.compiler.proofs.bounds import Range, System
from prunelang.compiler.proofs.lines import Line, Row, extremes, line_of
from prunelang.compiler.shapes import ShapeTable

EFFORT = 4  # how many times the whole problem may be looked at to make conflicts minimal,
LEAST_EFFORT = 200_000  # or this many coefficients, whatever is more; after that they are reported as they are
MOST_EXPLAINED = 8  # lines of one conflict whose smallest change is looked for
MOST_TRIED = 64  # tensors of a pin that are tried one by one


@dataclass(frozen=True)
class Change:
    """The smallest change of one line that helps: a new bound, fewer tensors, a looser pattern, or no line at all."""

    line: int
    relation: str = ""  # "≤" or "≥" where the bound changes
    to: int | None = None
    drop: tuple[str, ...] = ()  # tensors
    pattern: tuple[int, int] | None = None  # n_of_m


@dataclass(frozen=True)
class Conflict:
    """A minimal set of lines (the subject first, then in the order of the file) that cannot hold together.

    `range` is what the others leave to the subject; `terms` are kept positions and cost by tensor where that bound is
    a plain sum, else empty; `alike` are further instances of the same ∀ lines with the same fate.
    """

    lines: tuple[int, ...]
    range: Range
    terms: tuple[tuple[str, int, int], ...] = ()
    minimal: bool = True
    relaxed: bool = False
    changes: tuple[Change, ...] = ()
    alike: tuple[str, ...] = ()
    members: tuple[int, ...] = ()  # of a structural subject: what its groups keep at the corner that breaks it


@dataclass(frozen=True)
class Evidence:
    """Everything that proofs are made from."""

    lines: Sequence[Line]
    table: ShapeTable
    frozen: frozenset[str]
    spent: list[int] = field(default_factory=lambda: [0])  # coefficients looked at so far

    @cached_property
    def length(self) -> int:
        """Coefficients of all lines."""
        return sum(map(_length, self.lines))

    @property
    def exhausted(self) -> bool:
        """Whether looking for smaller conflicts has taken as long as it may."""
        return self.spent[0] > max(LEAST_EFFORT, EFFORT * self.length)

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        return {t.name: t.size for t in self.table.tensors}

    def asking(self, line: Line, low: int | None, high: int | None) -> Line:
        """The same line with other bounds."""
        constraint = replace(line.constraint, set=Interval(low, high))
        return line_of(line.index, constraint, self.table, self.frozen)

    def infeasible(self, chosen: Sequence[Line]) -> bool:
        system = self.system(chosen)
        broken = next(system.violations(), None) is not None
        self.spent[0] += sum(map(_length, chosen)) + system.forest.visits
        return broken

    def system(self, chosen: Sequence[Line], *asked: Line) -> System:
        """A system of a few lines that can be asked about `asked` too."""
        names = {t for line in (*chosen, *asked) for t in line.tensors()}
        return System(chosen, {t: self.sizes[t] for t in names})


def _length(line: Line) -> int:
    return 1 + sum(len(row.coefficients) for row in line.rows)


def stem(line: Line) -> tuple[object, str]:
    """What all instances of one ∀ line have in common."""
    return line.constraint.span, line.label.split("[")[0] if line.label.endswith("]") else line.label


def conflicts(evidence: Evidence, lines: Sequence[Line]) -> list[Conflict]:
    """Disjoint minimal conflicts until what is left is not provably infeasible; instances of ∀ are told once."""
    alone = {line.index: line for line in lines if any(row.torn for row in line.rows)}
    active = {line.index: line for line in lines if line.index not in alone}
    told: dict[tuple[object, ...], int] = {}
    found = [explain(evidence, [line], True) for line in alone.values()]
    alike: list[list[str]] = [[] for _ in found]
    while True:
        system = System(list(active.values()), evidence.sizes)
        gone: set[int] = set()
        for v in system.violations():
            near = v.candidates or system.around(v.subject)
            key = tuple(sorted({stem(active[i]) for i in near}, key=str))
            fresh = not gone.intersection(near)
            if v.candidates and key in told:
                labels = [active[i].label for i in near]
                alike[told[key]].append(next((x for x in labels if x.endswith("]")), labels[0]))
                gone.update([v.subject] if fresh else ())
            elif fresh:
                members, minimal = reduce(evidence, active[v.subject], [active[i] for i in near])
                told[key] = len(found)
                alike.append([])
                found.append(explain(evidence, members, minimal))
                gone.update(m.index for m in members)
        if not gone:
            return [replace(c, alike=tuple(dict.fromkeys(a))) for c, a in zip(found, alike, strict=True)]
        for i in gone:
            del active[i]


# ── minimal sets ─────────────────────────────────────────────────────────────────────────────────────────────────


def reduce(evidence: Evidence, subject: Line, near: Sequence[Line]) -> tuple[list[Line], bool]:
    """A minimal infeasible part of `near`, and whether it is known to be minimal."""
    weight = _weights(subject, near, evidence.sizes)
    others = sorted((x for x in near if x.index != subject.index), key=lambda x: -weight.get(x.index, 0))
    heavy = _heaviest(subject, others, weight, evidence)
    if heavy is not None:
        return [subject, *heavy], True
    necessary = _necessary([subject, *others], evidence)
    if evidence.exhausted:
        return necessary, False
    k = 0
    while k < len(necessary):  # left-over lines occur where sets cross: there a smaller set may prove more
        fewer = necessary[:k] + necessary[k + 1 :]
        necessary, k = (fewer, 0) if evidence.infeasible(fewer) else (necessary, k + 1)
    return necessary, True


def _necessary(lines: Sequence[Line], evidence: Evidence) -> list[Line]:
    """Lines that a conflict needs, each the last one of the shortest prefix that conflicts with those found before."""
    found: list[Line] = []
    rest = list(lines)
    while rest and not (found and evidence.infeasible(found)):
        if evidence.exhausted:
            return found + rest
        k = bisect_left(range(1, len(rest)), True, key=lambda n: evidence.infeasible(found + rest[:n]))
        found.append(rest[k])
        rest = rest[:k]
    return found


def _heaviest(
    subject: Line, others: Sequence[Line], weight: Mapping[int, int], evidence: Evidence
) -> list[Line] | None:
    """The fewest heaviest lines whose costs add up to more than the subject has room for, if they do add up."""
    room = _room(subject, evidence.sizes)
    if room is None:
        return None
    chosen: list[Line] = []
    for line in others:
        if room < 0:
            break
        if weight.get(line.index, 0) > 0:
            chosen.append(line)
            room -= weight[line.index]
    rows = [row for line in chosen for row in line.rows]
    apart = sum(len(r.coefficients) for r in rows) == len({t for r in rows for t in r.coefficients})
    plain = all(r.uniform for r in rows) and not any(line.per or line.concave for line in chosen)
    if room < 0 and chosen and apart and plain and evidence.infeasible([subject, *chosen]):
        return chosen
    return None


def _room(subject: Line, sizes: Mapping[str, int]) -> int | None:
    """What the subject leaves for others to ask: the bound less the corner value, or the corner less the bound."""
    if subject.per or subject.concave or subject.channels is not None or len(subject.rows) != 1:
        return None
    least, most = extremes(subject, sizes)
    if subject.high is not None and subject.low is None and least is not None:
        return int(subject.high) - least
    if subject.low is not None and subject.high is None and most is not None:
        return most - int(subject.low)
    return None


def _weights(subject: Line, near: Sequence[Line], sizes: Mapping[str, int]) -> dict[int, int]:
    """How much each other line alone lifts the least (lowers the greatest) value of the subject's function."""
    lifts = subject.high is not None
    cost = {t: p[0][0] for t, p in (subject.below if lifts else subject.above).items()}
    if lifts and subject.per:
        cost = dict.fromkeys(subject.per, 1)
    measure = _least_cost if lifts else _forgone
    return {x.index: sum(measure(r, cost, sizes) for r in x.rows) for x in near if x.index != subject.index}


def _least_cost(row: Row, cost: Mapping[str, int], sizes: Mapping[str, int]) -> int:
    """Least cost of a row's lower bound: cheapest positions first."""
    return 0 if row.lower is None else _filled(row.coefficients, cost, sizes, row.lower, cheapest=True)


def _forgone(row: Row, cost: Mapping[str, int], sizes: Mapping[str, int]) -> int:
    """What a row's upper bound takes from the greatest cost: dearest positions are kept first."""
    if row.upper is None:
        return 0
    everything = sum(cost.get(t, 0) * sizes[t] for t in row.coefficients)
    return everything - _filled(row.coefficients, cost, sizes, row.upper, cheapest=False)


def _filled(
    tensors: Iterable[str], cost: Mapping[str, int], sizes: Mapping[str, int], count: int, cheapest: bool
) -> int:
    total = 0
    for c, t in sorted(((cost.get(t, 0), t) for t in tensors), reverse=not cheapest):
        take = max(0, min(count, sizes[t]))
        total += c * take
        count -= take
    return total


# ── the arithmetic and the changes that help ─────────────────────────────────────────────────────────────────────


def explain(evidence: Evidence, members: Sequence[Line], minimal: bool) -> Conflict:
    """A conflict with its arithmetic: the subject is a line whose bound the others alone provably break."""
    for subject in members[: MOST_EXPLAINED if len(members) > MOST_EXPLAINED else None]:
        others = [x for x in members if x.index != subject.index]
        system = evidence.system(others, subject)
        if not system.forest.violated and not system.holds(subject):
            break
    else:
        subject, others = members[0], list(members[1:])
        system = evidence.system([], subject)
    ordered = [subject, *sorted(others, key=lambda x: x.index)]
    asked = ordered[:MOST_EXPLAINED] if minimal else ()
    result = system.range(subject)
    return Conflict(
        lines=tuple(x.index for x in ordered),
        range=result,
        terms=_terms(system, subject, result),
        minimal=minimal,
        relaxed=any(x.taints or not x.rows for x in ordered) or "relaxation" in result.why,
        changes=tuple(c for x in asked for c in smallest_changes(evidence, x, ordered)),
        members=() if subject.channels is None else system.fewest(subject),
    )


def _terms(system: System, subject: Line, result: Range) -> tuple[tuple[str, int, int], ...]:
    """(tensor, kept positions, cost of one) that add up to the bound; nothing where it is no such sum."""
    if subject.per or subject.concave:
        return ()
    upper = subject.high is not None and result.lower is not None and result.lower > subject.high
    pieces = subject.below if upper else subject.above
    if any(len(p) > 1 for p in pieces.values()):
        return ()
    sign = -1 if upper else 1
    signed = {t: ((sign * p[0][0], 0),) for t, p in pieces.items()}
    best = system.forest.maximise(signed, {}, (1, 0), subject.index, trace=True)
    terms = tuple((t, best.kept[t], p[0][0]) for t, p in pieces.items() if best.kept.get(t))
    constant = (subject.below_constant if upper else subject.above_constant) or 0
    return terms if sum(n * c for _, n, c in terms) + constant == (result.lower if upper else result.upper) else ()


def smallest_changes(evidence: Evidence, line: Line, conflict: Sequence[Line]) -> Iterator[Change]:
    """The least that has to be given up in one line so that the conflict is no longer provable."""
    others = [x for x in conflict if x.index != line.index]
    match line.constraint.set:
        case Interval():
            yield from _bounds(evidence, line, others)
        case Kept():
            yield Change(line.index, drop=_drop(evidence, line, others))
        case NofM(n=n, m=m):
            looser = range(n + 1, m)
            k = bisect_left(looser, True, key=lambda i: not evidence.infeasible([*others, _nm(evidence, line, i, m)]))
            yield Change(line.index, pattern=(looser[k], m) if k < len(looser) else None)
        case _:
            yield Change(line.index)


def _nm(evidence: Evidence, line: Line, n: int, m: int) -> Line:
    return line_of(line.index, replace(line.constraint, set=NofM(n, m)), evidence.table, evidence.frozen)


def _bounds(evidence: Evidence, line: Line, others: Sequence[Line]) -> Iterator[Change]:
    """The smallest upper bound, or the greatest lower bound, with which the lines are not provably infeasible."""
    least, most = extremes(line, evidence.sizes)
    low = None if line.low is None else int(line.low)
    high = None if line.high is None else int(line.high)
    reach = evidence.system(others, line).range(line) if others else None
    if high is not None and most is not None:
        tried = reach.lower if reach else least
        to = _turn(lambda b: not evidence.infeasible([*others, evidence.asking(line, low, b)]), high, tried, most)
        if to is not None:
            yield Change(line.index, "≤", to)
    if low is not None and least is not None:
        tried = reach.upper if reach else most
        guess = None if tried is None else -tried
        to = _turn(lambda b: not evidence.infeasible([*others, evidence.asking(line, -b, high)]), -low, guess, -least)
        if to is not None:
            yield Change(line.index, "≥", -to)


def _turn(works: Callable[[int], bool], fails: int, guess: int | None, end: int) -> int | None:
    """The least b in (fails, end] where a monotone test turns true, tried first at a guess that is nearly always it."""
    if guess is not None and fails < guess <= end and works(guess) and (guess - 1 == fails or not works(guess - 1)):
        return guess
    candidates = range(fails + 1, end + 1)
    k = bisect_left(candidates, True, key=works)
    return candidates[k] if k < len(candidates) else None


def _drop(evidence: Evidence, line: Line, others: Sequence[Line]) -> tuple[str, ...]:
    """The smallest tensor that a pin can do without, else the fewest of the largest; empty: the line as a whole."""
    pinned = sorted((r.lower or 0, t) for r in line.rows for t in r.coefficients)
    if len(pinned) < 2:
        return ()

    def helps(gone: Sequence[str]) -> bool:
        kept = replace(line, rows=tuple(r for r in line.rows if not set(r.coefficients) & set(gone)))
        return not evidence.infeasible([*others, kept])

    names = [t for _, t in pinned]
    for t in names if len(names) <= MOST_TRIED else names[-1:]:
        if helps([t]):
            return (t,)
    k = bisect_left(range(1, len(names)), True, key=lambda n: helps(names[-n:]))
    return tuple(reversed(names[-1 - k :])) if k < len(names) - 1 else ()
