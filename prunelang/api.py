"""The Python API: `compile` a spec, then explain, run or emit the `Program`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelang.compiler.catalog import DataFacts, ModelFacts
from prunelang.compiler.check import Catalog, TableError, check, runnability
from prunelang.compiler.plan import DataPlan, ModelPlan, Plan
from prunelang.compiler.problem import Problem
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl import tree
from prunelang.dsl.diagnostics import Diagnostic, SpecError
from prunelang.dsl.names import canonical
from prunelang.dsl.parser import decode, parse
from prunelang.dsl.spans import Source

if TYPE_CHECKING:
    from prunelang.compiler.graph import Graph
    from prunelang.execution import Solution
    from prunelang.probe import Probes
    from prunelang.runtime.machine import Event

ParamValue = str | int | float
"""What `params` may give: text as on the command line, or a number."""


def compile(
    spec: str | Path,
    *,
    params: Mapping[str, ParamValue] | None = None,
    shapes: ShapeTable | None = None,
    dtype: str = "float32",
) -> Program:
    """Parse, check, canonicalise and prove a spec.

    `spec` is a path, or the text itself (anything with a newline). `params` override the spec's parameters, keeping
    kind and range: text as on the command line (``"2%"``), or a number (0.02 is 2 % where the param is a percentage).
    `shapes` is used instead of tracing the network. Raises `SpecError` holding every diagnostic, FileNotFoundError for
    a path that is not there.
    """
    if isinstance(spec, str) and "\n" in spec:
        return compile_source(Source(spec, "<text>"), Path.cwd(), params=params, shapes=shapes, dtype=dtype)
    path = Path(spec)
    return compile_source(read_source(path), path.parent, params=params, shapes=shapes, dtype=dtype)


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
    return Program(plan, folder, dtype)


def _literal(value: ParamValue, param: tree.Param | None) -> str:
    """A value of Python as the language writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if param is not None and isinstance(param.value, tree.Number) and param.value.unit == "%":
        from decimal import Decimal

        return f"{100 * Decimal(repr(value)):f}%"
    return repr(value)


def known() -> Catalog:
    """Everything a spec may name: the built-in facts, what packages offer and what was registered."""
    from prunelang.runtime import registry

    losses = {name: facts.signature for name, facts in registry.losses.facts().items()}
    return Catalog(registry.models.facts(), registry.data.facts(), losses)


def table_source(shapes: ShapeTable | None, dtype: str) -> Callable[[ModelPlan, DataPlan], ShapeTable]:
    """How the checker gets its shape table: the given one, the cache, or by tracing (which imports torch)."""

    def table_of(model: ModelPlan, data: DataPlan) -> ShapeTable:
        if shapes is not None:
            if shapes.model != model.text:
                raise TableError(f"the given shape table is of {shapes.model}, the spec trains {model.text}")
            return shapes.in_dtype(dtype)
        from prunelang.runtime import registry

        entry = registry.models[model.constructor]
        offered = _offered(registry.data[data.constructor].facts, data)
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
        """Samples in the train split, from the catalog where it knows, else by loading the data."""
        from prunelang.compiler import catalog

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
        observe: Callable[[Event], None] = lambda event: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Solution:
        """Train, finish feasible, save under `out` and certify what was saved.

        Raises `SpecError` when the program cannot be run; a numerical failure or an interruption is in the solution.
        """
        from prunelang.execution import RunOptions, run

        self.require_runnable()
        options = RunOptions(
            out=Path(out) if out is not None else default_out(self.plan),
            seed=seed,
            device=device,
            dtype=self.dtype,
            deterministic=deterministic,
        )
        return run(self.plan, self.folder, options, observe, stop)

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

        return emit_program(self, seed=seed).script


def default_out(plan: Plan) -> Path:
    """``runs/NAME`` for NAME.prune; ``runs/text`` and ``runs/stdin`` for what came without a file."""
    name = plan.source.name
    return Path("runs") / (name.strip("<>") if name.startswith("<") else Path(name).stem)
