"""``python -m benchmarks.check --json result.json``: seconds of `prune check`, after Python itself has started.

Three specs, each a process of its own with a saved table of shapes: ResNet-50 under a budget of weights and one of
multiply-adds, and chains of 1 000 and 10 000 layers under the same two and one budget more for every layer. CPU seconds
are those of the process; wall seconds also hold what else the machine does. The time to import torch, measured in the
same minutes, is the yardstick.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from tests.shape_tables import RESNET50, chain

ROOT = Path(__file__).resolve().parent.parent.parent

WATCH = """
import atexit, resource, sys, time
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
wall, start = time.perf_counter(), cpu()
atexit.register(lambda: sys.stderr.write(f"\\n{cpu() - start} {time.perf_counter() - wall} {'torch' in sys.modules}"))
"""
CHECK = WATCH + "from prunelang.cli import main\nmain()"
IMPORT = WATCH + "import torch"

BUDGETS = """
minimize   cross_entropy(net)
subject to
    sparsity: ‖net.weights‖₀ ≤ 5%
    compute:  sparse_macs(net) ≤ 30%
"""
EACH = "    layer:    ∀ l ∈ net.layers: ‖l.weights‖₀ ≤ 50%\n"
SOLVE = "solve lc(steps = 40) with sgd(lr = 0.01) for 1 epochs\n"


def resnet50() -> tuple[str, str]:
    """A spec and its table of shapes."""
    head = 'model net = resnet50()\ndata  tensors("imagenet.safetensors")\n'
    return head + BUDGETS + SOLVE, RESNET50.read_text(encoding="utf-8")


def chained(layers: int) -> tuple[str, str]:
    """A spec over `layers` linear layers of 8 × 8, with a constraint for each, and its table of shapes."""
    sizes = ", ".join(["8"] * (layers + 1))
    head = f'model net = mlp([{sizes}])\ndata  tensors("data.safetensors")\n'
    return head + BUDGETS + EACH + SOLVE, chain(layers).dumps()


def measure(repeats: int) -> dict[str, Any]:
    """Medians over `repeats` rounds; every round measures everything once."""
    with tempfile.TemporaryDirectory() as folder:
        commands: dict[str, list[str]] = {"import torch": ["-c", IMPORT]}
        for name, (spec, table) in {
            "ResNet-50": resnet50(),
            "1 000 layers": chained(1_000),
            "10 000 layers": chained(10_000),
        }.items():
            path = Path(folder) / f"{name}.prune"
            path.write_text(spec, encoding="utf-8")
            path.with_suffix(".json").write_text(table, encoding="utf-8")
            commands[name] = ["-c", CHECK, "check", str(path), "--shapes", str(path.with_suffix(".json"))]
        environment = _environment(folder)
        for words in commands.values():  # an installation has its bytecode
            _once(words, environment)
        rounds = [{name: _once(words, environment) for name, words in commands.items()} for _ in range(repeats)]
    found = {name: _summary([r[name] for r in rounds]) for name in commands}
    growth = [r["10 000 layers"][0] / r["1 000 layers"][0] for r in rounds]
    share = [r["ResNet-50"][0] / r["import torch"][0] for r in rounds]
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "rounds": repeats,
        "seconds": found,
        "growth_1000_to_10000": round(median(growth), 2),
        "resnet50_over_import_torch": round(median(share), 3),
    }


def _environment(folder: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    bytecode = str(Path(folder) / "bytecode")
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": bytecode, "OMP_NUM_THREADS": "1"}


def _once(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """CPU and wall seconds of one process."""
    run = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{words[2:]} ended with {run.returncode}:\n{run.stderr[-2000:]}")
    cpu, wall, torch = run.stderr.splitlines()[-1].split()
    if (torch == "True") != (IMPORT in words):
        raise RuntimeError("checking loaded torch")
    return float(cpu), float(wall)


def _summary(times: list[tuple[float, float]]) -> dict[str, float]:
    cpu, wall = ([t[i] for t in times] for i in (0, 1))
    return {
        "cpu_median": round(median(cpu), 3),
        "cpu_min": round(min(cpu), 3),
        "wall_median": round(median(wall), 3),
        "wall_min": round(min(wall), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    text = json.dumps(measure(options.rounds), indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
