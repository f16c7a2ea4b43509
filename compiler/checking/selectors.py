"""Tensor and layer sets of one network, precomputed so that selecting is linear in what is selected."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cached_property

from prunelang.compiler.checking.values import Layers, Tensors
from prunelang.compiler.shapes import ShapeTable, Tensor
from prunelang.dsl.diagnostics import suggest

ATTRIBUTES = ("weights", "biases", "params", "layers")


class Selectors:
    """Sets of tensors and layers, each once (ties by their first name) and in the order of the network."""

    def __init__(self, table: ShapeTable) -> None:
        self.table = table
        self._layer_at = {layer.name: i for i, layer in enumerate(table.layers)}
        self._tensor_at = {t.name: i for i, t in enumerate(table.tensors)}
        self._globs: dict[tuple[tuple[str, ...], tuple[str, ...]], Layers] = {}

    # ── whole networks ──

    @cached_property
    def layers(self) -> Layers:
        return Layers(tuple(layer.name for layer in self.table.layers))

    @cached_property
    def weights(self) -> Tensors:
        return Tensors(tuple(t.name for t in self.table.tensors if t.role == "weight"))

    @cached_property
    def biases(self) -> Tensors:
        return Tensors(tuple(t.name for t in self.table.tensors if t.role == "bias"))

    @cached_property
    def params(self) -> Tensors:
        return Tensors(tuple(t.name for t in self.table.tensors if t.role != "buffer"))

    @cached_property
    def stored(self) -> Tensors:
        """Everything that is saved, buffers included."""
        return Tensors(tuple(t.name for t in self.table.tensors))

    # ── layers ──

    @cached_property
    def _by_module(self) -> dict[str, tuple[str, ...]]:
        """Tensors directly under each module path, by every name that they have."""
        found: dict[str, list[str]] = {}
        for tensor in self.table.tensors:
            for name in (tensor.name, *tensor.aliases):
                found.setdefault(name.rpartition(".")[0], []).append(tensor.name)
        return {module: tuple(names) for module, names in found.items()}

    def of_layers(self, layers: Layers, attribute: str) -> Tensors:
        """`weights`, `biases` or `params` of a layer set."""
        if attribute == "params":
            return self.tensors(n for layer in layers.names for n in self.of_layer(layer))
        facts = [self.table.layer[name] for name in layers.names]
        if attribute == "weights":
            return self.tensors(layer.weight for layer in facts)
        return self.tensors(layer.bias for layer in facts if layer.bias is not None)

    def of_layer(self, name: str) -> tuple[str, ...]:
        """All trained tensors of one layer, its kernel first."""
        layer = self.table.layer[name]
        own = [layer.weight, *([layer.bias] if layer.bias else []), *self._by_module.get(name, ())]
        return tuple(t for t in dict.fromkeys(own) if self.table.tensor[t].role != "buffer")

    def glob(self, layers: Layers, patterns: tuple[str, ...]) -> Layers:
        """Those of `layers` whose module path fits one of the patterns."""
        key = (layers.names, patterns)
        if key not in self._globs:
            plain = {p for p in patterns if not any(c in p for c in "*?[")}
            wild = [p for p in patterns if p not in plain]
            self._globs[key] = Layers(
                tuple(n for n in layers.names if n in plain or any(fnmatchcase(n, p) for p in wild))
            )
        return self._globs[key]

    def unmatched(self, layers: Layers, patterns: tuple[str, ...]) -> list[str]:
        """Patterns that fit no layer."""
        return [p for p in patterns if not self.glob(layers, (p,)).names]

    def nearest(self, pattern: str) -> list[str]:
        """Layers whose path, or whose last part, is near to what was written."""
        bare = pattern.replace("*", "").replace("?", "") or pattern
        by_last: dict[str, str] = {}
        for name in self.layers.names:
            by_last.setdefault(name.rpartition(".")[2], name)
        near = suggest(bare, self.layers.names)
        return near or [by_last[last] for last in suggest(bare, by_last)]

    # ── algebra ──

    def tensors(self, names: Iterable[str]) -> Tensors:
        """Canonical: ties by their first name, each once, in order."""
        unique = {self.table.tensor[n].name for n in names}
        return Tensors(tuple(sorted(unique, key=self._tensor_at.__getitem__)))

    def union(self, a: Tensors, b: Tensors) -> Tensors:
        return self.tensors((*a.names, *b.names))

    def union_layers(self, a: Layers, b: Layers) -> Layers:
        return Layers(tuple(sorted({*a.names, *b.names}, key=self._layer_at.__getitem__)))

    def without(self, a: Tensors, b: Tensors) -> Tensors:
        away = set(b.names)
        return Tensors(tuple(n for n in a.names if n not in away))

    def without_layers(self, a: Layers, b: Layers) -> Layers:
        away = set(b.names)
        return Layers(tuple(n for n in a.names if n not in away))

    # ── facts ──

    def get(self, names: Iterable[str]) -> list[Tensor]:
        return [self.table.tensor[n] for n in names]

    def size(self, names: Iterable[str]) -> int:
        return sum(t.size for t in self.get(names))

    def layer_of(self, tensor: str) -> str | None:
        """The first layer that owns `tensor` as its kernel."""
        return self._owner.get(tensor)

    @cached_property
    def _owner(self) -> dict[str, str]:
        out: dict[str, str] = {}
        for layer in self.table.layers:
            out.setdefault(self.table.tensor[layer.weight].name, layer.name)
        return out
