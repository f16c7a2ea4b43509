"""scikit-learn's embedded digits: 1797 real images of 8 × 8 pixels (Alpaydin and Kaynak, 1998)."""

from __future__ import annotations

from fractions import Fraction

import torch

from prunelang.runtime.data.dataset import Dataset, DataUnavailable, Split

TEST = Fraction(360, 1797)
SEED = 0  # the split never changes


def digits() -> Dataset:
    """1437 train and 360 test images as 64 numbers in 0…1 (float32, multiples of 1/16), test drawn by class."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as e:
        raise DataUnavailable("P501", "`digits()` is part of scikit-learn", "pip install scikit-learn") from e
    raw = load_digits()
    images = torch.from_numpy(raw.data).to(torch.float32) / 16
    whole = Dataset(
        "digits", "classification", 10, {"train": Split(images, torch.from_numpy(raw.target).to(torch.int64))}
    )
    parts = whole.split(TEST, SEED)
    return Dataset("digits", "classification", 10, {"train": parts.train, "test": parts.validation})
