"""Budgets as exact functions of the kept items of sparsity levels, and as formulas in s with their derivatives.

    resources(problem, table, levels)      # one `Resource` for every upper bound on a cost that shapes decide
    expression(resource, levels)           # R(s) as a SymPy expression, k_l = n_l − s_l
    derivative(resource, levels, i)        # ∂R/∂s_i
    formulas(resource, levels)             # both, as people read them

Counts and bytes are affine in the entries kept, or the least of several affine forms where a tensor may be stored in
any format; operations and sizes of the remaining shapes are products of the members kept in neighbouring groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

from prunelang.compiler.channels import polynomial
from prunelang.compiler.graph import Items
from prunelang.compiler.graph.resource import Monomial, Resource, Ways
from prunelang.compiler.levels import budgets
from prunelang.compiler.problem import Choice, Constraint, Count, Interval, Problem, Structural
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl.numbers import grouped

if TYPE_CHECKING:
    import sympy

    from prunelang.compiler.plan import Plan, StagePlan

MOST_TERMS = 6  # of a formula that is shown
MOST_DERIVATIVES = 6


def resources(problem: Problem, table: ShapeTable, levels: Sequence[Items]) -> tuple[Resource, ...]:
    """The upper bounds of the problem as functions of the levels, in the order of its constraints.

    What no level holds costs what it costs in full, but for frozen tensors, which cost what they cost when the run
    starts. Raises ValueError where tensors of one level cost differently.
    """
    return tuple(resource(c, problem, table, levels) for c in budgets(problem))


def resource(c: Constraint, problem: Problem, table: ShapeTable, levels: Sequence[Items]) -> Resource:
    """One upper bound."""
    assert isinstance(c.set, Interval) and c.set.upper is not None
    choices: tuple[Ways, ...] = ()
    match c.function:
        case Count() as f:
            terms, constant = _count(f, problem, table, levels)
        case Choice() as f:
            choices, constant = _choice(f, problem, table, levels)
            terms = ()
        case Structural() as f:
            terms, constant = _structural(f, table, levels)
        case f:
            raise TypeError(f"`{f.name}` is no cost of kept items")
    measured = str(dict(getattr(f, "options", ())).get("measured", ""))
    made = Resource(c.label, f.name, terms, choices, constant, int(c.set.upper), 1, f.unit, measured)
    dense = made.value([level.size for level in levels])
    return Resource(c.label, f.name, terms, choices, constant, int(c.set.upper), dense, f.unit, measured)


def _entries(levels: Sequence[Items]) -> Iterator[tuple[int, Items]]:
    return ((i, level) for i, level in enumerate(levels) if not level.pieces)


def _count(f: Count, problem: Problem, table: ShapeTable, levels: Sequence[Items]) -> tuple[tuple[Monomial, ...], int]:
    terms: list[Monomial] = []
    held = set(f.coefficients) - problem.frozen
    for i, level in _entries(levels):
        costs = {f.coefficients.get(t, 0) for t in level.tensors}
        if len(costs) != 1:
            raise ValueError(f"`{f.name}` counts the tensors of level {level.name} differently")
        (cost,) = costs
        if cost:
            terms.append((cost, (i,)))
        held -= set(level.tensors)
    return tuple(terms), f.constant + sum(f.coefficients[t] * table.tensor[t].size for t in held)


def _choice(f: Choice, problem: Problem, table: ShapeTable, levels: Sequence[Items]) -> tuple[tuple[Ways, ...], int]:
    choices: list[Ways] = []
    held = set(f.alternatives) - problem.frozen
    for i, level in _entries(levels):
        counted = [t for t in level.tensors if t in f.alternatives]
        if counted and len(level.tensors) > 1:
            raise ValueError(f"`{f.name}` needs a level for each tensor, and {level.name} holds several")
        choices += [(i, f.alternatives[t]) for t in counted]
        held -= set(counted)
    full = (min(a * table.tensor[t].size + b for _, a, b in f.alternatives[t]) for t in held)
    return tuple(choices), f.constant + sum(full)


def _structural(f: Structural, table: ShapeTable, levels: Sequence[Items]) -> tuple[tuple[Monomial, ...], int]:
    at = {level.name: i for i, level in enumerate(levels) if level.pieces}
    cost = polynomial(f, table)
    cost = cost.holding(frozenset(g.name for g in cost.groups) - at.keys())
    places = [at[g.name] for g in cost.groups]
    return tuple((c, tuple(places[i] for i in of)) for c, of in cost.terms), cost.constant


# ── formulas ─────────────────────────────────────────────────────────────────────────────────────────────────────


def names(levels: Sequence[Items]) -> tuple[str, ...]:
    """``s`` where there is one level; else ``s_fc1`` after its tensor or group, numbered where it has several."""
    if len(levels) == 1:
        return ("s",)
    bare = [level.name if level.pieces else level.tensors[0].removesuffix(".weight") for level in levels]
    alone = [bool(level.pieces) or len(level.tensors) == 1 for level in levels]
    return tuple(
        f"s_{i + 1}" if not one else f"s_{short}" if bare.count(short) == 1 else f"s_{level.name}"
        for i, (level, short, one) in enumerate(zip(levels, bare, alone, strict=True))
    )


def symbols(levels: Sequence[Items]) -> tuple[sympy.Symbol, ...]:
    """s_l of every level: how many of its items go."""
    import sympy

    return tuple(sympy.Symbol(name, nonnegative=True) for name in names(levels))


def expression(r: Resource, levels: Sequence[Items]) -> sympy.Expr:
    """R(s), exact: integer coefficients, and a piecewise affine function where a tensor takes its cheapest format."""
    kept = [level.size - s for level, s in zip(levels, symbols(levels), strict=True)]
    return _in(r, levels, kept)


def derivative(r: Resource, levels: Sequence[Items], i: int) -> sympy.Expr:
    """∂R/∂s_i; where two formats cost the same, that of the one for fewer kept entries."""
    import sympy

    return sympy.diff(expression(r, levels), symbols(levels)[i])


def _in(r: Resource, levels: Sequence[Items], k: Sequence[Any]) -> sympy.Expr:
    """R with the symbols or expressions `k` for the kept items."""
    import sympy

    total = sympy.Integer(r.constant) + sum(c * prod(k[i] for i in at) for c, at in r.terms)
    for i, ways in r.choices:
        pieces = envelope(ways, levels[i].size)
        total += sympy.Piecewise(
            *((a * k[i] + b, k[i] <= sympy.Rational(end.numerator, end.denominator)) for (_, a, b), end in pieces[:-1]),
            (pieces[-1][0][1] * k[i] + pieces[-1][0][2], True),
        )
    return total


def envelope(ways: Iterable[tuple[str, int, int]], size: int) -> tuple[tuple[tuple[str, int, int], Fraction], ...]:
    """The cheapest of affine forms ``a·k + b`` on [0, size], each with the k up to which it is: a concave function."""
    ends = {Fraction(0), Fraction(size)}
    forms = tuple(ways)
    for _, a, b in forms:
        for _, c, d in forms:
            if a != c and 0 < Fraction(d - b, a - c) < size:
                ends.add(Fraction(d - b, a - c))
    pieces: list[tuple[tuple[str, int, int], Fraction]] = []
    for low, high in pairwise(sorted(ends)):
        middle = (low + high) / 2
        best = min(forms, key=lambda way: way[1] * middle + way[2])
        if pieces and pieces[-1][0] == best:
            pieces.pop()
        pieces.append((best, high))
    return tuple(pieces) or ((min(forms, key=lambda way: way[2]), Fraction(size)),)


def formulas(r: Resource, levels: Sequence[Items]) -> Iterator[str]:
    """``R(s) = …`` and ``∂R/∂s_l = …`` of every level that it depends on, as SymPy derives them."""
    import sympy

    k = sympy.symbols(f"k:{len(levels)}", nonnegative=True)
    shown = {x: f"({grouped(n.size)} − {name})" for x, n, name in zip(k, levels, names(levels), strict=True)}
    whole, found = _in(r, levels, k), r.levels()
    yield f"{r.label}  R(s) = {_sum(whole, shown)} ≤ {grouped(r.bound)} of {grouped(r.dense)} {r.unit}".rstrip()
    for i in found[:MOST_DERIVATIVES]:
        yield f"    ∂R/∂{names(levels)[i]} = {_sum(-sympy.diff(whole, k[i]), shown)}"
    if len(found) > MOST_DERIVATIVES:
        yield f"    … {len(found) - MOST_DERIVATIVES} more derivatives"


def _sum(expression: Any, kept: Mapping[Any, str]) -> str:
    """An expression in the kept items, each shown as ``(n − s)``; numbers last."""
    import sympy

    terms = sympy.Add.make_args(sympy.expand(expression))
    ordered = sorted(terms, key=lambda t: (t.is_number, sorted(str(x) for x in t.free_symbols)))
    texts = [_term(t, kept) for t in ordered]
    if len(texts) > MOST_TERMS:
        texts = [*texts[: MOST_TERMS - 1], f"… {len(texts) - MOST_TERMS + 1} more terms"]
    return _joined(texts)


def _joined(texts: Sequence[str]) -> str:
    return texts[0] + "".join(f" − {t[1:]}" if t.startswith("−") else f" + {t}" for t in texts[1:])


def _term(term: Any, kept: Mapping[Any, str]) -> str:
    """One summand: a number times kept items, or times what the cheapest format costs."""
    import sympy

    number, rest = term.as_coeff_Mul()
    if rest == 1:
        return _number(number)
    if isinstance(rest, sympy.Piecewise):
        text = "{" + "; ".join(f"{_sum_of(e, kept)}{_condition(c, kept)}" for e, c in rest.args) + "}"
    else:
        powers = sorted(rest.as_powers_dict().items(), key=lambda factor: str(factor[0]))
        text = "·".join(kept[x] + ("²" if p == 2 else "") for x, p in powers)
    return text if number == 1 else f"−{text}" if number == -1 else f"{_number(number)}·{text}"


def _sum_of(form: Any, kept: Mapping[Any, str]) -> str:
    return _joined([_term(t, kept) for t in sorted(form.as_ordered_terms(), key=lambda t: t.is_number)])


def _condition(condition: Any, kept: Mapping[Any, str]) -> str:
    import sympy

    return "" if condition == sympy.true else f" if {kept[condition.lhs]} ≤ {_number(condition.rhs)}"


def _number(value: Any) -> str:
    whole = grouped(abs(int(value))) if value == int(value) else f"{abs(float(value)):.6g}"
    return f"−{whole}" if value < 0 else whole


def explained(plan: Plan, stage: StagePlan) -> Iterator[str]:
    """Lines for `explain`: the budgets of a stage whose solver allocates by levels, as functions of these."""
    from prunelang.compiler.levels import levels
    from prunelang.compiler.runnability import solved_problem

    granularity = getattr(stage.solver, "granularity", None)
    if granularity is None:
        return
    problem = solved_problem(plan)
    bounded = budgets(problem)
    found = levels(problem, plan.table, tuple(c.function for c in bounded), granularity)
    if len(found) > 1:
        for name, level in zip(names(found), found, strict=True):
            if not level.pieces and len(level.tensors) > 1:
                yield f"level {name}: {', '.join(level.tensors)}"
    for r in resources(problem, plan.table, found):
        yield from formulas(r, found)
