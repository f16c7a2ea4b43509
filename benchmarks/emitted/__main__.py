"""Every spec of `specs/` under every solver that takes it, cut to a few steps: emitted script against executor.

    python -m benchmarks.emitted --json benchmarks/emitted/result.json

Scripts run in a process that cannot import prunelang; weights are float64, in the deterministic mode, and have to be
the same bit for bit. A pair that a solver refuses is counted with the codes of the refusal. `--part 0/2` and `--part
1/2` share the work between two processes; rows that are there already are kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file

from prunelang.compiler.solvers.base import solvers
from tests.runtime.shortened import names, write_data
from tests.runtime.test_emitted import bits
from tests.runtime.test_emitted_specs import WORKER, both, refusal

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def outside() -> Iterator[Callable[[Path], None]]:
    """Runs the script of a folder in a process without prunelang."""
    command = [sys.executable, "-I", "-c", WORKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        given, said = process.stdin, process.stdout
        assert given is not None
        assert said is not None

        def run(folder: Path) -> None:
            given.write(f"{folder}\n")
            given.flush()
            if said.readline() != "done\n":
                raise RuntimeError(f"the script in {folder} ended its process")

        yield run
        given.close()


def equal(name: str, solver: str, run: Callable[[Path], None]) -> bool:
    """Whether script and executor end at the same bits."""
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        folder = Path(temporary)
        os.environ["PRUNELANG_DATA"] = temporary
        _, weights = both(name, solver, folder, run)
        if not (folder / "trained.safetensors").exists():
            print((folder / "out.txt").read_text(), file=sys.stderr)
            return False
        trained = load_file(folder / "trained.safetensors")
        return trained.keys() == weights.keys() and all(bits(trained[n]) == bits(w) for n, w in weights.items())


def refused(name: str, solver: str) -> str:
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        os.environ["PRUNELANG_DATA"] = temporary
        write_data(Path(temporary), name)
        return refusal(name, solver)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("result.json"))
    parser.add_argument("--part", default="0/1")
    args = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    part, parts = map(int, args.part.split("/"))
    known = json.loads(args.json.read_text(encoding="utf-8")) if args.json.exists() else {}
    pairs = [(name, solver) for name in names() for solver in ("", *solvers())]
    with outside() as run:
        for name, solver in pairs[part::parts]:
            shown = solver or "its own"
            if shown in known.get(name, {}):
                continue
            start = time.perf_counter()
            found = refused(name, solver) or ("equal" if equal(name, solver, run) else "differs")
            print(f"{name}, {shown}: {found} ({time.perf_counter() - start:.1f} s)", flush=True)
            known.setdefault(name, {})[shown] = found
            text = json.dumps(known, indent=1, ensure_ascii=False, sort_keys=True)
            args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
