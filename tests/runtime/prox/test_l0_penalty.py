"""Hard thresholding against the two candidates of each entry."""

from __future__ import annotations

from math import sqrt

import torch

from prunelang.runtime.prox.l0_penalty import L0Penalty, hard_


def naive(v: float, alpha: float, gamma: float) -> float:
    """Keep v at cost α, or pay v²/(2γ) for zero."""
    return v if alpha < v * v / (2 * gamma) else 0.0


def test_against_both_candidates() -> None:
    x = torch.randn(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for alpha, gamma in ((0.0, 1.0), (0.1, 0.5), (1.0, 2.0)):
        y = x.clone()
        L0Penalty(alpha).prox_([y], gamma)
        assert y.tolist() == [naive(v, alpha, gamma) for v in x.tolist()]


def test_threshold_is_not_rounded_up_to_the_dtype() -> None:
    """1/3 rounds up in float32: the entry equal to the rounding lies above 1/3 and stays."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        rounded = torch.tensor([1 / 3, sqrt(0.5), 0.1, 0.7], dtype=dtype)
        for threshold in (1 / 3, sqrt(0.5), 0.1, 0.7):
            y = rounded.clone()
            hard_(y, threshold)
            assert y.tolist() == [v if v > threshold else 0.0 for v in rounded.tolist()]


def test_value() -> None:
    assert L0Penalty(0.5).value([torch.tensor([0.0, -0.0, 3.0]), torch.tensor([1e-42])]) == 1.0
