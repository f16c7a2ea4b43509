"""`ShapeTable`: a network as facts, without weights and without torch.

It is made once by running the network on torch's `meta` device, can be saved, and is all that checking, proofs and
the independent checker ever know of a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any, Literal

Role = Literal["weight", "bias", "norm", "embedding", "other", "buffer"]
Kind = Literal["linear", "conv1d", "conv2d", "conv3d"]

FORMAT_VERSION = 1
LATER = frozenset({"channels", "steps"})  # keys that tables did not always have; empty where they are missing
ITEMSIZE = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "uint8": 1, "bool": 1}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One stored tensor. Tied tensors appear once, under the first name that the network gives them."""

    name: str  # key in the state dict, e.g. "fc1.weight"
    shape: tuple[int, ...]
    role: Role  # "weight": a kernel of a linear or convolution layer; "buffer": stored but not trained
    dtype: str = "float32"
    aliases: tuple[str, ...] = ()  # further state-dict names that share the storage

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows × columns with the output dimension first, as matrix functions and csr see it."""
        if not self.shape:
            return (1, 1)
        return (self.shape[0], prod(self.shape[1:]))

    @property
    def itemsize(self) -> int:
        """Bytes per entry."""
        return ITEMSIZE[self.dtype]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that owns a kernel.

    ``macs = uses · ∏ weight.shape``: the weight of a linear layer is ``out × in``, of a convolution
    ``out × in/groups × k_h × k_w``; `uses` counts output positions at batch 1, summed over every call.
    """

    name: str  # module path, e.g. "block1.conv2"
    kind: Kind
    weight: str  # name of a Tensor with role "weight"; tied layers share it
    bias: str | None
    uses: int  # output positions per sample
    groups: int = 1


@dataclass(frozen=True, slots=True)
class Product:
    """Multiply-adds without a kernel: both products of an attention."""

    name: str
    macs: int


@dataclass(frozen=True, slots=True)
class Slice:
    """Where the members of a coupling group lie in one tensor.

    Member i owns the indices ``[start + i·repeat, start + (i+1)·repeat)`` of dimension `dim`.
    """

    tensor: str
    dim: int
    start: int
    repeat: int = 1  # entries per member: the positions of a channel that was flattened

    def indices(self, member: int) -> range:
        """The indices that a member owns."""
        first = self.start + member * self.repeat
        return range(first, first + self.repeat)


@dataclass(frozen=True, slots=True)
class Channels:
    """A coupling group: units of a network that can only be removed together with all that reads or joins them.

    A member is one unit: a row of every kernel that makes it, its bias, the scale, shift and statistics of its
    normalisation, and every slice of a kernel that reads it. Where the slices of a member in trained tensors are all
    zero, what it emits is exactly 0 everywhere, so that cutting all its slices changes no output. Slices in buffers
    (running statistics) are cut with the rest, whatever they hold. A slice may start anywhere, and groups may share a
    dimension of a tensor, but no index of it.
    """

    name: str  # e.g. "conv1", after the first layer that makes its units; "conv1[4:12]" for a part of them
    size: int  # number of members
    slices: tuple[Slice, ...]
    reason: str = ""  # why no member can be removed; empty where members can


@dataclass(frozen=True)
class ShapeTable:
    """Layers, tensors and weightless products of one network at one input shape (without the batch dimension)."""

    model: str  # canonical constructor text, e.g. "lenet_300_100(inputs = 784, classes = 10)"
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    tensors: tuple[Tensor, ...]
    products: tuple[Product, ...] = ()
    outputs: tuple[int, ...] = field(default=())
    channels: tuple[Channels, ...] = ()
    steps: int = 0  # T, the time steps of a spiking network; 0 for all others

    @cached_property
    def tensor(self) -> dict[str, Tensor]:
        """By every name, aliases included."""
        found = {t.name: t for t in self.tensors}
        found.update({a: t for t in self.tensors for a in t.aliases})
        return found

    @cached_property
    def layer(self) -> dict[str, Layer]:
        return {x.name: x for x in self.layers}

    @cached_property
    def uses(self) -> dict[str, int]:
        """Multiply-adds per stored entry of each kernel and sample, over all layers that share it."""
        out: dict[str, int] = {}
        for x in self.layers:
            out[x.weight] = out.get(x.weight, 0) + x.uses
        return out

    def select(self, names: Iterable[str]) -> Iterator[Tensor]:
        return (self.tensor[n] for n in names)

    def in_dtype(self, dtype: str) -> ShapeTable:
        """The same network with its floating tensors stored in `dtype`."""
        floating = {"float64", "float32", "float16", "bfloat16"}
        changed = tuple(replace(t, dtype=dtype) if t.dtype in floating else t for t in self.tensors)
        return self if changed == self.tensors else replace(self, tensors=changed)

    def to_json(self) -> dict[str, Any]:
        """Nested lists and numbers; without the keys that older tables lack where they would say nothing."""
        data = {"format_version": FORMAT_VERSION, **asdict(self)}
        return {k: v for k, v in data.items() if v or k not in LATER}

    def dumps(self) -> str:
        """Canonical text: the same table always gives the same bytes."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @cached_property
    def digest(self) -> str:
        """sha256 of `dumps`."""
        return hashlib.sha256(self.dumps().encode()).hexdigest()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ShapeTable:
        if data.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"shape table has format_version {data.get('format_version')!r}, this is {FORMAT_VERSION}")
        return cls(
            model=data["model"],
            input_shape=tuple(data["input_shape"]),
            layers=tuple(Layer(**x) for x in data["layers"]),
            tensors=tuple(
                Tensor(**{**t, "shape": tuple(t["shape"]), "aliases": tuple(t["aliases"])}) for t in data["tensors"]
            ),
            products=tuple(Product(**p) for p in data["products"]),
            outputs=tuple(data["outputs"]),
            channels=tuple(
                Channels(**{**c, "slices": tuple(Slice(**s) for s in c["slices"])}) for c in data.get("channels", ())
            ),
            steps=data.get("steps", 0),
        )

    @classmethod
    def loads(cls, text: str) -> ShapeTable:
        return cls.from_json(json.loads(text))
