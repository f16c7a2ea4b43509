"""Plain values and tensors as JSON beside named arrays. Nothing here can name code: every kind has its own line.

JSON objects hold one key that says what they are: ``map``, ``pairs``, ``tuple``, ``float`` (what JSON cannot write),
``tensor``, ``array``, or ``is`` for one of the dataclasses that the caller lists. A tensor that is met twice is stored
once, and is one tensor again when it is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunelang.runtime.files import FileProblem

SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Packer:
    """Values into JSON; their tensors are collected in `tensors`, by the path to them."""

    def __init__(self, kinds: Iterable[type]) -> None:
        self.kinds = {kind.__name__: kind for kind in kinds}
        self.tensors: dict[str, Tensor] = {}
        self._seen: dict[int, tuple[str, Tensor]] = {}  # by id, which is that of no other while the tensor is held

    def pack(self, value: Any, path: str) -> Any:
        """JSON of a value. Raises TypeError for what has no line here: nothing is left out silently."""
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float) and not isinstance(value, np.generic):
            return value if math.isfinite(value) else {"float": str(value)}
        if isinstance(value, Tensor):
            form = {"tensor": self._kept(value, path), "on": value.device.type}
            return form if value.is_contiguous() else {**form, "stride": list(value.stride())}
        if isinstance(value, np.ndarray):
            return {"array": self._kept(torch.from_numpy(np.array(value)), path)}
        if isinstance(value, np.generic):
            return self.pack(value.item(), path)
        if isinstance(value, list):
            return [self.pack(x, f"{path}/{i}") for i, x in enumerate(value)]
        if isinstance(value, tuple):
            return {"tuple": [self.pack(x, f"{path}/{i}") for i, x in enumerate(value)]}
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        kind = type(value)
        if self.kinds.get(kind.__name__) is kind:
            of = {f.name: self.pack(getattr(value, f.name), f"{path}/{f.name}") for f in fields(kind)}
            return {"is": kind.__name__, "of": of}
        raise TypeError(f"{path}: {kind.__name__} has no form in a checkpoint")

    def _mapping(self, value: Mapping[Any, Any], path: str) -> Any:
        if all(isinstance(k, str) for k in value):
            return {"map": {k: self.pack(v, f"{path}/{k}") for k, v in value.items()}}
        pairs = enumerate(value.items())
        return {"pairs": [[self.pack(k, f"{path}/{i}k"), self.pack(v, f"{path}/{i}")] for i, (k, v) in pairs]}

    def _kept(self, t: Tensor, path: str) -> str:
        name, _ = self._seen.setdefault(id(t), (path, t))
        self.tensors[name] = t.detach()
        return name


class Unpacker:
    """The way back. Tensors arrive on `device` if they were on a device, and in the host's memory otherwise."""

    def __init__(self, kinds: Iterable[type], tensors: Mapping[str, Tensor], device: torch.device) -> None:
        self.kinds = {kind.__name__: kind for kind in kinds}
        self.tensors, self.device = tensors, device
        self._made: dict[str, Tensor] = {}

    def unpack(self, value: Any) -> Any:
        """The value again. Errors: `FileProblem` P522 for what no `Packer` writes."""
        try:
            return self._unpack(value)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise FileProblem("P522", f"the state of a checkpoint cannot be read: {error!r}") from error

    def _unpack(self, value: Any) -> Any:
        match value:
            case None | bool() | int() | float() | str():
                return value
            case list():
                return [self._unpack(x) for x in value]
            case {"tuple": list(inner)}:
                return tuple(self._unpack(x) for x in inner)
            case {"map": dict(inner)}:
                return {k: self._unpack(v) for k, v in inner.items()}
            case {"pairs": list(inner)}:
                return {self._unpack(k): self._unpack(v) for k, v in inner}
            case {"float": str(name)}:
                return SPECIAL[name]
            case {"tensor": str(name), "on": str(kind)}:
                return self._tensor(name, kind, value.get("stride"))
            case {"array": str(name)}:
                return self.tensors[name].numpy().copy()
            case {"is": str(name), "of": dict(inner)}:
                return self.kinds[name](**{k: self._unpack(v) for k, v in inner.items()})
        raise ValueError(f"unknown form {str(value)[:60]}")

    def _tensor(self, name: str, kind: str, stride: list[int] | None) -> Tensor:
        """In the layout that it had: the order of sums in a product goes by it, and with it the last bit."""
        if name not in self._made:
            found = self.tensors[name] if kind == "cpu" else self.tensors[name].to(self.device)
            if stride is not None and 0 not in stride:
                laid = torch.empty_strided(found.shape, stride, dtype=found.dtype, device=found.device)
                found = laid.copy_(found)
            self._made[name] = found
        return self._made[name]
