"""A spec with another solver in its `solve` stage, the optimizer and the number of epochs kept.

Clocks keep their meaning. Solvers with outer iterations train K × D epochs, all others N = K·D in one go:

    k → ⌊epoch/D⌋, or K·p where D varies;     epoch → epoch − D·⌊epoch/D⌋, the other way round k·D + epoch
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any

from prunelang.compiler.plan import Plan, StagePlan
from prunelang.compiler.schedule import evaluate, is_constant
from prunelang.compiler.solvers.base import Solver, solvers
from prunelang.dsl.diagnostics import Diagnostic, SpecError, did_you_mean
from prunelang.dsl.parser import parse
from prunelang.dsl.printer import format_expr
from prunelang.dsl.spans import NOWHERE, Source
from prunelang.dsl.tree import Argument, Binary, Call, Expr, Let, Name, Node, Number, Solve, Spec

CARRIED = ("probes", "tolerance")
"""Options of a search, which every solver has."""
CLOCKS = frozenset({"k", "epoch", "step"})


class NotCarried(Exception):
    """The clauses of the stage have no meaning under the other solver."""


@dataclass(frozen=True)
class Length:
    """Of a solve: K outer iterations of D `unit` each; K is 1 for solvers without them, D is None where it varies."""

    outer: int
    inner: int | None
    total: int
    unit: str


def solve_of(spec: Spec, source: Source) -> Solve:
    """The one `solve` of a spec. Errors: `SpecError` P560."""
    found = [s for s in spec.statements if isinstance(s, Solve)]
    if len(found) == 1:
        return found[0]
    where = found[1].span if found else NOWHERE
    said = f"the spec has {len(found)} `solve` stages, and a sweep over solvers replaces one"
    hint = "leave --solvers out: the spec's own stages are run"
    raise SpecError([Diagnostic("P560", "error", said, where, hint=hint)], source)


def solver_call(text: str, source: Source) -> Call:
    """``ista`` or ``ista(d = 0.1)`` as a call. Errors: `SpecError` P561 for what is no solver."""
    word = text.partition("(")[0].strip()
    if word not in solvers():
        near = did_you_mean(word, solvers())
        note = f"the solvers are {', '.join(f'`{s}`' for s in solvers())}"
        said = f"there is no solver `{word}`"
        raise SpecError([Diagnostic("P561", "error", said, NOWHERE, notes=(note,), hint=near)], source)
    written = text if "(" in text else f"{text}()"
    read = parse(f"language 1\nsolve {written}\n", "--solvers")
    solve = read.statements[-1]
    alone = isinstance(solve, Solve) and solve.optimizer is solve.duration is solve.until is None
    if len(read.statements) != 2 or not isinstance(solve, Solve) or not alone or not isinstance(solve.solver, Call):
        message = f"`{text}` is no call of a solver"
        raise SpecError([Diagnostic("P561", "error", message, NOWHERE, hint="write lc, or lc(steps = 10)")], source)
    return solve.solver


def with_solver(text: str, spec: Spec, plan: Plan, call: Call, batches: int | None) -> str:
    """The text of the spec with the named solver. `plan` is the spec's own; `batches` are those of an epoch.

    The stage stays word for word where it has this solver already, and no other options are asked for. Errors:
    `NotCarried`, where its clauses cannot be.
    """
    solve = solve_of(spec, plan.source)
    stage = next(s for s in plan.stages if s.kind == "solve")
    assert stage.solver is not None
    if call.function == stage.solver.word and not call.arguments:
        return text
    stated = statement(spec, solve, stage, call, batches)
    return text[: solve.span.start] + stated + text[solve.span.end :]


def statement(spec: Spec, solve: Solve, stage: StagePlan, call: Call, batches: int | None) -> str:
    """``solve ista() with sgd(lr = 0.1 * 0.98 ^ epoch) for 20 epochs``."""
    to, own = solvers()[call.function], stage.solver
    assert own is not None
    if not to.descends:
        return f"solve {format_expr(_carried(solve, call))}"
    length = _length(stage) if own.descends else None
    new, steps = _lengths(to, call, length)
    named = {a.name for a in call.arguments}
    if steps is not None and "steps" not in named:
        call = replace(call, arguments=(Argument("steps", Number(Fraction(steps))), *call.arguments))
    parts = [f"solve {format_expr(_carried(solve, call))}"]
    if solve.optimizer is not None:
        swap = _clocks(own, to, length, new, batches)
        lets = {s.name: s.value for s in spec.statements if isinstance(s, Let)}
        parts.append(f"with {format_expr(_replaced(solve.optimizer, swap, lets))}")
    if new is not None and new.inner is not None:
        parts.append(f"for {new.inner} {new.unit}")
    elif solve.duration is not None:
        parts.append(f"for {_span_text(solve.duration)}")
    if solve.until is not None:
        parts.append(f"until {format_expr(solve.until)}")
    return " ".join(parts)


def _span_text(duration: Expr) -> str:
    from prunelang.dsl.printer import Printer, joined

    printer = Printer("unicode")
    printer.duration(duration)
    return joined(printer.pieces)


def _carried(solve: Solve, call: Call) -> Call:
    """The call with the options of a search that the spec's own solver has."""
    if not isinstance(solve.solver, Call):
        return call
    named = {a.name for a in call.arguments}
    more = tuple(a for a in solve.solver.arguments if a.name in CARRIED and a.name not in named)
    return replace(call, arguments=(*call.arguments, *more))


# ── lengths ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _length(stage: StagePlan) -> Length:
    outer = int(getattr(stage.solver, "steps", 1)) if stage.solver is not None and stage.solver.outer else 1
    value, unit = stage.duration.value, stage.duration.unit
    if is_constant(value):
        inner = max(1, round(evaluate(value, {})))
        return Length(outer, inner, outer * inner, unit)
    total = sum(max(1, round(evaluate(value, {"k": float(k), "p": k / outer}))) for k in range(outer))
    return Length(outer, None, total, unit)


def _lengths(to: type[Solver], call: Call, own: Length | None) -> tuple[Length | None, int | None]:
    """How long the new stage is, and its number of outer iterations where it has them."""
    if own is None:
        return None, None
    if not to.outer:
        return Length(1, own.total, own.total, own.unit), None
    asked = next((a.value for a in call.arguments if a.name == "steps"), None)
    if isinstance(asked, Number) and asked.unit is None and asked.value >= 1:
        count = int(asked.value)
    elif own.outer > 1:
        return own, own.outer  # both have outer iterations: the same number of them, each as long
    else:
        count = _iterations(own.total, int(to.model_fields["steps"].default))
    inner = max(1, round(own.total / count))
    return Length(count, inner, count * inner, own.unit), count


def _iterations(total: int, most: int) -> int:
    """K between half of its default and the default, for which K·round(N/K) is nearest to N; the largest such K."""
    most = min(most, total)
    return min(range(most, max(most // 2, 1) - 1, -1), key=lambda k: abs(k * max(1, round(total / k)) - total))


# ── clocks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _clocks(
    own: Solver, to: type[Solver], old: Length | None, new: Length | None, batches: int | None
) -> Mapping[str, Expr | None]:
    """What stands for each clock under the new solver; None where nothing can."""
    if old is None or new is None or (own.outer == to.outer and (old.outer, old.inner) == (new.outer, new.inner)):
        return {}
    if own.outer and not to.outer:
        return _flat(old, batches)
    if to.outer and not own.outer:
        inner = new.inner or 1
        if new.unit == "epochs":
            step = None if batches is None else _sum(_times(Name("k"), inner * batches), Name("step"))
            return {"epoch": _sum(_times(Name("k"), inner), Name("epoch")) if inner > 1 else Name("k"), "step": step}
        return {"epoch": None, "step": _sum(_times(Name("k"), inner), Name("step"))}
    ratio = Fraction(old.outer, new.outer)  # both have outer iterations, of different numbers
    return {"k": _times(Name("k"), ratio), "epoch": None, "step": None}


def _flat(old: Length, batches: int | None) -> Mapping[str, Expr | None]:
    """The clocks of K inner loops of length D, in one loop of length K·D."""
    if old.inner is None:
        return {"k": Binary("*", _whole(old.outer), Name("p")), "epoch": None, "step": None}
    inner = old.inner
    counted = Name("epoch" if old.unit == "epochs" else "step")
    k: Expr = counted if inner == 1 else Call("floor", (Argument(None, _over(counted, inner)),))

    def within(clock: str, period: int) -> Expr:
        return Binary("-", Name(clock), Binary("*", _whole(period), k))

    if old.unit == "steps":
        return {"k": k, "epoch": None, "step": within("step", inner)}
    step = None if batches is None else within("step", inner * batches)
    return {"k": k, "epoch": _whole(0) if inner == 1 else within("epoch", inner), "step": step}


def _whole(value: int) -> Number:
    return Number(Fraction(value))


def _times(name: Name, factor: Fraction | int) -> Expr:
    return name if factor == 1 else Binary("*", Number(Fraction(factor)), name)


def _over(name: Name, divisor: int) -> Expr:
    return name if divisor == 1 else Binary("/", name, _whole(divisor))


def _sum(left: Expr, right: Expr) -> Expr:
    return Binary("+", left, right)


def _replaced(node: Any, swap: Mapping[str, Expr | None], lets: Mapping[str, Expr]) -> Any:
    """The expression with other clocks; a `let` that follows one is written out. Errors: `NotCarried`."""
    if isinstance(node, Name):
        if node.id in swap:
            other = swap[node.id]
            if other is None:
                said = f"the optimizer follows `{node.id}`, which this solver counts in another way"
                raise NotCarried(said)
            return other
        if node.id in lets and not swap.keys().isdisjoint(_names(lets[node.id], lets)):
            return _replaced(lets[node.id], swap, lets)
        return node
    if isinstance(node, tuple):
        return tuple(_replaced(x, swap, lets) for x in node)
    if isinstance(node, Node):
        changed = {f.name: _replaced(getattr(node, f.name), swap, lets) for f in fields(node) if f.name != "span"}
        return replace(node, **{k: v for k, v in changed.items() if v is not getattr(node, k)})
    return node


def _names(node: Any, lets: Mapping[str, Expr]) -> Iterator[str]:
    """Every name in an expression, and in the `let`s that it speaks of."""
    if isinstance(node, Name):
        yield node.id
        if node.id in lets:
            yield from _names(lets[node.id], {k: v for k, v in lets.items() if k != node.id})
    elif isinstance(node, tuple):
        for x in node:
            yield from _names(x, lets)
    elif isinstance(node, Node):
        for f in fields(node):
            yield from _names(getattr(node, f.name), lets)


def stated(text: str) -> str:
    """The `solve` of a spec on one line, for tables."""
    spec = parse(text, "spec")
    spans = [text[s.span.start : s.span.end] for s in spec.statements if isinstance(s, Solve)]
    return "; ".join(re.sub(r"\s+", " ", re.sub(r"#.*", "", span)).strip() for span in spans)
