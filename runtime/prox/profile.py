"""The entries of one tensor in order of merit, as far as a joint projection needs to know them.

All bounds of a joint projection count whole tensors, so that each tensor keeps a *prefix* of its own order: the largest
magnitudes, ties by index. What is left to decide is one integer a tensor, and everything about it is read off
here: how many items exceed a threshold, how many positions and how much energy Σ v² the first j items hold.

An item is an entry, or a block; a block's merit is the root of its mean energy, so that a threshold √P on merits is
a price P per kept position in both cases.
"""

from __future__ import annotations

import struct
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from prunelang.runtime.prox.scan import SIGNED


class Profile:
    """`merits`: one non-negative float per item. `sizes`: positions of each item, None for one each.

    `alive`: items that may be kept at all. `floor` is the number of items kept whatever their merit.
    """

    def __init__(self, merits: Tensor, alive: Tensor | None = None, sizes: Tensor | None = None) -> None:
        merits = merits.detach().abs().flatten()
        merits = merits if merits.dtype in (torch.float32, torch.float64) else merits.float()
        self.keys = merits.view(SIGNED[merits.dtype])  # ordered as the merits
        self.alive = None if alive is None else alive.flatten()
        self.sizes = None if sizes is None else sizes.flatten()
        self.dtype = merits.dtype

    @cached_property
    def ordered(self) -> Any:
        """Keys of the live items, ascending: a NumPy array for CPU tensors, a tensor for others."""
        keys = self.keys if self.alive is None else self.keys[self.alive]
        if keys.device.type == "cpu":
            return np.sort(keys.numpy())
        return keys.sort().values

    @cached_property
    def items(self) -> int:
        return int(self.ordered.shape[0])

    @cached_property
    def order(self) -> Tensor:
        """Live items by falling merit, ties by index."""
        live = torch.arange(self.keys.numel(), device=self.keys.device)
        live = live if self.alive is None else live[self.alive]
        return live[self.keys[live].sort(descending=True, stable=True).indices]

    @cached_property
    def _positions(self) -> np.ndarray:
        """Positions of the first j items, j = 0…items; only where items differ in size."""
        assert self.sizes is not None
        return np.concatenate([[0], np.cumsum(self.sizes[self.order].cpu().numpy())]).astype(np.int64)

    @cached_property
    def _energies(self) -> np.ndarray | Tensor:
        """Energy of the first j items, j = 0…items, in float64."""
        if self.sizes is not None:
            merits = self.keys.view(self.dtype)[self.order].double().cpu().numpy()
            return np.concatenate([[0.0], np.cumsum(merits**2 * self.sizes[self.order].cpu().numpy())])
        if isinstance(self.ordered, np.ndarray):
            energies = np.empty(self.items + 1, np.float64)
            energies[0] = 0.0
            falling = self.ordered.view(np.float32 if self.dtype == torch.float32 else np.float64)[::-1]
            np.square(falling, out=energies[1:], dtype=np.float64)
            return np.cumsum(energies, out=energies)
        falling = self.ordered.flip(0).view(self.dtype).double()
        return torch.cat([falling.new_zeros(1), falling.square().cumsum(0)])

    def above(self, threshold: float) -> int:
        """Number of items with merit > threshold."""
        if threshold < 0:
            return self.items
        rounded, key = nearest_key(threshold, self.dtype)
        # No float of this dtype lies between the threshold and its rounding.
        return self.items - self._search(key, "right" if rounded <= threshold else "left")

    def _search(self, key: int, side: Literal["left", "right"]) -> int:
        if isinstance(self.ordered, np.ndarray):
            return int(self.ordered.searchsorted(self.ordered.dtype.type(key), side=side))
        wanted = torch.tensor(key, dtype=self.ordered.dtype, device=self.ordered.device)
        return int(torch.searchsorted(self.ordered, wanted, right=side == "right"))

    def merit(self, j: int) -> float:
        """Merit of the (j+1)-th item."""
        key = int(self.ordered[self.items - 1 - j])
        return float(torch.tensor(key, dtype=SIGNED[self.dtype]).view(self.dtype))

    def positions(self, j: int) -> int:
        """Positions that the first j items hold."""
        return j if self.sizes is None else int(self._positions[j])

    def energy(self, j: int) -> float:
        """Σ v² over the first j items."""
        return float(self._energies[j])

    def within(self, positions: int, j_min: int, j_max: int) -> int:
        """The most items j in [j_min, j_max] that hold at most `positions`; j_min if even those hold more."""
        if self.sizes is None:
            return max(j_min, min(j_max, positions))
        return max(j_min, min(j_max, int(np.searchsorted(self._positions, positions, side="right")) - 1))

    def mask(self, j: int) -> Tensor:
        """The first j items as a flat mask."""
        if j >= self.items:
            return torch.ones_like(self.keys, dtype=torch.bool) if self.alive is None else self.alive.clone()
        key = int(self.ordered[self.items - j]) if j > 0 else torch.iinfo(self.keys.dtype).max
        keep, tied = self.keys > key, self.keys == key
        if self.alive is not None:
            keep, tied = keep & self.alive, tied & self.alive
        missing = j - int(keep.sum())
        keep[tied.nonzero().squeeze(1)[:missing]] = True
        return keep


def nearest_key(value: float, dtype: torch.dtype) -> tuple[float, int]:
    """A non-negative value rounded to float32 or kept in float64, and its bit pattern."""
    if dtype == torch.float64:
        return value, struct.unpack("<q", struct.pack("<d", value))[0]
    value = min(value, 3.4028234663852886e38)  # the largest float32, which no finite merit exceeds
    packed = struct.pack("<f", value)
    return struct.unpack("<f", packed)[0], struct.unpack("<i", packed)[0]
