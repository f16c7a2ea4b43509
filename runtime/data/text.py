"""Any file as a sequence of bytes, each to be told from those before it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy
import torch
from torch import Tensor

from prunelang.runtime.data.dataset import Dataset, DataUnavailable, Split


def text(path: Path, context: int = 128, test: Fraction = Fraction(1, 10)) -> Dataset:
    """Windows of `context` bytes side by side, N × context int64; the target of each byte is the one after it.

    The last share `test` of the file is the test split; a rest shorter than a window is left out of either part.
    """
    try:
        content = path.read_bytes()
    except OSError as e:
        raise DataUnavailable("P501", f"`{path}` cannot be read: {e.strerror}", "") from e
    tokens = torch.from_numpy(numpy.frombuffer(content, numpy.uint8).astype(numpy.int64))
    cut = len(tokens) - round(test * len(tokens))
    splits = {"train": _windows(tokens[:cut], context), "test": _windows(tokens[cut:], context)}
    if not len(splits["train"]) or (test and not len(splits["test"])):
        raise DataUnavailable("P504", f"`{path}` has {len(tokens)} bytes: too few for windows of {context}", "")
    return Dataset("text", "language", 256, {k: s for k, s in splits.items() if len(s)})


def _windows(tokens: Tensor, context: int) -> Split:
    count = max(0, len(tokens) - 1) // context
    size = count * context
    return Split(tokens[:size].reshape(count, context), tokens[1 : size + 1].reshape(count, context))
