"""Seconds per epoch of compiled `lc`, `ista`, `gda`, as ratios to a bare SGD loop on the same network and batches.

    python -m benchmarks.overhead --json benchmarks/overhead/result.json

An epoch of every loop is run in turn, round after round, so that a drift of the machine meets all of them. The compiled
epoch holds everything that one epoch of the method costs: controller or projection, dual step, checks and history. The
bare loop is shown with torch's default SGD and with `fused=True`, which the compiled loops use.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import prunelang
from prunelang.compiler.graph import Batches as Loop
from prunelang.compiler.graph import Outer, Phase, walk
from prunelang.execution import RunOptions, Session
from prunelang.runtime.execute import execute

SPEC = """model net = {model}
data tensors("{data}", batch = 256)
minimize cross_entropy(net)
subject to
    sparsity: ‖net.weights‖₀ ≤ 5%
solve {solver} with sgd(lr = 0.05, momentum = 0.9, nesterov = true) for {epochs} epochs
"""
NETWORKS = {"lenet_300_100": ("lenet_300_100()", 60_000), "mlp 784-800-600-10": ("mlp([784, 800, 600, 10])", 15_000)}


def bare(session: Session, fused: bool) -> Callable[[int], None]:
    """What one would write by hand: forward, backward, step; the loss is summed as a tensor for the epoch's mean."""
    net, feed = session.model, session.feed
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, fused=fused or None)

    def epoch(index: int) -> None:
        total = torch.zeros((), device=next(net.parameters()).device)
        for x, y in feed.epoch(index):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()

    return epoch


def compiled(session: Session) -> Callable[[int], None]:
    """One epoch of the solve phase: of `lc` a whole outer iteration, of the others their loop."""
    machine = session.machine(lambda event: None, lambda: False)
    (phase,) = (s for s in session.graph.program if isinstance(s, Phase))
    for step in phase.body:
        if isinstance(step, Outer | Loop):
            break
        execute(step, machine)
    outer = [s for s in phase.body if isinstance(s, Outer)]
    steps = outer[0].body if outer else tuple(s for s in walk(phase.body) if isinstance(s, Loop))
    machine.levels["μ"] = 1e-4
    start = dict(machine.courses), dict(machine.steers)

    def epoch(index: int) -> None:
        machine.epochs = index
        machine.courses, machine.steers = dict(start[0]), dict(start[1])  # every epoch is the first of its stage
        for step in steps:
            execute(step, machine)

    return epoch


def bound(session: Session, program: prunelang.Program) -> Callable[[int], None]:
    """An outer iteration of `lc`, or an epoch of `ista`, through `bind`: the bare fused loop with a
    stepper in the place of its optimizer."""
    net, feed = session.model, session.feed
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, fused=True)
    stepper = program.bind(net, optimizer, steps_per_epoch=len(feed), evaluate=lambda name, split: 0.0)
    torch.set_flush_denormal(False)  # the mode is the thread's, and the other loops go without it

    def epoch(index: int) -> None:
        total = torch.zeros((), device=next(net.parameters()).device)
        for x, y in feed.epoch(index):
            total += stepper.step(lambda: F.cross_entropy(net(x), y))  # noqa: B023  # called where it stands
        stepper.epoch_end()
        total.item()

    return epoch


def measure(model: str, samples: int, rounds: int, device: str, folder: Path) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(samples, 784, generator=generator)
    y = torch.randint(0, 10, (samples,), generator=generator)
    path = folder / f"{samples}.safetensors"
    save_file({"x_train": x, "y_train": y, "x_test": x[:256].clone(), "y_test": y[:256].clone()}, str(path))

    def program(solver: str, epochs: int = 1) -> prunelang.Program:
        return prunelang.compile(SPEC.format(model=model, data=path, solver=solver, epochs=epochs))

    def session(solver: str) -> Session:
        return Session(program(solver).plan, folder, RunOptions(folder, device=device))

    loops = {
        "bare": bare(session("lc(steps = 1)"), fused=False),
        "bare fused": bare(session("lc(steps = 1)"), fused=True),
        "lc": compiled(session("lc(steps = 1)")),
        "ista": compiled(session("ista()")),
        "gda": compiled(session("gda()")),
        "bind": bound(session("lc(steps = 1)"), program(f"lc(steps = {rounds + 1}, μ = 1e-4)")),
        "bind ista": bound(session("lc(steps = 1)"), program("ista()", rounds + 1)),
    }
    times: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(rounds + 1):
        order = list(loops) if turn % 2 else list(reversed(loops))
        for name in order:
            start = time.perf_counter()
            loops[name](turn)
            if device != "cpu":
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    steps = -(-samples // 256)
    return {
        "samples": samples,
        "step_ms": {n: round(1000 * statistics.median(t) / steps, 3) for n, t in times.items()},
        "over_bare": {n: spread([a / b for a, b in zip(t, times["bare"], strict=True)]) for n, t in times.items()},
        "over_bare_fused": {
            n: spread([a / b for a, b in zip(t, times["bare fused"], strict=True)]) for n, t in times.items()
        },
    }


def spread(ratios: list[float]) -> dict[str, float]:
    low, mid, high = statistics.quantiles(ratios, n=4)
    return {"median": round(mid, 4), "quartiles": [round(low, 4), round(high, 4)]}  # type: ignore[dict-item]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        found = {
            n: measure(model, samples, args.rounds, args.device, Path(name)) for n, (model, samples) in NETWORKS.items()
        }
    document = {
        "what": "seconds per epoch over a bare SGD loop, batch 256; ratios are of neighbouring runs",
        "torch": torch.__version__,
        "device": args.device,
        "threads": args.threads,
        "load_average": round(os.getloadavg()[0], 2),
        "rounds": args.rounds,
        "networks": found,
    }
    text = json.dumps(document, indent=1, ensure_ascii=False)
    print(text)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
