"""What each element of an activation belongs to, remembered by storage and geometry.

Elements are labelled by units. Labels mostly repeat along samples and positions, so they are kept expanded (strides of
0): a channel of a feature map costs one number, not one for each of its positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from prunelang.runtime.reachability import storage_of

CONSTANT, DATA = 0, 1  # labels of elements that no unit makes; units are labelled from 2 on
UNKNOWN = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """Of the elements of one tensor, in its shape: whose they are, and what they are where that unit has no weights.

    A *constant* belongs to nobody and has the size that its operands have (a padding, a mask, a state of 0); *data*
    has a size of its own. ``rest`` is NaN where the value is not known.
    """

    labels: Tensor  # int64
    rest: Tensor  # float64: the value of an element whose unit is dead, whatever the others are
    why: str = ""  # what first made it other than 0

    def like(self, shape: Iterable[int]) -> Marks:
        """Broadcast to a shape."""
        size = tuple(shape)
        return Marks(self.labels.expand(size), self.rest.expand(size), self.why)

    def apply(self, function: Any) -> Marks:
        """The same rearrangement of labels and values."""
        return Marks(function(self.labels), function(self.rest), self.why)


def constant(shape: Iterable[int], value: float = UNKNOWN, label: int = CONSTANT) -> Marks:
    """One label and one value everywhere."""
    size = tuple(shape)
    return Marks(torch.tensor(label).expand(size), torch.tensor(value, dtype=torch.float64).expand(size))


def marked(labels: Tensor, rest: Tensor, why: str) -> Marks:
    """Marks with the reason where it speaks of something: a value that is not 0."""
    return Marks(labels, rest, why if bool((compact([rest])[0] != 0).any()) else "")


def compact(tensors: list[Tensor]) -> list[Tensor]:
    """Tensors of one shape without the repetition that they have in common: such dimensions get size 1."""
    for dim in range(tensors[0].dim()):
        if tensors[0].shape[dim] > 1 and all(t.stride(dim) == 0 for t in tensors):
            tensors = [t.narrow(dim, 0, 1) for t in tensors]
    return tensors


Geometry = tuple[tuple[int, ...], tuple[int, ...], int]


def geometry(t: Tensor) -> Geometry:
    return tuple(t.shape), tuple(t.stride()), int(t.storage_offset())


@dataclass(slots=True)
class _Known:
    """The marks of one storage: of the tensor that was written last, and of views of it."""

    held: Tensor  # so that no other tensor gets the same storage
    base: Geometry
    views: dict[Geometry, Marks] = field(default_factory=dict)


class Memory:
    """Marks of all tensors of a pass."""

    def __init__(self) -> None:
        self.known: dict[int, _Known] = {}

    def __contains__(self, t: Tensor) -> bool:
        return storage_of(t) in self.known

    def write(self, t: Tensor, marks: Marks) -> None:
        """Remember the marks of a fresh tensor, or of one that was written in place: what else reads it follows."""
        key, place = storage_of(t), geometry(t)
        found = self.known.get(key)
        if found is None or found.base == place:
            self.known[key] = _Known(t, place, {place: marks.like(t.shape)})
            return
        flat = self._flat(found)
        flat.labels.as_strided(*place).copy_(marks.labels)
        flat.rest.as_strided(*place).copy_(marks.rest)
        whole: Geometry = ((flat.labels.numel(),), (1,), 0)
        self.known[key] = _Known(t, whole, {whole: Marks(flat.labels, flat.rest, marks.why or flat.why)})

    def view(self, t: Tensor, marks: Marks) -> None:
        """Remember the marks of a view of a tensor that is known."""
        self.known[storage_of(t)].views[geometry(t)] = marks

    def read(self, t: Tensor) -> Marks:
        """The marks of a tensor; a constant of unknown value if none were written."""
        found = self.known.get(storage_of(t))
        if found is None:
            return constant(t.shape)
        place = geometry(t)
        if place not in found.views:
            found.views[place] = self._flat(found).apply(lambda x: x.as_strided(*place))
        return found.views[place]

    @staticmethod
    def _flat(known: _Known) -> Marks:
        """The marks of a whole storage, element by element."""
        storage = known.held.untyped_storage()
        size = storage.nbytes() // known.held.itemsize
        base = known.views[known.base]
        labels = torch.full((size,), CONSTANT)
        rest = torch.full((size,), UNKNOWN, dtype=torch.float64)
        labels.as_strided(*known.base).copy_(base.labels)
        rest.as_strided(*known.base).copy_(base.rest)
        return Marks(labels, rest, base.why)
