"""What tensors are made of, in words: lines for `explain`, and sets as a spec would write them.

first  fc1.weight  tensor train [[10, 28], [30, 28]], ranks ≤ 12 (13 440 of 235 200 numbers, …)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, cast

from prunelang.compiler.compositions import Made, agreed, largest, smallest
from prunelang.compiler.expense import Expense, evens, expense, groups_of
from prunelang.compiler.forms import Box, Codebook, Composition, Fixed, LowRank, Modes, Nuclear, Sparse, TensorTrain
from prunelang.compiler.plan import Plan
from prunelang.compiler.problem import Constraint, FactorCost, Interval, Named
from prunelang.compiler.schedule import number
from prunelang.compiler.trains import FREE_RANK, alternatives, contraction, order
from prunelang.dsl.numbers import grouped


def set_text(s: Named) -> str:
    """A set with its arguments resolved: ``low_rank(10)``, ``codebook(2) + sparse(2 662)``."""
    if s.name == "sum":
        return " + ".join(set_text(cast(Named, p)) for p in s.parts)
    a: Mapping[str, Any] = dict(s.arguments)
    match s.name:
        case "values" | "scaled":
            values = "{" + ", ".join(number(v) for v in a["values"]) + "}"
            return values if s.name == "values" else f"scaled({values})"
        case "tt":
            ranks = f"{_ranks(a['r'])}, " if "r" in a else ""
            return f"tt({ranks}modes = {modes_text(a['modes'])})"
    shown = ", ".join(grouped(v) if isinstance(v, int) else number(v) for v in a.values())
    return f"{s.name}({shown})"


def modes_text(modes: Modes) -> str:
    return "[" + ", ".join(f"[{m}, {n}]" for m, n in modes) + "]"


def _ranks(ranks: int | tuple[int, ...]) -> str:
    """One number where all are equal, else the list."""
    if isinstance(ranks, int):
        return str(ranks)
    return str(ranks[0]) if len(set(ranks)) == 1 else f"[{', '.join(map(str, ranks))}]"


# ── explain ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def explained(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """(label, tensors, what they are made of) of every composition, with the costs that its sizes decide.

    Rows without label say more of the composition above them: where it breaks even, and the other cuts where the
    compiler chose the modes.
    """
    budgets = [c for c in plan.problem.constraints if _is_budget(c)]
    priced = [t for t in plan.problem.objective.terms if isinstance(t.function, FactorCost)]
    for m in agreed(plan.problem.constraints, plan.table):
        c, label = m.composition, ", ".join(x.label for x in m.constraints)
        by = [b.label for b in budgets if _reaches(cast(FactorCost, b.function), c.tensors)]
        by += [f"the price of {t.function.name}" for t in priced if _reaches(cast(FactorCost, t.function), c.tensors)]
        groups = groups_of(c.tensors[0], plan.table)
        yield label, ", ".join(c.tensors), " + ".join(_form(c, i, groups, by) for i in range(len(c.forms)))
        yield from (("", "", line) for line in (*_evens(c, groups), *_alternatives(m)))


def _is_budget(c: Constraint) -> bool:
    return isinstance(c.function, FactorCost) and isinstance(c.set, Interval) and c.set.upper is not None


def _reaches(cost: FactorCost, tensors: tuple[str, ...]) -> bool:
    return any(e.tensor in tensors for e in cost.entries if e.form >= 0)


def _form(c: Composition, i: int, groups: int, by: list[str]) -> str:
    """One form: what it is, how large it may become and who chooses, and what it costs."""
    form, shape = c.forms[i], c.shapes[0]
    chosen = f" chosen by {', '.join(by)}" if by else ""
    match form:
        case LowRank(None):
            (least,), (most,) = smallest(c, i), largest(form, shape, c.size)
            each = expense(LowRank(1), shape, groups)
            assert each is not None
            return f"U V, rank {least} … {most}{chosen} ({_costs(each, ' a rank')})"
        case TensorTrain(modes, None):
            return f"tensor train {modes_text(modes)}, ranks{chosen}"
        case LowRank() | TensorTrain():
            found = expense(form, shape, groups)
            assert found is not None
            bound = f"rank ≤ {form.rank}" if isinstance(form, LowRank) else f"ranks ≤ {_ranks(form.ranks or ())}"
            what = "U V" if isinstance(form, LowRank) else f"tensor train {modes_text(form.modes)}"
            return f"{what}, {bound}{chosen} ({'at most ' if by else ''}{_costs(found)})"
        case Sparse(None):
            return f"sparse, entries{chosen}"
        case Sparse(int(count)):
            return f"sparse, {grouped(count)} entries at most{chosen}"
        case Codebook(size):
            return f"codebook of {size} values, {_bits(size)} a weight"
        case Fixed(values, scaled):
            return f"{len(values)} fixed values{' and a scale' if scaled else ''}, {_bits(len(values))} a weight"
        case Box(lo, hi):
            return f"box [{lo:g}, {hi:g}]"
        case Nuclear(radius):
            return f"nuclear norm ≤ {radius:g}"
    raise TypeError(f"{form} is no form")


def _costs(e: Expense, each: str = "") -> str:
    """``2 304 of 8 192 numbers, 18 432 of 8 192 multiply-adds a use``."""
    dense = grouped(e.dense)
    if e.numbers == e.operations:
        return f"{grouped(e.numbers)} of {dense} numbers and multiply-adds{each}"
    return f"{grouped(e.numbers)} of {dense} numbers, {grouped(e.operations)} of {dense} multiply-adds{each}"


def _bits(values: int) -> str:
    bits = max(1, (values - 1).bit_length())
    return f"{bits} bit{'' if bits == 1 else 's'}"


def _evens(c: Composition, groups: int) -> Iterator[str]:
    """Up to which rank factors save something, and in which order the cores of a train are contracted."""
    for form in c.forms:
        if not isinstance(form, TensorTrain) and not (isinstance(form, LowRank) and form.rank is not None):
            continue  # a rank that is chosen ends where it breaks even
        even = evens(form, c.shapes[0], groups)
        both = f"up to rank {even.parameters} in numbers and {even.macs} in multiply-adds"
        text = f"saves {both if even.parameters != even.macs else f'up to rank {even.macs}'}"
        if isinstance(form, TensorTrain):
            text += f"; cores meet the sample in the order {', '.join(str(k + 1) for k in order(form).order)}"
        yield text


def _alternatives(m: Made) -> Iterator[str]:
    """The other factorisations where the modes were left out, with the numbers that they store."""
    for i, form in enumerate(m.composition.forms):
        if not isinstance(form, TensorTrain) or not _was_chosen(m, i):
            continue
        shape = m.composition.shapes[0]
        asked = None if form.ranks is None else _asked(m.constraints[0], i)
        yield "modes chosen for the fewest numbers" + (f" at rank {FREE_RANK}:" if asked is None else ":")
        for a in alternatives(shape[0], prod(shape[1:]), asked):
            mark = "  ← taken" if a.modes == form.modes else ""
            macs = contraction(a.modes, a.ranks).macs(a.ranks)
            costs = f"{grouped(a.parameters)} numbers, {grouped(macs)} multiply-adds"
            yield f"  {len(a.modes)} cores {modes_text(a.modes)}: {costs} at ranks {_ranks(a.ranks)}{mark}"


def _set(c: Constraint, i: int) -> Mapping[str, Any]:
    """The arguments of the i-th form of a line, as options of its function or of its set."""
    if not isinstance(c.set, Named):
        return dict(getattr(c.function, "options", ()))
    return dict(cast(Named, c.set.parts[i]).arguments if c.set.parts else c.set.arguments)


def _was_chosen(m: Made, i: int) -> bool:
    return all("chosen" in _set(c, i) for c in m.constraints)


def _asked(c: Constraint, i: int) -> Any:
    """The ranks as the line writes them."""
    if isinstance(c.set, Interval):
        return None if c.set.upper is None else int(c.set.upper)
    return _set(c, i).get("r")
