"""One pass over the magnitudes of several tensors: how many lie above a bracket, and which lie inside.

The bit pattern of ``|v|``, read as an unsigned integer, is ordered as ``|v|``: the *key* of an entry is that pattern.
Keys are compared as integers throughout, so that denormals, flush-to-zero modes and half precision (which NumPy and
most processors emulate) cost and change nothing. Every non-finite entry has a key of at least that of infinity.

`HostScan` walks CPU tensors in blocks that stay in the second-level cache, through NumPy views that share their
memory; `DeviceScan` does the same with torch on any device. Neither ever holds a second copy of the tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK = 98_304  # keys per block: 384 KiB of float32 keys and twice 96 KiB of masks stay in a 1 MiB cache
CHUNK = 1 << 23  # entries per chunk on an accelerator: bounds the temporaries, and the synchronisations
UNSIGNED: dict[torch.dtype, Any] = {
    torch.float16: np.uint16,
    torch.bfloat16: np.uint16,
    torch.float32: np.uint32,
    torch.float64: np.uint64,
}
SIGNED = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}


class NonFinite(ArithmeticError):
    """A tensor holds NaN or an infinity, which no order statistic can rank. `index` says which of the list."""

    def __init__(self, index: int) -> None:
        super().__init__(f"tensor {index} holds a NaN or an infinite entry")
        self.index = index


def infinity_key(dtype: torch.dtype) -> int:
    """The bit pattern of +∞: the first key that is not finite."""
    return int(torch.tensor(float("inf"), dtype=dtype).view(SIGNED[dtype]))


def key_value(key: int, dtype: torch.dtype) -> float:
    """The magnitude whose bit pattern is `key`; exact, since every float of `dtype` is a Python float."""
    return float(torch.tensor(key, dtype=SIGNED[dtype]).view(dtype))


def in_memory_order(tensor: Tensor) -> Tensor:
    """All entries as a vector: in the order of memory where that saves a copy (`channels_last`), else by index."""
    tensor = tensor.detach()
    if tensor.is_contiguous():
        return tensor.view(-1)
    order = sorted(range(tensor.dim()), key=lambda d: (tensor.stride(d), tensor.shape[d]), reverse=True)
    dense = tensor.permute(order)
    return dense.view(-1) if dense.is_contiguous() else tensor.reshape(-1)


def shares(sizes: Sequence[int], count: int) -> list[int]:
    """How many of `count` samples each tensor gives, in proportion to its size."""
    ends = np.cumsum(sizes)
    taken = np.rint(ends * (count / max(int(ends[-1]), 1))).astype(np.int64)
    return [int(c) for c in np.diff(taken, prepend=0)]


class HostScan:
    """The passes over CPU tensors. Inside, keys are doubled, which drops the sign bit in a single operation."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.dtype = tensors[0].dtype
        self.unsigned = UNSIGNED[self.dtype]
        self.bits = [in_memory_order(t).view(SIGNED[self.dtype]).numpy().view(self.unsigned) for t in tensors]
        self.sizes = [b.size for b in self.bits]
        self.infinity = infinity_key(self.dtype)

    def sample(self, count: int, seed: int) -> np.ndarray:
        """About `count` keys from pseudo-random positions of every tensor: no layout of the data can bias them."""
        random, picked = np.random.default_rng(seed), []
        for bits, c in zip(self.bits, shares(self.sizes, count), strict=True):
            picked.append(bits.take(random.integers(0, bits.size, c)) if c else bits[:0])
        keys = np.concatenate(picked)
        return np.asarray((keys + keys) >> self.unsigned(1))

    def count(self, lo: int, hi: int, gather: bool) -> tuple[int, int, np.ndarray]:
        """``#{key ≥ hi}``, ``#{key ≥ lo}`` and, with `gather`, the keys in [lo, hi). Raises `NonFinite`."""
        block = min(BLOCK, max(*self.sizes, 1, 1) + 7 & ~7)
        keys, above, within = np.zeros(block, self.unsigned), np.zeros(block, bool), np.zeros(block, bool)
        wide_above, wide_within, differ = above.view(np.uint64), within.view(np.uint64), np.empty(block // 8, bool)
        high, low, limit = (self.unsigned(2 * k) for k in (hi, lo, self.infinity))
        largest = self.unsigned(np.iinfo(self.unsigned).max)  # what fills the last word of a tensor: above any bracket
        upper = lower = 0
        found: list[np.ndarray] = []
        for index, bits in enumerate(self.bits):
            for start in range(0, bits.size, block):
                part = bits[start : start + block]
                n = part.size
                k, over = keys[:n], above[:n]
                np.add(part, part, out=k)
                if k.max() >= limit:
                    raise NonFinite(index)
                np.greater_equal(k, high, out=over)
                np.greater_equal(k, low, out=within[:n])
                upper += int(np.count_nonzero(over))
                if not gather:
                    lower += int(np.count_nonzero(within[:n]))
                    continue
                w = (n + 7) // 8  # eight entries at a time: few words hold a candidate
                keys[n : 8 * w], above[n : 8 * w], within[n : 8 * w] = largest, False, False
                np.not_equal(wide_above[:w], wide_within[:w], out=differ[:w])
                if 50 * np.count_nonzero(differ[:w]) > w:
                    found.append(k[np.not_equal(over, within[:n], out=over)])
                else:
                    found.append(keys.reshape(-1, 8).take(np.flatnonzero(differ[:w]), axis=0).ravel())
        if not gather:
            return upper, lower, keys[:0]
        inside = np.concatenate(found) if found else keys[:0]
        inside = inside[inside - low < high - low]
        return upper, upper + inside.size, inside >> self.unsigned(1)

    def kth(self, keys: Any, rank: int) -> tuple[int, int, int]:
        """The `rank`-th largest of `keys` (1-based), how many are greater, and how many are equal."""
        at = keys.size - rank
        key = np.partition(keys, at)[at]
        return int(key), int(np.count_nonzero(keys > key)), int(np.count_nonzero(keys == key))


class DeviceScan:
    """The same passes in torch, for any device: chunks of bounded size, one synchronisation a chunk that gathers."""

    def __init__(self, tensors: Sequence[Tensor], chunk: int = CHUNK) -> None:
        self.dtype = tensors[0].dtype
        self.flat = [in_memory_order(t).view(SIGNED[self.dtype]) for t in tensors]
        self.sizes = [f.numel() for f in self.flat]
        self.infinity = infinity_key(self.dtype)
        self.mask = torch.iinfo(SIGNED[self.dtype]).max
        self.chunk = chunk

    def chunks(self) -> Iterator[Tensor]:
        """Keys of consecutive entries; small tensors share a chunk, large ones are cut."""
        waiting: list[Tensor] = []
        room = self.chunk
        for flat in self.flat:
            for part in torch.split(flat, self.chunk) if flat.numel() else ():
                if waiting and (part.numel() > room or part.device != waiting[0].device):
                    yield torch.cat(waiting).bitwise_and_(self.mask)
                    waiting, room = [], self.chunk
                waiting.append(part)
                room -= part.numel()
        if len(waiting) == 1:
            yield waiting[0].bitwise_and(self.mask)
        elif waiting:
            yield torch.cat(waiting).bitwise_and_(self.mask)

    def sample(self, count: int, seed: int) -> np.ndarray:
        """About `count` keys from pseudo-random positions of every tensor; only they leave the device."""
        random, home, picked = np.random.default_rng(seed), self.flat[0].device, []
        for flat, c in zip(self.flat, shares(self.sizes, count), strict=True):
            where = torch.from_numpy(random.integers(0, flat.numel(), c)) if c else torch.empty(0, dtype=torch.int64)
            picked.append(flat[where.to(flat.device)].to(home))
        return torch.cat(picked).bitwise_and_(self.mask).cpu().numpy()

    def count(self, lo: int, hi: int, gather: bool) -> tuple[int, int, Tensor]:
        """``#{key ≥ hi}``, ``#{key ≥ lo}`` and, with `gather`, the keys in [lo, hi). Raises `NonFinite`."""
        home = self.flat[0].device
        totals = torch.zeros(3, dtype=torch.int64, device=home)
        found = [self.flat[0][:0]]
        for keys in self.chunks():
            above, within = keys >= hi, keys >= lo
            counts = torch.stack([above.sum(), within.sum(), (keys.amax() >= self.infinity).long()])
            totals += counts.to(home)
            if gather:
                found.append(keys[above ^ within].to(home))
        upper, lower, broken = totals.tolist()
        if broken:
            raise NonFinite(next(i for i, f in enumerate(self.flat) if bool(((f & self.mask) >= self.infinity).any())))
        return upper, lower, torch.cat(found)

    def kth(self, keys: Any, rank: int) -> tuple[int, int, int]:
        """The `rank`-th largest of `keys` (1-based), how many are greater, and how many are equal."""
        key = keys.sort().values[keys.numel() - rank]  # few keys; CUDA has no deterministic kthvalue
        value, greater, equal = torch.stack([key.to(torch.int64), (keys > key).sum(), (keys == key).sum()]).tolist()
        return value, greater, equal


def check_finite(tensors: Sequence[Tensor]) -> None:
    """Raises `NonFinite` naming the first tensor that holds a NaN or an infinity."""
    for index, tensor in enumerate(tensors):
        scan = HostScan([tensor]) if tensor.device.type == "cpu" else DeviceScan([tensor])
        try:
            scan.count(0, scan.infinity, gather=False)
        except NonFinite:
            raise NonFinite(index) from None


def count_nonzero(tensors: Sequence[Tensor]) -> int:
    """‖x‖₀, by bit patterns: a mode that flushes denormals to zero changes nothing."""
    return sum(int((t.detach().view(SIGNED[t.dtype]) << 1).count_nonzero()) for t in tensors)
