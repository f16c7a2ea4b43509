"""Stages: order, optimizer, duration, stopping test, what each descends on, and the solver that `auto` chooses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

from prunelang.compiler.checking.binding import bind
from prunelang.compiler.checking.bounds import Ends
from prunelang.compiler.checking.calls import function_span
from prunelang.compiler.checking.expressions import evaluate
from prunelang.compiler.checking.losses import default_losses, stage_losses
from prunelang.compiler.checking.numbers import NoValue, exactly
from prunelang.compiler.checking.options import Available, optimizer_conditions, read_options
from prunelang.compiler.checking.values import Amount, Wrong, kind_of
from prunelang.compiler.checking.world import NO_LOCALS, World
from prunelang.compiler.functions import TESTS
from prunelang.compiler.optimizers import OPTIMIZERS, Adam, Optimizer
from prunelang.compiler.plan import Duration, StagePlan, Until
from prunelang.compiler.problem import Problem, Term
from prunelang.compiler.pruners.base import pruners
from prunelang.compiler.reversed import forward
from prunelang.compiler.schedule import clocks_of, constant
from prunelang.compiler.solvers.base import Solver, solvers
from prunelang.dsl.diagnostics import did_you_mean
from prunelang.dsl.names import to_unicode
from prunelang.dsl.spans import Span
from prunelang.dsl.tree import Call, Expr, Name, Node, Prune, Solve, Stage

PREFERRED: Final = ("lc", "ista", "admm")
"""What `solve auto` tries first, in this order; any other solver follows by name."""
DEFAULT_EPOCHS: Final = 20
DEFAULT_INNER_EPOCHS: Final = 5
"""Length of a stage, and of one inner loop of a solver with outer iterations, where the spec gives none."""
MAX_LENGTH: Final = 10**9


@dataclass(frozen=True)
class Solving:
    """A checked solver clause. `solver` is None for `auto`, which is chosen once the problem is known."""

    node: Solve
    solver: Solver | None
    auto: bool
    at: int  # statement index


def solving(world: World, node: Solve, at: int) -> Solving | None:
    """The solver and its options; they need no problem, and bounds need the number of outer iterations."""
    named = node.solver
    if isinstance(named, Name) and named.id == "auto":
        return Solving(node, None, True, at)
    known = solvers()
    word = named.id if isinstance(named, Name) else named.function
    where = named.span if isinstance(named, Name) else function_span(named)
    model = known.get(word)
    if model is None:
        pruner = f"`{word}` is a pruner: write `prune {word}(…)`" if word in pruners() else None
        near = pruner or did_you_mean(word, [*known, "auto"])
        note = f"the solvers are {', '.join(f'`{s}`' for s in known)}, or `auto`"
        world.report.error("P401", where, f"there is no solver `{to_unicode(word)}`", hint=near, notes=(note,))
        return None
    if isinstance(named, Name):
        world.report.error("P401", where, "a solver is written with its parentheses", fix=f"{word}()")
        return None
    options = read_options(world, model, named, _solver_clocks(world, model, named))
    return None if options is None else Solving(node, options, False, at)


def _solver_clocks(world: World, model: type[Solver], node: Call) -> Available:
    """k runs to the number of outer iterations given, or else to the default."""
    start = {"p": 0.0, "epoch": 0.0}
    end = {"p": 1.0, "epoch": 0.0}
    if model.outer:
        given = next((a.value for a in node.arguments if a.name == "steps"), None)
        steps = None if given is None else _whole(world, given)
        field = model.model_fields.get("steps")
        count = steps if steps is not None else int(field.default) if field is not None else 1
        start["k"], end["k"] = 0.0, float(max(count - 1, 0))
    return Available(start, end)


def _whole(world: World, node: Expr) -> int | None:
    value = evaluate(world, node)
    if isinstance(value, Amount) and not clocks_of(value.schedule):
        try:
            return min(int(exactly(value.schedule, {})), MAX_LENGTH)
        except NoValue:
            return None
    return None


def ends_of(found: Sequence[Solving]) -> Ends:
    """The clocks that a bound may follow: those of the last `solve`."""
    start, end = {"p": 0.0}, {"p": 1.0}
    steps = (
        getattr(found[-1].solver, "steps", None)
        if found and found[-1].solver is not None and found[-1].solver.outer
        else None
    )
    if steps is not None:
        start["k"], end["k"] = 0.0, float(steps - 1)
    return Ends(start, end)


# ── stages ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Goal:
    """What stages descend on when they do not say it."""

    problem: Problem
    losses: tuple[Term, ...]


def goal(world: World, problem: Problem, where: Span) -> Goal | None:
    losses = default_losses(world, problem)
    if losses:
        return Goal(problem, losses)
    world.report.error(
        "P409",
        where,
        "there is nothing to train on: neither the objective nor a constraint holds a loss or a metric",
        hint="add a data term, for example `minimize cross_entropy(net) + …`",
    )
    return None


def training(world: World, node: Stage, target: Goal | None) -> StagePlan | None:
    """`pretrain` or `finetune`."""
    losses: tuple[Term, ...] | None = None if target is None else target.losses
    if node.minimizing is not None:
        losses = stage_losses(world, node.minimizing)
    duration = _duration(world, node.duration, outer=False)
    clocks = _stage_clocks(duration, None)
    optimizer = _optimizer(world, node.optimizer, clocks)
    until = _until(world, node.until)
    if losses is None or duration is None or optimizer is None or isinstance(until, Wrong):
        return None
    _window(world, until, duration, node)
    return StagePlan(node.kind, losses, optimizer, duration, until, span=node.span)


def clauses_alone(world: World, node: Solve) -> None:
    """What follows a solver that is itself wrong: errors in its clauses are reported all the same."""
    duration = _duration(world, node.duration, outer=True)
    clocks = _stage_clocks(duration, None)
    _optimizer(world, node.optimizer, Available({**clocks.start, "k": 0.0}, {**clocks.end, "k": 0.0}))
    _until(world, node.until)


def solve_stage(world: World, found: Solving, target: Goal | None) -> StagePlan | None:
    node, solver, because = found.node, found.solver, ""
    if found.auto and target is None:
        clauses_alone(world, node)
        return None
    if found.auto and target is not None:
        solver, because = choose(target.problem)
    if solver is not None and not solver.descends:
        return _closed(world, node, solver, target, because)
    outer = solver is not None and solver.outer
    duration = _duration(world, node.duration, outer=outer)
    clocks = _stage_clocks(duration, solver)
    optimizer = _optimizer(world, node.optimizer, clocks)
    until = _until(world, node.until)
    if target is None or solver is None or duration is None or optimizer is None or isinstance(until, Wrong):
        return None
    if not outer:
        _window(world, until, duration, node)
    return StagePlan("solve", target.losses, optimizer, duration, until, solver, because=because, span=node.span)


def _closed(world: World, node: Solve, solver: Solver, target: Goal | None, because: str) -> StagePlan | None:
    """A solver without an optimizer: its own options say how long it runs."""
    clauses = (("with", node.optimizer), ("for", node.duration), ("until", node.until))
    for word, clause in clauses:
        if clause is not None:
            message = f"`{solver.word}` takes no `{word}`: it descends on no gradient"
            hint = f"leave the clause out; `{solver.word}(steps = …)` says how long it runs"
            world.report.error("P490", clause.span, message, hint=hint)
    if target is None or any(clause is not None for _, clause in clauses):
        return None
    length = Duration(constant(1), "epochs")
    return StagePlan("solve", target.losses, Adam(), length, None, solver, because=because, span=node.span)


def pruning(world: World, node: Prune, target: Goal | None) -> StagePlan | None:
    """`prune`: a method that removes weights, and trains nothing."""
    known, named = pruners(), node.method
    model = known.get(named.function)
    if model is None:
        solver = f"`{named.function}` is a solver: write `solve {named.function}(…)`"
        hint = solver if named.function in solvers() else did_you_mean(named.function, known)
        note = f"the methods are {', '.join(f'`{p}`' for p in known)}"
        message = f"there is no method `{to_unicode(named.function)}` to prune by"
        world.report.error("P440", function_span(named), message, hint=hint, notes=(note,))
        return None
    pruner = read_options(world, model, named, Available({}, {}))
    if target is None or pruner is None:
        return None
    return StagePlan("prune", target.losses, Adam(), Duration(constant(1), "epochs"), pruner=pruner, span=node.span)


def choose(problem: Problem) -> tuple[Solver, str]:
    """The first preferred solver that takes the whole problem, and why; else the one that refuses least."""
    known = solvers()
    order = [*(w for w in PREFERRED if w in known), *sorted(w for w in known if w not in PREFERRED)]
    refused: list[tuple[int, str, str]] = []
    for word in order:
        if any(f.is_required() for f in known[word].model_fields.values()):
            continue
        candidate = known[word]()
        reasons = [r.reason for r in candidate.refusals(forward(problem))]
        if not reasons:
            before = "; ".join(f"`{w}` was passed over: {why}" for _, w, why in refused)
            what = _in_words(problem)
            return candidate, f"`{word}` takes {what}" + (
                f"; {before}" if before else ", and comes first in the order of preference"
            )
        refused.append((len(reasons), word, reasons[0]))
    _, word, why = min(refused, key=lambda r: r[0])
    return known[word](), f"no solver takes the whole problem; `{word}` refuses least: {why}"


def _in_words(problem: Problem) -> str:
    count = len(problem.constraints)
    if not count:
        return "this objective"
    return "the one constraint" if count == 1 else f"all {count} constraints"


# ── clauses ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _stage_clocks(duration: Duration | None, solver: Solver | None) -> Available:
    start = {"p": 0.0, "epoch": 0.0, "step": 0.0}
    end = {"p": 1.0, "epoch": 0.0}
    if solver is not None and solver.outer:
        start["k"], end["k"] = 0.0, float(getattr(solver, "steps", 1) - 1)
    if duration is not None:
        length = float(exactly(duration.value, end))
        if duration.unit == "epochs":
            end["epoch"] = max(length - 1.0, 0.0)
        else:
            end["step"] = max(length - 1.0, 0.0)
    return Available(start, end)


def _optimizer(world: World, node: Call | None, clocks: Available) -> Optimizer | None:
    if node is None:
        return Adam()
    model = OPTIMIZERS.get(node.function)
    if model is None:
        near = did_you_mean(node.function, OPTIMIZERS)
        note = f"the optimizers are {', '.join(f'`{o}`' for o in OPTIMIZERS)}"
        hint = "solvers stand after `solve`" if node.function in solvers() else near
        where = function_span(node)
        world.report.error(
            "P402", where, f"there is no optimizer `{to_unicode(node.function)}`", hint=hint, notes=(note,)
        )
        return None
    options = read_options(world, model, node, clocks)
    return options if options is not None and optimizer_conditions(world, node, options) else None


def _duration(world: World, node: Expr | None, *, outer: bool) -> Duration | None:
    if node is None:
        return Duration(constant(DEFAULT_INNER_EPOCHS if outer else DEFAULT_EPOCHS), "epochs")
    value = evaluate(world, node)
    if isinstance(value, Wrong):
        return None
    if not isinstance(value, Amount) or value.unit not in ("epochs", "steps"):
        plain = isinstance(value, Amount) and value.unit == ""
        message = f"a duration is in epochs or steps, not {kind_of(value)}"
        world.report.error("P410", node.span, message, fix=f"{world.text(node)} epochs" if plain else None)
        return None
    used = clocks_of(value.schedule)
    if used - ({"k", "p"} if outer else set()):
        what = (
            "may follow `k` and `p` only"
            if outer
            else "cannot move with the clocks: this stage has no outer iterations"
        )
        world.report.error("P406", node.span, f"this duration {what}")
        return None
    return _length(world, node, value) if used else _whole_length(world, node, value)


def _length(world: World, node: Expr, value: Amount) -> Duration | None:
    for at in ({"k": 0.0, "p": 0.0}, {"k": 0.0, "p": 1.0}):
        try:
            length = exactly(value.schedule, at)
        except NoValue as error:
            world.report.error("P227", node.span, f"this duration has no value: {error}")
            return None
        if not 0 < length <= MAX_LENGTH:
            world.report.error("P410", node.span, "a duration is positive throughout, and below a billion")
            return None
    return Duration(value.schedule, cast(Literal["epochs", "steps"], value.unit))


def _whole_length(world: World, node: Expr, value: Amount) -> Duration | None:
    try:
        length = exactly(value.schedule, {})
    except NoValue as error:
        world.report.error("P227", node.span, f"this duration has no value: {error}")
        return None
    if length.denominator == 1 and 1 <= length <= MAX_LENGTH:
        return Duration(constant(length), cast(Literal["epochs", "steps"], value.unit))
    hint = "give a part of an epoch in steps" if 0 < length < MAX_LENGTH else None
    world.report.error(
        "P410", node.span, f"a duration is a whole number of {value.unit}, from 1 to a billion", hint=hint
    )
    return None


def _until(world: World, node: Call | None) -> Until | Wrong | None:
    if node is None:
        return None
    signature = TESTS.get(node.function)
    if signature is None:
        near = did_you_mean(node.function, TESTS)
        note = f"the tests are {', '.join(f'`{t}`' for t in TESTS)}"
        where = function_span(node)
        return world.report.error(
            "P411", where, f"there is no stopping test `{to_unicode(node.function)}`", hint=near, notes=(note,)
        )
    bound = bind(world, signature, node, NO_LOCALS)
    if bound is None:
        return Wrong()
    split = str(bound.pop("on"))
    return Until(signature.name, bound, split)


def _window(world: World, until: Until | None, duration: Duration, node: Stage | Solve) -> None:
    """A test that looks at more epochs than there are."""
    if until is None or node.until is None or duration.unit != "epochs" or clocks_of(duration.value):
        return
    window, length = until.arguments.get("window"), exactly(duration.value, {})
    if window is not None and window > length:
        message = f"the window of {window} epochs is longer than the stage, which has {float(length):g}"
        hint = "nothing ends this stage early; its best epoch is restored all the same"
        world.report.warning("P441", node.until.span, message, hint=hint)


# ── order ────────────────────────────────────────────────────────────────────────────────────────────────────────


def in_order(world: World, stages: Iterable[Node]) -> None:
    """No `pretrain` after a `solve` or a `prune`."""
    before = ""
    for node in stages:
        if isinstance(node, Solve):
            before = "solve"
        elif isinstance(node, Prune):
            before = before or "prune"
        elif isinstance(node, Stage) and node.kind == "pretrain" and before:
            left, keeps = {
                "solve": ("leave the constraints behind", "trains on and keeps the constraints"),
                "prune": ("bring back what was pruned", "trains the weights that are left"),
            }[before]
            message = f"`pretrain` cannot follow `{before}`: it would {left}"
            world.report.error("P408", node.span, message, hint=f"`finetune` {keeps}")
