"""Which stored numbers can influence the output of a network, exactly: paths of non-zero weights through one pass.

One sample goes through the network in evaluation mode while every operator is watched. Forward, each element of each
tensor is marked if it depends on the input; backward, if the output depends on it. Products let a mark pass only where
the other factor is not 0; elementwise operators, pooling, sums and copies pass marks where they pass numbers; whatever
else mixes everything with everything. So nothing is called without influence that has some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {"mm": 0, "addmm": 1, "bmm": 0, "baddbmm": 1}  # operator → place of its left factor
POINTWISE = frozenset(
    {"clone", "_to_copy", "copy", "copy_", "hardswish", "hardswish_", "masked_fill", "masked_fill_"}
    | {"prelu", "_prelu_kernel", "zero_", "fill_"}
)  # beside those that torch marks so
SPREADING = frozenset(  # linear, with coefficients ≥ 0
    {"cat", "stack", "sum", "mean", "constant_pad_nd", "index", "index_select", "flip", "roll", "repeat", "cumsum"}
    | {"avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "tril", "triu"}
    | {"upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "pixel_shuffle", "slice_scatter"}
)
NORMS = frozenset(
    {"native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"}
)
MAX_POOLS = frozenset({"max_pool2d_with_indices", "max_pool3d_with_indices"})
CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

Back = Callable[[list[Tensor]], Sequence["Tensor | None"]]  # marks of the results → marks of the inputs
Rule = Callable[[list[Tensor]], tuple[Sequence[Tensor], Back]]  # results → their marks, and the way back


class Untraceable(Exception):
    """What influences what cannot be told: why."""


@dataclass
class Use:
    """A kernel as a factor: what each of its entries would add if its input is the same constant for every input.

    ``kernel`` is the view that was multiplied, ``outputs`` its axis of outputs. ``constant`` broadcasts to it, and
    ``steady`` says where it holds: no input reaches the factor, and it is one number at all positions.
    """

    kernel: Tensor
    outputs: int
    bias: Tensor | None
    constant: Tensor
    steady: Tensor


class Paths(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """The marks of everything stored, by storage. `solid` are trained tensors in which a 0 is a number like others."""

    def __init__(self, x: Tensor, solid: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: dict[int, Tensor] = {}  # by storage, so that none is used twice
        self.reached: dict[int, Tensor] = {}  # elements that the input decides, by storage
        self.wanted: dict[int, Tensor] = {}  # elements that the output depends on
        self.joined: dict[int, Tensor] = {}  # elements of kernels that multiply what the input decides
        self.solid = {storage_of(t) for t in solid}
        self.reads: dict[int, int] = {}  # operators that read a storage
        self.uses: dict[int, Use] = {}  # by storage of the kernel
        self.calls: list[tuple[list[Tensor], list[Tensor], Back]] = []
        self.mark(self.reached, x, torch.ones_like(x, dtype=torch.bool))

    # ── marks ──

    def marks(self, kind: dict[int, Tensor], t: Tensor) -> Tensor:
        """The marks of a tensor, in its shape."""
        known = kind.get(storage_of(t))
        return torch.zeros_like(t, dtype=torch.bool) if known is None else known[positions(t)]

    def mark(self, kind: dict[int, Tensor], t: Tensor, marks: Tensor, *, afresh: bool = False) -> None:
        """Add marks to a tensor, or with `afresh` replace them."""
        at = positions(t)
        self.held.setdefault(storage_of(t), t)
        stored = kind.setdefault(storage_of(t), torch.zeros(elements_of(t), dtype=torch.bool, device=t.device))
        if len(stored) != elements_of(t):
            raise Untraceable("a tensor is read as numbers of another size")
        if afresh:
            stored[at] = False
        stored[at[marks]] = True

    def passing(self, t: Tensor, reached: Tensor) -> Tensor:
        """Where a factor lets marks of the other factor pass."""
        return torch.ones_like(reached) if storage_of(t) in self.solid else (t != 0) | reached

    # ── forward ──

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = list(tensors_in((args, kwargs)))
        reached = [self.marks(self.reached, t) for t in inputs]
        op = func.overloadpacket.__name__
        written = [args[i] for i, a in enumerate(func._schema.arguments[: len(args)]) if writes(a)]
        written += [kwargs[a.name] for a in func._schema.arguments if writes(a) and a.name in kwargs]
        rule = self._rule(op, func, args, kwargs, inputs, reached)  # before in-place operators change what they read
        out = func(*args, **kwargs)
        results = list(tensors_in(out)) or list(tensors_in(written))
        known = {storage_of(t) for t in inputs}
        if results and not written and all(storage_of(t) in known for t in results):
            return out  # a view: same elements, same marks
        for s in known:
            self.reads[s] = self.reads.get(s, 0) + 1
        if not results and any(bool(r.any()) for r in reached):
            raise Untraceable(f"what is computed depends on the input (operator `{op}`)")
        marks, back = rule(results)
        for t, m in zip(results, marks, strict=True):
            self.mark(self.reached, t, m, afresh=True)
        for t in inputs:
            self.held.setdefault(storage_of(t), t)
        self.calls.append((inputs, results, back))
        return out

    def _rule(
        self,
        op: str,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: list[Tensor],
        reached: list[Tensor],
    ) -> Rule:
        """How marks go through an operator: forward and back."""
        if func._schema.is_mutable and not (torch.Tag.pointwise in func.tags or op in POINTWISE):
            return lambda results: mixed(inputs, reached, results)
        if op in PRODUCTS and args[PRODUCTS[op]].is_floating_point():
            return self._product(op, args, kwargs, reached)
        if op == "convolution":
            return self._convolution(func, args, reached)
        if torch.Tag.nondeterministic_seeded in func.tags:
            return lambda results: ([torch.ones_like(t, dtype=torch.bool) for t in results], everything(inputs))
        if op in NORMS and not (op != "_native_batch_norm_legit_no_training" and args[5]):
            return lambda results: norm(inputs, reached[0], results)
        if op in MAX_POOLS:
            return lambda results: max_pool(args, reached[0], results)
        if op in SPREADING and all(t.is_floating_point() or not r.any() for t, r in zip(inputs, reached, strict=True)):
            return lambda results: spread(op, func, args, kwargs, inputs, reached)
        if torch.Tag.pointwise in func.tags or op in POINTWISE:
            return lambda results: pointwise(inputs, reached, results)
        return lambda results: mixed(inputs, reached, results)

    def _product(self, op: str, args: tuple[Any, ...], kwargs: dict[str, Any], reached: list[Tensor]) -> Rule:
        """``A·B [+ bias]``: A_ik passes to C_ij where B_kj can be other than 0, and B_kj where A_ik can."""
        at = PRODUCTS[op]
        left, right, added = args[at], args[at + 1], args[0] if at else None
        from_left, from_right = reached[at], reached[at + 1]
        through_left, through_right = self.passing(left, from_left), self.passing(right, from_right)
        marks = product(from_left, through_right) | product(through_left, from_right)
        if added is not None:
            marks = marks | reached[0]
        steady = ~from_left.any(-2) & (left == left[..., :1, :]).all(-2)
        if op in ("mm", "addmm"):
            plain = added is not None and not kwargs
            self._note(Use(right, 1, added if plain else None, left[0, :, None].clone(), steady[:, None]))

        def back(wanted: list[Tensor]) -> Sequence[Tensor | None]:
            (c,) = wanted
            self.mark(self.joined, right, product(from_left.mT, c))
            found = [product(c, through_right.mT), product(through_left.mT, c)]
            return found if added is None else [narrowed(c, added), *found]

        return lambda results: ([marks], back)

    def _convolution(self, func: Any, args: tuple[Any, ...], reached: list[Tensor]) -> Rule:
        """As `_product`, at every position."""
        x, kernel, bias, stride, padding, *rest = args
        groups = rest[-1]
        through_x, through_kernel = self.passing(x, reached[0]), self.passing(kernel, reached[1])

        def convolve(a: Tensor, b: Tensor) -> Tensor:
            out: Tensor = func(a, b, None, stride, padding, *rest)
            return out

        with torch.no_grad():
            marks = convolve(reached[0].float(), through_kernel.float()) > 0.5  # sums of ones, up to rounding
            marks |= convolve(through_x.float(), reached[1].float()) > 0.5
        flat = x.transpose(0, 1).flatten(1)
        steady = ~reached[0].transpose(0, 1).flatten(1).any(1) & (flat == flat[:, :1]).all(1)
        if not any(padding) and not rest[1]:  # neither padded nor transposed

            def by_entry(v: Tensor) -> Tensor:
                """A number per input channel in the shape of the kernel, whose rows see the channels of their group."""
                rows = v.view(groups, -1).repeat_interleave(len(kernel) // groups, 0)
                return rows.view(*kernel.shape[:2], *[1] * (x.dim() - 2))

            self._note(Use(kernel, 0, bias, by_entry(flat[:, 0].clone()), by_entry(steady)))

        def back(wanted: list[Tensor]) -> Sequence[Tensor | None]:
            c = wanted[0]
            self.mark(self.joined, kernel, pulled(convolve, reached[0], through_kernel, c)[1])
            found = pulled(convolve, through_x, through_kernel, c)
            return found if bias is None else [*found, c.transpose(0, 1).flatten(1).any(1)]

        return lambda results: ([marks], back)

    def _note(self, use: Use) -> None:
        self.uses[storage_of(use.kernel)] = use

    # ── backward ──

    def sweep(self, output: Tensor) -> None:
        """Mark everything that the output depends on."""
        self.mark(self.wanted, output, torch.ones_like(output, dtype=torch.bool))
        for inputs, results, back in reversed(self.calls):
            wanted = [self.marks(self.wanted, t) for t in results]
            if results and not any(bool(w.any()) for w in wanted):
                continue
            for t in results:  # what was there before the operator wrote is wanted only through it
                self.mark(self.wanted, t, torch.zeros_like(t, dtype=torch.bool), afresh=True)
            for t, w in zip(inputs, back(wanted), strict=True):
                if w is not None:
                    self.mark(self.wanted, t, w)


# ── operators ────────────────────────────────────────────────────────────────────────────────────────────────────


def product(a: Tensor, b: Tensor) -> Tensor:
    """Of marks: whether some k has both."""
    return (a.float() @ b.float()) > 0.5


def pulled(convolve: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, c: Tensor) -> list[Tensor]:
    """The marks of both factors of a convolution, from those of its result."""
    factors = [a.float().requires_grad_(), b.float().requires_grad_()]
    with torch.enable_grad():
        out = convolve(*factors)
    return [g > 0.5 for g in torch.autograd.grad(out, factors, c.float())]


def narrowed(c: Tensor, to: Tensor) -> Tensor:
    """The marks of what was broadcast."""
    return c.float().sum_to_size(to.shape) > 0.5


def pointwise(inputs: list[Tensor], reached: list[Tensor], results: list[Tensor]) -> tuple[Sequence[Tensor], Back]:
    """Element by element, with broadcasting."""
    try:
        shape: torch.Size = torch.broadcast_shapes(*(t.shape for t in inputs))  # type: ignore[no-untyped-call]
    except RuntimeError:
        return mixed(inputs, reached, results)
    if any(t.shape != shape for t in results):
        return mixed(inputs, reached, results)
    marks = torch.zeros(shape, dtype=torch.bool, device=results[0].device)
    for r in reached:
        marks = marks | r
    return [marks] * len(results), lambda wanted: [narrowed(torch.stack(wanted).any(0), t) for t in inputs]


def norm(inputs: list[Tensor], reached: Tensor, results: list[Tensor]) -> tuple[Sequence[Tensor], Back]:
    """Batch normalisation in evaluation mode: a line for each channel. A scale of 0 is a number like others."""
    none = [torch.zeros_like(t, dtype=torch.bool) for t in results[1:]]

    def back(wanted: list[Tensor]) -> Sequence[Tensor | None]:
        each = wanted[0].transpose(0, 1).flatten(1).any(1)
        return [wanted[0], *(each for _ in inputs[1:])]

    return [reached, *none], back


def spread(
    op: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Tensor], reached: list[Tensor]
) -> tuple[Sequence[Tensor], Back]:
    """A linear operator without negative coefficients, on marks as numbers; its gradient carries them back."""

    def apply(numbers: list[Tensor]) -> Tensor:
        rest = iter(numbers)
        given = tuple(replaced(a, rest) for a in (args[:2] if op == "constant_pad_nd" else args))
        out: Tensor = func(*given, **{k: v for k, v in kwargs.items() if k != "dtype"})
        return out

    numbers = [r.double() if t.is_floating_point() else t for t, r in zip(inputs, reached, strict=True)]

    def back(wanted: list[Tensor]) -> Sequence[Tensor | None]:
        with torch.enable_grad():
            leaves = [n.requires_grad_() if n.is_floating_point() else n for n in numbers]
            out = apply(leaves)
        into = [n for n in leaves if n.requires_grad]
        grads = iter(torch.autograd.grad(out, into, wanted[0].double()))
        return [next(grads) > 0 if n.requires_grad else None for n in leaves]

    return [apply(numbers) > 0], back


def max_pool(args: tuple[Any, ...], reached: Tensor, results: list[Tensor]) -> tuple[Sequence[Tensor], Back]:
    """The largest of a window depends on all of it."""
    size = list(args[1])
    rank = len(size)
    stride, padding, dilation = (
        [*(args[i] if len(args) > i and len(args[i]) else default)] for i, default in ((2, size), (3, [0]), (4, [1]))
    )
    stride, padding, dilation = (v * rank if len(v) == 1 else v for v in (stride, padding, dilation))
    shape = reached.shape
    around: list[int] = []
    for i in reversed(range(rank)):  # the last axis first; with ceil_mode windows may hang over the end
        length, outputs = shape[i - rank], results[0].shape[i - rank]
        needed = (outputs - 1) * stride[i] + dilation[i] * (size[i] - 1) + 1
        around += [padding[i], max(padding[i], needed - length - padding[i])]
    window = torch.ones(1, 1, *size, device=reached.device)

    def pool(x: Tensor, w: Tensor) -> Tensor:
        out = CONVOLVE[rank](F.pad(x, around), w, stride=stride, dilation=dilation)
        for axis, n in enumerate(results[0].shape[-rank:], -rank):
            out = out.narrow(axis, 0, n)
        return out

    single = reached.reshape(-1, 1, *shape[-rank:])
    marks = (pool(single.float(), window) > 0.5).view(results[0].shape)

    def back(wanted: list[Tensor]) -> Sequence[Tensor | None]:
        c = torch.stack(wanted).any(0).reshape(-1, 1, *results[0].shape[-rank:])
        return [pulled(pool, single, window, c)[0].view(shape)]

    return [marks] * len(results), back


def mixed(inputs: list[Tensor], reached: list[Tensor], results: list[Tensor]) -> tuple[Sequence[Tensor], Back]:
    """Everything depends on everything."""
    any_reached = any(bool(r.any()) for r in reached)
    return [torch.full_like(t, any_reached, dtype=torch.bool) for t in results], everything(inputs)


def everything(inputs: list[Tensor]) -> Back:
    return lambda wanted: [torch.ones_like(t, dtype=torch.bool) for t in inputs]


# ── storages ─────────────────────────────────────────────────────────────────────────────────────────────────────


def storage_of(t: Tensor) -> int:
    return int(t.untyped_storage()._cdata)


def elements_of(t: Tensor) -> int:
    return t.untyped_storage().nbytes() // t.itemsize


def positions(t: Tensor) -> Tensor:
    """Where each element of a tensor lies in its storage."""
    return torch.arange(elements_of(t), device=t.device).as_strided(t.shape, t.stride(), t.storage_offset())


def writes(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """The tensors of nested arguments, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for x in tree:
            yield from tensors_in(x)
    elif isinstance(tree, dict):
        yield from tensors_in(list(tree.values()))


def replaced(tree: Any, tensors: Iterator[Tensor]) -> Any:
    """Nested arguments with other tensors, in order."""
    if isinstance(tree, Tensor):
        return next(tensors)
    return [replaced(x, tensors) for x in tree] if isinstance(tree, (list, tuple)) else tree
