"""Budgets as functions of the kept items on a device: all residuals and all prices of a step in a few products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from prunelang.compiler.graph.resource import Resource


class Products(NamedTuple):
    """``Σ c · k_i · k_j``: the coefficients by budget and product, i and j, and both as rows of a unit matrix."""

    weights: Tensor
    i: Tensor
    j: Tensor
    at_i: Tensor
    at_j: Tensor


class Ways(NamedTuple):
    """``Σ_(l, ways) min_way (a·k_l + b)`` of one budget: its unit vector, levels, their unit rows, slopes, offsets."""

    budget: Tensor
    levels: Tensor
    at: Tensor
    a: Tensor
    b: Tensor


class Budgets:
    """``h_r(k) = (R_r(k) − B_r)/D_r`` and ``P_l = Σ_r z_r ∂R_r/∂k_l / D_r`` for kept items k, in float64.

    R is affine, with products of two levels for layers that lie between two groups, and with least affine forms where
    a tensor is stored in its shortest layout. Nothing here waits for the device, and sums have a fixed order.
    """

    def __init__(self, resources: Sequence[Resource], levels: int, device: torch.device) -> None:
        rows, unit = len(resources), torch.eye(levels, dtype=torch.float64)
        slope = torch.zeros(rows, levels, dtype=torch.float64)
        offset = torch.zeros(rows, dtype=torch.float64)
        products: dict[tuple[int, int], list[float]] = {}
        self.scale = [max(r.dense, 1) for r in resources]
        for i, (r, d) in enumerate(zip(resources, self.scale, strict=True)):
            offset[i] = (r.constant - r.bound) / d
            for c, at in r.terms:
                match at:
                    case ():
                        offset[i] += c / d
                    case (level,):
                        slope[i, level] += c / d
                    case (first, second):
                        products.setdefault((first, second), [0.0] * rows)[i] += c / d
                    case _:
                        raise ValueError(f"`{r.label}` multiplies more than two levels")
        self.slope, self.offset = slope.to(device), offset.to(device)
        self.products = _products(products, unit, device) if products else None
        self.ways = [_ways(i, r, self.scale, unit, device) for i, r in enumerate(resources) if r.choices]

    def derivative(self, k: Tensor) -> Tensor:
        """``∂R_r/∂k_l / D_r``, one row a budget."""
        found = self.slope
        if self.products is not None:
            weights, i, j, at_i, at_j = self.products
            found = found + (weights * k[j]) @ at_i + (weights * k[i]) @ at_j
        for way in self.ways:
            best = (way.a * k[way.levels].unsqueeze(1) + way.b).argmin(1, keepdim=True)
            found = found + torch.outer(way.budget, way.a.gather(1, best).squeeze(1) @ way.at)
        return found

    def residual(self, k: Tensor) -> Tensor:
        """``(R_r(k) − B_r)/D_r``."""
        found = torch.addmv(self.offset, self.slope, k)
        if self.products is not None:
            found = torch.addmv(found, self.products.weights, k[self.products.i] * k[self.products.j])
        for way in self.ways:
            found = found + way.budget * (way.a * k[way.levels].unsqueeze(1) + way.b).amin(1).sum()
        return found

    def price(self, z: Tensor, k: Tensor) -> Tensor:
        """``P_l``, what one more kept item of each level costs."""
        return z @ self.derivative(k)


def _products(found: dict[tuple[int, int], list[float]], unit: Tensor, device: torch.device) -> Products:
    i, j = (torch.tensor([pair[x] for pair in found]) for x in (0, 1))
    weights = torch.tensor(list(found.values()), dtype=torch.float64).t().contiguous()
    return Products(*(x.to(device) for x in (weights, i, j, unit[i], unit[j])))


def _ways(row: int, r: Resource, scale: Sequence[int], unit: Tensor, device: torch.device) -> Ways:
    """The least affine forms, padded with ways that are never the least."""
    most, never = max(len(ways) for _, ways in r.choices), ("", 0, 2**53)
    padded = [[*ways, *[never] * (most - len(ways))] for _, ways in r.choices]
    a = torch.tensor([[slope / scale[row] for _, slope, _ in ways] for ways in padded], dtype=torch.float64)
    b = torch.tensor([[fixed / scale[row] for _, _, fixed in ways] for ways in padded], dtype=torch.float64)
    levels = torch.tensor([level for level, _ in r.choices])
    budget = torch.eye(len(scale), dtype=torch.float64)[row]
    return Ways(*(x.to(device) for x in (budget, levels, unit[levels], a, b)))
