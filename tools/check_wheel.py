"""Run by the interpreter of an environment that the wheel was installed into: what it brought, and nothing generic."""

import sys
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

DATA = ["py.typed", "dsl/grammar.lark", "templates/mlp-l0.prune"]


def findings() -> list[str]:
    """Every way in which the installed wheel is not as it should be, in words."""
    wheel = distribution("prunelang")
    files = wheel.files or []
    installed = {f.parts[0] for f in files} - {".."}  # scripts are listed as ../../../bin/prune
    wanted = {"prunelang", f"prunelang-{wheel.version}.dist-info"}
    package = Path(str(wheel.locate_file("prunelang")))

    found = [f"{name} lies in site-packages" for name in sorted(installed - wanted)]
    found += [f"`import {name}` works" for name in ("dsl", "compiler", "runtime") if find_spec(name)]
    found += [f"prunelang/{name} is missing" for name in DATA if not (package / name).is_file()]
    found += [f"{f} is a test" for f in files if "tests" in f.parts]
    spec = find_spec("prunelang")
    if spec is None or spec.origin is None or not Path(spec.origin).is_relative_to(sys.prefix):
        found.append(f"prunelang is imported from {spec and spec.origin}, outside {sys.prefix}")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(findings()) or None)
