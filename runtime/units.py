"""The units of a network, followed through the operators of one forward pass.

A *slot* is an index of one dimension of a stored tensor: a row of a kernel, a column of it, an entry of a bias. Slots
that can only be cut together are joined: a row with its bias, both operands of a sum, the scale of a channel, and what
reads it. Beside, for each element of an activation the value is kept that it has when its unit is dead, that is, when
all slots of the unit are zero in trained tensors. A unit that is not exactly 0 then, or that meets an operator that
is not understood, is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunelang.runtime.marks import CONSTANT, DATA, UNKNOWN, Marks, Memory, compact, constant
from prunelang.runtime.reachability import replaced, storage_of, tensors_in, writes

MIXERS: Mapping[str, str] = {  # operators that are known, and that no unit can be taken from
    "native_layer_norm": "normalises all units together",
    "_fused_rms_norm": "normalises all units together",
    "native_group_norm": "normalises units together",
    "bmm": "multiplies activations with each other",
    "baddbmm": "multiplies activations with each other",
    "_softmax": "weighs units against each other",
    "_log_softmax": "weighs units against each other",
    "mean": "averages units with each other",
    "sum": "adds units to each other",
}


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One operator that has run: what it was given, and the tensors that it made or wrote."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Tensor]
    results: list[Tensor]

    @property
    def op(self) -> str:
        return str(self.func.overloadpacket.__name__)

    def moved(self, tensors: list[Tensor]) -> list[Tensor]:
        """What the operator makes of other tensors."""
        return list(tensors_in(self.func(*replaced(list(self.args), iter(tensors)), **self.kwargs)))


Rule = Callable[["Units", Call], "list[Marks] | None"]  # None: not understood


class Units:
    """Slots, what joins them, and why some cannot be cut. `rule` says how each operator is followed."""

    def __init__(self, stored: Iterable[tuple[str, Tensor, bool]], rule: Callable[[Call], Rule | None]) -> None:
        self.memory = Memory()
        self.rule = rule
        self.base: dict[tuple[str, int], int] = {}  # (tensor, dimension) → its first slot
        self.size: dict[tuple[str, int], int] = {}
        self.made: dict[tuple[str, int], None] = {}  # dimensions whose slots make units, in the order of the pass
        self.end = DATA + 1
        self.joins: list[Tensor] = []  # 2 × n pairs of slots
        self.refused: list[tuple[Tensor, str]] = []
        self.stored: dict[int, tuple[str, Tensor, bool]] = {}  # storage → name, tensor, whether it is trained
        self.where = ""  # the module that runs, for reasons
        for name, t, trained in stored:
            self.stored[storage_of(t)] = (name, t, trained)
            self.memory.write(t, self._operand(name, t, trained))

    def data(self, x: Tensor) -> None:
        """The network's input."""
        self.memory.write(x, constant(x.shape, label=DATA))

    # ── slots ────────────────────────────────────────────────────────────────────────────────────────────────────

    def slots(self, name: str, dim: int, size: int) -> Tensor:
        """The slots of one dimension of a stored tensor."""
        if (name, dim) not in self.base:
            self.base[name, dim], self.size[name, dim] = self.end, size
            self.end += size
        first = self.base[name, dim]
        return torch.arange(first, first + size)

    def whole(self, t: Tensor) -> tuple[str, Tensor, bool] | None:
        """The stored tensor that `t` is, in its own shape; None if it is not one."""
        found = self.stored.get(storage_of(t))
        return found if found is not None and found[1].shape == t.shape else None

    def vector(self, t: Tensor) -> Marks:
        """A bias, scale or statistic: a slot for each entry, even if there is only one."""
        found = self.whole(t)
        if found is None or t.dim() != 1:
            return self.memory.read(t)
        name, _, trained = found
        rest = torch.tensor(0.0 if trained else UNKNOWN, dtype=torch.float64)
        return Marks(self.slots(name, 0, len(t)), rest.expand(len(t)))

    def _operand(self, name: str, t: Tensor, trained: bool) -> Marks:
        """A stored tensor as an operand: a slot for each index of its last dimension that has several."""
        long = [d for d in range(t.dim()) if t.shape[d] > 1]
        if not long:
            return constant(t.shape)
        dim = long[-1]
        labels = self.slots(name, dim, t.shape[dim]).view([-1 if d == dim else 1 for d in range(t.dim())])
        return Marks(labels, torch.tensor(0.0 if trained else UNKNOWN, dtype=torch.float64)).like(t.shape)

    def refuse(self, labels: Tensor, reason: str) -> None:
        """Units that cannot be removed; what is no unit is passed over."""
        found = labels[labels > DATA]
        if found.numel():
            self.refused.append((found.unique(), reason))  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def join(self, a: Tensor, b: Tensor) -> None:
        """Units that are removed together, pair by pair."""
        differ = (a > DATA) & (b > DATA) & (a != b)
        if differ.any():
            pairs = ((a[differ] << 32) + b[differ]).unique()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self.joins.append(torch.stack([pairs >> 32, pairs & (1 << 32) - 1]))

    def together(self, operands: list[Marks], shape: Sequence[int], op: str) -> Tensor:
        """The labels of what is made of several operands, broadcast to `shape`, which joins their units."""
        labels = compact([m.labels.expand(tuple(shape)) for m in operands])
        top = labels[0]
        for other in labels[1:]:
            top = torch.maximum(top, other)
        varying = [d for d in range(top.dim()) if bool((top != top.narrow(d, 0, 1)).any())]
        for operand, own in zip(operands, labels, strict=True):
            self.join(own, top)
            sizes = (1,) * (len(shape) - operand.labels.dim()) + operand.labels.shape
            if any(sizes[d] > 1 for d in varying):
                fixed = (own == DATA) & (top > DATA)
                self.refuse(top[fixed], f"{self.where} joins them with what has a size of its own (operator `{op}`)")
        return top.expand(tuple(shape))

    # ── one operator ─────────────────────────────────────────────────────────────────────────────────────────────

    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, where: str) -> None:
        """Follow one operator that has just run. Its tensors may be without data, the marks are not."""
        self.where = where
        inputs = list(tensors_in((args, kwargs)))
        written = [args[i] for i, a in enumerate(func._schema.arguments[: len(args)]) if writes(a)]
        written += [kwargs[a.name] for a in func._schema.arguments if writes(a) and a.name in kwargs]
        results = list(tensors_in(out)) or list(tensors_in(written))
        call = Call(func, args, kwargs, inputs, results)
        with torch.device("cpu"):
            shared = {storage_of(t) for t in inputs}
            if not written and results and all(storage_of(t) in shared for t in results):
                self._view(call)
                return
            for t, m in zip(results, self._followed(call) or self._lost(call), strict=True):
                self.memory.write(t, m)

    def _followed(self, call: Call) -> list[Marks] | None:
        rule = self.rule(call)
        try:
            return None if rule is None else rule(self, call)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return None  # an overload with other arguments than the rule reads: it is not understood

    def _lost(self, call: Call) -> list[Marks]:
        """What is not followed: units that enter cannot be removed, and what leaves is data."""
        how = MIXERS.get(call.op, "combines units in a way that is not followed")
        labels = {id(t): compact([self.memory.read(t).labels])[0] for t in call.inputs}
        for t in call.inputs:
            if storage_of(t) not in self.stored:
                self.refuse(labels[id(t)], f"{self.where} {how} (operator `{call.op}`)")
        label = DATA if any(bool((x > CONSTANT).any()) for x in labels.values()) else CONSTANT
        return [constant(t.shape, label=label) for t in call.results]

    def _view(self, call: Call) -> None:
        """The same elements in another shape; where the labels cannot be viewed so, they are looked up when read."""
        if len(call.inputs) != 1 or call.inputs[0] not in self.memory:
            return
        marks = self.memory.read(call.inputs[0])
        try:
            labels, rest = call.moved([marks.labels]), call.moved([marks.rest])
        except RuntimeError:
            if call.op not in ("view", "_unsafe_view", "_reshape_alias"):
                return
            labels, rest = ([x.reshape(call.results[0].shape)] for x in (marks.labels, marks.rest))
        for t, a, b in zip(call.results, labels, rest, strict=True):
            self.memory.view(t, Marks(a, b, marks.why))
