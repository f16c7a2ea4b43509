"""Is a set of kept positions allowed? A recount in int64 that shares no code with the projections it checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from prunelang.compiler.joint import (
    BlockBound,
    Bound,
    ChannelBound,
    ChannelGroup,
    ChoiceBound,
    CountBound,
    GroupBound,
    NofMBound,
)


def assert_feasible(bounds: Sequence[Bound], masks: Mapping[str, Tensor]) -> None:
    """Raises `AssertionError` naming the first bound that the kept positions violate: a bug, never a user's error."""
    kept = {t: int(m.count_nonzero()) for t, m in masks.items()}
    for b in bounds:
        if not holds(b, masks, kept):
            raise AssertionError(f"the projection violates {b.name}")


def holds(bound: Bound, masks: Mapping[str, Tensor], kept: Mapping[str, int]) -> bool:
    """Whether the kept positions satisfy one bound. `kept` counts the positions of each mask."""
    if isinstance(bound, CountBound):
        cost = sum(a * kept[t] for t, a in bound.coefficients.items()) + bound.constant
        return (bound.upper is None or cost <= bound.upper) and (bound.lower is None or cost >= bound.lower)
    if isinstance(bound, ChoiceBound):
        costs = (min(a * kept[t] + c for _, a, c in ways) for t, ways in bound.alternatives.items())
        return sum(costs) + bound.constant <= bound.upper
    if isinstance(bound, GroupBound):
        return sum(int(slices(masks[t], bound.by).any(1).count_nonzero()) for t in bound.tensors) <= bound.upper
    if isinstance(bound, NofMBound):
        return all(int(most_in_cells(masks[t], bound.m)) <= bound.n for t in bound.tensors)
    if isinstance(bound, ChannelBound):
        return channel_cost(bound, masks) <= bound.upper
    if isinstance(bound, BlockBound):
        return all(whole_blocks(masks[t], bound.rows, bound.columns) for t in bound.tensors)
    return all(bool(masks[t].all()) for t in bound.tensors)


def channel_cost(bound: ChannelBound, masks: Mapping[str, Tensor]) -> int:
    """``constant + Σ c·∏ k``: a member counts as soon as one position of its slices is kept."""
    k = [int(members_kept(g, masks).count_nonzero()) for g in bound.groups]
    return bound.constant + sum(c * prod(k[i] for i in places) for c, places in bound.terms)


def members_kept(group: ChannelGroup, masks: Mapping[str, Tensor]) -> Tensor:
    """Which members of a group hold a kept position, in any of its slices."""
    found = torch.zeros(group.size, dtype=torch.bool, device=masks[group.slices[0][0]].device)
    for name, dimension, start, repeat in group.slices:
        own = masks[name].narrow(dimension, start, group.size * repeat).movedim(dimension, 0)
        found |= own.reshape(group.size, -1).any(1)
    return found


def rows_of(mask: Tensor) -> Tensor:
    return mask.reshape(1, 1) if mask.dim() == 0 else mask.flatten(1) if mask.dim() > 1 else mask.unsqueeze(1)


def slices(mask: Tensor, by: str) -> Tensor:
    """One row per group."""
    if by == "column":
        return rows_of(mask).t()
    if by == "channel":
        return mask.reshape(1, -1) if mask.dim() < 2 else mask.movedim(1, 0).flatten(1)
    return rows_of(mask)


def most_in_cells(mask: Tensor, m: int) -> int:
    """The largest number of kept positions in m consecutive columns that start at a multiple of m."""
    counts = rows_of(mask).long().cumsum(1)
    if counts.numel() == 0:
        return 0
    ends = torch.arange(m - 1, counts.shape[1] + m - 1, m, device=mask.device).clamp_max(counts.shape[1] - 1)
    return int(counts[:, ends].diff(dim=1, prepend=counts.new_zeros(counts.shape[0], 1)).max())


def whole_blocks(mask: Tensor, p: int, q: int) -> bool:
    """Every position agrees with the first of its block."""
    matrix = rows_of(mask)
    row = torch.arange(matrix.shape[0], device=mask.device) // p * p
    column = torch.arange(matrix.shape[1], device=mask.device) // q * q
    return torch.equal(matrix, matrix[row][:, column])
