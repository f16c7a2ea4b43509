"""The meaning of a whole spec: what has to stay the same for a run to go on. Comments, layout and names of files that
hold the same have none."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunelang.compiler.graph import Graph, listing
from prunelang.compiler.options import Options
from prunelang.compiler.plan import ModelPlan, Plan, StagePlan, TeacherPlan
from prunelang.explain import term_text
from prunelang.report import bound_text
from prunelang.runtime.files import digest, sha256
from prunelang.runtime.meaning import plain

Document = dict[str, Any]


def meaning_of(plan: Plan, folder: Path) -> str:
    """sha256 of `document`. Errors: `FileProblem` P510 where a file of weights cannot be read."""
    return hash_of(document(plan, folder))


def hash_of(meaning: Document) -> str:
    return digest(json.dumps(meaning, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def document(plan: Plan, folder: Path) -> Document:
    """Network, data, problem, stages and report as plain JSON; relative paths start at `folder`."""
    d = plan.data
    return {
        "model": _network(plan.model, folder),
        "teachers": [_network(t, folder) for t in plan.teachers],
        "shapes": plan.table.digest,
        "data": [d.text, d.batch, str(d.validation), d.seed, d.reads_validation],
        "problem": plain(plan.problem),
        "stages": [_stage(s) for s in plan.stages],
        "report": [[r.title, None if r.function is None else plain(r.function), r.label, r.field] for r in plan.report],
    }


def _network(model: ModelPlan | TeacherPlan, folder: Path) -> Any:
    return [model.name, model.text, None if model.weights is None else sha256(folder / model.weights)]


def _stage(s: StagePlan) -> Document:
    return {
        "kind": s.kind,
        "losses": plain(s.losses),
        "optimizer": _options(s.optimizer),
        "duration": plain(s.duration),
        "until": None if s.until is None else [s.until.name, plain(s.until.arguments), s.until.split],
        "solver": _options(s.solver),
        "pruner": _options(s.pruner),
    }


def _options(options: Options | None) -> Any:
    if options is None:
        return None
    return {"is": options.word, **{name: plain(getattr(options, name)) for name in type(options).model_fields}}


# ── as it reads ──────────────────────────────────────────────────────────────────────────────────────────────────


def lines(plan: Plan, graph: Graph) -> list[str]:
    """The same for people: the statements in their canonical form, then the graph that is executed."""
    return [*_statements(plan), *(x for x in listing(graph).splitlines()[1:] if x)]


def _statements(plan: Plan) -> Iterator[str]:
    networks: tuple[ModelPlan | TeacherPlan, ...] = (plan.model, *plan.teachers)
    for model in networks:
        yield f"model {model.name} = {model.text}" + (f" from {model.weights}" if model.weights else "")
    d = plan.data
    yield f"data {d.text}, batch = {d.batch}, validation = {float(d.validation):g}, seed = {d.seed}"
    objective = plan.problem.objective
    yield f"{objective.sense} " + " + ".join(map(term_text, objective.terms))
    for c in plan.problem.constraints:
        split = getattr(c.function, "split", "")
        yield f"{c.label}: {c.function.name} {bound_text(c)}" + (f" on {split}" if split else "")
    if plan.problem.frozen:
        yield "freeze " + ", ".join(sorted(plan.problem.frozen))
    for item in plan.report:
        yield f"report {item.title}"


def difference(
    before: Sequence[str], after: Sequence[str], was: Mapping[str, Any], now: Mapping[str, Any]
) -> list[str]:
    """What changed, line by line: ``- `` as it was, ``+ `` as it is; the plain data where the lines do not show it."""
    found = [
        f"{x[0]} {x[1:]}"
        for x in difflib.unified_diff(list(before), list(after), lineterm="", n=0)
        if not x.startswith(("---", "+++", "@@"))
    ]
    return found or list(_leaves(was, now, "spec"))


def _leaves(was: Any, now: Any, path: str) -> Iterator[str]:
    if was == now:
        return
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in sorted(was.keys() | now.keys()):
            yield from _leaves(was.get(key), now.get(key), f"{path}.{key}")
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for i, (a, b) in enumerate(zip(was, now, strict=True)):
            yield from _leaves(a, b, f"{path}[{i}]")
    else:
        yield f"- {path}: {json.dumps(was, ensure_ascii=False)}"
        yield f"+ {path}: {json.dumps(now, ensure_ascii=False)}"
