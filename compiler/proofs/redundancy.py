"""Which lines can never bind, and which others imply them: a line is implied where its negation would conflict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from prunelang.compiler.problem import Blocks, Count, Interval, Kept, NofM
from prunelang.compiler.proofs.bounds import Range, System
from prunelang.compiler.proofs.conflicts import Evidence, reduce, stem
from prunelang.compiler.proofs.lines import Line, extremes, line_of

LONGEST = 20_000  # coefficients of a problem in which the implying lines are looked for among all others


@dataclass(frozen=True)
class Implied:
    """A line that can never bind: `by` none, the dense network or any weights satisfy it.

    `range` is what the lines `by` alone leave to its function; `alike` are further instances of the same ∀ line.
    """

    line: int
    by: tuple[int, ...]
    range: Range | None
    alike: tuple[str, ...] = ()


def never_binds(line: Line, r: Range, evidence: Evidence) -> bool:
    """Whether every point that the range allows satisfies the line."""
    match line.constraint.set:
        case NofM(n=n, m=m):
            return all(n >= min(m, evidence.table.tensor[t].matrix[1]) for t in line.below)
        case Blocks(rows=p, columns=q):
            return p == q == 1
        case Interval() | Kept():
            above = line.high is None or (r.upper is not None and r.upper <= line.high)
            below = line.low is None or (r.lower is not None and r.lower >= line.low)
            return above and below and not (line.high is None and line.low is None)
    return False


def implied(evidence: Evidence, system: System, ranges: dict[int, Range]) -> list[Implied]:
    """Every line that can never bind, latest first; of lines that imply each other one stays."""
    found: dict[int, Implied] = {}
    instances: dict[object, tuple[int, list[str]]] = {}
    by_index = {line.index: line for line in system.lines}
    for line in reversed(system.lines):
        if line.index not in ranges or not never_binds(line, ranges[line.index], evidence):
            continue
        if "[" in line.label and stem(line) in instances:
            instances[stem(line)][1].append(line.label)
            continue
        by: tuple[int, ...] | None = () if _alone(line, evidence) else _ancestor(line, system)
        if by is None and evidence.length <= LONGEST and not evidence.exhausted:
            by = _witness(evidence, line, system)
        if by is not None and any(line.index in found[i].by for i in by if i in found):
            continue
        reach = None if not by else evidence.system([by_index[i] for i in by], line).range(line)
        found[line.index] = Implied(line.index, by or (), reach or (None if by == () else ranges[line.index]))
        instances[stem(line)] = (line.index, [])
    told = {index: tuple(reversed(labels)) for index, labels in instances.values()}
    return [replace(x, alike=told.get(x.line, ())) for x in sorted(found.values(), key=lambda x: x.line)]


def _alone(line: Line, evidence: Evidence) -> bool:
    """Whether no other line is needed."""
    least, most = extremes(line, evidence.sizes)
    return never_binds(line, Range(least, most, False, ""), evidence)


def _ancestor(line: Line, system: System) -> tuple[int] | None:
    """One upper bound on a set around the line's tensors that suffices: found without looking at the rest."""
    if line.high is None or line.low is not None or line.above_constant is None or not line.above:
        return None
    if any(len(p) > 1 for p in line.above.values()):
        return None
    forest, leaves = system.forest, [system.forest.leaf[t] for t in line.above]
    slopes = sorted(((p[0][0], forest.size[forest.leaf[t]]) for t, p in line.above.items()), reverse=True)
    v = leaves[0]
    while v != -1:
        bound = forest.sharpest(v, "upper", line.index)
        if bound and all(_under(system, leaf, v) for leaf in leaves):
            value, room = line.above_constant, bound[0]
            for slope, size in slopes:
                value += slope * min(room, size)
                room -= min(room, size)
            if value <= line.high:
                return (bound[1],)
        v = forest.parent[v]
    return None


def _under(system: System, leaf: int, node: int) -> bool:
    while leaf not in (-1, node):
        leaf = system.forest.parent[leaf]
    return leaf == node


def _witness(evidence: Evidence, line: Line, system: System) -> tuple[int, ...] | None:
    """A minimal set of other lines that conflicts with the negation of the line."""
    others = [x for x in system.lines if x.index != line.index]
    found: set[int] = set()
    for negated in _negations(evidence, line):
        if not evidence.infeasible([*others, negated]):
            return None
        opposed = evidence.system([*others, negated])
        violation = next(opposed.violations())
        near = violation.candidates or opposed.around(violation.subject)
        by_index = {x.index: x for x in opposed.lines}
        members, minimal = reduce(evidence, by_index[violation.subject], [by_index[i] for i in near])
        if not minimal:
            return None
        found |= {m.index for m in members} - {line.index}
    return tuple(sorted(found))


def _negations(evidence: Evidence, line: Line) -> Iterator[Line]:
    """The line's opposite, one for each of its ends that something could break."""
    least, most = extremes(line, evidence.sizes)
    counted = line
    if isinstance(line.constraint.set, Kept):
        kept = Count("kept", dict.fromkeys(line.below, 1), 0, "")
        constraint = replace(line.constraint, function=kept, set=Interval())
        counted = line_of(line.index, constraint, evidence.table, evidence.frozen)
    if line.high is not None and (most is None or most > line.high):
        yield evidence.asking(counted, int(line.high) + 1, None)
    if line.low is not None and (least is None or least < line.low):
        yield evidence.asking(counted, None, int(line.low) - 1)


def room_left(ranges: dict[int, Range], lines: Sequence[Line], evidence: Evidence) -> Iterator[tuple[Line, Range]]:
    """Upper bounds on weighted costs that can bind though other lines already lower the greatest value."""
    for line in lines:
        r = ranges.get(line.index)
        if r is None or r.upper is None or line.high is None or "[" in line.label:
            continue
        if len({p[0][0] for p in line.above.values()}) < 2:
            continue
        most = extremes(line, evidence.sizes)[1]
        if most is not None and line.high < r.upper < most and line.constraint.dense:
            yield line, r
