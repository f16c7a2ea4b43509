"""Coupling groups: which units of a network can only be removed together, and where they lie in its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prunelang.compiler.shapes import Channels, Slice
from prunelang.runtime.marks import DATA
from prunelang.runtime.units import Units

Runs = tuple[tuple[int, int, int], ...]  # (dimension of a tensor, by its place in the list of all; start; length)


@dataclass(slots=True)
class _Group:
    """Members whose slices follow each other in every tensor."""

    first: Runs
    reason: str
    size: int = 1

    def next(self, runs: Runs, reason: str) -> bool:
        """Whether a member with these runs comes next."""
        return reason == self.reason and runs == tuple((d, s + self.size * n, n) for d, s, n in self.first)


def channels(units: Units, output: Tensor) -> tuple[Channels, ...]:
    """The coupling groups of a network whose pass `units` has followed, in the order of the pass.

    Units that the network returns, and those of its input, belong to no group.
    """
    roots = _roots(units)
    kept_out = set(np.unique(roots[_slots(units.memory.read(output).labels)]).tolist())
    reasons = _reasons(units, roots)
    order = {name: i for i, (name, _, _) in enumerate(units.stored.values())}
    dims = sorted(units.base, key=lambda key: (order[key[0]], key[1]))
    runs = _runs(units, roots, dims)
    groups: list[_Group] = []
    for key in units.made:
        open_group: _Group | None = None
        first = units.base[key]
        for root in dict.fromkeys(roots[first : first + units.size[key]].tolist()):
            member = runs.pop(root, None)
            if member is None or root in kept_out:
                open_group = None
                continue
            own = _primary_first(member, dims.index(key))
            reason = reasons.get(root, "")
            if open_group is not None and open_group.next(own, reason):
                open_group.size += 1
            else:
                open_group = _Group(own, reason)
                groups.append(open_group)
    return tuple(_described(units, group, dims) for group in groups)


def _slots(labels: Tensor) -> NDArray[np.int64]:
    found = labels[labels > DATA].unique()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return np.asarray(found.numpy(), dtype=np.int64)


def _roots(units: Units) -> NDArray[np.int64]:
    """The least slot of what each slot is joined with."""
    roots = np.arange(units.end, dtype=np.int64)
    if not units.joins:
        return roots
    a, b = np.concatenate([pairs.numpy() for pairs in units.joins], axis=1)
    while True:
        least = np.minimum(roots[a], roots[b])
        if (roots[a] == least).all() and (roots[b] == least).all():
            return roots
        np.minimum.at(roots, roots[a], least)
        np.minimum.at(roots, roots[b], least)
        while not (roots[roots] == roots).all():
            roots = roots[roots]


def _reasons(units: Units, roots: NDArray[np.int64]) -> dict[int, str]:
    """The first reason against each unit."""
    found: dict[int, str] = {}
    for slots, reason in units.refused:
        for root in np.unique(roots[slots.numpy()]).tolist():
            found.setdefault(root, reason)
    return found


def _runs(units: Units, roots: NDArray[np.int64], dims: list[tuple[str, int]]) -> dict[int, Runs]:
    """What each unit owns: runs of indices in dimensions of tensors."""
    wanted = {r for key in units.made for r in roots[units.base[key] : units.base[key] + units.size[key]].tolist()}
    found: dict[int, list[tuple[int, int, int]]] = {r: [] for r in wanted}
    for d, key in enumerate(dims):
        own = roots[units.base[key] : units.base[key] + units.size[key]]
        starts = np.concatenate([[0], np.flatnonzero(np.diff(own)) + 1])
        ends = np.concatenate([starts[1:], [len(own)]])
        for root, start, end in zip(own[starts].tolist(), starts.tolist(), ends.tolist(), strict=True):
            if root in found:
                found[root].append((d, start, end - start))
    return {root: tuple(runs) for root, runs in found.items()}


def _primary_first(runs: Runs, d: int) -> Runs:
    """The runs in the dimension that names the group, then the others in their order."""
    return tuple(sorted(runs, key=lambda run: run[0] != d))


def _described(units: Units, group: _Group, dims: list[tuple[str, int]]) -> Channels:
    d, start, length = group.first[0]
    tensor, dim = dims[d]
    name = tensor.removesuffix(".weight")
    if group.size * length != units.size[tensor, dim]:
        name = f"{name}[{start}:{start + group.size * length}]"
    return Channels(name, group.size, tuple(_slices(group, dims)), group.reason)


def _slices(group: _Group, dims: list[tuple[str, int]]) -> Iterator[Slice]:
    for d, start, length in group.first:
        tensor, dim = dims[d]
        yield Slice(tensor, dim, start, length)
