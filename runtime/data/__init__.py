"""Data sets: tensors in memory, split, digested, and handed out in an order that a seed decides."""

from prunelang.runtime.data.batches import Batches, Position
from prunelang.runtime.data.dataset import Dataset, DataUnavailable, Split

__all__ = ["Batches", "DataUnavailable", "Dataset", "Position", "Split"]
