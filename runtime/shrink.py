"""`shrink`: the smaller network that is left when units without weights are cut out of every tensor they lie in.

A member of a coupling group whose weights are all zero emits exactly 0, so the smaller network gives the same outputs,
up to the order in which floating-point numbers are added. That is not taken on trust: both networks run on the same
inputs, in float64 where they can, before the smaller one is given back. Where tensors are made of factors, layers
multiply by these instead, and no unit is cut out (`runtime.replaced`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from prunelang.compiler.forms import Composition
from prunelang.compiler.shapes import Channels, ShapeTable, Slice
from prunelang.runtime.factor_files import check_factors, check_sums, load_factors
from prunelang.runtime.factors import FACTORS, NO_FACTORS, Factors
from prunelang.runtime.replaced import Placed, places, with_factors
from prunelang.runtime.same_outputs import ShrinkProblem, check_outputs
from prunelang.runtime.trace import TraceError, trace

Dimension = tuple[str, int]  # of a tensor, by its name
Bools = NDArray[np.bool_]
Kept = Mapping[Dimension, tuple[int, ...]]  # indices that are left, of each dimension that gets smaller


@runtime_checkable
class ShrinkableChannels(Protocol):
    """A module whose forward uses sizes of its own, beside those of its layers' tensors.

    `shrink_channels` is called after the tensors were cut, from the innermost module outwards. Keys are names of
    tensors as the module's own state dict has them, with a dimension: `kept` has the indices that are left, of what
    became smaller, and `sizes` the lengths that all had.
    """

    def shrink_channels(self, kept: Mapping[Dimension, Sequence[int]], sizes: Mapping[Dimension, int]) -> None: ...


@dataclass(frozen=True)
class Shrunk:
    """A smaller network, the members of each group that it kept, and what it was made from."""

    module: nn.Module
    members: Mapping[str, tuple[int, ...]]
    dense: ShapeTable
    table: ShapeTable
    placed: tuple[Placed, ...] = ()  # layers that multiply by factors

    @property
    def removed(self) -> int:
        """Units that were cut out."""
        return sum(g.size - len(self.members[g.name]) for g in self.dense.channels)


def shrink(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    dtype: torch.dtype | str | None = None,
    factors: Factors | str | Path | None = None,
) -> nn.Module:
    """A smaller copy of `model`, without the units that have no weights left; `model` itself stays as it is.

    `input_shape` is that of one input without the batch dimension, `dtype` its type (by default the network's own).
    Of a group without any weight one member is kept, because layers need one.

    With `factors`, or the path of a run's file of them, layers of low rank and trains multiply by their factors, and
    all units stay. Sums and codebooks stay dense. Errors: `ShrinkProblem`; `FileProblem` for factors that are not
    those of the network.
    """
    kind = _dtype_of(model) if dtype is None else dtype
    table = _traced(model, input_shape, kind, "model")
    path = Path(FACTORS) if factors is None or isinstance(factors, Factors) else Path(factors)
    found = factors if isinstance(factors, Factors) else NO_FACTORS if factors is None else load_factors(path, table)
    check_factors(found, table, path)
    check_sums(found, _arrays(model, found), table, path)
    return shrunk(model, input_shape, table=table, dtype=dtype, factors=found).module


def shrunk(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    table: ShapeTable | None = None,
    dtype: torch.dtype | str | None = None,
    factors: Factors = NO_FACTORS,
    asked: Sequence[Composition] | None = None,
) -> Shrunk:
    """As `shrink`, with what was kept. A `table` at hand saves tracing `model` anew.

    `factors` are checked already; `asked` is what a spec wants them to be (`replaced.places`).
    """
    kind = _dtype_of(model) if dtype is None else dtype
    dense = _traced(model, input_shape, kind, "model") if table is None else table
    placed = places(model, dense, factors, asked)
    if placed:
        members = {g.name: tuple(range(g.size)) for g in dense.channels}
        small = with_factors(model, dense, placed, factors.arrays, input_shape, kind)
    else:
        members = surviving(dense, {n: t.detach() for n, t in _tensors(model)})
        small = cut(model, dense, members)
        check_outputs(model, small, input_shape, kind)
    return Shrunk(small, members, dense, _traced(small, input_shape, kind, dense.model), placed)


def _arrays(model: nn.Module, factors: Factors) -> dict[str, NDArray[Any]]:
    """The tensors that are made of factors; NumPy has no bfloat16."""
    own = {n: t.detach().cpu() for n, t in _tensors(model) if factors.of(n) is not None}
    return {n: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for n, t in own.items()}


def _dtype_of(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())


def _traced(model: nn.Module, shape: Sequence[int], dtype: torch.dtype | str, text: str) -> ShapeTable:
    try:
        return trace(model, tuple(shape), model_text=text, dtype=dtype)
    except TraceError as error:
        raise ShrinkProblem("P530", f"the network cannot be made smaller: {error}") from error


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


# ── which members stay ───────────────────────────────────────────────────────────────────────────────────────────


def surviving(table: ShapeTable, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The members of each group that matter, by index; the first one where none does.

    A member whose own weights are all zero emits 0, and one that nothing reads has no influence. Either goes, and with
    it what it reads and what reads it, which may leave others without weights.
    """
    nonzero = {t.name: (tensors[t.name] != 0).cpu().numpy() for t in table.tensors if t.role != "buffer"}
    groups = [g for g in table.channels if not g.reason]
    alive = {g.name: np.ones(g.size, dtype=bool) for g in table.channels}
    changed = True
    while changed:
        changed = False
        for group in groups:
            gone = alive[group.name] & ~_matters(group, table, nonzero)
            for s in group.slices if gone.any() else ():
                if s.tensor in nonzero:
                    _members(nonzero[s.tensor], s, group.size)[gone] = False
            alive[group.name] &= ~gone
            changed |= bool(gone.any())
    return {name: tuple(np.flatnonzero(a).tolist()) or (0,) for name, a in alive.items()}


def _matters(group: Channels, table: ShapeTable, nonzero: Mapping[str, Bools]) -> Bools:
    """Which members have weights of their own, and are read."""
    made, read = np.zeros(group.size, dtype=bool), np.zeros(group.size, dtype=bool)
    for s in (s for s in group.slices if s.tensor in nonzero):
        tensor = table.tensor[s.tensor]
        found = _members(nonzero[s.tensor], s, group.size).reshape(group.size, -1).any(1)
        reads = tensor.role == "weight" and s.dim == 1
        if not reads or tensor.aliases:  # what is tied may make units by the dimension by which it reads them
            made |= found
        if reads:
            read |= found
    return made & read


def _members(array: Bools, s: Slice, size: int) -> Bools:
    """A view of a slice, member by member."""
    part = np.moveaxis(array, s.dim, 0)[s.start : s.start + size * s.repeat]
    return part.reshape(size, s.repeat, *part.shape[1:])


def indices(table: ShapeTable, members: Mapping[str, tuple[int, ...]]) -> dict[Dimension, tuple[int, ...]]:
    """What is left of each dimension that gets smaller."""
    left: dict[Dimension, Bools] = {}
    for group in table.channels:
        gone = sorted(set(range(group.size)) - set(members[group.name]))
        for s in group.slices if gone else ():
            size = table.tensor[s.tensor].shape[s.dim]
            mask = left.setdefault((s.tensor, s.dim), np.ones(size, dtype=bool))
            for member in gone:
                mask[s.indices(member)] = False
    return {key: tuple(np.flatnonzero(mask).tolist()) for key, mask in left.items()}


# ── the smaller module ───────────────────────────────────────────────────────────────────────────────────────────


def cut(model: nn.Module, table: ShapeTable, members: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """A copy of `model` that holds only what the kept members own. Ties, types and devices stay. Errors: P531."""
    kept = indices(table, members)
    by_name = dict(_tensors(model))
    memo: dict[int, Any] = {}
    for t in table.tensors:
        if any((t.name, d) in kept for d in range(len(t.shape))):
            memo[id(by_name[t.name])] = _cut(by_name[t.name], t.name, kept)
    small = copy.deepcopy(model, memo)
    everywhere = {(alias, d): v for (n, d), v in kept.items() for alias in (n, *table.tensor[n].aliases)}
    sizes = {(n, d): k for n, t in by_name.items() for d, k in enumerate(t.shape)}
    modules = list(small.named_modules())
    for path, module in reversed(modules):  # a module comes after the one that holds it
        _restate(module, path)
        if isinstance(module, ShrinkableChannels):
            module.shrink_channels(_within(everywhere, path), _within(sizes, path))
    return small


def _cut(t: Tensor, name: str, kept: Kept) -> Tensor:
    small = t.detach()
    for d in range(t.dim()):
        if (name, d) in kept:
            small = small.index_select(d, torch.tensor(kept[name, d], device=t.device))
    return nn.Parameter(small, t.requires_grad) if isinstance(t, nn.Parameter) else small


def _within(everywhere: Mapping[Dimension, Any], path: str) -> dict[Dimension, Any]:
    """The entries of one module, under the names it gives itself."""
    prefix = f"{path}." if path else ""
    return {(n.removeprefix(prefix), d): v for (n, d), v in everywhere.items() if n.startswith(prefix)}


def _restate(module: nn.Module, path: str) -> None:
    """The sizes that torch's layers state beside their tensors."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _ConvNd):
        rows, columns = module.weight.shape[:2]
        if module.groups > 1 and columns == 1:  # depthwise: as many groups as channels, with as many rows each
            module.groups = module.groups * rows // module.out_channels
        module.out_channels, module.in_channels = rows, columns * module.groups
    elif isinstance(module, _NormBase):
        stated = next((t for t in (module.weight, module.running_mean) if t is not None), None)
        module.num_features = module.num_features if stated is None else len(stated)
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
