"""`Program`: a graph on its way to text. What the emitters of states and steps ask and write to."""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prunelang.compiler.codegen.expressions import has_ramp, source
from prunelang.compiler.codegen.inline import Inliner
from prunelang.compiler.codegen.sources import Symbol
from prunelang.compiler.codegen.writer import Writer
from prunelang.compiler.forms import Composition
from prunelang.compiler.graph import (
    Batches,
    Buffers,
    Data,
    Dual,
    Evaluate,
    Floor,
    Graph,
    KeepBest,
    Level,
    Materialize,
    Multipliers,
    Optimizer,
    Outer,
    Project,
    Prox,
    Rest,
    Saddle,
    State,
    Steer,
    SteerGates,
    SteerPenalty,
    Step,
    Weights,
    walk,
)
from prunelang.compiler.graph.steps import Descend
from prunelang.compiler.plan import Plan
from prunelang.compiler.problem import Budget
from prunelang.compiler.schedule import Schedule, clocks_of
from prunelang.dsl.spans import NOWHERE, Span

KERNELS = "prunelang.runtime.kernels"
STANDALONE = "prunelang.runtime.standalone"
BATCHES = "prunelang.runtime.data.batches"
METRICS = ("accuracy", "error", "cross_entropy", "nll", "mse")

# Names that the script's own main function gives to other things than state.
LOCALS = frozenset(
    {
        "args", "batch", "best", "c", "calibration_x", "calibration_y", "certify_x", "certify_y", "count", "counted",
        "counts", "crossing", "data", "depth", "done", "drawn", "end", "epoch", "found", "frozen", "group", "judge",
        "k", "keep", "kept", "label", "last", "latent", "left", "loss", "mask", "mean", "met", "most", "name", "net",
        "norm", "now", "outputs", "outside", "p", "probe", "projected", "q", "reason", "rounds", "search", "select_x",
        "select_y", "sizes", "start", "step", "test_x", "test_y", "total", "train_x", "train_y", "v", "validation_x",
        "validation_y", "value", "w", "watch", "watched", "x", "y",
    }
)  # fmt: skip


@dataclass
class Program:
    """The graph and its plan, what the script needs so far, and the text of its main function."""

    graph: Graph
    plan: Plan
    inliner: Inliner
    losses: Mapping[str, Symbol]
    teachers: Mapping[str, str]  # variable by name
    writer: Writer = field(default_factory=lambda: Writer(1))
    clocks: frozenset[str] = frozenset()  # that something in the current phase reads
    outer: int | None = None  # iterations of the outer loop under way
    projections: dict[tuple[int, int], str] = field(default_factory=dict)  # variable by step and part
    data_of_factors: dict[Composition | Budget, str] = field(default_factory=dict)  # variables
    channel_bounds: dict[str, str] = field(default_factory=dict)  # by label, as the script names them
    steered: set[str] = field(default_factory=set)  # thresholds whose last position is known
    floors: dict[Floor, str] = field(default_factory=dict)  # variables
    optimizers: list[str] = field(default_factory=list)  # variables of those that were made, in order
    chain: object = None  # the network's layers, where a step splits it into them
    judging: bool = False  # measured constraints are judged, not only measured
    bases: dict[tuple[str, str], str] = field(default_factory=dict)  # variable of `base` by constraint and split

    def __post_init__(self) -> None:
        self.nodes: dict[str, State] = {s.name: s for s in self.graph.state}
        self.used = _used(self.graph)

    # ── names ──

    def name(self, state: str) -> str:
        """The variable that holds a state."""
        return identifier(state)

    def kernel(self, name: str) -> str:
        return self.inliner.use(KERNELS, name)

    def helper(self, name: str) -> str:
        return self.inliner.use(STANDALONE, name)

    def expression(self, schedule: Schedule) -> str:
        """Source of a schedule over the clocks, which are variables of the same names."""
        if has_ramp(schedule):
            self.inliner.use("prunelang.compiler.schedule", "ramp")
        text = source(schedule)
        if "math." in text:
            self.inliner.external("math")
        return text

    # ── tensors ──

    def tensors(self, state: str) -> tuple[str, ...]:
        """The tensor names behind a state of tensors."""
        node = self.nodes[state]
        if isinstance(node, Weights | Rest | Buffers):
            return node.tensors
        return self.tensors(node.like if isinstance(node, Dual) else node.of)  # type: ignore[attr-defined]

    def view(self, state: str, tensors: Iterable[str]) -> str:
        """An expression for the tensors of a state that stand for the given names, in their order."""
        return pick(self.name(state), self.tensors(state), tensors)

    def weights_of(self, state: str) -> str:
        """The state of weights that another state is of."""
        node = self.nodes[state]
        if isinstance(node, Weights | Rest):
            return state
        return self.weights_of(node.like if isinstance(node, Dual) else node.of)  # type: ignore[attr-defined]

    def entries(self, state: str) -> int:
        return sum(self.plan.table.tensor[t].size for t in self.tensors(state))

    @property
    def data(self) -> Data:
        return next(s for s in self.graph.state if isinstance(s, Data))

    @property
    def spiking_kernels(self) -> tuple[str, ...]:
        """The kernels that spikes may reach; none in a network without spikes."""
        table = self.plan.table
        return tuple(dict.fromkeys(x.weight for x in table.layers if x.uses)) if table.steps else ()

    # ── places in the spec ──

    def spec_line(self, span: Span) -> str:
        """``spec line 12: solve lc(…)``; empty where the place is not known."""
        text = self.plan.source.text
        if span == NOWHERE or not text:
            return ""
        number = self.plan.source.position(span.start).line
        return f"spec line {number}: {self.plan.source.line(number).strip()}"

    def constraint_lines(self, labels: Iterable[str]) -> list[str]:
        """Where the constraints of those labels stand."""
        wanted = set(labels)
        found = (self.spec_line(c.span) for c in self.plan.problem.constraints if c.label in wanted)
        return list(dict.fromkeys(text for text in found if text))


def identifier(state: str) -> str:
    """A state's name as a Python identifier that collides with nothing."""
    name = unicodedata.normalize("NFKC", state)
    name = name if name.isidentifier() else "".join(c if c.isalnum() else "_" for c in f"_{name}")
    return f"{name}_" if name in LOCALS or keyword.iskeyword(name) else name


def pick(of: str, names: tuple[str, ...], wanted: Iterable[str]) -> str:
    """``of`` itself, a slice of it, or a list of its entries: those that stand for `wanted`, in that order."""
    index = [names.index(n) for n in wanted]
    if index == list(range(len(names))):
        return of
    if index == list(range(index[0], index[0] + len(index))):
        return f"{of}[{index[0] or ''}:{'' if index[-1] + 1 == len(names) else index[-1] + 1}]"
    return "[" + ", ".join(f"{of}[{i}]" for i in index) + "]"


def clocks_used(graph: Graph, program: tuple[Step, ...]) -> frozenset[str]:
    """The clocks that some step of a phase reads."""
    found: set[str] = set()
    for step in walk(program):
        if isinstance(step, Materialize | Saddle | Steer | SteerGates | SteerPenalty) or (
            isinstance(step, KeepBest) and step.since
        ):
            found.add("p")
        if isinstance(step, Batches) and step.until and step.until.since:
            found.add("p")
        for schedule in _schedules(graph, step):
            found |= clocks_of(schedule)
    return frozenset(found)


def clocks_outside_loops(program: tuple[Step, ...]) -> frozenset[str]:
    """The clocks that a step may read before an inner loop has set them."""
    found: set[str] = set()
    for step in walk(program):
        if isinstance(step, Steer | SteerGates | Materialize):
            found.add("p")
        if isinstance(step, SteerGates):
            found.add("epoch")
        if isinstance(step, Prox):
            found |= clocks_of(step.weight) - {"k"}
        if isinstance(step, Project) and step.priced is not None:
            found |= clocks_of(step.priced.weight) - {"k"}
        if isinstance(step, Evaluate):
            found |= {c for x in step.losses for c in clocks_of(x.weight)} - {"k"}
    return frozenset(found)


def splits_read(graph: Graph) -> frozenset[str]:
    """The splits that steps measure something on, besides the train split of the inner loops."""
    found: set[str] = set()
    for step in walk(graph.program):
        found |= {str(x.split) for x in (step, *getattr(step, "floors", ())) if hasattr(x, "split")}
    return frozenset(found)


def _schedules(graph: Graph, step: Step) -> Iterable[Schedule]:
    if isinstance(step, Batches):
        yield step.duration
        node = graph.node(step.optimizer)
        assert isinstance(node, Optimizer)
        yield from (v for v in node.options.values() if not isinstance(v, bool))
    if isinstance(step, Descend | Evaluate):
        yield from (x.weight for x in step.losses)
    if isinstance(step, Descend):
        yield from (x.schedule for x in step.penalties if x.schedule is not None)
        yield from (c.weight for c in step.couplings if not isinstance(c.weight, str))
        others = (graph.node(n) for c in step.couplings for n in (c.by, c.ascent))
        options = (v for o in others if isinstance(o, Optimizer) for v in o.options.values())
        yield from (v for v in options if not isinstance(v, bool))
    if isinstance(step, Prox):
        yield step.weight
    if isinstance(step, Project) and step.priced is not None:
        yield step.priced.weight
    if isinstance(step, Saddle):
        node = graph.node(step.allocate.multipliers)
        assert isinstance(node, Multipliers)
        yield from (w for w in node.weights if w is not None)
    if isinstance(step, Outer):
        levels = (graph.node(n) for n in step.levels)
        yield from (x.schedule for x in levels if isinstance(x, Level) and x.schedule is not None)


def _used(graph: Graph) -> frozenset[str]:
    """States that the program touches, with those that they refer to."""
    todo = [n for step in walk(graph.program) for n in (*step.reads(), *step.writes())]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += graph.node(name).reads()
    return frozenset(found)
