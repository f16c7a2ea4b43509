"""`prune sweep`: a run for every combination of values, solver and seed; what is finished is never run again."""

from __future__ import annotations

from prunelang.sweeping.run import sweep
from prunelang.sweeping.table import Sweep

__all__ = ["Sweep", "sweep"]
