"""Structure inside one tensor: n of m cells, groups, blocks. Matrices are ``shape[0] × ∏ shape[1:]``."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1 << 18  # entries widened to float64 at a time


def as_matrix(tensor: Tensor) -> Tensor:
    """The tensor as shape[0] × ∏ shape[1:]: a vector is one column."""
    return tensor.reshape(matrix_shape(tensor.shape))


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    return (shape[0], prod(shape[1:])) if shape else (1, 1)


def n_of_m_mask(tensor: Tensor, n: int, m: int) -> Tensor:
    """The n largest magnitudes of every m consecutive columns, ties to the lowest; a shorter last part keeps n."""
    matrix = as_matrix(tensor.detach()).abs()
    rows, columns = matrix.shape
    cells = F.pad(matrix, (0, -columns % m), value=-1.0).view(rows, -(-columns // m), m)
    best = cells.sort(dim=-1, descending=True, stable=True).indices[..., :n]
    mask = torch.zeros_like(cells, dtype=torch.bool).scatter_(-1, best, True)
    return mask.flatten(1)[:, :columns].reshape(tensor.shape)


def surplus(value: Tensor, alive: Tensor | None, price: float) -> Tensor:
    """``(v_i² − P)₊`` in float64, 0 where not alive; for P < 0 a kept zero gains −P."""
    gains = value.detach().double().square().sub_(price).clamp_min_(0)
    return gains if alive is None else gains.mul_(alive)


def group_sums(tensor: Tensor, by: str) -> Tensor:
    """Sum over each group: the slices of dimension 0 (filter, row) or 1 (channel), or the columns of the matrix."""
    if by == "channel":
        return tensor.transpose(0, 1).flatten(1).sum(1) if tensor.dim() > 1 else tensor.sum().view(1)
    return as_matrix(tensor).sum(0 if by == "column" else 1)


def spread_groups(groups: Tensor, shape: Sequence[int], by: str) -> Tensor:
    """A mask of groups as a mask of positions."""
    if by == "channel":
        return groups.view(-1, *(1,) * (len(shape) - 2)).expand(*shape).contiguous()
    mask = groups.view(1, -1) if by == "column" else groups.view(-1, 1)
    return mask.expand(matrix_shape(shape)).reshape(tuple(shape))


def block_energies(tensor: Tensor, p: int, q: int) -> tuple[Tensor, Tensor]:
    """``Σ v²`` in float64 and the number of entries of every p × q block, as matrices of blocks."""
    matrix = as_matrix(tensor.detach())
    rows, columns = matrix.shape
    padded = F.pad(matrix.double().square(), (0, -columns % q, 0, -rows % p))
    energies = padded.view(padded.shape[0] // p, p, padded.shape[1] // q, q).sum((1, 3))
    heights = torch.full((energies.shape[0],), p)
    widths = torch.full((energies.shape[1],), q)
    if heights.numel():
        heights[-1] -= -rows % p
    if widths.numel():
        widths[-1] -= -columns % q
    return energies, torch.outer(heights, widths).to(tensor.device)


def block_mask(blocks: Tensor, shape: Sequence[int], p: int, q: int) -> Tensor:
    """A mask of blocks as a mask of positions."""
    rows, columns = matrix_shape(shape)
    grid = blocks.view(-(-rows // p), -(-columns // q))
    return grid.repeat_interleave(p, 0)[:rows].repeat_interleave(q, 1)[:, :columns].reshape(tuple(shape))


def kept_energy(value: Tensor, mask: Tensor | None = None) -> float:
    """``Σ v²`` in float64 over the positions of `mask`, or over all; a piece at a time, within the cache."""
    total = 0.0
    pieces = torch.split(value.detach().reshape(-1), CHUNK) if value.numel() else ()
    masks = [None] * len(pieces) if mask is None else torch.split(mask.reshape(-1), CHUNK)
    for piece, kept in zip(pieces, masks, strict=True):
        wide = piece.double() if kept is None else piece.double().mul(kept)
        total += float(wide.dot(wide))
    return total
