"""Activations of the whole data set in chunks of samples: on the device, in the host's memory, or in a file.

What is on the device at a time is one chunk, so device memory does not grow with the data set. Every value is kept
twice, before and after the current iteration, so that an iteration can be refused without having copied anything.
"""

from __future__ import annotations

import os
import tempfile
from math import prod
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Store: TypeAlias = Literal["device", "host", "disk"]


class Chunks:
    """A tensor ``samples × shape``, in chunks of `rows` samples (the last may be shorter).

    `old` and `new` read a chunk onto the device (as a view where it lies there already: change it by `write` alone),
    `write` sets what `new` reads, `accept` makes the new values the old ones. `single`: one buffer for both, for what
    can be computed again.
    """

    def __init__(
        self,
        samples: int,
        shape: tuple[int, ...],
        rows: int,
        *,
        store: Store = "device",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        folder: Path | None = None,
        single: bool = False,
    ) -> None:
        if rows < 1:
            raise ValueError(f"a chunk needs at least one row, not {rows}")
        self.samples, self.shape, self.rows, self.device = samples, shape, rows, torch.device(device)
        self._new = _made((samples, *shape), store, self.device, dtype, folder)
        self._old = self._new if single else _made((samples, *shape), store, self.device, dtype, folder)

    @classmethod
    def of(cls, data: Tensor, rows: int, device: torch.device | str) -> Chunks:
        """Data as they lie, to be read alone: nothing is copied."""
        self = cls.__new__(cls)
        self.samples, self.shape, self.rows, self.device = len(data), data.shape[1:], rows, torch.device(device)
        self._old = self._new = data
        return self

    def __len__(self) -> int:
        return (self.samples + self.rows - 1) // self.rows

    def old(self, chunk: int) -> Tensor:
        return self._read(self._old, chunk)

    def new(self, chunk: int) -> Tensor:
        return self._read(self._new, chunk)

    @property
    def whole(self) -> Tensor:
        """All old values, where they lie."""
        return self._old

    def write(self, chunk: int, value: Tensor) -> None:
        self._part(self._new, chunk).copy_(value.view(-1, *self.shape))

    def accept(self) -> None:
        self._old, self._new = self._new, self._old

    def _part(self, base: Tensor, chunk: int) -> Tensor:
        return base[chunk * self.rows : (chunk + 1) * self.rows]

    def _read(self, base: Tensor, chunk: int) -> Tensor:
        return self._part(base, chunk).to(self.device, non_blocking=base.is_pinned())


def _made(
    shape: tuple[int, ...], store: Store, device: torch.device, dtype: torch.dtype, folder: Path | None
) -> Tensor:
    match store:
        case "device":
            return torch.zeros(shape, dtype=dtype, device=device)
        case "host":
            return torch.zeros(shape, dtype=dtype, pin_memory=device.type == "cuda")
        case "disk":
            return _mapped(shape, dtype, folder)


def _mapped(shape: tuple[int, ...], dtype: torch.dtype, folder: Path | None) -> Tensor:
    """A tensor whose memory is a file. The file has no name any more when this returns: it ends with the tensor."""
    size = prod(shape)
    handle, name = tempfile.mkstemp(prefix="activations-", dir=folder)
    try:
        os.truncate(handle, max(1, size * dtype.itemsize))
        return torch.from_file(name, shared=True, size=size, dtype=dtype).view(shape)
    finally:
        os.close(handle)
        os.unlink(name)


def fitting_rows(width: int, dtype: torch.dtype, memory: int = 1 << 27) -> int:
    """Samples of a chunk if each takes `width` numbers at once and all `memory` bytes: at least 1, at most 8192."""
    return max(1, min(8192, memory // max(1, width * dtype.itemsize)))
