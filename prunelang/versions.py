"""What the bits of a run depend on, for its certificate."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from prunelang.compiler.plan import Plan


def versions(plan: Plan, device: str) -> dict[str, str]:
    """Versions by name; of a spiking network also what computes its neurons on that device."""
    found = {
        "prunelang": version("prunelang"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
    }
    if plan.table.steps:
        from prunelang.runtime.spiking.lif import versions as of_neurons

        found |= of_neurons(device)
    return found
