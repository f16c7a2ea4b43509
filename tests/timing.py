"""Processor time of a piece of work, for tests that bound it on machines that are busy with other things."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """The least processor seconds of this process over several runs, without garbage collection."""
    enabled = gc.isenabled()
    best = float("inf")
    try:
        for _ in range(repeats):
            gc.collect()
            gc.disable()
            before = time.process_time()
            work()
            best = min(best, time.process_time() - before)
            gc.enable()
    finally:
        (gc.enable if enabled else gc.disable)()
    return best


def growth(work: Callable[[int], Callable[[], object]], small: int, factor: int, repeats: int = 5) -> float:
    """Time at ``factor · small`` over time at `small`: `factor` where it is linear, its square where quadratic."""
    few, many = work(small), work(factor * small)
    few()  # caches, lazy imports
    return seconds(many, repeats) / seconds(few, repeats)
