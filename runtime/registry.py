"""The names that a spec may use for networks, data sets and losses, and what stands behind each.

A spec is data and never names code: every constructor is looked up here, by exact name. The registries are filled by
the built-in catalog, by installed packages (entry points), and by code that whoever runs the program chose: the
decorators of `prunelang.register` and `load_user_code`. Importing this module imports no torch; building does.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from prunelang.compiler import catalog
from prunelang.compiler.arguments import Parameter, Value
from prunelang.compiler.catalog import DataFacts, LossFacts, ModelFacts, Shape
from prunelang.dsl.diagnostics import did_you_mean, suggest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunelang.compiler.shapes import ShapeTable
    from prunelang.runtime.data.dataset import Dataset

BUILT_IN = "built in"
PRIVATE = "_prunelang_user_"  # how the modules of files given with --with are named


class RegistryError(Exception):
    """Something cannot be registered: its name is taken, or its signature cannot be written in a spec."""


class UnknownName(KeyError):
    """No entry of that name; `suggestions` holds the nearest ones."""

    def __init__(self, kind: str, name: str, names: list[str]) -> None:
        near = did_you_mean(name, names)
        super().__init__(f"no {kind} is called `{name}`" + (f"; {near}" if near else ""))
        self.name = name
        self.suggestions = tuple(suggest(name, names))

    def __str__(self) -> str:
        return str(self.args[0])


# ── entries ──────────────────────────────────────────────────────────────────────────────────────────────────────

F = TypeVar("F", ModelFacts, DataFacts, LossFacts)


@dataclass(frozen=True)
class Entry(Generic[F]):
    """A constructor: facts that need no torch, and the code, imported when first used.

    `origin` says who registered it: ``built in``, a file, a module or an installed package.
    """

    facts: F
    fetch: Callable[[], Callable[..., Any]]
    origin: str

    @property
    def name(self) -> str:
        return self.facts.signature.name

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return self.facts.signature.parameters

    @property
    def doc(self) -> str:
        return self.facts.signature.doc

    @cached_property
    def factory(self) -> Callable[..., Any]:
        """The function or class itself."""
        return self.fetch()

    @cached_property
    def source_digest(self) -> str | None:
        """sha256 of the file that holds the constructor; None where there is no file (a notebook)."""
        source = self.facts.source
        return catalog.source_digest(source) if source is not None and source.is_file() else None

    def arguments(self, values: Mapping[str, Value], folder: Path | None = None) -> dict[str, Value | Path]:
        """Checked values as the code takes them: a path is a `Path`, a relative one starts at `folder`."""
        paths = {p.name for p in self.parameters if p.kind == "path"}
        return {k: _resolve(v, folder) if k in paths and isinstance(v, str) else v for k, v in values.items()}


class ModelEntry(Entry[ModelFacts]):
    """A network."""

    def build(self, *positional: object, **named: object) -> nn.Module:
        """A new network, with weights from torch's global generator (see `seeded`). Errors: `ArgumentError`."""
        module: nn.Module = self.factory(**self.arguments(self.facts.signature.bind(positional, named)))
        return module

    def input_shape(self, values: Mapping[str, Value], offered: Shape | None = None) -> Shape:
        """The shape of one input: what the network states, else what the data set offers."""
        if self.facts.input_shape is not None:
            return self.facts.input_shape(values)
        if offered is None:
            raise RegistryError(f"`{self.name}` states no input shape: @register.model(input_shape = …)")
        return offered

    def shapes(self, values: Mapping[str, Value], offered: Shape | None = None) -> ShapeTable:
        """The network as facts, by tracing on `meta`; a network of the zoo is read from the cache when it is there."""
        from prunelang.runtime.trace import shape_table

        return shape_table(
            self.facts.text(values),
            self.factory,
            self.arguments(values),
            self.input_shape(values, offered),
            dtype=self.facts.input_dtype,
            source=self.facts.source if self.origin == BUILT_IN else None,
        )


class DataEntry(Entry[DataFacts]):
    """A data set."""

    def load(self, folder: Path | None = None, /, **named: object) -> Dataset:
        """Reads it. Relative paths start at `folder`. Errors: `ArgumentError`, `DataUnavailable`."""
        dataset: Dataset = self.factory(**self.arguments(self.facts.signature.bind((), named), folder))
        return dataset


class LossEntry(Entry[LossFacts]):
    """A loss: ``factory(output, target, **options)`` gives a scalar, the mean per prediction."""

    def value(self, output: Tensor, target: Tensor, /, **options: object) -> Tensor:
        """The loss as a tensor that autograd follows."""
        loss: Tensor = self.factory(output, target, **self.arguments(self.facts.signature.bind((), options)))
        return loss


def _resolve(path: str, folder: Path | None) -> Path:
    full = Path(path).expanduser()
    return full if folder is None else folder / full


# ── registries ───────────────────────────────────────────────────────────────────────────────────────────────────

E = TypeVar("E", ModelEntry, DataEntry, LossEntry)


class Registry(Mapping[str, E]):
    """Entries of one kind by exact name.

    An installed package offers its own under the entry-point group ``prunelang.<kind>``; such an entry is imported
    when its name is first looked up. A name that two sources claim is an error.
    """

    def __init__(self, kind: str, group: str, entry: type[E]) -> None:
        self.kind = kind
        self.group = group
        self._entry: type[E] = entry
        self._entries: dict[str, E] = {}

    def __getitem__(self, name: str) -> E:
        point = self._installed.get(name)
        if name in self._entries:
            if point is not None and self._entries[name].origin != _origin(point):
                raise RegistryError(_taken(self.kind, name, self._entries[name].origin, _origin(point)))
            return self._entries[name]
        if point is None:
            raise UnknownName(self.kind, name, list(self))
        return self.register(point.load(), name, _origin(point))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._entries, *self._installed}))

    def __len__(self) -> int:
        return len({*self._entries, *self._installed})

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._installed

    def register(self, factory: Callable[..., Any], name: str, origin: str, **stated: Any) -> E:
        """Describes `factory` by its Python signature and what is `stated` beside it, and adds it."""
        from prunelang.runtime.describe import DESCRIBE

        entry: E = self._entry(DESCRIBE[self.kind](factory, name, **stated), lambda: factory, origin)
        self.add(entry)
        return entry

    def add(self, entry: E) -> None:
        """Adds one. The cell of a notebook may run again; any other use of a taken name raises `RegistryError`."""
        old = self._entries.get(entry.name)
        if old is not None and not (old.origin == entry.origin == "__main__"):
            raise RegistryError(_taken(self.kind, entry.name, old.origin, entry.origin))
        self._entries[entry.name] = entry

    def facts(self) -> Mapping[str, Any]:
        """What the checker needs to know, by name. An installed package is imported when its name is looked up."""
        return _FactsOf(self)

    @cached_property
    def _installed(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            if point.name in found:
                raise RegistryError(_taken(self.kind, point.name, _origin(found[point.name]), _origin(point)))
            found[point.name] = point
        return found


class _FactsOf(Mapping[str, Any]):
    def __init__(self, registry: Registry[Any]) -> None:
        self.registry = registry

    def __getitem__(self, name: str) -> Any:
        return self.registry[name].facts

    def __iter__(self) -> Iterator[str]:
        return iter(self.registry)

    def __len__(self) -> int:
        return len(self.registry)

    def __contains__(self, name: object) -> bool:
        return name in self.registry


def _taken(kind: str, name: str, first: str, second: str) -> str:
    return f"the {kind} name `{name}` is taken: by {first}, and again by {second}"


def _origin(point: EntryPoint) -> str:
    return f"package {point.dist.name}" if point.dist is not None else f"module {point.module}"


models: Registry[ModelEntry] = Registry("model", "prunelang.models", ModelEntry)
data: Registry[DataEntry] = Registry("data set", "prunelang.data", DataEntry)
losses: Registry[LossEntry] = Registry("loss", "prunelang.losses", LossEntry)


def _built_in(folder: str, facts: ModelFacts | DataFacts) -> Callable[[], Callable[..., Any]]:
    assert facts.source is not None
    module = f"prunelang.runtime.{folder}.{facts.source.stem}"

    def fetch() -> Callable[..., Any]:
        factory: Callable[..., Any] = getattr(importlib.import_module(module), facts.name)
        return factory

    return fetch


for _model in catalog.MODELS.values():
    models.add(ModelEntry(_model, _built_in("zoo", _model), BUILT_IN))
for _data in catalog.DATA.values():
    data.add(DataEntry(_data, _built_in("data", _data), BUILT_IN))


# ── code that the user chose, and reproducible weights ───────────────────────────────────────────────────────────


def load_user_code(target: str | Path) -> ModuleType:
    """Imports what ``--with FILE|MODULE`` names, once; its decorators fill the registries.

    A file (ends in ``.py``) gets a private module name, and its folder is importable from it as from a script.
    Errors: FileNotFoundError, and whatever the code raises.
    """
    if Path(target).suffix != ".py":
        return importlib.import_module(str(target))
    path = Path(target).resolve(strict=True)
    name = f"{PRIVATE}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's global CPU generator starts at `seed`; afterwards it is as it was before."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
