"""What a set of lines proves: the least and the greatest value of each function given all the others.

Rows with one coefficient go into a `Forest`, where bounds are exact. Every other row a·n ≤ B (weighted costs, sets
that cross) is met one at a time by its Lagrangian dual, ``min over λ ≥ 0 of max over the forest of c·n − λ(a·n − B)``:
the linear-programming bound. It is exact, rounded down, for a plain count of a set nested in the forest, because the
least cost of s kept positions is convex in s with integer breakpoints. All arithmetic is in integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import gcd

from prunelang.compiler.problem import FactorCost, NofM
from prunelang.compiler.proofs.forest import Forest
from prunelang.compiler.proofs.lines import Line, Pieces, Row, at, minorant

MOST_ROWS = 8  # weighted rows tried per bound; more are sound to leave out, and keep proofs linear in the problem
LONG_ROW = 64  # rows of more tensors, and many more than the line asked about has, are met at their corner outside it
MOST_STEPS = 64  # pieces of the dual function looked at; any λ gives a sound bound


@dataclass(frozen=True, slots=True)
class Range:
    """All feasible values of a function lie in ``[lower, upper]``; None is no bound.

    `exact`: both ends are attained, unless lines about other parts of the network turn out to have no solution.
    """

    lower: int | None
    upper: int | None
    exact: bool
    why: str


@dataclass(frozen=True, slots=True)
class Violation:
    """Line `subject` cannot hold together with the other `candidates`; None: with some of those `around` it."""

    subject: int
    candidates: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class _Budget:
    """``a·n ≤ bound``; a row with a lower end gives one with negative coefficients."""

    source: int
    cost: Mapping[str, int]
    bound: int


@dataclass(frozen=True, slots=True)
class _End:
    """A bound on a maximum: its value, whether it is attained, and how many weighted rows it met."""

    value: int
    exact: bool


@dataclass
class System:
    """A set of lines, prepared to be asked for bounds. `sizes` has every tensor that a question may mention."""

    lines: Sequence[Line]
    sizes: Mapping[str, int]
    forest: Forest = field(init=False)

    def __post_init__(self) -> None:
        rows = [row for line in self.lines for row in line.rows]
        self.forest = Forest(self.sizes, (row for row in rows if row.uniform))
        self._corners: dict[int, int] = {}  # by the identity of a row's coefficients
        self._rows = [*(row for row in rows if not row.uniform), *self.forest.crossing]

    # ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────────

    def range(self, line: Line) -> Range:
        """The provable range of the function of `line` given all lines of the (feasible) system but this one."""
        if line.below_constant is None:
            return Range(None, None, False, "not a function of counts alone")
        if not line.tensors():
            ranked = isinstance(line.constraint.function, FactorCost)
            by = "ranks and counts" if ranked else "the values of the weights"
            return Range(line.below_constant, line.above_constant, False, f"decided by {by}")
        least, greatest = self._least(line), self._greatest(line)
        if line.channels is not None:
            corner = line.channels.cost.value(self.fewest(line))
            least = least if least.value >= corner else _End(corner, False)
        known = not line.per and line.below == line.above and line.below_constant == line.above_constant
        pure = self._pure(line)
        exact = known and pure and least.exact and greatest.exact
        return Range(least.value, greatest.value, exact, self._why(line, exact, known, pure))

    def _why(self, line: Line, exact: bool, known: bool, pure: bool) -> str:
        weighted = self._budgets(line.tensors(), line.index)
        if exact:
            return "exact: nested budgets" + (" and one weighted budget" if weighted else "")
        if not known:
            return "bound: the function is more than a count"
        return "bound: linear relaxation" if pure else "bound: another line says more than counts show"

    def _least(self, line: Line) -> _End:
        constant = line.below_constant or 0
        if len(line.below) == 1 and not line.per:
            pieces, end = next(iter(line.below.values())), self._maximum(_fewest(line.below), line.index)
            return _End(at(pieces, -end.value) + constant, end.exact)
        linear = minorant(line, self._box)
        end = self._maximum({t: ((-c, 0),) for t, c in linear.coefficients.items()}, line.index)
        value = -((end.value - linear.constant) // linear.scale)
        if line.per:
            boxes = {t: self.forest.interval(self.forest.leaf[t], line.index) for t in line.per}
            value = max(value, constant + sum(-(-boxes[t][0] // s) for t, s in line.per.items()))
        if line.concave:
            lows = {t: self._box(t)[0] for t in line.below}
            corner = self._maximum(_fewest(line.below), line.index)
            attained = corner.exact and -corner.value == sum(lows.values())
            return _End(value, attained and value == constant + sum(at(p, lows[t]) for t, p in line.below.items()))
        return _End(value, end.exact)

    def _greatest(self, line: Line) -> _End:
        end = self._maximum(line.above, line.index)
        if line.channels is not None:
            others = ((x.channels, x.high) for x in self.lines if x.index != line.index)
            return _End(line.channels.most([(c, int(b)) for c, b in others if c is not None and b is not None]), False)
        return _End(end.value + (line.above_constant or 0), end.exact)

    def fewest(self, line: Line) -> tuple[int, ...]:
        """Members of each group of a structural line that the positions kept by the other lines need."""
        assert line.channels is not None
        return line.channels.fewest(lambda t: self.forest.interval(self.forest.leaf[t], line.index)[0])

    def _maximum(self, value: Mapping[str, Pieces], exclude: int) -> _End:
        """A bound on ``max value(n)`` over the forest and every weighted row, line `exclude` left out."""
        budgets = self._budgets(value, exclude)
        best = _End(self.forest.maximise(value, {}, (1, 0), exclude).value, not budgets)
        for budget in budgets[:MOST_ROWS]:
            long = len(budget.cost) > max(LONG_ROW, 8 * len(value))
            end = self._outside(value, budget, exclude) if long else self._dual(value, budget, exclude)
            if end is not None and (end.value < best.value or (end.value == best.value and end.exact)):
                best = end
        if len(budgets) > 1:
            return _End(best.value, False)
        return best

    def _outside(self, value: Mapping[str, Pieces], budget: _Budget, exclude: int) -> _End | None:
        """The bound that is left of a long budget once all tensors not asked about take their least."""
        near = {t: budget.cost[t] for t in value if t in budget.cost}
        left = _Budget(budget.source, near, budget.bound - self._corner(budget.cost) + self._least_of(near))
        if len(value) > 1:
            return replace(self._dual(value, left, exclude), exact=False)
        if not near:
            return None
        (t, pieces), a = next(iter(value.items())), next(iter(near.values()))
        lo, hi = self.forest.interval(self.forest.leaf[t], exclude)
        rises = pieces[0][0] > 0 or len(pieces) > 1
        if rises == (a < 0):  # the row pushes the other way
            return None
        n = min(hi, left.bound // a) if a > 0 else max(lo, -(left.bound // -a))
        return _End(at(pieces, n), False) if lo <= n <= hi else None

    def _least_of(self, cost: Mapping[str, int]) -> int:
        """The least a·n over the boxes that tensors have by themselves."""
        lo, hi, leaf = self.forest.lo, self.forest.hi, self.forest.leaf
        return sum(a * (lo if a > 0 else hi)[leaf[t]] for t, a in cost.items())

    def _corner(self, cost: Mapping[str, int]) -> int:
        if id(cost) not in self._corners:
            self._corners[id(cost)] = self._least_of(cost)
        return self._corners[id(cost)]

    def _dual(self, value: Mapping[str, Pieces], budget: _Budget, exclude: int) -> _End:
        """``max value(n)`` subject to ``a·n ≤ B``: the dual function falls along lines ``C + λ(B − A)``.

        Two of them, one falling and one rising, are replaced by better ones where they meet until neither is.
        """

        def solve(p: int, q: int) -> tuple[int, int]:
            best = self.forest.maximise(value, budget.cost, (p, q), exclude)
            return best.value, best.cost

        B = budget.bound
        large_a = 1 + 2 * sum(abs(a) * self.sizes[t] for t, a in budget.cost.items())
        large_c = 1 + 2 * sum(max(abs(a) for a, _ in p) * self.sizes[t] for t, p in value.items())
        C0, A0 = solve(large_a, 1)  # λ → 0: the greatest value, at the least cost among equals
        if A0 <= B:
            return _End(C0, True)
        C1, A1 = solve(1, large_c)  # λ → ∞: the least cost
        if A1 > B:
            return _End(C0, False)  # the row itself cannot hold, which `violations` reports for its own line
        bound = C0
        for _ in range(MOST_STEPS):
            p, q = A0 - A1, C0 - C1
            C, A = solve(p, q)
            bound = min(bound, (p * C + q * (B - A)) // p)
            if p * C - q * A <= p * C0 - q * A0:
                break
            C0, A0, C1, A1 = (C, A, C1, A1) if A > B else (C0, A0, C, A)
        slopes = {p[0][0] for p in value.values()}
        linear = all(len(p) == 1 for p in value.values())
        step = gcd(*slopes) if linear else 1
        constant = sum(p[0][1] for p in value.values()) if linear else 0
        bound = (bound - constant) // step * step + constant if step else bound
        plain = linear and len(slopes) == 1 and self.forest.nests(value)
        return _End(bound, plain or bound == C1)

    def _box(self, tensor: str) -> tuple[int, int]:
        lo, hi = self._boxes
        leaf = self.forest.leaf[tensor]
        return lo[leaf], hi[leaf]

    @cached_property
    def _boxes(self) -> tuple[list[int], list[int]]:
        return self.forest.boxes()

    # ── weighted rows, by connected part of the problem ──────────────────────────────────────────────────────────

    @cached_property
    def _late(self) -> list[Row]:
        """Rows of functions that bend: a chord over [0, size], as tighter boxes would lean on the line asked about."""
        found = []
        for line in self.lines:
            if len(line.below) > 1 and line.concave and line.high is not None:
                chord = minorant(line, lambda t: (0, self.sizes[t]))
                upper = int(line.high) * chord.scale - chord.constant
                cost = {t: c for t, c in chord.coefficients.items() if c}
                if cost and sum(c * self.sizes[t] for t, c in cost.items()) > upper:
                    found.append(Row(line.index, cost, None, upper))
        return found

    @cached_property
    def _parts(self) -> dict[int, int]:
        """Root of a tree → name of the part of the problem that weighted rows tie it into."""
        part: dict[int, int] = {}

        def find(v: int) -> int:
            while part.setdefault(v, v) != v:
                part[v] = v = part[part[v]]
            return v

        for row in (*self._rows, *self._late):
            roots = {self.forest.root(self.forest.leaf[t]) for t in row.coefficients}
            first = find(next(iter(roots)))
            for r in roots:
                part[find(r)] = first
        return {v: find(v) for v in part}

    def _part(self, tensor: str) -> int:
        root = self.forest.root(self.forest.leaf[tensor])
        return self._parts.get(root, root)

    @cached_property
    def _weighted(self) -> dict[int, list[_Budget]]:
        found: dict[int, list[_Budget]] = {}
        for row in (*self._rows, *self._late):
            here = found.setdefault(self._part(next(iter(row.coefficients))), [])
            if row.upper is not None:
                here.append(_Budget(row.source, row.coefficients, row.upper))
            if row.lower is not None:
                here.append(_Budget(row.source, {t: -c for t, c in row.coefficients.items()}, -row.lower))
        return found

    def _budgets(self, tensors: Iterable[str], exclude: int) -> list[_Budget]:
        if not self._weighted:
            return []
        parts = dict.fromkeys(self._part(t) for t in tensors)
        return [b for p in parts for b in self._weighted.get(p, ()) if b.source != exclude]

    @cached_property
    def _tainted(self) -> dict[int, set[int]]:
        """Part → the lines that restrict its counts in ways their rows do not show."""
        found: dict[int, set[int]] = {}
        patterned: dict[str, int] = {}
        for line in self.lines:
            for t in line.taints:
                found.setdefault(self._part(t), set()).add(line.index)
            if isinstance(line.constraint.set, NofM):
                for t in line.below:
                    if patterned.setdefault(t, line.index) != line.index:  # two patterns on one tensor
                        found.setdefault(self._part(t), set()).update((line.index, patterned[t]))
        return found

    def _pure(self, line: Line) -> bool:
        if not self._tainted:
            return True
        return all(self._tainted.get(self._part(t), set()) <= {line.index} for t in line.tensors())

    # ── feasibility ──────────────────────────────────────────────────────────────────────────────────────────────

    def violations(self) -> Iterator[Violation]:
        """Lines that provably cannot hold together, of unrelated parts where there are several; none: not provable."""
        if self.forest.violated:
            for v in self.forest.violated:
                low, high = self.forest.deciding(v, "lower"), self.forest.deciding(v, "upper")
                own = self.forest.sharpest(v, "upper")
                subject = own[1] if own and high == [own[1]] else (self.forest.sharpest(v, "lower") or (0, low[0]))[1]
                yield Violation(subject, tuple(dict.fromkeys((subject, *low, *high))))
            return
        for row in self._rows:
            if row.torn:
                yield Violation(row.source, (row.source,))
        checked = {row.source for row in (*self._rows, *self._late)}
        for line in self.lines:
            bends = line.per or (line.concave and len(line.below) > 1)
            if (line.index in checked or bends or line.channels is not None) and not self.holds(line):
                yield Violation(line.index, None)

    def holds(self, line: Line) -> bool:
        """Whether some value in the provable range of a line meets what it asks."""
        r = self.range(line)
        too_high = line.high is not None and r.lower is not None and r.lower > line.high
        return not too_high and not (line.low is not None and r.upper is not None and r.upper < line.low)

    def around(self, index: int) -> tuple[int, ...]:
        """A line of the system first, then all that share its part of the problem."""
        found = [index]
        for part in dict.fromkeys(self._part(t) for t in self._by_index[index].tensors()):
            found += self._members.get(part, ())
        return tuple(dict.fromkeys(found))

    @cached_property
    def _by_index(self) -> dict[int, Line]:
        return {line.index: line for line in self.lines}

    @cached_property
    def _members(self) -> dict[int, list[int]]:
        """Part → the lines that bound something in it."""
        found: dict[int, list[int]] = {}
        for line in self.lines:
            late = line.below if line.concave else ()
            for part in dict.fromkeys(self._part(t) for t in (*late, *(t for r in line.rows for t in r.coefficients))):
                found.setdefault(part, []).append(line.index)
        return found


def _fewest(tensors: Iterable[str]) -> dict[str, Pieces]:
    """The value that is greatest where the fewest positions are kept."""
    return dict.fromkeys(tensors, ((-1, 0),))
