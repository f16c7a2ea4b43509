"""A network as facts: one forward pass of one sample on torch's `meta` device, every operator watched.

No weight is allocated and nothing is computed. Kernels are found where they are used, by the storage that a product
reads, so functional calls, tied weights and modules that are called several times count as they run. What cannot be
attributed to a linear or convolution layer is an error with the operator's and the module's name, never a silent zero.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor as T
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from prunelang.compiler import shape_cache
from prunelang.compiler.catalog import TRACERS, Shape
from prunelang.compiler.shapes import ITEMSIZE, Kind, Layer, Product, Role, ShapeTable, Tensor
from prunelang.runtime.channels import channels
from prunelang.runtime.following import rule
from prunelang.runtime.spiking.state import StepCount, rest
from prunelang.runtime.units import Units

MATRIX_PRODUCTS = {"mm": 0, "addmm": 1, "bmm": 0, "baddbmm": 1}  # operator → place of its left factor
UNKNOWN_PRODUCTS = frozenset(
    {"mv", "addmv", "dot", "vdot", "addbmm", "addr", "ger", "outer", "linear", "lstm", "gru"}
    | {"_trilinear", "_thnn_fused_lstm_cell", "_cdist_forward", "_int_mm", "_scaled_mm", "_grouped_mm"}
)
NORMS = frozenset(
    {"native_layer_norm", "native_group_norm", "native_batch_norm", "cudnn_batch_norm", "_fused_rms_norm"}
    | {"_native_batch_norm_legit", "_native_batch_norm_legit_no_training"}
)
CONVOLUTIONS: Mapping[int, Kind] = {3: "conv1d", 4: "conv2d", 5: "conv3d"}


class TraceError(Exception):
    """The network cannot be described as layers: which module, which operator, and what to write instead."""


def trace(
    model: nn.Module, input_shape: Shape, *, model_text: str, dtype: torch.dtype | str = torch.float32
) -> ShapeTable:
    """The shape table of `model` for one input of `input_shape` (without the batch dimension) and `dtype`.

    The network itself is neither run nor changed: a copy without weights is, in evaluation mode.
    Errors: `TraceError`.
    """
    ghost = _ghost(model).eval()
    watch = _Watch(ghost)
    count = StepCount(ghost)
    x = torch.zeros((1, *input_shape), dtype=_dtype(dtype), device="meta")
    watch.data(x)
    try:
        with torch.device("meta"), watch:
            y = ghost(x)
    except TraceError:
        raise
    except Exception as e:
        where = watch.where()
        raise TraceError(f"{where} cannot run on the meta device with input {(1, *input_shape)}: {e}") from e
    finally:
        watch.remove_hooks()
        count.remove()
    watch.add_idle_layers()
    if not isinstance(y, T):
        raise TraceError(f"the network returns a {type(y).__name__}; it should return one tensor")
    return ShapeTable(
        model=model_text,
        input_shape=tuple(input_shape),
        layers=tuple(watch.layers.values()),
        tensors=tuple(watch.tensors()),
        products=tuple(Product(name, macs) for name, macs in watch.products.items()),
        outputs=tuple(y.shape[1:]),
        channels=channels(watch.units, y),
        steps=count.steps,
    )


def shape_table(
    constructor_text: str,
    factory: Callable[..., Any],
    kwargs: Mapping[str, Any],
    input_shape: Shape,
    *,
    dtype: torch.dtype | str = torch.float32,
    source: Path | None = None,
) -> ShapeTable:
    """`trace` of ``factory(**kwargs)``, built on `meta`.

    With `source`, the one file that decides what the factory builds, the table is kept in the cache on disk and read
    from there. Without it (code of a user may import anything) the network is traced each time.
    """
    key = None if source is None else shape_cache.key(constructor_text, input_shape, (source, *TRACERS))
    cached = None if key is None else shape_cache.read(key, constructor_text)
    if cached is not None:
        return cached
    try:
        with torch.device("meta"):
            model = factory(**kwargs)
    except Exception as e:
        raise TraceError(f"`{constructor_text}` cannot be built on the meta device: {e}") from e
    if not isinstance(model, nn.Module):
        raise TraceError(f"`{constructor_text}` makes a {type(model).__name__}, not an nn.Module")
    table = trace(model, input_shape, model_text=constructor_text, dtype=dtype)
    if key is not None:
        shape_cache.write(key, table)
    return table


# ── the copy without weights ─────────────────────────────────────────────────────────────────────────────────────


def _ghost(model: nn.Module) -> nn.Module:
    """A copy on `meta`: same modules, same ties, no data. Modules that remember are put at rest first."""
    rest(model)
    memo: dict[int, Any] = {}
    for t in [*model.parameters(), *model.buffers()]:
        empty = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta")
        memo[id(t)] = nn.Parameter(empty, t.requires_grad) if isinstance(t, nn.Parameter) else empty
    try:
        return copy.deepcopy(model, memo)
    except Exception as e:
        raise TraceError(f"the network cannot be copied: {e}") from e


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, dtype)
    assert isinstance(found, torch.dtype)
    return found


# ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Stored:
    """One stored tensor of the network: all its names, and what it turned out to be."""

    tensor: T
    names: list[str]
    trained: bool
    roles: set[Role] = field(default_factory=set)


def _storage(t: T) -> int:
    return int(t.untyped_storage()._cdata)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator below autograd, with the module that called it.

    A tensor is *computed from weights* while no input has touched it and no layer has made it. A product with such a
    tensor that is not a layer's own kernel (a masked, normalised or generated weight) is refused: its cost could not
    be told per entry.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = model
        self.layers: dict[tuple[str, str], Layer] = {}
        self.products: dict[str, int] = {}
        self.stored: dict[int, _Stored] = {}
        self.owners: dict[int, list[str]] = {}  # storage → paths of the modules that hold it
        self.stack: list[str] = []
        self.touched: dict[int, T] = {}  # storage → a tensor that depends on the input (held, so no storage is reused)
        self.computed: dict[int, tuple[T, str]] = {}  # storage → a tensor computed from weights alone, and from which
        self.handles: list[Any] = []
        self._collect()
        self.units = Units(((s.names[0], s.tensor, s.trained) for s in self.stored.values()), rule)

    def _collect(self) -> None:
        for path, module in self.model.named_modules(remove_duplicate=False):
            for leaf, t in [*module._parameters.items(), *module._buffers.items()]:
                if t is None:
                    continue
                name = f"{path}.{leaf}" if path else leaf
                self.owners.setdefault(_storage(t), []).append(path)
                if leaf in module._non_persistent_buffers_set:
                    continue
                trained = isinstance(t, nn.Parameter)
                self.stored.setdefault(_storage(t), _Stored(t, [], trained)).names.append(name)
        for path, module in self.model.named_modules():
            self.handles.append(module.register_forward_pre_hook(self._enter(path), prepend=True))
            self.handles.append(module.register_forward_hook(self._leave, always_call=False))

    def _enter(self, path: str) -> Callable[..., None]:
        return lambda *_: self.stack.append(path)

    def _leave(self, *_: object) -> None:
        self.stack.pop()

    def remove_hooks(self) -> None:
        for handle in self.handles:
            handle.remove()

    @property
    def path(self) -> str:
        return self.stack[-1] if self.stack else ""

    def where(self) -> str:
        return f"`{self.path}`" if self.path else "the network"

    def data(self, t: T) -> None:
        self.touched[_storage(t)] = t
        self.units.data(t)

    # ── one operator ─────────────────────────────────────────────────────────────────────────────────────────────

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.units.see(func, args, kwargs or {}, out, self.where())
        results = [t for t in _flat(out) if isinstance(t, T)]
        inputs = [t for t in _flat((args, kwargs or {})) if isinstance(t, T)]
        if self._see(func.overloadpacket.__name__, args, inputs, results) or self._any(self.touched, inputs):
            for t in results:
                self.touched[_storage(t)] = t
        else:
            source = next((name for name in map(self._source, inputs) if name), "")
            for t in results:
                if source and _storage(t) not in self.stored:
                    self.computed[_storage(t)] = (t, source)
        return out

    @staticmethod
    def _any(known: Mapping[int, object], tensors: list[T]) -> bool:
        return any(_storage(t) in known for t in tensors)

    def _see(self, op: str, args: tuple[Any, ...], inputs: list[T], results: list[T]) -> bool:
        """Counts what the operator multiplies; true if its result is an activation whatever it was made from."""
        if op in MATRIX_PRODUCTS:
            at = MATRIX_PRODUCTS[op]
            return self._matrix_product(op, args[at], args[at + 1], args[0] if at else None)
        if op == "convolution":
            return self._convolution(args, results[0])
        if op.startswith("_scaled_dot_product"):
            return self._attention(args)
        if op in UNKNOWN_PRODUCTS:
            raise TraceError(
                f"{self.where()} uses `{op}`, which is not counted; write it with linear or convolution layers"
            )
        role: Role | None = "norm" if op in NORMS else "embedding" if op == "embedding" else None
        if role is not None:
            for t in inputs:
                self._mark(t, role)
        return False

    def _matrix_product(self, op: str, left: T, right: T, added: T | None) -> bool:
        """``left · right``, perhaps batched: a linear layer if `right` is the transpose of a whole stored kernel."""
        kernel = self._stored_weight(right)
        if not (self._source(left) or self._source(right)):
            self._product("product", left.numel() * right.shape[-1])
            return True
        if kernel is None or op not in ("mm", "addmm") or not _transposed(kernel.tensor, right):
            raise self._refusal(op, left, right)
        bias = None if added is None else self._stored_weight(added)
        self._layer("linear", kernel, bias, uses=left.shape[0])
        return True

    def _convolution(self, args: tuple[Any, ...], out: T) -> bool:
        x, weight, bias, _, _, _, transposed, _, groups = args[:9]
        kernel = self._stored_weight(weight)
        uses = out.shape[0] * prod(out.shape[2:])
        if not self._source(weight):
            self._product("convolution", uses * weight.numel())
            return True
        if kernel is None or kernel.tensor.shape != weight.shape:
            raise self._refusal("convolution", x, weight)
        if transposed:
            raise TraceError(f"{self.where()} is a transposed convolution, which is not supported")
        found = None if bias is None else self._stored_weight(bias)
        self._layer(CONVOLUTIONS[weight.dim()], kernel, found, uses, groups)
        return True

    def _attention(self, args: tuple[Any, ...]) -> bool:
        """A fused softmax(Q Kᵀ) V: both products, masked positions included."""
        q, k, v = args[:3]
        positions = prod(q.shape[:-1]) * k.shape[-2]
        self._product("scores", positions * q.shape[-1])
        self._product("values", positions * v.shape[-1])
        return True

    # ── what tensors are ─────────────────────────────────────────────────────────────────────────────────────────

    def _stored_weight(self, t: T) -> _Stored | None:
        """The trained tensor whose storage `t` reads, if any."""
        found = self.stored.get(_storage(t))
        return found if found is not None and found.trained else None

    def _source(self, t: T) -> str:
        """The name of a weight that `t` is, views, or was computed from; empty if it was not."""
        found = self._stored_weight(t)
        return found.names[0] if found else self.computed.get(_storage(t), (t, ""))[1]

    def _mark(self, t: T, role: Role) -> None:
        found = self._stored_weight(t)
        if found is not None:
            found.roles.add(role)

    def _refusal(self, op: str, *factors: T) -> TraceError:
        whole = next((s.names[0] for s in map(self._stored_weight, factors) if s), None)
        what = f"`{whole}`" if whole else f"a tensor computed from `{next(filter(None, map(self._source, factors)))}`"
        return TraceError(
            f"{self.where()} multiplies by {what} outside a linear or convolution layer (operator `{op}`); "
            "use nn.Linear or F.linear(x, W) with W stored as outputs × inputs"
        )

    # ── what is counted ──────────────────────────────────────────────────────────────────────────────────────────

    def _product(self, suffix: str, macs: int) -> None:
        name = f"{self.path}.{suffix}" if self.path else suffix
        numbered, i = name, 1
        while numbered in self.products:
            i += 1
            numbered = f"{name}{i}"
        self.products[numbered] = macs

    def _layer(self, kind: Kind, kernel: _Stored, bias: _Stored | None, uses: int, groups: int = 1) -> None:
        name, own_bias = self._owner(kernel)
        kernel.roles.add("weight")
        bias = bias or own_bias
        if bias is not None:
            bias.roles.add("bias")
        key = (name, kernel.names[0])
        old = self.layers.get(key)
        total = uses + (old.uses if old else 0)
        self.layers[key] = Layer(name, kind, kernel.names[0], bias.names[0] if bias else None, total, groups)

    def _owner(self, kernel: _Stored) -> tuple[str, _Stored | None]:
        """The layer's name: the module whose ``weight`` the kernel is (the running one if tied), else the tensor's."""
        owners = self.owners[_storage(kernel.tensor)]
        path = self.path if self.path in owners else owners[0]
        name = f"{path}.weight" if path else "weight"
        if name not in kernel.names or not path:
            return kernel.names[0], None
        bias = self.model.get_submodule(path)._parameters.get("bias")
        return path, None if bias is None else self._stored_weight(bias)

    def add_idle_layers(self) -> None:
        """Layers that the pass did not reach are stored all the same: they count with no uses."""
        for module in self.model.modules():
            if not isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                continue
            kernel = self._stored_weight(module.weight)
            if kernel is not None and "weight" not in kernel.roles:
                kind = CONVOLUTIONS.get(module.weight.dim(), "linear")
                self._layer(kind, kernel, None, 0, getattr(module, "groups", 1))

    def tensors(self) -> list[Tensor]:
        """All stored tensors in the order of the state dict."""
        order = {name: i for i, name in enumerate(self.model.state_dict())}
        found = sorted(self.stored.values(), key=lambda s: order[s.names[0]])
        return [self._describe(s) for s in found]

    def _describe(self, s: _Stored) -> Tensor:
        dtype = str(s.tensor.dtype).removeprefix("torch.")
        if dtype not in ITEMSIZE:
            raise TraceError(f"`{s.names[0]}` is stored as {dtype}, which is not supported")
        return Tensor(s.names[0], tuple(s.tensor.shape), self._role(s), dtype, tuple(s.names[1:]))

    def _role(self, s: _Stored) -> Role:
        if not s.trained:
            return "buffer"
        order: tuple[Role, ...] = ("weight", "norm", "embedding", "bias")
        return next((role for role in order if role in s.roles), self._role_by_owner(s))

    def _role_by_owner(self, s: _Stored) -> Role:
        """For tensors that enter elementwise: a norm or embedding by the class of the module that holds them."""
        owner = self.model.get_submodule(self.owners[_storage(s.tensor)][0])
        if isinstance(owner, (nn.Embedding, nn.EmbeddingBag)):
            return "embedding"
        return "norm" if "Norm" in type(owner).__name__ else "other"


def _flat(tree: Any) -> Iterable[Any]:
    if isinstance(tree, (list, tuple)):
        for x in tree:
            yield from _flat(x)
    elif isinstance(tree, dict):
        yield from _flat(list(tree.values()))
    else:
        yield tree


def _transposed(kernel: T, factor: T) -> bool:
    """Whether `factor` is a view of the whole of `kernel` (outputs × inputs), transposed."""
    return (
        kernel.dim() == factor.dim() == 2
        and factor.shape == kernel.shape[::-1]
        and factor.stride() == kernel.stride()[::-1]
        and factor.storage_offset() == kernel.storage_offset()
    )
