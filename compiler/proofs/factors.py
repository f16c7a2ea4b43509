"""Proofs about budgets over factored tensors: what they cost at the smallest and at the largest ranks.

Costs grow with every rank and count, so that the corners of their box bound them exactly. P310 where the smallest
sizes cost too much, with rank 1 in every matrix, P240 where a bound on ranks saves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod

from prunelang.compiler.compositions import Made, agreed, largest, smallest
from prunelang.compiler.expense import evens, expense, groups_of
from prunelang.compiler.factor_words import modes_text
from prunelang.compiler.forms import Codebook, Fixed, Form, LowRank, TensorTrain
from prunelang.compiler.problem import Constraint, FactorCost, FactorTerm, Interval, MatrixFunction, Problem
from prunelang.compiler.proofs import words
from prunelang.compiler.proofs.conflicts import Change, Evidence
from prunelang.compiler.proofs.lines import Line
from prunelang.compiler.shapes import ShapeTable
from prunelang.compiler.trains import alternatives, full_ranks
from prunelang.dsl.diagnostics import Diagnostic, Label

OPERATIONS = ("macs", "flops")  # costs of what is computed; the others are of what is stored


def settled(lines: Iterable[Line], table: ShapeTable) -> list[Line]:
    """The lines with the ends of factor costs: below at the smallest sizes, above at the largest."""
    found = list(lines)
    made_of = owners(agreed((x.constraint for x in found), table))
    return [_ends(x, made_of, table) if isinstance(x.constraint.function, FactorCost) else x for x in found]


def owners(made: Iterable[Made]) -> dict[str, Made]:
    return {t: m for m in made for t in m.composition.tensors}


def _ends(line: Line, made_of: Mapping[str, Made], table: ShapeTable) -> Line:
    f = line.constraint.function
    assert isinstance(f, FactorCost)
    ends = line.constraint.set
    return replace(
        line,
        low=ends.lower if isinstance(ends, Interval) else None,
        high=ends.upper if isinstance(ends, Interval) else None,
        below_constant=f.constant + sum(_least(e, made_of) for e in f.entries),
        above_constant=f.constant + sum(_most(e, made_of, table) for e in f.entries),
    )


def _least(e: FactorTerm, made_of: Mapping[str, Made]) -> int:
    return e.value((0,)) if e.form < 0 else e.value(smallest(made_of[e.tensor].composition, e.form))


def _most(e: FactorTerm, made_of: Mapping[str, Made], table: ShapeTable) -> int:
    tensor = table.tensor[e.tensor]
    if e.form < 0:
        return e.value((tensor.size,))
    return e.value(largest(made_of[e.tensor].composition.forms[e.form], tensor.shape, tensor.size))


# ── bounds that cannot hold ─────────────────────────────────────────────────────────────────────────────────────────


def impossible(line: Line, evidence: Evidence) -> Diagnostic | None:
    """P310 for a budget that the smallest ranks break, with the lines that ask for factors that cost something."""
    f, least = line.constraint.function, line.below_constant
    if not isinstance(f, FactorCost) or line.high is None or least is None or least <= line.high:
        return None
    made_of = owners(agreed((x.constraint for x in evidence.lines), evidence.table))
    paid = [(e, _least(e, made_of)) for e in f.entries]
    lines = _asking([made_of[e.tensor] for e, cost in paid if cost and e.form >= 0], line.constraint)
    text, data = words.change(Change(line.index, "≤", least), line, line.constraint.dense)
    coded = any(isinstance(form, Codebook | Fixed) for m in made_of.values() for form in m.composition.forms)
    rest = "all else, codes included" if coded else "all else"
    total = _sum([(e, v) for e, v in paid if v], f.constant, rest, made_of)
    result = f"{total} = {words.number(least)}" if "+" in total else total
    ranked = any(e.form >= 0 for e, _ in paid)
    even = "at the smallest ranks" if ranked else "with every weight removed that has no code"
    proof = f"{f.name} ≥ {result} > {words.amount(line.high, f.unit)} even {even}"
    together = f"{words.listed([line.label, *(c.label for c in lines)])} cannot hold together"
    return Diagnostic(
        code="P310",
        severity="error",
        message=together if lines else f"`{line.label}` cannot hold",
        span=line.constraint.span,
        label=words.asked(line, line.constraint.dense),
        secondary=tuple(Label(span, c.text) for span, c in {c.span: c for c in lines}.items()),
        notes=(f"proof: {proof}", *_dense_parts(f, line, made_of, evidence)),
        hint=f"the smallest change that helps: {text}",
        conflict=(line.label, *(c.label for c in lines)),
        certificate={"function": f.name, "lhs_min": least, "rhs": line.high, "unit": f.unit},
        relaxations=(data,),
    )


def _dense_parts(f: FactorCost, line: Line, made_of: Mapping[str, Made], evidence: Evidence) -> tuple[str, ...]:
    """Why nothing helps where what is not factored costs too much alone: the kernels that no line speaks of."""
    counted = {e.tensor for e in f.entries}
    loose = [
        t.name
        for t in evidence.table.tensors
        if t.role == "weight" and t.name not in made_of and t.name not in counted and t.name not in evidence.frozen
    ]
    if line.high is None or f.constant <= line.high or not loose:
        return ()
    full = f"{words.listed(map(words.tensor, loose))} {'counts' if len(loose) == 1 else 'count'} in full"
    return (f"{full}: say `low_rank()`, `tt()` or `sparse()` of more tensors",)


def _asking(made: Iterable[Made], budget: Constraint) -> list[Constraint]:
    found = {c.label: c for m in made for c in m.constraints}
    return [c for c in found.values() if c.label != budget.label]


def _sum(paid: Sequence[tuple[FactorTerm, int]], constant: int, else_: str, made_of: Mapping[str, Made]) -> str:
    """``84 (fc1, rank 1) + 410 (all else)``."""
    parts = [f"{words.number(v)} ({words.tensor(e.tensor)}{_at(e, made_of)})" for e, v in paid]
    if len(parts) > 6:
        others = sum(v for _, v in paid[3:])
        parts = [*parts[:3], f"{words.number(others)} ({len(paid) - 3} more tensors)"]
    rest = [f"{words.number(constant)} ({else_})"] if constant or not parts else []
    return " + ".join([*parts, *rest])


def _at(e: FactorTerm, made_of: Mapping[str, Made]) -> str:
    c = made_of[e.tensor].composition if e.form >= 0 else None
    ranked = c is not None and isinstance(c.forms[e.form], LowRank | TensorTrain)
    return f", rank {smallest(c, e.form)[0]}" if c is not None and ranked else ""


# ── bounds that save nothing ────────────────────────────────────────────────────────────────────────────────────────


def dear(problem: Problem, table: ShapeTable) -> dict[int, Diagnostic]:
    """P240 by the index of the line: bounds on ranks at which factors cost more than the dense tensor.

    What a budget or a price counts is theirs to decide: it is not said a second time.
    """
    counted = [c.function for c in problem.constraints if isinstance(c.set, Interval) and c.set.upper is not None]
    costs = [f for f in (*counted, *(t.function for t in problem.objective.terms)) if isinstance(f, FactorCost)]
    decided = {(e.tensor, f.name in OPERATIONS) for f in costs for e in f.entries}
    place = {c.label: i for i, c in enumerate(problem.constraints)}
    found: dict[int, Diagnostic] = {}
    for m in agreed(problem.constraints, table):
        tensor = m.composition.tensors[0]
        stored, computed = (tensor, False) in decided, (tensor, True) in decided
        if isinstance(m.composition.forms[0], LowRank):  # both are proportional to its rank
            stored = computed = stored or computed
        note = _dear(m, table, stored, computed)
        if note is not None:
            found[place[m.constraints[0].label]] = note
    return found


def _whole(form: Form, shape: tuple[int, ...]) -> bool:
    """Whether every tensor of the shape is of this form."""
    match form:
        case LowRank(int(r)):
            return r >= min(shape[0], prod(shape[1:]))
        case TensorTrain(modes, tuple(ranks)):
            return ranks == full_ranks(modes)
    return False


def _dear(m: Made, table: ShapeTable, stored: bool, computed: bool) -> Diagnostic | None:
    """The note on one composition; what it stores, or computes, may be decided elsewhere."""
    form, shape, c = m.composition.forms[0], m.composition.shapes[0], m.constraints[0]
    groups = groups_of(m.composition.tensors[0], table)
    found = expense(form, shape, groups) if len(m.composition.forms) == 1 else None
    if found is None or (isinstance(c.function, MatrixFunction) and _whole(form, shape)):  # said to never bind
        return None
    heavy, slow = found.numbers > found.dense and not stored, found.operations > found.dense and not computed
    if not heavy and not slow:
        return None
    what = "costs more" if heavy and slow else "stores more numbers" if heavy else "takes more multiply-adds"
    rows, columns = shape[0], prod(shape[1:])
    numbers, operations, dense = map(words.number, (found.numbers, found.operations, found.dense))
    return Diagnostic(
        code="P240",
        severity="note",
        message=f"`{c.label}` {what} than the dense tensor",
        span=c.span,
        notes=(
            f"at {_at_ranks(form)} it stores {numbers} numbers and takes {operations} multiply-adds",
            f"the dense {rows} × {columns} matrix has {dense} of either",
        ),
        hint=_evens(form, shape, groups),
    )


def _at_ranks(form: Form) -> str:
    match form:
        case TensorTrain(_, tuple(ranks)) if len(set(ranks)) > 1:
            return f"ranks {', '.join(map(str, ranks))}"
        case TensorTrain(_, tuple(ranks)):
            return f"rank {ranks[0]}"
        case LowRank(rank):
            return f"rank {rank}"
    raise TypeError(f"{form} has no ranks")


def _evens(form: Form, shape: tuple[int, ...], groups: int) -> str:
    """Where it breaks even, and the cut that stores least of those that would save both, if any does."""
    even = evens(form, shape, groups)
    stored, computed = (f"up to rank {r}" if r else "at no rank" for r in (even.parameters, even.macs))
    text = f"it saves {stored}" if stored == computed else f"it saves numbers {stored} and multiply-adds {computed}"
    match form:
        case TensorTrain(modes, tuple(ranks)):
            rank = max(ranks)
            for other in sorted(alternatives(shape[0], prod(shape[1:]), rank), key=lambda a: a.parameters):
                cut = expense(TensorTrain(other.modes, other.ranks), shape, groups)
                if other.modes != modes and cut is not None and cut.saves:
                    return f"{text}; at rank {rank} `modes = {modes_text(other.modes)}` would save both"
    return text
