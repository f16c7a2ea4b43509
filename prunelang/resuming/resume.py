"""`resume`: a run directory in, the run to its end out, or a reason why not."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelang.api import Program, compile_source
from prunelang.compiler.graph import Graph, Phase, Search, Step
from prunelang.compiler.graph.codec import from_json
from prunelang.dsl.parser import decode
from prunelang.resuming.canon import difference, document, hash_of, lines
from prunelang.resuming.record import Record, ResumeRefused, locked, read_record
from prunelang.runtime.certificate import SHAPES, SPEC, WEIGHTS
from prunelang.runtime.files import FileProblem, digest, parse_json, read, read_text
from prunelang.verification import certificate_of, table_of_run

if TYPE_CHECKING:
    from prunelang.execution import Session, Solution
    from prunelang.runtime.checkpoints.folder import Checkpoint
    from prunelang.runtime.machine import Event

LIBRARIES = ("prunelang", "torch")


class MeaningChanged(ResumeRefused):
    """The spec of the folder means something else than what ran; `difference` says what, line by line."""

    def __init__(self, message: str, hint: str, found: list[str]) -> None:
        super().__init__("P526", "\n".join([message, *(f"    {line}" for line in found)]), hint)
        self.difference = tuple(found)


def warned(message: str) -> None:
    """What `resume` does with a warning if nothing else is asked for."""
    warnings.warn(message, stacklevel=3)


def resume(
    path: str | Path,
    *,
    accept_change: bool = False,
    observe: Callable[[Event], None] = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = warned,
) -> Solution:
    """Go on with the run in a folder from its last checkpoint that is whole, to the same end as without the stop.

    On the host in deterministic mode the result is the same bit for bit; else the state is, and the certificate says
    how often the run was resumed. A finished run is left as it is, and its solution given back. Code that registers
    names has to have run before. `accept_change` goes on although the spec in the folder means something else than what
    ran, where the state still fits, or although torch is another.

    Raises `ResumeRefused` (P520 to P529), of which `MeaningChanged` (P526) holds the difference; `SpecError` for a spec
    that does not compile; what `Program.run` raises.
    """
    out = Path(path)
    read_record(out)  # before anything is written, a lock included
    with locked(out):
        return _resumed(out, accept_change, observe, stop, warn)


def _resumed(
    out: Path,
    accept: bool,
    observe: Callable[[Event], None],
    stop: Callable[[], bool],
    warn: Callable[[str], None],
) -> Solution:
    from prunelang.execution import RunOptions, Session, execute_session
    from prunelang.resuming.every import Every
    from prunelang.resuming.journal import Resumption
    from prunelang.runtime.checkpoints import folder

    record = read_record(out)
    if record.status == "finished" and digest(read(out / SPEC)) == certificate_of(out).spec_hash:
        return finished(out)
    program = compiled(out, record)
    before = record
    record = _meant(out, program, record, accept)
    if record.status == "finished":
        return finished(out)
    options = RunOptions(
        out=out,
        seed=record.seed,
        device=record.device,
        dtype=record.dtype,
        deterministic=record.deterministic,
        checkpoint_every=Every.parse(record.checkpoint_every),
        parameters=record.parameters,
        code=record.code,
        shapes=record.shapes,
    )
    folder.sweep(out)
    session = Session(program.plan, program.folder, options)
    checkpoint = _chosen(out, session, record, accept, warn)
    if record.meaning != before.meaning and checkpoint is not None:
        _require_fit(_old_graph(out), session.graph, checkpoint)
    same = checkpoint is None or _versions(session, record) == dict(checkpoint.facts["versions"])
    exact = record.exact and same and record.deterministic and record.meaning == before.meaning
    record = replace(record, resumed=record.resumed + 1, exact=exact if checkpoint is not None else record.exact)
    session.resumed = 0 if record.exact and record.deterministic else record.resumed
    for event in _begun(session.graph, checkpoint):
        observe(event)
    return execute_session(session, Resumption(record, checkpoint), observe, stop)


def finished(out: Path) -> Solution:
    """What a finished run has found. Errors: `FileProblem`."""
    from prunelang.execution import Solution

    return Solution(out, out / WEIGHTS, certificate_of(out), 0.0)


# ── the spec ─────────────────────────────────────────────────────────────────────────────────────────────────────


def compiled(out: Path, record: Record) -> Program:
    """The spec in the folder, with what was given beside it. Raises `SpecError`."""
    source = decode(read(out / SPEC), str(out / SPEC))
    table = table_of_run(out) if record.shapes else None
    found = compile_source(
        replace(source, name=record.source),
        Path(record.folder),
        params=record.parameters,
        shapes=table,
        dtype=record.dtype,
    )
    found.require_runnable()
    return found


def _meant(out: Path, program: Program, record: Record, accept: bool) -> Record:
    """The record, with another meaning if one is accepted. Raises `MeaningChanged`."""
    now = document(program.plan, program.folder)
    if hash_of(now) == record.meaning:
        return record
    plain: dict[str, Any] = json.loads(json.dumps(now))
    listed = lines(program.plan, program.graph)
    found = difference(record.lines, listed, record.document, plain)
    if record.status == "finished":
        message = f"the run in {out} has finished, and {SPEC} means something else now:"
        raise MeaningChanged(message, f"Start it anew: `prune run {out / SPEC} --out ANOTHER`.", found)
    if not accept:
        message = f"{SPEC} in {out} means something else than what ran:"
        raise MeaningChanged(message, "Undo the change, or go on under the new spec with --accept-change.", found)
    accepted = (*record.accepted, record.meaning)
    return replace(record, meaning=hash_of(now), accepted=accepted, document=now, lines=tuple(listed))


def _old_graph(out: Path) -> Graph:
    path = out / "graph.json"
    return from_json(parse_json(read_text(path), path))


def _require_fit(before: Graph, after: Graph, checkpoint: Checkpoint) -> None:
    """Raises `ResumeRefused` P526 unless the state fits the new graph, and the place is one there too."""
    was, now = ({s.name: type(s).__name__ for s in g.state} for g in (before, after))
    reason = next((f"`{n}` is state of one alone" for n in was.keys() ^ now.keys()), "")
    reason = reason or next((f"`{n}` was {was[n]} and is {now[n]}" for n in was if was[n] != now[n]), "")
    frames = checkpoint.state["machine"]["frames"]
    at = frames[0]["of"]["at"]
    for i, (old, new) in enumerate(zip(before.program[: at + 1], after.program[: at + 1], strict=False)):
        if not reason and _skeleton(old) != _skeleton(new):
            reason = f"stage {i + 1}, which has begun, is made of other steps"
        if not reason and i == at and isinstance(old, Search) and isinstance(new, Search) and _span(old) != _span(new):
            reason = "the search that is under way has another range"
    if not reason and len(after.program) <= at:
        reason = "the stage under way is not there any more"
    if reason:
        message = f"the change cannot be accepted, since the state of the run does not fit the new spec: {reason}"
        raise ResumeRefused("P526", message, "Undo the change, or start a new run.")


def _skeleton(step: Step) -> tuple[Any, ...]:
    """What a place in a program speaks of: which steps there are, and what is inside which."""
    name = step.name if isinstance(step, Phase) else ""
    return (type(step).__name__, name, *(tuple(map(_skeleton, body)) for _, body in step.bodies()))


def _span(step: Search) -> tuple[Any, ...]:
    return (step.top, step.least, step.tolerance, step.sense)


# ── the checkpoint ───────────────────────────────────────────────────────────────────────────────────────────────


def _chosen(
    out: Path, session: Session, record: Record, accept: bool, warn: Callable[[str], None]
) -> Checkpoint | None:
    """The last checkpoint that is whole and of this run; None where none was written yet. Errors: `ResumeRefused`."""
    from prunelang.runtime.checkpoints import folder

    numbers = folder.numbers(out)
    problems: list[FileProblem] = []
    for number in reversed(numbers):
        try:
            found = folder.read(out, number)
            _require_own(found, session, record, accept)
        except FileProblem as error:
            problems.append(error)
            warn(f"{error.message} [{error.code}]")
            continue
        if problems:
            warn(f"going on from checkpoint {number:06d}, the one before")
        return found
    if not numbers:
        warn("no checkpoint was written yet: the run begins at its beginning")
        return None
    hint = problems[0].hint or f"Nothing was changed. `prune run --restart --out {out}` begins anew."
    raise ResumeRefused(problems[0].code, f"no checkpoint in {out} can be used: {problems[0].message}", hint)


def _require_own(checkpoint: Checkpoint, session: Session, record: Record, accept: bool) -> None:
    """Raises `FileProblem` P523 for a checkpoint of another run, P524 for one that other libraries wrote."""
    from prunelang.resuming.journal import facts_of

    stated, own = checkpoint.facts, facts_of(session, record)
    if stated["meaning"] not in (record.meaning, *record.accepted):
        raise FileProblem("P523", f"checkpoint {checkpoint.path} is of another spec")
    for fact, what in (("network", "network"), ("data", "training data"), ("seed", "seed"), ("dtype", "number type")):
        if stated[fact] != own[fact]:
            raise FileProblem("P523", f"checkpoint {checkpoint.path} is of another {what}")
    was, now = stated["versions"], own["versions"]
    changed = [f"{n} {was.get(n)}, this is {now.get(n)}" for n in LIBRARIES if was.get(n) != now.get(n)]
    if changed and not accept:
        message = f"checkpoint {checkpoint.path} was written with {'; '.join(changed)}"
        raise FileProblem("P524", message, "Install that version, or go on with --accept-change.")


def _versions(session: Session, record: Record) -> dict[str, str]:
    from prunelang.versions import versions

    return versions(session.plan, record.device)


def _begun(graph: Graph, checkpoint: Checkpoint | None) -> Iterator[dict[str, Any]]:
    """The stages that are under way, for whoever watches: their beginnings stand in the history already."""
    if checkpoint is None:
        return
    head = {"event": "resumed", "checkpoint": checkpoint.path.name}
    names: list[str] = []
    body = graph.program
    for frame in checkpoint.state["machine"]["frames"]:
        step = body[frame["of"]["at"]] if frame["of"]["at"] < len(body) else None
        if isinstance(step, Phase | Search):
            names.append(step.name if isinstance(step, Phase) else "search")
        elif not names:
            break
        body = step.body if isinstance(step, Phase | Search) else ()
    yield from ({**head, "stage": name} for name in names or [""])


__all__ = ["SHAPES", "MeaningChanged", "compiled", "finished", "resume"]
