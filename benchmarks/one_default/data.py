"""MNIST as networks for larger images with three channels take it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from prunelang.register import data
from prunelang.runtime.data import Dataset, Split
from prunelang.runtime.registry import data as registered

TRAIN, TEST = 10_000, 2_000


@data(task="classification")
def mnist_padded(root: Path | None = None) -> Dataset:
    """The first 10 000 train and 2 000 test images of MNIST, with a margin of 2 pixels and three equal channels."""
    whole = registered["mnist"].load(**({} if root is None else {"root": str(root)}))
    splits = {name: padded(whole[name], most) for name, most in (("train", TRAIN), ("test", TEST))}
    return Dataset("mnist_padded", "classification", 10, splits)


def padded(split: Split, most: int) -> Split:
    """N × 1 × 28 × 28 to N × 3 × 32 × 32, the first `most` of them."""
    images = nn.functional.pad(split.inputs[:most], (2, 2, 2, 2))
    return Split(images.expand(-1, 3, -1, -1).contiguous(), split.targets[:most])
