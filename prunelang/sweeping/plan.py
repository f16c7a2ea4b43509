"""From a spec and a grid to tasks: every combination compiled, refusals told apart, what is shared found out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunelang.api import Program, compile_source
from prunelang.compiler.plan import Plan
from prunelang.dsl.diagnostics import Diagnostic, SpecError
from prunelang.dsl.parser import parse
from prunelang.dsl.spans import NOWHERE, Source
from prunelang.dsl.tree import Call, Spec
from prunelang.resuming.record import ResumeRefused
from prunelang.runtime.meaning import meaning
from prunelang.sweeping import pretrained
from prunelang.sweeping import row as rows
from prunelang.sweeping.grid import OWN, Cell, Grid
from prunelang.sweeping.identity import code_digests, pretraining_digest, run_digest
from prunelang.sweeping.solver import NotCarried, solve_of, solver_call, stated, with_solver
from prunelang.sweeping.worker import Pretraining, Settings, Task

RUNS, PRETRAINED = "runs", "pretrained"


@dataclass(frozen=True)
class Planned:
    """What a sweep has to do: rows that are known already, and tasks in chains, with what they start from."""

    known: Mapping[Cell, rows.Row]
    tasks: Mapping[Cell, Task]
    before: Mapping[Cell, Path | None]  # the run directory that a task starts from, where runs are chained
    pretrainings: tuple[Pretraining, ...]
    problem: Plan  # of the first combination that compiles

    def chains(self) -> list[tuple[Task, ...]]:
        """Tasks that depend on no other chain, in the order of the sweep."""
        found: dict[Path, list[Task]] = {}
        heads: dict[Path, Path] = {}
        for cell, task in self.tasks.items():
            previous = self.before[cell]
            head = heads.get(previous, task.out) if previous is not None else task.out
            heads[task.out] = head
            found.setdefault(head, []).append(task)
        return [tuple(chain) for chain in found.values()]


@dataclass(frozen=True)
class Candidate:
    """A combination whose solver takes its problem."""

    task: Task
    plan: Plan
    shares: str | None  # identity of its pretraining


def planned(
    source: Source, grid: Grid, settings: Settings, out: Path, *, code: Sequence[str], chained: bool, replaced: bool
) -> Planned:
    """Compile everything, and look at what `out` holds.

    Errors: `SpecError` of the spec itself, P560, P561, and P563 where `chained` has no order to follow; `ResumeRefused`
    P562 where the directory holds a finished run of the same name and another meaning, unless they are `replaced`.
    """
    spec = parse(source.text, source.name)
    calls = {s: solver_call(s, source) for s in grid.solvers if s != OWN}
    if calls:
        solve_of(spec, source)
    if chained and sum(len(texts) > 1 for _, texts in grid.values) != 1:
        hint = "give one param several values, largest budget first"
        said = "runs start from one another along one budget, and this sweep has not one"
        raise SpecError([Diagnostic("P563", "error", said, NOWHERE, hint=hint)], source)
    own = _own(source, grid, settings)
    known: dict[Cell, rows.Row] = {}
    candidates: dict[Cell, Candidate] = {}
    common = [settings.device, settings.dtype, settings.deterministic, code_digests(code)]
    for cell in grid.cells():
        found = _candidate(cell, source, spec, own[cell.values], calls, settings, out, common)
        if isinstance(found, rows.Row):
            known[cell] = found
        else:
            candidates[cell] = found
    before = {c: _before(c, grid, candidates) if chained else None for c in candidates}
    if chained:
        candidates = _linked(candidates, before)
    for cell, candidate in candidates.items():
        row = rows.kept(cell, candidate.task.identity, meaning(candidate.plan.problem), candidate.task.out)
        if row is not None:
            known[cell] = row
    open_ = {c: candidate for c, candidate in candidates.items() if c not in known}
    if not replaced:
        _require_same(open_)
    tasks, pretrainings = _sharing(open_, {c for c, b in before.items() if b is None}, out)
    paths = {c: None if b is None else candidates[b].task.out for c, b in before.items()}
    return Planned(known, tasks, paths, pretrainings, next(p.plan for p in own.values() if isinstance(p, Program)))


def _own(source: Source, grid: Grid, settings: Settings) -> dict[tuple[tuple[str, str], ...], Program | SpecError]:
    """The spec itself for every combination of values. Raises the first `SpecError` where none compiles."""
    found: dict[tuple[tuple[str, str], ...], Program | SpecError] = {}
    for point in grid.points():
        try:
            found[point] = compile_source(
                source, settings.folder, params=dict(point), shapes=settings.shapes, dtype=settings.dtype
            )
        except SpecError as error:
            found[point] = error
    errors = [e for e in found.values() if isinstance(e, SpecError)]
    if len(errors) == len(found):
        raise errors[0]
    return found


def _candidate(
    cell: Cell, source: Source, spec: Spec, own: Program | SpecError, calls: Mapping[str, Call], settings: Settings,
    out: Path, common: list[Any],
) -> Candidate | rows.Row:  # fmt: skip
    if isinstance(own, SpecError):
        return rows.refused(cell, own.diagnostics)
    text = source.text
    if cell.solver in calls:
        try:
            text = with_solver(source.text, spec, own.plan, calls[cell.solver], _batches(own))
        except NotCarried as error:
            return rows.Row(cell, "refused", message=str(error), code="P564")
    solve = stated(text)
    task = Task(cell, text, solve, "", out / RUNS / cell.folder, settings)
    try:
        program = task.program()
        program.require_runnable()
    except SpecError as error:
        return rows.refused(cell, error.diagnostics, solve)
    identity = run_digest(program.plan, program.folder, [*common, cell.seed])
    shares = pretraining_digest(program.plan, program.folder, [*common, cell.seed])
    return Candidate(replace(task, identity=identity), program.plan, shares)


def _batches(program: Program) -> int | None:
    """Batches of an epoch, where the number of samples is known without the data."""
    from prunelang.explain import unknown_size

    return None if unknown_size(program) is not None else -(-program.train_size // program.plan.data.batch)


def _before(cell: Cell, grid: Grid, candidates: Mapping[Cell, Candidate]) -> Cell | None:
    """The nearest run with an earlier value of the one param that has several, of the same solver and seed."""
    name, texts = next((n, t) for n, t in grid.values if len(t) > 1)
    at = texts.index(cell.parameters[name])
    for text in reversed(texts[:at]):
        other = replace(cell, values=tuple((n, text if n == name else v) for n, v in cell.values))
        if other in candidates:
            return other
    return None


def _linked(candidates: Mapping[Cell, Candidate], before: Mapping[Cell, Cell | None]) -> dict[Cell, Candidate]:
    """The same with identities that speak of the runs that they start from."""
    found: dict[Cell, Candidate] = {}
    for cell, candidate in candidates.items():
        previous = before[cell]
        if previous is not None:
            identity = f"{candidate.task.identity} from {found[previous].task.identity}"
            candidate = replace(candidate, task=replace(candidate.task, identity=identity))
        found[cell] = candidate
    return found


def _require_same(candidates: Mapping[Cell, Candidate]) -> None:
    """No directory of a run to be made may hold a finished one of another meaning. Errors: `ResumeRefused` P562."""
    for cell, candidate in candidates.items():
        held = rows.identity_of(candidate.task.out)
        if held is not None and held != candidate.task.identity:
            message = f"{candidate.task.out} holds a finished run of another spec, network, data or options"
            hint = "give another --out, or --replace to run it again"
            raise ResumeRefused("P562", f"{message}: {cell.name}", hint)


def _sharing(
    candidates: Mapping[Cell, Candidate], heads: Set[Cell], out: Path
) -> tuple[dict[Cell, Task], tuple[Pretraining, ...]]:
    """The tasks, and what is to be trained before: a network that two of them share, or that is there already.
    Those that are no `heads` of a chain start from another run."""
    wanted = Counter(c.shares for cell, c in candidates.items() if c.shares is not None and cell in heads)
    tasks: dict[Cell, Task] = {}
    pretrainings: dict[str, Pretraining] = {}
    for cell, candidate in candidates.items():
        task, shares = candidate.task, candidate.shares
        if shares is not None and cell in heads:
            folder = out / PRETRAINED / shares[:16]
            there = pretrained.is_there(folder, shares)
            if there or wanted[shares] > 1:
                task = replace(task, pretrained=folder)
            if not there and wanted[shares] > 1 and shares not in pretrainings:
                pretrainings[shares] = Pretraining(candidate.task, folder, shares)
        tasks[cell] = task
    return tasks, tuple(pretrainings.values())
