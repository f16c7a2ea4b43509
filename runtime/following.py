"""How the units of a network go through each operator: one rule for each kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prunelang.runtime.marks import CONSTANT, DATA, UNKNOWN, Marks, compact, constant, marked
from prunelang.runtime.reachability import NORMS, POINTWISE, replaced, tensors_in
from prunelang.runtime.units import Call, Rule, Units

FACTORIES: Mapping[str, float] = {
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros", "zero_"), 0.0),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), 1.0),
    **dict.fromkeys(("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "arange"), UNKNOWN),
    **dict.fromkeys(("rand", "randn", "rand_like", "randn_like", "randint", "randint_like", "eye"), UNKNOWN),
}
FILLS = {"full": 1, "full_like": 1, "new_full": 2, "fill_": 1, "scalar_tensor": 0}  # operator → place of the number
MOVES = frozenset({"cat", "stack", "repeat", "flip", "roll", "_reshape_copy", "pixel_shuffle", "pixel_unshuffle"})
SUMS = frozenset({"mean", "sum", "amax", "amin"})
POOLS: Mapping[str, int] = {  # operator → number of spatial dimensions
    "max_pool2d_with_indices": 2, "max_pool3d_with_indices": 3, "avg_pool1d": 1, "avg_pool2d": 2, "avg_pool3d": 3,
    "_adaptive_avg_pool2d": 2, "_adaptive_avg_pool3d": 3, "adaptive_max_pool2d": 2, "adaptive_max_pool3d": 3,
    "upsample_nearest1d": 1, "upsample_nearest2d": 2, "upsample_nearest3d": 3, "upsample_bilinear2d": 2,
    "reflection_pad1d": 1, "reflection_pad2d": 2, "replication_pad1d": 1, "replication_pad2d": 2,
}  # fmt: skip
ABSORBING: Mapping[str, tuple[int, ...]] = {  # operator → operands whose 0 makes a 0
    "mul": (0, 1), "mul_": (0, 1), "div": (0,), "div_": (0,), "_prelu_kernel": (0,),
}  # fmt: skip
PLACES = frozenset({"device", "layout", "pin_memory", "memory_format", "non_blocking"})
ZERO = torch.zeros((), dtype=torch.float64)
NEURONS = "sj_"  # namespaces of spikingjelly's operators begin so


def rule(call: Call) -> Rule | None:
    """How an operator is followed; None if it is not understood."""
    op = call.op
    if op in RULES:
        return RULES[op]
    if op == "forward" and call.func.namespace.startswith(NEURONS):
        return neurons
    if torch.Tag.nondeterministic_seeded in call.func.tags:
        return None  # what is drawn once says nothing of what is drawn next
    return pointwise if torch.Tag.pointwise in call.func.tags or op in POINTWISE else None


# ── layers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def linear(units: Units, call: Call) -> list[Marks] | None:
    """``x Kᵀ [+ b]`` with a stored kernel K."""
    *added, x, factor = call.args
    found = units.whole(factor.mT)
    if found is None or units.whole(x) is not None or call.kwargs:
        return None
    name, (rows, columns) = found[0], found[1].shape
    _read(units, units.memory.read(x), name, columns)
    marks = _rows(units, name, (len(x), rows))
    return [_plus(units, marks, units.vector(added[0])) if added else marks]


def convolution(units: Units, call: Call) -> list[Marks] | None:
    x, weight, bias, _, _, _, transposed, _, groups = call.args
    found = units.whole(weight)
    if found is None or transposed:
        return None
    name, shape, read = found[0], call.results[0].shape, units.memory.read(x)
    rows, columns = weight.shape[:2]
    marks = _rows(units, name, tuple(shape))
    if groups == 1:
        _read(units, read, name, columns)
    elif columns == 1:
        _each(units, read, name, rows)
    else:
        reason = f"{units.where} is a convolution in {groups} groups"
        units.refuse(compact([read.labels])[0], reason)
        units.refuse(units.slots(name, 0, rows), reason)
    if bias is None:
        return [marks]
    b = units.vector(bias)
    return [_plus(units, marks, b.apply(lambda v: v.view(-1, *[1] * (x.dim() - 2))))]


def _rows(units: Units, name: str, shape: tuple[int, ...]) -> Marks:
    """The units that the rows of a kernel make, along dimension 1."""
    units.made[name, 0] = None
    labels = units.slots(name, 0, shape[1]).view(-1, *[1] * (len(shape) - 2))
    return Marks(labels, ZERO).like(shape)


def _plus(units: Units, a: Marks, b: Marks) -> Marks:
    labels = units.together([a, b], a.labels.shape, "add")
    return marked(labels, a.rest + b.rest, f"the bias of {units.where} is not its own")


def _channels(marks: Marks) -> tuple[Tensor, Tensor]:
    """Labels and values with a row for each index of dimension 1."""
    labels, rest = (x.movedim(1, 0) for x in (marks.labels, marks.rest))
    for d in range(1, labels.dim()):
        if labels.stride(d) == 0 and rest.stride(d) == 0:
            labels, rest = labels.narrow(d, 0, min(1, labels.shape[d])), rest.narrow(d, 0, min(1, rest.shape[d]))
    return labels.flatten(1), rest.flatten(1)


def _read(units: Units, marks: Marks, name: str, size: int) -> None:
    """Columns of a kernel read units: they are cut together."""
    labels, rest = _channels(marks)
    columns = units.slots(name, 1, size)[:, None].expand_as(labels)
    unit = labels > DATA
    units.join(labels, columns)
    units.refuse(labels[unit & (rest != 0)], marks.why)
    shared = (labels == DATA).any(1, keepdim=True) & unit
    units.refuse(labels[shared], f"{units.where} reads them together with what has a size of its own")


def _each(units: Units, marks: Marks, name: str, size: int) -> None:
    """A depthwise kernel: its rows are cut with the channel that they read."""
    labels, _ = _channels(marks)
    labels = labels.repeat_interleave(size // len(labels), 0)
    rows = units.slots(name, 0, size)[:, None].expand_as(labels)
    units.join(labels, rows)
    units.refuse(rows[labels <= DATA], f"{units.where} has a kernel for each channel of its input")


def normalisation(units: Units, call: Call) -> list[Marks] | None:
    """Batch normalisation: γ and β of 0 make a channel 0, whatever its statistics are."""
    x, vectors = call.args[0], [units.vector(t) for t in call.args[1:5] if isinstance(t, Tensor)]
    shape = [-1, *[1] * (x.dim() - 2)]
    along = [v.apply(lambda a: a.view(shape)) for v in vectors]
    labels = units.together([units.memory.read(x), *along], x.shape, "batch_norm")
    rest = torch.full((1,), UNKNOWN, dtype=torch.float64)
    if all(isinstance(t, Tensor) for t in call.args[1:3]):
        scale, shift = vectors[:2]
        rest = torch.where((scale.rest == 0) & (shift.rest == 0), 0.0, rest)
    why = f"{units.where} has no scale and shift that are trained"
    first = marked(labels, rest.view(shape).expand(x.shape), why)
    return [first, *(constant(t.shape) for t in call.results[1:])]


def embedding(units: Units, call: Call) -> list[Marks] | None:
    found = units.whole(call.args[0])
    if found is None:
        return None
    name, width = found[0], found[1].shape[1]
    units.made[name, 1] = None
    return [Marks(units.slots(name, 1, width), ZERO).like(call.results[0].shape)]


# ── element by element ───────────────────────────────────────────────────────────────────────────────────────────


def pointwise(units: Units, call: Call) -> list[Marks] | None:
    """Elementwise, with broadcasting: evaluated for the values that dead units have."""
    shape = call.results[0].shape
    if any(t.shape != shape for t in call.results) or not call.inputs:
        return None
    marks = [units.memory.read(t) for t in call.inputs]
    labels = units.together(marks, shape, call.op)
    rest = _evaluated(call, [m.rest.expand(shape) for m in marks])
    why = next((m.why for m in marks if m.why), "") or _why(units, call.op, rest)
    return [marked(labels, rest.expand(shape), why)] * len(call.results)


def _why(units: Units, op: str, rest: Tensor) -> str:
    values = rest[rest != 0]
    if not len(values) or bool(values.isnan().any()):
        return f"what {units.where} makes of a unit without weights is not known to be 0 (operator `{op}`)"
    return f"{units.where} makes {float(values[0]):g} of 0 (operator `{op}`)"


def _evaluated(call: Call, rests: list[Tensor]) -> Tensor:
    rests = compact(rests)
    known = torch.ones((), dtype=torch.bool)
    for r in rests:
        known = known & ~r.isnan()
    numbers = (
        r.nan_to_num().clone() if t.is_floating_point() else r.nan_to_num().to(t.dtype)
        for t, r in zip(call.inputs, rests, strict=True)
    )
    given = replaced(list(call.args), numbers)
    options = {k: v for k, v in call.kwargs.items() if k not in PLACES and k != "out"}
    value = next(tensors_in(call.func(*given, **options))).double()
    value = torch.where(known, value, UNKNOWN)
    for i in ABSORBING.get(call.op, ()):
        at = next((n for n, t in enumerate(call.inputs) if t is call.args[i]), None)
        if at is not None:
            value = torch.where(rests[at] == 0, 0.0, value)
    return value


def neurons(units: Units, call: Call) -> list[Marks] | None:
    """Neurons of spikingjelly: currents ``T × …`` and potentials to spikes and potentials, each on its own."""
    x, v = call.args[:2]
    over = _over(units.memory.read(x), [0])
    if over is None or x.shape[1:] != v.shape:
        return None
    state = units.memory.read(v)
    labels = units.together([over.apply(lambda m: m[0]).like(v.shape), state], v.shape, "neuron")
    others = [torch.zeros(()) if isinstance(a, Tensor) else a for a in call.args[2:]]
    silent = [not t.any() for t in tensors_in(call.func(torch.zeros(len(x), 1), torch.zeros(1), *others))]
    dead = bool((compact([state.rest])[0] == 0).all() & (over.rest == 0).all())
    why = over.why or state.why or f"the neurons of {units.where} do not stay at 0 without input"
    rests = [torch.tensor(0.0 if dead and s else UNKNOWN, dtype=torch.float64) for s in silent]
    return [marked(labels, r.expand(v.shape), why).like(t.shape) for t, r in zip(call.results, rests, strict=True)]


# ── constants, copies, positions ─────────────────────────────────────────────────────────────────────────────────


def factory(units: Units, call: Call) -> list[Marks]:
    return [constant(t.shape, FACTORIES[call.op]) for t in call.results]


def fill(units: Units, call: Call) -> list[Marks]:
    number = call.args[FILLS[call.op]]
    return [constant(t.shape, float(number) if isinstance(number, (int, float)) else UNKNOWN) for t in call.results]


def clone(units: Units, call: Call) -> list[Marks]:
    return [units.memory.read(call.args[0])]


def copied(units: Units, call: Call) -> list[Marks]:
    return [units.memory.read(call.args[1]).like(call.results[0].shape)]


def move(units: Units, call: Call) -> list[Marks]:
    marks = [units.memory.read(t) for t in call.inputs]
    (labels,), (rest,) = call.moved([m.labels for m in marks]), call.moved([m.rest for m in marks])
    return [marked(labels, rest, next((m.why for m in marks if m.why), ""))]


def pad(units: Units, call: Call) -> list[Marks]:
    """A padding belongs to nobody and has its own value."""
    marks, around = units.memory.read(call.args[0]), call.args[1]
    labels, rest = call.func(marks.labels, around, CONSTANT), call.func(marks.rest, around, *call.args[2:])
    return [marked(labels, rest, marks.why or f"{units.where} pads with other than 0")]


def _over(marks: Marks, dims: list[int]) -> Marks | None:
    """Marks that are the same along some dimensions, kept with size 1; None if units are mixed."""
    labels, rest = compact([marks.labels, marks.rest])
    top = labels.amax(dims, keepdim=True)
    if bool(((labels != top) & (labels != CONSTANT)).any()):
        return None
    zero = (rest == 0).all(dim=tuple(dims), keepdim=True)
    return Marks(top, torch.where(zero, 0.0, UNKNOWN).double(), marks.why)


def reduction(units: Units, call: Call) -> list[Marks] | None:
    x = call.args[0]
    given: Any = call.args[1] if len(call.args) > 1 and call.args[1] not in (None, []) else list(range(x.dim()))
    dims = sorted(d % x.dim() for d in ([given] if isinstance(given, int) else given))
    found = _over(units.memory.read(x), dims)
    if found is None:
        return None
    full = found.like([1 if d in dims else n for d, n in enumerate(x.shape)])
    return [full.apply(lambda m: m.reshape(call.results[0].shape))]


def pooling(units: Units, call: Call) -> list[Marks] | None:
    """Windows of positions."""
    rank = call.args[0].dim()
    found = _over(units.memory.read(call.args[0]), list(range(rank - POOLS[call.op], rank)))
    if found is None:
        return None
    return [found.like(call.results[0].shape), *(constant(t.shape, label=DATA) for t in call.results[1:])]


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(FACTORIES, factory), **dict.fromkeys(FILLS, fill), **dict.fromkeys(MOVES, move),
    **dict.fromkeys(SUMS, reduction), **dict.fromkeys(POOLS, pooling), **dict.fromkeys(NORMS, normalisation),
    "mm": linear, "addmm": linear, "convolution": convolution, "embedding": embedding, "clone": clone,
    "copy_": copied, "constant_pad_nd": pad,
}  # fmt: skip
