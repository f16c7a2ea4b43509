"""The Python API: `compile` a spec, then explain, run or emit the `Program`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelang.compiler.catalog import DataFacts, ModelFacts
from prunelang.compiler.check import Catalog, TableError, check, runnability
from prunelang.compiler.given import GIVEN, NETWORK, SAMPLES
from prunelang.compiler.plan import DataPlan, ModelPlan, Plan
from prunelang.compiler.problem import Problem
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl import tree
from prunelang.dsl.diagnostics import Diagnostic, SpecError
from prunelang.dsl.names import canonical
from prunelang.dsl.parser import decode, parse
from prunelang.dsl.spans import Source

if TYPE_CHECKING:
    import torch
    from torch import nn

    from prunelang.binding import Loader, Rates
    from prunelang.compiler.graph import Graph
    from prunelang.execution import Solution
    from prunelang.probe import Probes
    from prunelang.runtime.machine import Event
    from prunelang.stepping import Stepper

NOT_GIVEN = "`prunelang.compile(…, model=net, sample=x)`; or register the network and name it"
ParamValue = str | int | float
"""What `params` may give: text as on the command line, or a number."""


def compile(
    spec: str | Path,
    *,
    params: Mapping[str, ParamValue] | None = None,
    shapes: ShapeTable | None = None,
    dtype: str = "float32",
    model: nn.Module | None = None,
    sample: torch.Tensor | None = None,
) -> Program:
    """Parse, check, canonicalise and prove a spec.

    `spec` is a path, or the text itself (anything with a newline). `params` override the spec's parameters, keeping
    kind and range: text as on the command line (``"2%"``), or a number (0.02 is 2 % where the param is a percentage).
    `shapes` is used instead of tracing the network. `model` is the network that the spec calls ``given()``, and
    `sample` a batch of its inputs, of which shape and type are read; the network is neither run nor changed. Raises
    `SpecError` holding every diagnostic, FileNotFoundError for a path that is not there.
    """
    if model is not None:
        shapes = given_shapes(model, sample)
    if isinstance(spec, str) and "\n" in spec:
        return compile_source(Source(spec, "<text>"), Path.cwd(), params=params, shapes=shapes, dtype=dtype)
    path = Path(spec)
    return compile_source(read_source(path), path.parent, params=params, shapes=shapes, dtype=dtype)


def given_shapes(model: nn.Module, sample: torch.Tensor | None) -> ShapeTable:
    """The shape table of a network that is handed over. Raises ValueError without a sample, `TraceError`."""
    from prunelang.binding import unwrapped
    from prunelang.runtime.trace import trace

    if sample is None or sample.dim() < 1:
        raise ValueError("`model` comes with `sample`: a batch of inputs as the network takes them")
    net = unwrapped(model)
    return trace(net, tuple(sample.shape[1:]), model_text=NETWORK.text({}), dtype=sample.dtype)


def read_source(path: Path) -> Source:
    """The text of a file; bytes that are no UTF-8 become an error of the parser, not of Python."""
    return decode(path.read_bytes(), str(path))


def compile_source(
    source: Source,
    folder: Path,
    *,
    params: Mapping[str, ParamValue] | None = None,
    shapes: ShapeTable | None = None,
    dtype: str = "float32",
) -> Program:
    """`compile` for a text at hand; relative paths in it start at `folder`."""
    spec = parse(source.text, source.name)
    declared = {s.name: s for s in spec.statements if isinstance(s, tree.Param)}
    values = {name: _literal(value, declared.get(canonical(name))) for name, value in (params or {}).items()}
    plan = check(spec, source, table_of=table_source(shapes, dtype), catalog=known(), parameters=values)
    return Program(plan, folder, dtype, values, shapes is not None)


def _literal(value: ParamValue, param: tree.Param | None) -> str:
    """A value of Python as the language writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if param is not None and isinstance(param.value, tree.Number) and param.value.unit == "%":
        from decimal import Decimal

        return f"{(100 * Decimal(repr(value))).normalize():f}%"
    return repr(value)


def known() -> Catalog:
    """Everything a spec may name: the built-in facts, what packages offer and what was registered."""
    from prunelang.runtime import registry

    losses = {name: facts.signature for name, facts in registry.losses.facts().items()}
    models, data = registry.models.facts(), registry.data.facts()
    return Catalog(_With(models, {GIVEN: NETWORK}), _With(data, {GIVEN: SAMPLES}), losses)


class _With(Mapping[str, Any]):
    """Facts by name, with a few more; imports nothing before a name is looked up."""

    def __init__(self, facts: Mapping[str, Any], more: Mapping[str, Any]) -> None:
        self.facts, self.more = facts, more

    def __getitem__(self, name: str) -> Any:
        return self.more[name] if name in self.more else self.facts[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*self.facts, *self.more))

    def __len__(self) -> int:
        return len(self.facts) + len(self.more)

    def __contains__(self, name: object) -> bool:
        return name in self.more or name in self.facts


def table_source(shapes: ShapeTable | None, dtype: str) -> Callable[[ModelPlan, DataPlan], ShapeTable]:
    """How the checker gets its shape table: the given one, the cache, or by tracing (which imports torch)."""

    def table_of(model: ModelPlan, data: DataPlan) -> ShapeTable:
        if shapes is not None:
            if shapes.model != model.text:
                raise TableError(f"the given shape table is of {shapes.model}, the spec trains {model.text}")
            return shapes.in_dtype(dtype)
        from prunelang.runtime import registry

        if model.constructor == GIVEN:
            raise TableError("`given()` is a network that a program hands over", NOT_GIVEN, "P557")
        entry = registry.models[model.constructor]
        offered = None if data.constructor == GIVEN else _offered(registry.data[data.constructor].facts, data)
        try:
            table = _cached(entry.facts, model) or entry.shapes(model.arguments, offered)
        except Exception as error:
            if type(error).__name__ in ("TraceError", "RegistryError", "ArgumentError"):
                raise TableError(str(error)) from error
            raise
        return table.in_dtype(dtype)

    return table_of


def _offered(facts: DataFacts, data: DataPlan) -> tuple[int, ...] | None:
    return facts.sample_shapes(data.arguments)[0] if facts.sample_shapes is not None else None


def _cached(facts: ModelFacts, model: ModelPlan) -> ShapeTable | None:
    from prunelang.compiler import catalog

    if catalog.MODELS.get(model.constructor) is not facts:
        return None
    return catalog.cached_shapes(model.constructor, model.arguments)


@dataclass(frozen=True)
class Program:
    """A compiled spec: the checked plan, and from it the graph, a run, or a script."""

    plan: Plan
    folder: Path
    dtype: str = "float32"
    given: Mapping[str, str] = field(default_factory=dict)  # params, as the language writes them
    shaped: bool = False  # the table of shapes was given
    code: tuple[str, ...] = ()  # what registered names for it, as the command line was told

    @property
    def problem(self) -> Problem:
        return self.plan.problem

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Warnings and notes of the check."""
        return self.plan.diagnostics

    @property
    def obstacles(self) -> tuple[Diagnostic, ...]:
        """Why this program cannot be run as it stands: constructs that its solver does not take."""
        return runnability(self.plan)

    @cached_property
    def train_size(self) -> int:
        """Samples in the train split, from the catalog where it knows, else by loading the data; of data that are
        handed over, which only `bind` sees, those of one step."""
        from prunelang.compiler import catalog

        if self.plan.data.constructor == GIVEN:
            return self.plan.data.batch
        facts = catalog.DATA.get(self.plan.data.constructor)
        sizes = dict(facts.sizes) if facts else {}
        if "train" not in sizes:
            from prunelang.inputs import load_data

            return len(load_data(self.plan, self.folder, "cpu", self.dtype).train)
        total = sizes["train"]
        return total - round(self.plan.data.validation * total) if self.plan.data.reads_validation else total

    @cached_property
    def graph(self) -> Graph:
        """The runtime graph. Raises `SpecError` when the program cannot be run."""
        from prunelang.compiler.lowering import lower

        self.require_runnable()
        return lower(self.plan, train_size=self.train_size)

    def require_own(self) -> None:
        """Raises `SpecError` P557 where the network or the data are handed over: they are bound, and not made."""
        if GIVEN not in (self.plan.model.constructor, self.plan.data.constructor):
            return
        span = (self.plan.model if self.plan.model.constructor == GIVEN else self.plan.data).span
        message = "`given()` is handed over: this program is bound, and cannot be run or written as a script"
        raise SpecError([Diagnostic("P557", "error", message, span, hint=NOT_GIVEN)], self.plan.source)

    def require_runnable(self) -> None:
        errors = [d for d in self.obstacles if d.severity == "error"]
        if errors:
            raise SpecError(errors, self.plan.source)

    def explain(self, stage: str = "all") -> str:
        """The problem, what is proved of it, the stages and the graph, as text."""
        from prunelang.explain import explain

        return explain(self, stage)

    def run(
        self,
        out: str | Path | None = None,
        *,
        seed: int = 0,
        device: str = "cpu",
        deterministic: bool = False,
        checkpoint_every: str = "5",
        restart: bool = False,
        observe: Callable[[Event], None] = lambda event: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Solution:
        """Train, finish feasible, save under `out` and certify what was saved.

        Between the ends of stages a checkpoint is written every `checkpoint_every` minutes, or epochs (``"10epochs"``);
        `prunelang.resume` goes on from it. Where `out` holds a run that has not finished, only `restart` begins anew.
        Raises `SpecError` when the program cannot be run, `ResumeRefused` (P527, P528) for a folder that is not free,
        `FileProblem` (P525) where a checkpoint cannot be written, ValueError for a `checkpoint_every` that is
        neither; a numerical failure or an interruption is in the solution.
        """
        from prunelang.execution import RunOptions, run
        from prunelang.resuming.every import Every

        self.require_own()
        self.require_runnable()
        options = RunOptions(
            out=Path(out) if out is not None else default_out(self.plan),
            seed=seed,
            device=device,
            dtype=self.dtype,
            deterministic=deterministic,
            checkpoint_every=Every.parse(checkpoint_every),
            restart=restart,
            parameters=self.given,
            code=self.code,
            shapes=self.shaped,
        )
        return run(self.plan, self.folder, options, observe, stop)

    def bind(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        loader: Loader | None = None,
        evaluate: Callable[[str, str], float] | None = None,
        steps_per_epoch: int | None = None,
        rates: Rates = "optimizer",
        seed: int = 0,
        observe: Callable[[Event], None] = lambda event: None,
    ) -> Stepper:
        """The program inside a training loop of one's own: see `Stepper`.

        `model` has the names and shapes that the spec was checked with; it may be wrapped by `torch.compile`.
        `optimizer` holds its parameters and steps once a batch; its own rates and decay are used, or with
        ``rates="spec"`` those that the spec states. `loader` has as many batches as an epoch has optimizer steps,
        unless `steps_per_epoch` says otherwise; without both they are those of the spec's data set.
        ``evaluate(name, split)`` measures `accuracy` and its like on the network as it is, in place of that data set.

        Raises `SpecError`: P550 for a program that another loop cannot drive, P551 and P552 for a network and an
        optimizer that do not fit, P553 and P554 for what is missing, and what `run` raises.
        """
        from prunelang.binding import Given
        from prunelang.stepping import bind

        return bind(self, Given(model, optimizer, loader, evaluate, steps_per_epoch, rates), seed, observe)

    def probe(
        self,
        *,
        delta: Fraction | float | str = "10%",
        share: Fraction | float | str = "25%",
        seeds: int = 3,
        device: str = "cpu",
        observe: Callable[[Event], None] = lambda event: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Probes:
        """Prices by finite differences: short runs at B(1 ± δ) of every upper bound on stored weights.

        `delta` in (0, 1) and `share` in (0, 1] are numbers, or text as on the command line. Raises `SpecError` when
        there is nothing to probe, `ProbeFailed` when a run ends early, ValueError for what is out of its range.
        """
        from prunelang.probe import fraction, probe

        self.require_own()
        return probe(
            self,
            delta=fraction(delta),
            share=fraction(share),
            seeds=seeds,
            device=device,
            observe=observe,
            stop=stop,
        )

    def to_json(self) -> dict[str, Any]:
        """The graph as data."""
        from prunelang.compiler.graph import to_json

        return to_json(self.graph)

    def listing(self) -> str:
        """The graph as it reads."""
        from prunelang.compiler.graph import listing

        return listing(self.graph)

    def to_python(self, *, seed: int = 0) -> str:
        """A standalone PyTorch script that runs the same graph and needs torch alone."""
        from prunelang.emission import emit_program

        self.require_own()
        return emit_program(self, seed=seed).script


def default_out(plan: Plan) -> Path:
    """``runs/NAME`` for NAME.prune; ``runs/text`` and ``runs/stdin`` for what came without a file."""
    name = plan.source.name
    return Path("runs") / (name.strip("<>") if name.startswith("<") else Path(name).stem)
