"""prunelang: state a compression problem, prove what can be proved, train, and get certified weights.

    import prunelang

    program = prunelang.compile("lenet.prune", params={"κ": "2%"})
    print(program.explain())
    solution = program.run(out="runs/lenet")

Importing this loads nothing else: every name below is fetched when it is first used, and torch by `run` alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunelang import register, words
    from prunelang.api import Program, compile
    from prunelang.building.problem import Problem
    from prunelang.dsl.diagnostics import SpecError
    from prunelang.execution import Solution
    from prunelang.resuming.resume import resume
    from prunelang.runtime.shrink import shrink
    from prunelang.runtime.shrunk import load_shrunk
    from prunelang.stepping import Stepper
    from prunelang.sweeping import Sweep, sweep

    __version__: str

__all__ = [
    "Problem",
    "Program",
    "Solution",
    "SpecError",
    "Stepper",
    "Sweep",
    "__version__",
    "compile",
    "load_shrunk",
    "register",
    "resume",
    "shrink",
    "sweep",
    "words",
]

_HOME = {
    "Problem": "prunelang.building.problem",
    "Program": "prunelang.api",
    "Solution": "prunelang.execution",
    "Stepper": "prunelang.stepping",
    "SpecError": "prunelang.dsl.diagnostics",
    "compile": "prunelang.api",
    "load_shrunk": "prunelang.runtime.shrunk",
    "resume": "prunelang.resuming.resume",
    "shrink": "prunelang.runtime.shrink",
    "Sweep": "prunelang.sweeping",
    "sweep": "prunelang.sweeping",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in ("register", "words"):
        value = import_module(f"prunelang.{name}")
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'prunelang' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("prunelang")
    except PackageNotFoundError:
        return "0+checkout"
