"""`check`: syntax tree → `Plan`. Every error of the spec in one run; a value that is already wrong stays silent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from prunelang.compiler.checking import declarations, factors, finalise, stages
from prunelang.compiler.checking.bounds import Ends
from prunelang.compiler.checking.constraints import Labels, constraints
from prunelang.compiler.checking.expressions import evaluate
from prunelang.compiler.checking.objective import objective
from prunelang.compiler.checking.params import InForce, params
from prunelang.compiler.checking.report import report
from prunelang.compiler.checking.reporter import Reporter
from prunelang.compiler.checking.scope import Scope
from prunelang.compiler.checking.selectors import Selectors
from prunelang.compiler.checking.world import Catalog, TableError, World
from prunelang.compiler.description import is_description
from prunelang.compiler.plan import DataPlan, ModelPlan, Plan, ReportPlan, StagePlan, TeacherPlan
from prunelang.compiler.problem import Constraint, Measured, Problem
from prunelang.compiler.proofs import prove
from prunelang.compiler.reversed import searched
from prunelang.compiler.runnability import runnability
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl import tree
from prunelang.dsl.diagnostics import SpecError
from prunelang.dsl.spans import NOWHERE, Source, Span
from prunelang.dsl.tree import Spec

__all__ = ["Catalog", "TableError", "check", "runnability"]

TableOf = Callable[[ModelPlan, DataPlan], ShapeTable]
S = TypeVar("S", bound=tree.Node)


def check(
    spec: Spec,
    source: Source,
    *,
    table_of: TableOf,
    catalog: Catalog | None = None,
    parameters: Mapping[str, str] | None = None,
) -> Plan:
    """The checked plan of a spec.

    `table_of` gives the shape table of the network, and may raise `TableError`. `parameters` are the overrides of
    params, name to literal. Raises `SpecError` with every diagnostic if any of them is an error.
    """
    world = _world(source, catalog or Catalog())
    try:
        plan = _Check(spec, world, table_of, parameters or {}).plan()
    except RecursionError:
        world.report.error("P234", NOWHERE, "the spec is nested too deeply to be checked")
        plan = None
    if plan is None or world.report.failed:
        raise SpecError(world.report.diagnostics(), source)
    return plan


def _world(source: Source, catalog: Catalog) -> World:
    reporter = Reporter(source)
    return World(source, reporter, Scope(reporter), catalog, evaluate)


class _Check:
    """One run, from declarations to proofs. The order is that of dependence, not of the file."""

    def __init__(self, spec: Spec, world: World, table_of: TableOf, overrides: Mapping[str, str]) -> None:
        self.spec, self.world, self.table_of, self.overrides = spec, world, table_of, overrides

    def plan(self) -> Plan | None:
        world = self.world
        in_force = self.names()
        model, data, teachers = self.network_and_data()
        self.table(model, data)
        self.lets()
        solving = self.solving()
        ends = stages.ends_of(solving)
        labels = Labels()
        problem = self.problem(labels, ends)
        staged = self.stages(problem, solving)
        items = self.report(labels, problem)
        self.advice(problem, staged)
        if (
            model is None
            or data is None
            or problem is None
            or staged is None
            or world.selectors is None
            or world.report.failed
        ):
            return None
        finalise.tasks_fit(world, problem, world.catalog.data[data.constructor])
        data = self.splits(data, problem, staged, items)
        plan = Plan(
            self.spec,
            world.source,
            model,
            data,
            world.selectors.table,
            problem,
            staged,
            tuple(items),
            teachers,
            {name: p.text for name, p in in_force.items()},
        )
        for warning in runnability(plan):
            world.report.report(replace(warning, severity="warning"))
        for finding in prove(problem, plan.table).diagnostics:
            world.report.report(finding)
        return replace(plan, diagnostics=world.report.diagnostics())

    # ── statements by kind ──

    def each(self, kind: type[S]) -> list[tuple[int, S]]:
        return [(i, s) for i, s in enumerate(self.spec.statements) if isinstance(s, kind)]

    def once(self, kind: type[S], what: str, needed: str | None = None) -> tuple[int, S] | None:
        """The only statement of a kind; a second one, or a missing one that is needed, is reported."""
        found = self.each(kind)
        for _, extra in found[1:]:
            self.world.report.error("P219", extra.span, f"a spec has one {what}", hint="this is the second")
        if not found and needed is not None:
            self.world.report.error("P219", self.end, f"the spec has no {what}", hint=needed)
        return found[0] if found else None

    @property
    def end(self) -> Span:
        """Where a missing statement would go: the last character of the text."""
        size = len(self.world.source.text.rstrip())
        return Span(max(size - 1, 0), size)

    # ── steps ──

    def names(self) -> dict[str, InForce]:
        world = self.world
        in_force = params(world, self.spec, self.overrides)
        for i, statement in enumerate(self.spec.statements):
            world.scope.at = i
            match statement:
                case tree.Model():
                    declarations.declare_model(world, statement)
                case tree.Data():
                    declarations.declare_data(world, statement)
                case tree.Param(name=name):
                    value = in_force[name].value
                    world.scope.declare(name, "param", lambda value=value: value, statement.name_span)  # type: ignore[misc]
                case tree.Let(name=name, value=expr):
                    world.scope.declare(name, "let", lambda expr=expr: evaluate(world, expr), statement.name_span)  # type: ignore[misc]
        return in_force

    def network_and_data(self) -> tuple[ModelPlan | None, DataPlan | None, tuple[TeacherPlan, ...]]:
        world = self.world
        world.building = True
        model, teachers = self.networks()
        found = self.once(tree.Data, "`data` statement", "add one, for example `data digits()`")
        data = None
        if found is not None:
            world.scope.at, node = found
            data = declarations.data(world, node)
        world.building = False
        return model, data, teachers

    def networks(self) -> tuple[ModelPlan | None, tuple[TeacherPlan, ...]]:
        world = self.world
        trained = [(i, m) for i, m in self.each(tree.Model) if not m.frozen]
        teachers: list[TeacherPlan] = []
        for i, node in self.each(tree.Model):
            world.scope.at = i
            if node.frozen:
                teacher = declarations.teacher(world, node)
                teachers += [] if teacher is None else [teacher]
        if not trained:
            message = (
                "no network is trained: every one is frozen"
                if self.each(tree.Model)
                else "the spec has no `model` statement"
            )
            world.report.error(
                "P547" if self.each(tree.Model) else "P219",
                self.end,
                message,
                hint="write `model net = lenet_300_100()`",
            )
            return None, tuple(teachers)
        for _, extra in trained[1:]:
            world.report.error("P547", extra.span, "one network is trained; all others are `frozen`")
        world.scope.at, node = trained[0]
        world.trained = node.name
        return declarations.model(world, node), tuple(teachers)

    def table(self, model: ModelPlan | None, data: DataPlan | None) -> None:
        world = self.world
        if model is None or data is None:
            return
        node = self.each(tree.Data)[0][1]
        if not declarations.shapes_fit(world, model, data, node.constructor):
            return
        try:
            world.selectors = Selectors(self.table_of(model, data))
        except TableError as error:
            world.report.error("P543", model.span, error.message, hint=error.hint)

    def lets(self) -> None:
        """Evaluate every let, so that one that nothing uses is checked too."""
        for i, node in self.each(tree.Let):
            binding = self.world.scope.binding(node.name)
            if binding is not None and binding.at == i:
                self.world.scope.value(node.name)

    def solving(self) -> list[stages.Solving]:
        found: list[stages.Solving] = []
        for i, node in self.each(tree.Solve):
            self.world.scope.at = i
            clause = stages.solving(self.world, node, i)
            found += [] if clause is None else [clause]
        return found

    def problem(self, labels: Labels, ends: Ends) -> Problem | None:
        world = self.world
        goal = self.once(tree.Objective, "objective", "add one, for example `minimize cross_entropy(net)`")
        found_objective = None
        if goal is not None:
            world.scope.at, node = goal
            found_objective = objective(world, node, ends)
        frozen: frozenset[str] = frozenset()
        for i, statement in self.each(tree.Freeze):
            world.scope.at = i
            frozen |= declarations.frozen(world, statement)
        found: list[Constraint] = []
        lines = self.once(tree.SubjectTo, "`subject to`")
        if lines is not None:
            world.scope.at, subject = lines
            for line in subject.constraints:
                found += constraints(world, line, labels, ends)
        if found_objective is None or world.selectors is None:
            return None
        return finalise.finalise(world, found_objective, found, frozen)

    def stages(self, problem: Problem | None, solving: list[stages.Solving]) -> tuple[StagePlan, ...] | None:
        world = self.world
        nodes = [s for s in self.spec.statements if isinstance(s, (tree.Stage, tree.Solve, tree.Prune))]
        stages.in_order(world, nodes)
        target = None
        if problem is not None and not world.report.failed:
            goal = self.each(tree.Objective)[0][1]
            target = stages.goal(world, problem, goal.span)
        by_statement = {s.at: s for s in solving}
        found: list[StagePlan | None] = []
        for i, statement in enumerate(self.spec.statements):
            world.scope.at = i
            if isinstance(statement, tree.Stage):
                found.append(stages.training(world, statement, target))
            elif isinstance(statement, tree.Prune):
                found.append(stages.pruning(world, statement, target))
            elif i in by_statement:
                found.append(stages.solve_stage(world, by_statement[i], target))
            elif isinstance(statement, tree.Solve):
                stages.clauses_alone(world, statement)
        done = tuple(s for s in found if s is not None)
        return done if len(done) == len(nodes) else None

    def report(self, labels: Labels, problem: Problem | None) -> list[ReportPlan]:
        items: list[ReportPlan] = []
        for i, node in self.each(tree.Report):
            self.world.scope.at = i
            items += report(self.world, node, labels)
        return items if problem is None else factors.reported(self.world, items, problem)

    def splits(
        self, data: DataPlan, problem: Problem, staged: tuple[StagePlan, ...], items: list[ReportPlan]
    ) -> DataPlan:
        reads = finalise.reads_validation(problem, staged, items)
        return declarations.with_validation(self.world, data, reads, self.each(tree.Data)[0][1])

    def advice(self, problem: Problem | None, staged: tuple[StagePlan, ...] | None) -> None:
        """Warnings about specs that are valid and do nothing."""
        if problem is None or staged is None:
            return
        solves = [s for s in staged if s.solver is not None]
        pruned = any(s.pruner is not None for s in staged)
        if not solves and (problem.constraints or not pruned):
            outcome = "pruning alone follows no constraint" if pruned else "nothing will be compressed"
            self.world.report.warning("P413", self.end, f"the spec has no `solve`: {outcome}", hint="add `solve auto`")
        penalised = any(not isinstance(t.function, Measured) or is_description(t) for t in problem.objective.terms)
        last, word = max(
            ((i, s.solver.word) for i, s in enumerate(staged) if s.solver is not None and s.solver.shrinks),
            default=(len(staged), ""),
        )
        asked = penalised and searched(problem) is None  # what a search makes small ends as a count
        if asked and word and all(s.pruner is None for s in staged[last:]):
            self.world.report.warning(
                "P434",
                staged[last].span,
                f"under a penalty `{word}` makes weights small and removes none, and no `prune` follows",
                hint="add `prune tamade(δ = 1%)` after it",
            )
        sparsifies = any(s.solver is not None and s.solver.sparsifies for s in solves)
        if problem.constraints or penalised or pruned or sparsifies:
            return
        goal = self.each(tree.Objective)[0][1]
        message = "there is no constraint and no penalty: nothing asks for compression"
        self.world.report.warning(
            "P230", goal.span, message, hint="add `subject to` and a line such as `‖net.weights‖₀ ≤ 5%`"
        )
