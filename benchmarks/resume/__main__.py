"""Runs that are killed at random moments and resumed, against the run that was left alone; and what a checkpoint costs.

    python -m benchmarks.resume --kills 20 --json benchmarks/resume/result.json

Every spec of `tests.resuming.problems` is run to its end once. Then a process runs it with a checkpoint after every
epoch, and is killed (SIGKILL) at a moment drawn evenly from the time that a run takes, so that many kills fall into the
writing of a checkpoint; another process resumes it. Weights, factors, kept positions, certificate and history (but for
its seconds) have to be the same byte for byte.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunelang import compile, resume
from prunelang.execution import RunOptions, Session
from prunelang.runtime.checkpoints import folder
from prunelang.runtime.checkpoints.state import dump
from prunelang.runtime.execute import run
from prunelang.runtime.machine import Machine
from tests.resuming.problems import PROBLEMS, results


def child(work: Callable[[], object]) -> int:
    """A process of its own that does `work`; its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this process has no other thread that holds a lock
        pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException as error:  # the parent sees it by the exit code
        print(f"  {type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


def killed(name: str, out: Path, after: float) -> bool:
    """Whether a run was killed before its end, `after` that many seconds."""
    pid = child(lambda: compile(PROBLEMS[name]).run(out, deterministic=True, checkpoint_every="1epochs"))
    deadline = time.monotonic() + after
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def kills(name: str, count: int, root: Path) -> dict[str, Any]:
    """How many runs of a spec were killed, how many of those arrived, and how many had a checkpoint to go on from."""
    print(f"{name} …", flush=True)
    compile(PROBLEMS[name]).run(root / "warm", deterministic=True)  # torch imports some of itself late
    start = time.monotonic()
    compile(PROBLEMS[name]).run(root / "whole", deterministic=True, checkpoint_every="1epochs")
    seconds = time.monotonic() - start
    wanted = results(root / "whole")
    rng = random.Random(name)
    found = {"killed": 0, "same": 0, "from a checkpoint": 0, "with half a checkpoint beside it": 0}
    while found["killed"] < count:
        out = root / f"cut{found['killed']}"
        if not killed(name, out, rng.uniform(0.0, seconds)):
            continue
        if not (out / "run.json").exists():
            continue  # it had not begun
        found["killed"] += 1
        found["from a checkpoint"] += bool(folder.numbers(out))
        found["with half a checkpoint beside it"] += any((out / "checkpoints").glob(".tmp-*"))
        status = os.waitpid(child(lambda out=out: resume(out, warn=lambda message: None)), 0)[1]
        found["same"] += status == 0 and results(out) == wanted
    return found


def cost(text: str, root: Path) -> dict[str, float]:
    """Bytes of a checkpoint of a finished stage, and the milliseconds that one takes, the disk's included."""
    plan = compile(text).plan
    session = Session(plan, root, RunOptions(root))
    taken: list[float] = []
    sizes: list[int] = []

    def keep(machine: Machine, due: bool) -> None:
        start = time.perf_counter()
        plain, tensors = dump(machine)
        path = folder.write(root, plain, tensors, {})
        taken.append(time.perf_counter() - start)
        sizes.append(sum(p.stat().st_size for p in path.iterdir()))

    machine = session.machine(lambda event: None, lambda: False)
    machine.checkpoint = keep
    run(machine)
    folder.clear(root)
    return {"bytes": max(sizes), "milliseconds": round(1e3 * statistics.median(taken), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resume")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--only", nargs="*", help="specs by name")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {"kills": {}, "cost": {}}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for i, name in enumerate(given.only or PROBLEMS):
            place = root / str(i)
            place.mkdir()
            found["kills"][name] = kills(name, given.kills, place)
            print(f"  {found['kills'][name]}", flush=True)
            write(given.json, found)
        for hidden in ("12", "300, 100", "1000, 1000"):
            text = PROBLEMS["lc"].replace("[64, 12, 10]", f"[64, {hidden}, 10]")
            place = root / f"cost-{hidden}"
            place.mkdir()
            found["cost"][f"mlp([64, {hidden}, 10])"] = cost(text, place)
    print(json.dumps(found["cost"], indent=1))
    write(given.json, found)


def write(path: Path | None, found: dict[str, Any]) -> None:
    """What is known so far: a long benchmark may be stopped too."""
    if path is not None:
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
