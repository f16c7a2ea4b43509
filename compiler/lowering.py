"""`lower`: Plan → Graph. The stages in source order; what happens inside `solve` is the solver's own file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import TypeVar

from prunelang.compiler.bridges import bridge
from prunelang.compiler.description import penalty_plan
from prunelang.compiler.feasible import feasible_set
from prunelang.compiler.forms import Box, Nuclear
from prunelang.compiler.graph import (
    Batches,
    Buffers,
    Certify,
    Combination,
    Compose,
    Coupling,
    Data,
    Descend,
    Factors,
    Feasible,
    Finish,
    Graph,
    Level,
    Loss,
    Optimizer,
    Outer,
    Penalty,
    Phase,
    ProjectBalls,
    Quadratic,
    Recalibrate,
    Record,
    Reproject,
    Rest,
    State,
    Step,
    Support,
    Weights,
    verify,
)
from prunelang.compiler.graph.factors import made, trained
from prunelang.compiler.measured import watched
from prunelang.compiler.optimizers import Optimizer as OptimizerOptions
from prunelang.compiler.plan import Plan, StagePlan
from prunelang.compiler.problem import Kept, Measured, Problem, Term, tensors_of
from prunelang.compiler.reversed import entering, forward_plan, selecting
from prunelang.compiler.schedule import SCHEDULES, Apply, Schedule, constant
from prunelang.compiler.solvers.base import Solver, compressed
from prunelang.compiler.stopping import restores, watched_loops
from prunelang.compiler.synops import calibrated, declare, driven_plan, followed, tightened

RECALIBRATION_BATCHES = 100
StateT = TypeVar("StateT", bound=State)


@dataclass
class Lowering:
    """The graph under construction, with what every solver asks of it."""

    plan: Plan
    batches: int  # per epoch
    state: list[State] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)  # of the phase under construction
    stage: StagePlan = field(init=False)
    problem: Problem = field(init=False)  # as the solver at hand sees it, after bridges
    based: bool = False  # `base` is known when the stage begins

    def __post_init__(self) -> None:
        self.problem = self.plan.problem

    # ── facts ──

    @property
    def constrained(self) -> tuple[str, ...]:
        """Trained tensors that a structural constraint or a penalty speaks of, in table order; all kernels but those
        under `dense` where nothing does and a stage removes weights all the same."""
        named = compressed(self.plan.problem)
        if not named and any(s.pruner or (s.solver and s.solver.sparsifies) for s in self.plan.stages):
            kernels = {t.name for t in self.plan.table.tensors if t.role == "weight"}
            kept = (tensors_of(c.function) for c in self.plan.problem.constraints if isinstance(c.set, Kept))
            named = frozenset(kernels) - self.plan.problem.frozen - frozenset(chain.from_iterable(kept))
        return tuple(t.name for t in self.plan.table.tensors if t.name in named)

    @property
    def rest(self) -> tuple[str, ...]:
        held = set(self.constrained) | self.plan.problem.frozen
        return tuple(t.name for t in self.plan.table.tensors if t.role != "buffer" and t.name not in held)

    @property
    def buffers(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.plan.table.tensors if t.role == "buffer")

    @property
    def penalties(self) -> tuple[Term, ...]:
        """The terms of the objective that are no data terms, as minimised."""
        objective = self.plan.problem.objective
        found = (t for t in objective.terms if not isinstance(t.function, Measured))
        return tuple(found if objective.sense == "minimize" else map(_negated, found))

    def watched(self, split: str) -> str:
        """The split that a stopping test, a pruner or a search reads where the spec names `split`."""
        return watched(self.plan.problem, split)

    def feasible(self) -> Feasible:
        """The structural constraints as independent parts."""
        return feasible_set(self.problem, self.plan.table)

    def factors(self) -> Factors | None:
        """The state of what tensors are made of; None where none is made of anything."""
        found = tuple(c for p in self.feasible().parts for c in p.compositions if made(c))
        return self.declare(Factors("G", "W", found)) if found else None

    # ── building ──

    def declare(self, node: StateT) -> StateT:
        """Add a state node, unless an equal one is there. A name that means something else already gets a number:
        the μ of a second `solve` is ``μ_2``. The node that is returned has the name in force."""
        known = {s.name: s for s in self.state}
        numbers = chain([node], (replace(node, name=f"{node.name}_{i}") for i in count(2)))
        chosen = next(x for x in numbers if known.get(x.name, x) == x)
        if chosen.name not in known:
            self.state.append(chosen)
        return chosen

    def weights(self, name: str, tensors: Iterable[str]) -> str:
        chosen = tuple(tensors)
        size = sum(self.plan.table.tensor[t].size for t in chosen)
        return self.declare(Weights(name, chosen, size)).name

    def optimizer(self, of: tuple[str, ...]) -> str:
        options: OptimizerOptions = self.stage.optimizer
        name = f"O_{self.stage.kind}"
        values = {k: getattr(options, k) for k in type(options).model_fields}
        return self.declare(Optimizer(name, of, options.word, values)).name

    def level(self, name: str, schedule: Schedule | None = None) -> str:
        return self.declare(Level(name, schedule)).name

    def support(self, name: str, of: str) -> str:
        return self.declare(Support(name, of)).name

    def losses(self) -> tuple[Loss, ...]:
        return tuple(_loss(t) for t in self.stage.losses)

    def descend(
        self,
        of: tuple[str, ...],
        *,
        quadratic: tuple[Quadratic, ...] = (),
        penalties: tuple[Penalty, ...] = (),
        couplings: tuple[Coupling, ...] = (),
        latents: tuple[str, ...] = (),
        support: str | None = None,
        after: tuple[Step, ...] = (),
        each_epoch: tuple[Step, ...] = (),
        settle: tuple[Step, ...] = (),
        counted: str | None = None,
    ) -> Batches:
        """The inner loop of the stage: descent, then `after` in every step and `each_epoch` at every epoch's end.

        `counted` is the state on which the history counts constraints.
        """
        by = self.optimizer(of)
        step = Descend(of, self.losses(), by, quadratic, support, latents, penalties, couplings)
        record = Record("epoch", self.stage.kind, counted)
        duration = self.stage.duration
        body = (step, *after)
        return Batches(duration.value, duration.unit, body, "data", by, (*each_epoch, record), settle=settle)

    def descend_made(self, factors: Factors | None, *, support: str | None, after: tuple[Step, ...] = ()) -> Batches:
        """The inner loop on what tensors are made of, where a descent can change it, and on all other tensors as they
        are; W is composed after every step, and exactly at every epoch's end."""
        held = set(factors.tensors) if factors else set()
        loose = tuple(t for t in self.constrained if t not in held)
        of = ("W",) if not held else (self.weights("W_loose", loose),) if loose else ()
        nuclear = tuple(
            p for p in self.feasible().parts if any(isinstance(c.forms[0], Nuclear) for c in p.compositions)
        )
        settle: tuple[Step, ...] = (Reproject("W", Feasible(nuclear)),) if nuclear else ()
        latents: tuple[str, ...] = ()
        if factors and any(map(trained, factors.compositions)):
            of, latents = (factors.name, *of), (factors.name,)
            after = (Compose("W", factors.name), *after)
            settle = (Compose("W", factors.name, exact=True), *settle)
        kept = support if of != latents else None  # composed tensors keep every position
        return self.descend((*of, "rest"), latents=latents, support=kept, after=after, settle=settle, counted="W")


def _loss(term: Term) -> Loss:
    function = term.function
    assert isinstance(function, Measured)
    return Loss(function.name, weight_of(term), function.arguments, term.text or function.name)


def weight_of(term: Term) -> Schedule:
    """The coefficient of a term as a schedule."""
    return term.weight if isinstance(term.weight, SCHEDULES) else constant(term.weight)


def _negated(term: Term) -> Term:
    if isinstance(term.weight, SCHEDULES):
        return replace(term, weight=Apply("neg", (term.weight,)))
    return replace(term, weight=-term.weight)


def lower(plan: Plan, *, train_size: int) -> Graph:
    """The verified graph of a plan. `train_size` is the number of training samples, for batches per epoch.

    Raises `InvalidGraph` if the result breaks an invariant, which would be a bug of ours.
    """
    asked = penalty_plan(driven_plan(plan), train_size)
    plan = forward_plan(asked)
    low = Lowering(plan, -(-train_size // plan.data.batch))
    low.declare(Data("data", plan.data.text, plan.data.batch, low.batches, plan.data.seed))
    if low.constrained:
        low.weights("W", low.constrained)
    low.declare(Rest("rest", low.rest))
    if low.buffers:
        low.declare(Buffers("buffers", low.buffers))
    declare(low)
    program: list[Step] = []
    first = entering(plan.stages)
    solved = False
    for i, stage in enumerate(plan.stages):
        low.stage, low.steps, low.based = stage, [], i >= first
        if stage.pruner is not None:
            stage.pruner.lower(low)
            low.steps += _checked(low, solved)
        elif stage.solver is None:
            low.steps.append(_ordinary(low, solved))
        elif compressed(plan.problem) or not stage.solver.descends or (stage.solver.sparsifies and low.constrained):
            low.problem = bridge(followed(plan.problem, stage), stage.solver.constraints).problem
            stage.solver.lower(low)
            low.steps = list(calibrated(low, tuple(low.steps)))
            solved = True
        else:
            low.steps += _idle(low, stage.solver)
        low.steps = list(watched_loops(low, tuple(low.steps)))
        settled = restores(low.steps) or (stage.pruner is not None and stage.pruner.exact)
        if low.buffers and stage.kind != "pretrain" and not settled:
            low.steps.append(Recalibrate("buffers", min(low.batches, RECALIBRATION_BATCHES)))
        if stage.solver is not None:
            low.steps += tightened(low, min(low.batches, RECALIBRATION_BATCHES) if low.buffers else 0)
        program.append(Phase(stage.kind, tuple(low.steps)))
    if first < len(program):
        program[first:] = selecting(low, asked, tuple(program[first:]))
    graph = Graph(f"{plan.source.name}: {plan.model.text}", tuple(low.state), (*program, Certify()))
    verify(graph)
    return graph


def _ordinary(low: Lowering, solved: bool) -> Batches:
    """Training before or after: after a solve or a prune on the support it left, after a solve inside the norm balls
    at every step, and on what tensors are made of."""
    of = ("W", "rest") if low.constrained else ("rest",)
    if not low.constrained or not any(isinstance(s, Support) for s in low.state):
        return low.descend(of)
    if not solved:
        return low.descend(of, support="m", counted="W")
    boxed = (p for p in low.feasible().parts if p.balls or any(isinstance(c.forms[0], Box) for c in p.compositions))
    balls = tuple(boxed)
    after = (ProjectBalls("W", Feasible(balls)),) if balls else ()
    return low.descend_made(low.factors(), support="m", after=after)


def _checked(low: Lowering, solved: bool) -> tuple[Step, ...]:
    """A prune's end: after a solve everything that the solve reached still holds, which is asserted."""
    if not low.steps:
        return ()
    made_of = low.factors() if solved else None
    onto = made_of.name if made_of else None
    finish = (Finish("W", Combination(((1, "W", None),)), low.feasible(), "m", onto),) if solved else ()
    return (*finish, Record("stage", low.stage.kind, "W"))


def _idle(low: Lowering, solver: Solver) -> tuple[Step, ...]:
    """A solve without anything to compress: what is left of it is training, with the same clocks. All kernels belong
    to W only where another stage removes weights: then they are trained, on what an earlier one left."""
    pruned = any(isinstance(s, Support) for s in low.state)
    loop = low.descend(("W", "rest") if low.constrained else ("rest",), support="m" if pruned else None)
    training = Outer(int(getattr(solver, "steps", 1)), (loop,)) if solver.outer else loop
    if not low.constrained:
        return (training,)
    m = low.support("m", "W")
    return (training, Finish("W", Combination(((1, "W", None),)), low.feasible(), m))
