"""Running a program: from a plan to a run directory with certified weights."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from prunelang.certifying import Known
from prunelang.compiler.bridges import bridge
from prunelang.compiler.description import is_coded
from prunelang.compiler.graph import Factors, Graph
from prunelang.compiler.lowering import lower
from prunelang.compiler.measured import certified_on, is_measured, measured_constraints
from prunelang.compiler.plan import Plan, ReportPlan
from prunelang.compiler.problem import Constraint, Count, Interval, Kept, Measured, Relative
from prunelang.compiler.reversed import conditions, searched
from prunelang.compiler.synops import PREFIX
from prunelang.dsl.diagnostics import Diagnostic, SpecError
from prunelang.dsl.spans import NOWHERE
from prunelang.inputs import DTYPES, build, chain_for, load_data
from prunelang.report import report_markdown
from prunelang.resuming.canon import document, hash_of, lines
from prunelang.resuming.every import Every
from prunelang.resuming.journal import Journal, Resumption, closing
from prunelang.resuming.record import Record, ResumeRefused, locked, status_of
from prunelang.runtime import described, evaluate
from prunelang.runtime.certificate import SUPPORT, WEIGHTS, Certificate, Measurement, Reported
from prunelang.runtime.checkpoints.folder import numbers
from prunelang.runtime.data import Batches
from prunelang.runtime.execute import run as execute
from prunelang.runtime.factor_files import save_factors
from prunelang.runtime.factors import FACTORS
from prunelang.runtime.files import write_text
from prunelang.runtime.floors import SHARES, judge, statement
from prunelang.runtime.machine import Event, Interrupted, Machine, NumericalFailure
from prunelang.runtime.search import highs_of, note_base
from prunelang.runtime.synops import SPIKING, Activity, Uncounted, meter, outcome
from prunelang.runtime.weights import load_weights, save_support, save_weights


@dataclass(frozen=True)
class RunOptions:
    """How a spec is run; nothing here changes what it means."""

    out: Path
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    deterministic: bool = False
    checkpoint_every: Every | None = field(default_factory=Every)  # None: no checkpoints, and the run cannot be resumed
    restart: bool = False  # what an unfinished run left in `out` may go
    parameters: Mapping[str, str] = field(default_factory=dict)  # given beside the spec
    code: tuple[str, ...] = ()  # what registered networks, data and losses, for messages
    shapes: bool = False  # the table of shapes was given


@dataclass(frozen=True)
class Solution:
    """What a run hands back. After a failure or an interruption the weights are those of the last good boundary."""

    directory: Path
    weights: Path
    certificate: Certificate
    seconds: float
    failure: str | None = None
    interrupted: bool = False
    emptied: tuple[str, ...] = ()  # layers without a weight left: nothing of their input passes them

    @property
    def feasible(self) -> bool:
        """Every constraint is known to hold of the saved file."""
        return self.certificate.satisfied

    def reported(self, title: str) -> float:
        """The value of an item of `report` as a number. Raises KeyError for a title that is not there."""
        for item in self.certificate.report:
            if item.title == title and item.value is not None:
                return float(item.value)
        raise KeyError(title)


# ── what a run is made of ────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def numerics(deterministic: bool) -> Iterator[None]:
    """Deterministic algorithms where they are asked for."""
    if deterministic:  # read by cuBLAS when it is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if not deterministic or torch.are_deterministic_algorithms_enabled():
        yield  # setting what is set already would import torch's compiler, which takes seconds
        return
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


class Session:
    """A plan with its data, network and graph on a device: what `run` executes and tests take apart."""

    def __init__(self, plan: Plan, folder: Path, options: RunOptions) -> None:
        self.plan, self.folder, self.options = plan, folder, options
        dtype = DTYPES[options.dtype]
        self.data = load_data(plan, folder, options.device, options.dtype)
        self.graph: Graph = lower(plan, train_size=len(self.data.train))
        torch.manual_seed(options.seed)
        self.model = build(plan.model, plan, folder, options.device, dtype)
        self.teachers = {t.name: build(t, plan, folder, options.device, dtype).eval() for t in plan.teachers}
        for teacher in self.teachers.values():
            teacher.requires_grad_(False)
        self.feed = Batches(self.data.train, plan.data.batch, options.seed)
        self.resumed = 0  # how often it was taken up again, where that may have changed a bit
        self.spikes = meter(self.model, self.data, plan.table)
        self._require_counted()
        chain_for(plan, self.model)

    def _require_counted(self) -> None:
        """Raises `SpecError` (P478) where spikes are asked for and a layer cannot be counted, before training."""
        asked = [(c.function, c.span) for c in self.plan.problem.constraints]
        asked += [(r.function, NOWHERE) for r in self.plan.report if r.function is not None]
        spans = [span for f, span in asked if f.name in SPIKING]
        if not spans:
            return
        try:
            self.spikes.require()
        except Uncounted as error:
            hint = "write it with `F.linear` or `F.conv1d`, `2d`, `3d`, or the modules that call these"
            found = Diagnostic("P478", "error", f"spikes cannot be counted: {error}", spans[0], hint=hint)
            raise SpecError([found], self.plan.source) from error

    def machine(self, observe: Callable[[Event], None], stop: Callable[[], bool]) -> Machine:
        return Machine(
            graph=self.graph,
            model=self.model,
            feed=self.feed,
            criterion=lambda loss: evaluate.criterion_of(loss, self.teachers),
            observe=observe,
            measure=self.measure,
            each=self.each,
            activity=self.activity,
            samples=lambda split: len(self.data[split]),
            stop=stop,
        )

    def measure(self, function: Measured) -> evaluate.Outcome:
        """On the network as it is now."""
        if function.name in SPIKING:
            return outcome(self.activity(function.split), function, self.data.digest(function.split))
        if function.name in described.NAMES:
            digest = self.data.digest(function.split)
            return described.measure(function, self.model, self.plan.table, digest, self.measure)
        return evaluate.measure(function, self.model, self.data, self.teachers)

    def each(self, function: Measured) -> NDArray[np.float64] | None:
        """The same, a value for each sample."""
        if function.name in SPIKING:
            return self.activity(function.split).values(function.name)
        return evaluate.each(function, self.model, self.data, self.teachers)

    def activity(self, split: str) -> Activity:
        """What the neurons of the network as it is now do on a split."""
        return self.spikes.on(split)

    def save(self, out: Path, machine: Machine) -> None:
        """The weights, and the kept positions where a constraint speaks of them."""
        stored = self.model.state_dict()  # without buffers that the network itself does not keep, such as masks
        arrays = {name: t.detach().cpu().numpy() for name, t in machine.tensors.items() if name in stored}
        (out / SUPPORT).unlink(missing_ok=True)
        save_weights(out / WEIGHTS, arrays, self.plan.table)
        self._save_factors(out, machine)
        if any(_speaks_of_positions(c) for c in self.plan.problem.constraints) and "m" in machine.values:
            kept = dict(zip(machine.names("m"), machine.values["m"], strict=True))
            save_support(out / SUPPORT, {n: k.cpu().numpy() for n, k in kept.items()}, self.plan.table)

    def _save_factors(self, out: Path, machine: Machine) -> None:
        """What composed tensors are made of, if the network is that: not after a stop while it was trained as it is."""
        (out / FACTORS).unlink(missing_ok=True)
        made_of = [s.compositions for s in self.graph.state if isinstance(s, Factors)]
        if machine.composed and made_of:
            arrays = {name: t.detach().cpu().numpy() for name, t in machine.factors.items()}
            save_factors(out / FACTORS, arrays, made_of[0], self.plan.table)

    def conclude(self, out: Path, machine: Machine) -> Certificate:
        """The certificate of what was saved: the file is read back before anything is measured."""
        arrays = load_weights(out / WEIGHTS, self.plan.table)
        self.model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in arrays.items()}, strict=False)
        constraints = self.plan.problem.constraints
        bases = self._bases(machine)
        seen_values = ((c.label, self._measured(c, machine)) for c in measured_constraints(self.plan.problem))
        measured = {label: found for label, found in seen_values if found is not None}
        own = {c.label for c in constraints}
        gaps = {label: gap for labels, gap in machine.gaps.items() for label in labels if label in own}
        takes = next((s.solver.constraints for s in self.plan.stages if s.solver is not None), frozenset())
        seen = bridge(self.plan.problem, takes)
        found = ((k.removeprefix(PREFIX), p) for k, p in machine.prices.items())
        prices = {k: replace(p, value=seen.price(k, p.value)) for k, p in found if k in own}
        known = Known(out, self.plan, self.options, measured, prices, gaps, bases, self.resumed)
        certificate = known.certify()
        items = tuple(i for item in (*self._sought(), *self.plan.report) for i in self._items(item, certificate, known))
        return known.certify(items) if items else certificate

    def _sought(self) -> tuple[ReportPlan, ...]:
        """What a search made small, as an item of the report."""
        term = searched(self.plan.problem)
        return () if term is None else (ReportPlan(f"minimize {term.text or term.function.name}", term.function),)

    def _bases(self, machine: Machine) -> dict[str, float | Fraction]:
        """The value of `base` of every constraint that speaks of it, on the split that its certificate is measured on,
        with the weights that entered the first solve. The network holds its own weights again afterwards."""
        given = (c for c in self.plan.problem.constraints if is_measured(c) or is_coded(c))
        relative = [c for c in given if isinstance(c.set, Relative)]
        if not relative or not machine.entering:
            return {}
        found: dict[str, float | Fraction] = {}
        with network_as(machine.tensors, machine.entering):
            for c in relative:
                function = self._certified(c)
                outcome = self.measure(function) if is_coded(c) else note_base(c.label, function, machine)
                if math.isfinite(outcome.value):
                    found[c.label] = outcome.value if outcome.exact is None else outcome.exact
        return found

    def _certified(self, c: Constraint) -> Measured:
        assert isinstance(c.function, Measured)
        return replace(c.function, split=certified_on(self.plan.problem, c.function.split))

    def _measured(self, c: Constraint, machine: Machine) -> Measurement | None:
        """A measured constraint on the split kept for it, with what that split allows to say; None of what is no finite
        number, as of a network that overflows."""
        function = self._certified(c)
        outcome = self.measure(function)
        if not math.isfinite(outcome.value):
            return None
        got = outcome.value if outcome.exact is None else outcome.exact
        values = None if function.split == "train" else self.each(function)
        key = (c.label, function.split)
        base, start = machine.bases.get(key, 0.0), machine.starts.get(key)
        found = [
            (f, judge(f, outcome.value, values, base, start, highs_of(f, machine)))
            for f in conditions(c, function.split)
        ]
        tests = [v.confirmed for _, v in found if v.confirmed is not None]
        hits = int(outcome.total) if function.name in SHARES else None
        said = [text for text in (statement(f, v, hits) for f, v in found) if text]
        if c.label in machine.short and not all(v.met for _, v in found):
            where = "select" if function.split == "certify" else function.split
            entered = f"{machine.short[c.label]:.6g} on {where}"
            said.append(f"the network that entered the search had {entered}, short of the floor")
        return Measurement(
            got, outcome.digest, outcome.count, "; ".join(said), all(tests) if tests else None, outcome.split
        )

    def _items(self, item: ReportPlan, certificate: Certificate, known: Known) -> Iterator[Reported]:
        """An item of `report`; after the length of a coded file also its entropy, after synaptic operations the
        multiply-adds of layers that no spikes reach, to be seen beside them."""
        yield self._item(item, certificate, known)
        f = item.function
        if isinstance(f, Measured) and f.name == "bytes":
            file = described.file_of(f, self.model, self.plan.table)
            yield Reported(f"entropy of {item.title}", file.entropy, "B")
        if isinstance(f, Measured) and f.name == "synops":
            macs = self.activity(f.split).macs
            yield Reported(f"multiply-adds of analog inputs beside {item.title}", macs, "MACs", f.split)

    def _item(self, item: ReportPlan, certificate: Certificate, known: Known) -> Reported:
        """One item of `report`: a field of a constraint's line, a measured value, or a recount."""
        if item.label is not None:
            line = next(x for x in certificate.constraints if x.label == item.label)
            fields = {"value": line.got, "bound": line.bound, "margin": line.margin, "dual": line.price}
            value = fields[item.field or "value"]
            return Reported(item.title, None if isinstance(value, list) else value, line.unit)
        assert item.function is not None
        if isinstance(item.function, Measured):
            outcome = self.measure(item.function)
            if item.function.name == "bytes":
                return Reported(item.title, int(outcome.total), outcome.unit)
            value = outcome.value if math.isfinite(outcome.value) else None
            return Reported(item.title, value, outcome.unit, outcome.split)
        return Reported(item.title, known.recounted(item.function), item.function.unit)


def _speaks_of_positions(c: Constraint) -> bool:
    """Lower bounds on counts and `dense` are about kept positions, which zeros in the weights file do not show."""
    lower = isinstance(c.function, Count) and isinstance(c.set, Interval) and c.set.lower is not None
    return lower or isinstance(c.set, Kept)


@contextmanager
def network_as(tensors: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The network with other values; its own come back at the end."""
    own = {name: t.detach().clone() for name, t in tensors.items()}
    with torch.no_grad():
        for name, t in tensors.items():
            t.copy_(other[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, t in tensors.items():
                t.copy_(own[name])


# ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────


def run(
    plan: Plan,
    folder: Path,
    options: RunOptions,
    observe: Callable[[Event], None] = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
    finished: Callable[[Session, Machine], None] = lambda session, machine: None,
    prepare: Callable[[Session, Machine], None] = lambda session, machine: None,
) -> Solution:
    """Train, save, reload, measure and certify. A failed run still leaves its last good weights and a certificate.

    `finished` sees the session at the end, its network holding what was saved; `prepare` sees it before the first step.
    Errors: `ResumeRefused` P527 where an unfinished run is in the folder, P528 where another process works there;
    `FileProblem` P525 where a checkpoint cannot be written.
    """
    out = options.out
    session = Session(plan, folder, options)
    out.mkdir(parents=True, exist_ok=True)  # only now: data that cannot be had leaves no folder behind
    with locked(out):
        if options.checkpoint_every is None:
            return execute_session(session, None, observe, stop, finished, prepare)
        if not options.restart and status_of(out) not in (None, "finished") and numbers(out):
            hint = f"`prune resume {out}` goes on with it; give another folder, or --restart, to begin anew."
            raise ResumeRefused("P527", f"{out} holds a run that has not finished", hint)
        return execute_session(session, Resumption(_record(session), None), observe, stop, finished, prepare)


def _record(session: Session) -> Record:
    plan, options = session.plan, session.options
    meaning = document(plan, session.folder)
    return Record(
        status="running",
        source=plan.source.name,
        folder=str(session.folder.resolve()),
        parameters=dict(options.parameters),
        code=options.code,
        shapes=options.shapes,
        seed=options.seed,
        device=options.device,
        dtype=options.dtype,
        deterministic=options.deterministic,
        checkpoint_every=str(options.checkpoint_every),
        meaning=hash_of(meaning),
        accepted=(),
        document=meaning,
        lines=tuple(lines(plan, session.graph)),
    )


def execute_session(
    session: Session,
    resumption: Resumption | None,
    observe: Callable[[Event], None],
    stop: Callable[[], bool],
    finished: Callable[[Session, Machine], None] = lambda session, machine: None,
    prepare: Callable[[Session, Machine], None] = lambda session, machine: None,
) -> Solution:
    """`run` in a folder that is ours: from the beginning, or from a checkpoint."""
    plan, options, out = session.plan, session.options, session.options.out
    failure: str | None = None
    interrupted = False
    opened = Journal(session, out, observe, options.checkpoint_every, resumption)
    with closing(opened) as journal, numerics(options.deterministic):
        machine = session.machine(journal.history, stop)
        journal.begin(machine)
        prepare(session, machine)
        try:
            execute(machine)
        except NumericalFailure as error:
            failure = f"{error} ({error.where})"
        except Interrupted:
            interrupted = True
        session.save(out, machine)
        certificate = session.conclude(out, machine)
        finished(session, machine)
        certified = {"event": "certified", "status": certificate.status}
        journal.history({**certified, "failure": failure, "interrupted": interrupted})
        emptied = tuple(x.name for x in plan.table.layers if not machine.tensors[x.weight].any())
        seconds = journal.history.seconds
        solution = Solution(out, out / WEIGHTS, certificate, seconds, failure, interrupted, emptied)
        write_text(Path("report.md"), report_markdown(solution, plan.source.text, plan.source.name), root=out)
        journal.end("failed" if failure else "interrupted" if interrupted else "finished")
    return solution
