"""The registry of every function, set and stopping test of the language, by name."""

from __future__ import annotations

from prunelang.compiler.functions.base import REQUIRED, SPLITS, Parameter, Signature
from prunelang.compiler.functions.clocks import SCHEDULES, STOPPING
from prunelang.compiler.functions.losses import LOSSES, METRICS, loss
from prunelang.compiler.functions.norms import MATRIX_FUNCTIONS, NORMS
from prunelang.compiler.functions.resources import RESOURCES, TENSOR_FUNCTIONS
from prunelang.compiler.functions.sets import SET_SIGNATURES

__all__ = ["FUNCTIONS", "REQUIRED", "SETS", "SPLITS", "TESTS", "Parameter", "Signature", "loss"]


def _by_name(*groups: tuple[Signature, ...]) -> dict[str, Signature]:
    found: dict[str, Signature] = {}
    for signature in (s for group in groups for s in group):
        if found.setdefault(signature.name, signature) is not signature:
            raise RuntimeError(f"two functions are named `{signature.name}`")
    return found


FUNCTIONS = _by_name(LOSSES, METRICS, NORMS, MATRIX_FUNCTIONS, RESOURCES, TENSOR_FUNCTIONS, SCHEDULES)
SETS = _by_name(SET_SIGNATURES)
TESTS = _by_name(STOPPING)
