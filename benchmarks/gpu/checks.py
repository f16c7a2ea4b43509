"""The checks of `benchmarks.gpu`, each in a form that a CPU can rehearse."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import prunelang
from benchmarks.overhead.__main__ import NETWORKS
from benchmarks.overhead.__main__ import measure as measure_overhead
from benchmarks.projection.run import measure as measure_projection
from prunelang.runtime.descent import Descent

ROOT = Path(__file__).parent.parent.parent
SPEC = """model net = mlp([64, {width}, 64, 10])
data digits(batch = 64)
minimize cross_entropy(net)
subject to
    budget: {budget}
pretrain with sgd(lr = 0.1, momentum = 0.9) for {before} epochs
solve {solver} for {inner} epochs
finetune with adam(lr = 1e-3) for {after} epochs
report accuracy(net)
"""
COUNT = "‖net.weights‖₀ ≤ 10%"
RUNS = {  # name → what is bounded, and the solver
    "lc": (COUNT, "lc(steps = {steps}) with sgd(lr = 0.1 * 0.98^k, momentum = 0.9)"),
    "lc, ℓ1 ball": ("‖net.weights‖₁ ≤ 200", "lc(steps = {steps}) with sgd(lr = 0.1 * 0.98^k, momentum = 0.9)"),
    "admm": (COUNT, "admm(steps = {steps}) with adamw(lr = 1e-3)"),
    "ista": (COUNT, "ista() with sgd(lr = 0.1 * 0.9^epoch, momentum = 0.9, nesterov = true)"),
}


@dataclass(frozen=True)
class Check:
    name: str
    outcome: str  # "passed" or "failed"
    detail: str


@dataclass(frozen=True)
class Sizes:
    """How much of everything is done."""

    laws: tuple[str, ...]  # further arguments for pytest
    width: int
    before: int
    steps: int
    after: int
    networks: dict[str, tuple[str, int]]  # of the overhead: name → (constructor, samples)
    rounds: int
    weights: int  # of the projection


FULL = Sizes((), 512, 5, 20, 5, NETWORKS, 15, 25_500_000)
REHEARSAL = Sizes(("-k", "separable and l1_penalty"), 16, 1, 2, 1, {"tiny": ("mlp([784, 8, 10])", 512)}, 3, 4096)


def run_all(device: str, sizes: Sizes) -> tuple[list[Check], dict[str, Any]]:
    """Every check in turn, and what was measured on the way; one that raises has failed, and the rest still run."""
    measured: dict[str, Any] = {}
    work: list[tuple[str, Callable[[], str]]] = [("laws of the operators", lambda: laws(device, sizes))]
    work += [(f"run, {name}", partial(solve, device, name, sizes)) for name in RUNS]
    work.append(("overhead", lambda: overhead(device, sizes, measured)))
    work.append(("projection", lambda: projection(device, sizes, measured)))
    return [attempt(name, check) for name, check in work], measured


def attempt(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, "passed", check())
    except Exception as error:
        return Check(name, "failed", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


class Failed(Exception):
    """A check ran and did not hold."""


def laws(device: str, sizes: Sizes) -> str:
    """The conformance suite with its points on the device."""
    command = [sys.executable, "-m", "pytest", "tests/conformance", "-q", "-p", "no:cacheprovider", *sizes.laws]
    environment = {**os.environ, "PRUNELANG_TEST_DEVICE": device}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    counts = re.findall(r"\d+ (?:passed|failed|error|skipped)", done.stdout)
    if done.returncode:
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        end = (done.stderr or done.stdout)[-300:].strip()
        raise Failed(", ".join(counts) + f"; first {failed[0]}" if failed else end)
    return ", ".join(counts)


def spec_of(name: str, sizes: Sizes) -> str:
    """The spec of one of the runs."""
    budget, solver = RUNS[name]
    return SPEC.format(
        budget=budget,
        width=sizes.width,
        before=sizes.before,
        inner=sizes.steps if solver.startswith("ista") else 1,
        after=sizes.after,
        solver=solver.format(steps=sizes.steps),
    )


def solve(device: str, name: str, sizes: Sizes) -> str:
    """A whole run. On CUDA any wait of the host for the device inside a step of the inner loop raises."""
    with tempfile.TemporaryDirectory() as out, watched_steps(device) as count:
        solution = prunelang.compile(spec_of(name, sizes)).run(out, device=device)
    if solution.failure or not solution.feasible:
        raise Failed(solution.failure or solution.certificate.status)
    waits = ", none of which waits for the device" if device.startswith("cuda") else ""
    accuracy = solution.reported("accuracy(net)")
    return f"{solution.certificate.status}, {count['steps']} steps{waits}, test accuracy {accuracy:.3f}"


@contextmanager
def watched_steps(device: str) -> Iterator[dict[str, int]]:
    """Counts the steps of the inner loop, and on CUDA forbids them to synchronise."""
    count = {"steps": 0}
    step = Descent.step

    def watched(self: Descent, x: Tensor, y: Tensor, p_after: float) -> None:
        count["steps"] += 1
        with no_waits(device):
            step(self, x, y, p_after)

    Descent.step = watched  # type: ignore[method-assign]  # put back below
    try:
        yield count
    finally:
        Descent.step = step  # type: ignore[method-assign]


@contextmanager
def no_waits(device: str) -> Iterator[None]:
    if not device.startswith("cuda"):
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def overhead(device: str, sizes: Sizes, measured: dict[str, Any]) -> str:
    """`benchmarks.overhead` on the device."""
    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: measure_overhead(model, samples, sizes.rounds, device, Path(folder))
            for name, (model, samples) in sizes.networks.items()
        }
    measured["overhead"] = found
    medians = {n: {loop: x["median"] for loop, x in r["over_bare"].items()} for n, r in found.items()}
    return "; ".join(f"{n}: lc {m['lc']}, ista {m['ista']}" for n, m in medians.items()) + " times a bare loop"


def projection(device: str, sizes: Sizes, measured: dict[str, Any]) -> str:
    """`benchmarks.projection` on the device; over its limit is a failure."""
    found = measure_projection(sizes.weights, device, torch.get_num_threads(), sizes.rounds)
    measured["projection"] = found
    ratios = found["ratio_to_sum"]
    slow = [n for n, r in ratios.items() if r["median"] > r.get("limit", float("inf"))]
    text = ", ".join(f"{n} {ratios[n]['median']:.1f}" for n in ("selection, warm", "selection, cold", "projection"))
    if slow and sizes is FULL:
        raise Failed(f"{slow[0]} is over its limit of {ratios[slow[0]]['limit']:g}: {text} times x.sum()")
    return f"{text} times x.sum()"
