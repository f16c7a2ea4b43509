"""`prune doctor`: what this installation and machine are, for a report."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("prunelang", "torch", "numpy", "lark", "sympy", "pydantic", "safetensors", "scikit-learn", "spikingjelly")


def facts() -> dict[str, Any]:
    """Plain data; imports torch."""
    import torch

    from prunelang.compiler import shape_cache
    from prunelang.compiler.solvers.base import solvers
    from prunelang.runtime import registry

    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return {
        "format_version": "1.0",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": devices,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "PRUNELANG_DATA": os.environ.get("PRUNELANG_DATA"),
        "cache": str(shape_cache.directory()),
        "solvers": sorted(solvers()),
        "networks": list(registry.models),
        "data": list(registry.data),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def text(found: dict[str, Any]) -> str:
    """The facts, one a line."""
    lines = []
    for key, value in found.items():
        if key == "format_version":
            continue
        if isinstance(value, dict):
            lines += [f"{name:<16} {found or 'not installed'}" for name, found in value.items()]
        else:
            lines.append(f"{key:<16} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    return "\n".join(lines)
