"""Entries out of a given set of values c, as they are or times one learned scale s: ``min Σ_i min_j (v_i − s c_j)²``.

For {−1, 1} the best scale is the mean of |v|, for {−1, 0, 1} that of the j largest |v|, j = argmax (Σ_{i≤j} |v|_i)/√j
(Carreira-Perpiñán and Idelbayev, Model compression as constrained optimization, part II: quantization, 2017). Both are
cases of one sweep that is exact for any values: from s = 0⁺ on, entry v passes from one value to the next where s times
their midpoint m is v. In the order of v/m the sums ``A = ⟨v, c⟩`` and ``B = ⟨c, c⟩`` of every assignment follow by
addition; the best explains A²/B at s = A/B. A negative scale is the sweep of −v.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def nearest(v: Tensor, values: Sequence[float], dtype: torch.dtype) -> Tensor:
    """Codes, int64, of the nearest among `values` in the type `dtype`; the lower of two at the same distance."""
    c, order = torch.tensor(values, dtype=dtype, device=v.device).double().sort(stable=True)
    return order[torch.bucketize(v.double(), (c[:-1] + c[1:]) / 2)]


@torch.no_grad()
def scale(v: Tensor, values: Sequence[float], dtype: torch.dtype) -> Tensor:
    """The scale s of least squares of a vector v in the type `dtype`, shape (); 0 where no scale explains anything.

    O(p log p) for p passages, one for each entry and each midpoint of its sign.
    """
    v, c = v.double(), torch.tensor(values, dtype=torch.float64, device=v.device).sort().values
    up, down = _sweep(v, c), _sweep(-v, c)
    return torch.where(up[0] >= down[0], up[1], -down[1]).to(dtype)


@torch.no_grad()
def scaled_codes(v: Tensor, s: Tensor, values: Sequence[float]) -> Tensor:
    """Codes, int64, of the nearest among s times `values`."""
    made, order = (s.double() * torch.tensor(values, dtype=torch.float64, device=v.device)).sort(stable=True)
    return order[torch.bucketize(v.double(), (made[:-1] + made[1:]) / 2)]


def _sweep(v: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """What the best scale s > 0 explains of ‖v‖², and s; ascending values c. Both 0 where none does."""
    middles = (c[:-1] + c[1:]) / 2
    at, a, b = [], [], []
    for m, below, above in zip(middles.tolist(), c[:-1].tolist(), c[1:].tolist(), strict=True):
        passing = v[v * m > 0]
        near, far = (below, above) if m > 0 else (above, below)  # v turns from `far` from zero to `near`
        at.append(passing / m)
        a.append(passing * (near - far))
        b.append(torch.full_like(passing, near * near - far * far))
    # at s = 0⁺ every entry holds the outermost value of its sign; a zero stays with the value nearest to zero
    rest = c[c.abs().argmin()]
    start = torch.where(v > 0, c[-1], torch.where(v < 0, c[0], rest))
    A, B = (v * start).sum(), start.square().sum()
    if at:
        order = torch.cat(at).argsort(stable=True)
        A = torch.cat((A[None], A + torch.cat(a)[order].cumsum(0)))
        B = torch.cat((B[None], B + torch.cat(b)[order].cumsum(0)))
    A, B = A.reshape(-1), B.reshape(-1)
    explained = torch.where((A > 0) & (B > B.max() * 1e-12), A.square() / B.clamp(min=1e-300), 0.0)
    best = explained.argmax()
    none = explained[best] <= 0
    return explained[best], torch.where(none, 0.0, A[best] / B[best].clamp(min=1e-300))
