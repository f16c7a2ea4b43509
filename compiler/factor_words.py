"""What tensors are made of, in words: lines for `explain`, and sets as a spec would write them.

first  fc1.weight  tensor train [[10, 28], [30, 28]], ranks ≤ 12: 13 440 of 235 200 numbers …
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, cast

from prunelang.compiler.compositions import Made, agreed, order
from prunelang.compiler.forms import Box, Codebook, Fixed, Form, LowRank, Modes, Nuclear, Sparse, TensorTrain, even
from prunelang.compiler.plan import Plan
from prunelang.compiler.problem import Constraint, FactorCost, Interval, Named
from prunelang.compiler.schedule import number
from prunelang.compiler.trains import FREE_RANK, alternatives, contraction, evaluate, storage
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

    Where the compiler chose modes, a row for each alternative follows, without label.
    """
    budgets = [c for c in plan.problem.constraints if _is_budget(c)]
    priced = [t for t in plan.problem.objective.terms if isinstance(t.function, FactorCost)]
    for m in agreed(plan.problem.constraints, plan.table):
        c = m.composition
        by = [b.label for b in budgets if _reaches(cast(FactorCost, b.function), c.tensors)]
        by += [f"the price of {t.function.name}" for t in priced if _reaches(cast(FactorCost, t.function), c.tensors)]
        label = ", ".join(x.label for x in m.constraints)
        kinds = " + ".join(_form(f, c.shapes[0], by) for f in c.forms)
        yield label, ", ".join(c.tensors), kinds
        yield from (("", "", line) for line in _alternatives(m))


def _is_budget(c: Constraint) -> bool:
    return isinstance(c.function, FactorCost) and isinstance(c.set, Interval) and c.set.upper is not None


def _reaches(cost: FactorCost, tensors: tuple[str, ...]) -> bool:
    return any(e.tensor in tensors for e in cost.entries if e.form >= 0)


def _form(form: Form, shape: tuple[int, ...], by: list[str]) -> str:
    rows, columns = shape[0], prod(shape[1:])
    under = f" under {', '.join(by)}" if by else ""
    match form:
        case LowRank(rank):
            if rank is None:
                numbers = f"r(m + n) = {grouped(rows + columns)}·r numbers of {grouped(rows * columns)}"
                return f"low rank, {numbers}, r ≤ {even(shape)} where it breaks even{_by(by)}"
            size = f"{grouped(rank * (rows + columns))} of {grouped(rows * columns)} numbers"
            return f"low rank, r ≤ {rank}{under}: {size}"
        case TensorTrain(modes, ranks):
            at = order(form)
            absorbed = f"cores absorbed in the order {', '.join(str(k + 1) for k in at.order)}"
            if ranks is None:
                return f"tensor train {modes_text(modes)}, ranks no dearer than the matrix{_by(by)}, {absorbed}"
            numbers = f"{grouped(evaluate(storage(modes), ranks))} of {grouped(rows * columns)} numbers"
            operations = f"{grouped(at.macs(ranks))} of {grouped(rows * columns)} multiply-adds a use"
            return (
                f"tensor train {modes_text(modes)}, ranks ≤ {_ranks(ranks)}{under}: {numbers}, {operations}, {absorbed}"
            )
        case Sparse(count):
            return f"sparse, entries{_by(by).removeprefix(',')}" if count is None else f"sparse, {grouped(count)} entries at most{under}"
        case Codebook(size):
            bits = max(1, (size - 1).bit_length())
            return f"codebook of {size} values, {bits} bit{'' if bits == 1 else 's'} a weight"
        case Fixed(values, scaled):
            return f"{len(values)} fixed values" + (" and a scale" if scaled else "")
        case Box(lo, hi):
            return f"box [{lo:g}, {hi:g}]"
        case Nuclear(radius):
            return f"nuclear norm ≤ {radius:g}"


def _by(labels: list[str]) -> str:
    return f", chosen by {', '.join(labels)}" if labels else ""


def _alternatives(m: Made) -> Iterator[str]:
    """The other factorisations where the modes were left out, with the numbers that they store."""
    for i, form in enumerate(m.composition.forms):
        if not isinstance(form, TensorTrain) or not _was_chosen(m, i):
            continue
        shape = m.composition.shapes[0]
        asked = None if form.ranks is None else _asked(m.constraints[0], i)
        yield "modes chosen for the fewest numbers" + (f", compared at rank {FREE_RANK}:" if asked is None else ":")
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
