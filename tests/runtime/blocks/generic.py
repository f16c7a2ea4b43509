"""A generic numerical minimiser in float64: what closed forms are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor


def minimiser(f: Callable[..., Tensor], starts: Sequence[Tensor]) -> list[Tensor]:
    """Of a smooth f by L-BFGS with gradients from automatic differentiation."""
    sizes, shapes = [s.numel() for s in starts], [s.shape for s in starts]

    def split(x: Tensor) -> list[Tensor]:
        return [part.view(shape) for part, shape in zip(x.split(sizes), shapes, strict=True)]

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.tensor(x, requires_grad=True)
        found = f(*split(point))
        (slope,) = torch.autograd.grad(found, point)
        return found.item(), slope.numpy()

    start = torch.cat([s.double().flatten() for s in starts]).numpy()
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-16, "gtol": 1e-12, "maxcor": 40}
    found = minimize(value, start, jac=True, method="L-BFGS-B", options=options)
    return split(torch.from_numpy(found.x))


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def square(x: Tensor) -> Tensor:
    return x.square().sum()
