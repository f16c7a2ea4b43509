"""What holds of every graph. A violation after lowering or a pass is a bug of ours, and says so."""

from __future__ import annotations

from collections.abc import Iterator

from prunelang.compiler.graph.base import Graph, Step, walk
from prunelang.compiler.graph.calibration import Calibrate, Calibration, Tighten, named_bounds
from prunelang.compiler.graph.coupling import Gates
from prunelang.compiler.graph.factors import Compose, Factor, Factors
from prunelang.compiler.graph.games import games
from prunelang.compiler.graph.pruning import Bracket, Reach
from prunelang.compiler.graph.relaxed import SteerPenalty
from prunelang.compiler.graph.selection import Search, named_levels
from prunelang.compiler.graph.state import Buffers, Copy, Data, Dual, Level, Optimizer, Rest, Support, Weights
from prunelang.compiler.graph.steps import Batches, Certify, Descend, Finish, Outer, Phase, Project
from prunelang.compiler.graph.stopping import Evaluate, KeepBest, Restore, Snapshot
from prunelang.compiler.graph.thresholds import Aim, Latent, Materialize, Rise, Steer, Sums, TrainedLevel
from prunelang.compiler.schedule import Schedule, clocks_of

BORN = (Weights, Rest, Buffers, Data, Optimizer)  # have a value before the program starts


class InvalidGraph(Exception):
    """A graph that must not be executed."""

    def __init__(self, findings: list[str]) -> None:
        super().__init__("the compiler made an invalid graph (this is a bug in prunelang):\n  " + "\n  ".join(findings))
        self.findings = findings


def verify(graph: Graph) -> None:
    """Raise `InvalidGraph` unless names resolve, nothing is read before it is written, copies never share storage
    with weights, no step inside a batch loop makes the host wait, every descent's tensors are its optimizer's,
    schedules use only the clocks in scope, loops that end early watch what they evaluate, what is removed is of the
    support's tensors, levels and multipliers of a minimax belong together, composed tensors are moved through
    their factors in the loops that train those, and every solve finishes feasible."""
    findings = [*_names(graph), *_definite(graph), *_levels(graph.program, "phase"), *_optimizers(graph), *_ends(graph)]
    findings += [*_clocks(graph), *_stopping(graph), *_removals(graph), *_calibrations(graph), *games(graph)]
    findings += _factors(graph)
    if findings:
        raise InvalidGraph(findings)


def _names(graph: Graph) -> Iterator[str]:
    names = [s.name for s in graph.state]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"`{name}` is declared twice"
    known = set(names)
    for state in graph.state:
        for name in state.reads():
            if name not in known:
                yield f"`{state.name}` refers to `{name}`, which is not declared"
        if isinstance(state, Copy | Dual | Gates | Support | Latent | TrainedLevel):
            of = state.like if isinstance(state, Dual) else state.of
            if of == state.name:
                yield f"`{state.name}` would share storage with itself"
    owners: dict[str, type] = {}  # views of the weights may overlap, other roles may not
    for state in graph.state:
        if isinstance(state, Weights | Rest | Buffers):
            for tensor in state.tensors:
                if owners.setdefault(tensor, type(state)) is not type(state):
                    yield f"tensor `{tensor}` has two roles, one of them in `{state.name}`"


def _definite(graph: Graph) -> Iterator[str]:
    """Definite assignment: in program order, every read is of something written before."""
    known = {s.name for s in graph.state}
    written = {s.name for s in graph.state if isinstance(s, BORN)}
    written |= {s.name for s in graph.state if isinstance(s, Level) and s.schedule is not None}

    def visit(program: tuple[Step, ...]) -> Iterator[str]:
        for step in program:
            for name in (*step.reads(), *step.writes(), *named_levels(step), *named_bounds(step)):
                if name not in known:
                    yield f"`{step.line()}` names `{name}`, which is not declared"
            for name in (*step.reads(), *named_levels(step), *named_bounds(step)):
                if name in known and name not in written:
                    yield f"`{step.line()}` reads `{name}` before anything wrote it"
            written.update(step.writes())
            for _, body in step.bodies():
                yield from visit(body)
            if isinstance(step, Search):
                written.discard(step.level)  # outside it has no value that a step could be made with

    yield from visit(graph.program)


def _levels(program: tuple[Step, ...], level: str) -> Iterator[str]:
    for step in program:
        if level == "step" and step.sync != "none":
            yield f"`{step.line()}` makes the host wait inside a batch loop"
        inner = "outer" if isinstance(step, Outer) else level
        if isinstance(step, Batches):
            yield from _levels(step.body, "step")
            yield from _levels((*step.settle, *step.each_epoch), level if level == "step" else "epoch")
        else:
            for _, body in step.bodies():
                yield from _levels(body, level if level == "step" else inner)


def _optimizers(graph: Graph) -> Iterator[str]:
    held = {s.name: set(s.of) for s in graph.state if isinstance(s, Optimizer)}
    for step in walk(graph.program):
        if isinstance(step, Descend):
            for name in sorted(set(step.of) - held.get(step.by, set())):
                yield f"`{step.line()}` descends on `{name}`, which `{step.by}` does not hold"
            for c in step.couplings:
                for name, by in ((c.copy, c.by), (c.gates, c.by), (c.dual, c.ascent)):
                    if name not in held.get(by, set()):
                        yield f"`{step.line()}` moves `{name}`, which `{by}` does not hold"


def _ends(graph: Graph) -> Iterator[str]:
    compresses = any(isinstance(s, Weights) for s in graph.state)
    for phase in walk(graph.program) if compresses else ():
        if isinstance(phase, Phase) and phase.name == "solve" and not any(isinstance(s, Finish) for s in phase.body):
            yield "the solve phase does not finish feasible"
    if not graph.program or not isinstance(graph.program[-1], Certify):
        yield "the program does not end by certifying"


def _stopping(graph: Graph) -> Iterator[str]:
    """A loop that is left early watches something, and what is restored is what was kept."""
    snapshots = {s.name: s.of for s in graph.state if isinstance(s, Snapshot)}
    for step in walk(graph.program):
        if isinstance(step, Batches) and step.until is not None:
            if not any(isinstance(s, Evaluate) and s.level == step.until.level for s in step.each_epoch):
                yield f"`{step.line()}` watches `{step.until.level}`, which no epoch evaluates"
            if step.until.window < 2:
                yield f"`{step.line()}`: a window has two epochs at least"
        if isinstance(step, KeepBest | Restore) and snapshots.get(step.snapshot, step.of) != step.of:
            yield f"`{step.line()}` does not fit `{step.snapshot}`, which is of {', '.join(snapshots[step.snapshot])}"


def _removals(graph: Graph) -> Iterator[str]:
    """What loses positions is in the state whose support is narrowed, and is not what has to keep them."""
    tensors = {s.name: set(s.tensors) for s in graph.state if isinstance(s, Weights)}
    supports = {s.name: s.of for s in graph.state if isinstance(s, Support)}
    for step in walk(graph.program):
        if isinstance(step, Bracket | Reach):
            if supports.get(step.support) != step.of:
                yield f"`{step.line()}` narrows `{step.support}`, which is no support of `{step.of}`"
            known = tensors.get(step.of, set())
            for name in sorted({*step.tensors, *step.spared} - known):
                yield f"`{step.line()}` names `{name}`, which is not in `{step.of}`"
            for name in sorted(set(step.tensors) & set(step.spared)):
                yield f"`{step.line()}` removes from `{name}` and spares it"
        if isinstance(step, Bracket) and not step.delta >= 0:
            yield f"`{step.line()}`: δ is negative"
        if isinstance(step, Reach) and (step.method == "random_gradient") != (step.draws > 0):
            yield f"`{step.line()}`: {step.draws} draws"


def _calibrations(graph: Graph) -> Iterator[str]:
    """What is calibrated is a budget, on tensors of the weights."""
    budgets = {s.name for s in graph.state if isinstance(s, Calibration)}
    weights = {t for s in graph.state if isinstance(s, Weights) for t in s.tensors}
    for state in graph.state:
        if isinstance(state, Calibration):
            for name in sorted(set(state.tensors) - weights):
                yield f"`{state.name}` counts `{name}`, which is in no weights"
    for step in walk(graph.program):
        if isinstance(step, Calibrate | Tighten):
            for name in sorted({step.bound} if isinstance(step, Calibrate) else {*step.bounds} - budgets):
                if name not in budgets:
                    yield f"`{step.line()}` calibrates `{name}`, which is no budget"
        if isinstance(step, Tighten) and (step.rounds < 1 or not step.floors):
            yield f"`{step.line()}` has nothing to do"


def _factors(graph: Graph) -> Iterator[str]:
    """Each tensor is made of one thing, in the weights that it is of; what a descent trains is composed in its loop."""
    found = {s.name: s for s in graph.state if isinstance(s, Factors)}
    for node in found.values():
        of = graph.node(node.of)
        for name in sorted(set(node.tensors) - set(of.tensors if isinstance(of, Weights) else ())):
            yield f"`{node.name}` composes `{name}`, which is not in `{node.of}`"
        for name in sorted({t for t in node.tensors if node.tensors.count(t) > 1}):
            yield f"`{node.name}` composes `{name}` twice"
    for step in walk(graph.program):
        if isinstance(step, Compose | Factor) and step.factors in found and step.of != found[step.factors].of:
            yield f"`{step.line()}` composes other weights than `{step.factors}` is of"
        if isinstance(step, Batches) and isinstance(head := step.body[0], Descend):
            for name in (n for n in head.latents if n in found):
                for where, exact in ((step.body, False), (step.settle, True)):
                    if not any(isinstance(s, Compose) and (s.factors, s.exact) == (name, exact) for s in where):
                        yield f"`{head.line()}` trains `{name}`, and its loop composes nothing of it"
                held = {t for s in head.of if isinstance(w := graph.node(s), Weights) for t in w.tensors}
                for tensor in sorted(held & set(found[name].tensors)):
                    yield f"`{head.line()}` moves `{tensor}` itself and what it is made of"


def _clocks(graph: Graph) -> Iterator[str]:
    optimizers = {s.name: s for s in graph.state if isinstance(s, Optimizer)}
    levels = {s.name: s for s in graph.state if isinstance(s, Level)}
    followed = {name for step in walk(graph.program) if isinstance(step, Outer) for name in step.levels}
    for level in levels.values():
        if level.schedule is not None and level.name not in followed:
            yield f"level `{level.name}` follows a schedule, but no outer loop sets it"

    def check(what: str, schedule: Schedule, scope: set[str]) -> Iterator[str]:
        for clock in sorted(clocks_of(schedule) - scope):
            yield f"{what} uses the clock `{clock}`, which does not run there"

    for state in graph.state:
        if isinstance(state, Sums):
            yield from check(f"the table `{state.name}`", state.rate, {"epoch", "step", "k", "p"})
            yield from check(f"the length of `{state.name}`", state.duration, set())

    def visit(program: tuple[Step, ...], scope: set[str]) -> Iterator[str]:
        for step in program:
            inner = set(scope)
            if isinstance(step, Phase):
                inner |= {"p"}
            if isinstance(step, Outer):
                inner |= {"k"}
                for name in step.levels:
                    schedule = levels[name].schedule if name in levels else None
                    if schedule is not None:
                        yield from check(f"level `{name}`", schedule, inner)
            if isinstance(step, Batches):
                yield from check("the duration", step.duration, scope)
                inner |= {"epoch", "step"}
            if isinstance(step, Project) and step.priced is not None:
                yield from check(f"the weight of {step.priced.cost.name}", step.priced.weight, scope | {"k"})
            if isinstance(step, Descend | Evaluate):
                for loss in step.losses:  # `k` stays 0 where nothing counts: an objective serves all stages
                    yield from check(f"the weight of {loss.name}", loss.weight, scope | {"k"})
            if isinstance(step, Descend):
                for penalty in step.penalties:
                    if penalty.schedule is not None:
                        yield from check(f"the weight of {penalty}", penalty.schedule, scope | {"k"})
                for c in step.couplings:
                    if not isinstance(c.weight, str):
                        yield from check(f"the weight of `{c.gates}`", c.weight, scope | {"k"})
                for by in (step.by, *(n for c in step.couplings for n in (c.by, c.ascent))):
                    for name, value in optimizers[by].options.items() if by in optimizers else ():
                        if not isinstance(value, bool):
                            yield from check(f"option `{name}` of `{by}`", value, scope)
            if isinstance(step, SteerPenalty) and not (0 < step.reach <= 1 and 0 < step.residue < 1):
                yield f"`{step.line()}`: reach must be in (0, 1], and the residue in (0, 1)"
            if isinstance(step, Steer | Aim | Materialize) and not _reachable(step.rise):
                yield f"`{step.line()}`: reach must be in (0, 1]"
            for _, body in step.bodies():
                yield from visit(body, inner)

    yield from visit(graph.program, set())


def _reachable(rise: Rise) -> bool:
    """A rise takes some share of the stage, or none when it is at once."""
    return 0 < rise.reach <= 1 or (rise.reach == 0 and rise.shape == "at_once")
