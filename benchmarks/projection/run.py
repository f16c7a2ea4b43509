"""How long does exact selection of the κ-th largest magnitude take, in units of one ``x.sum()``?

Every contender is timed in every round, interleaved, and divided by the sum of *its own round*, so that a machine
whose speed drifts, or that others use, distorts the ratios least. All contenders answer the same question on the same
weights (threshold of the κ largest magnitudes); the answers are compared before anything is timed.

- *warm*: the threshold of the last call is known and the weights have moved a little since then, as between two steps
  of a method that projects again and again. *cold*: the first call on these weights. Both with the caches full of
  something else.
- *projection*: selection cold, then zeroing in place and recounting what is kept.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunelang.runtime.prox.select import Selector, apply_threshold_, kth_magnitude

KEPT = 0.05  # κ/n
SLOW = ("numpy, stable mergesort", "torch.topk", "torch.kthvalue")
LIMITS = {
    "cpu": {"selection, warm": 5.0, "selection, cold": 8.0},
    "cuda": {"selection, warm": 8.0, "selection, cold": 8.0},
}


def measure(size: int, device: str, threads: int, repeats: int) -> dict[str, Any]:
    """The ratios to ``x.sum()``: least, median and greatest over the rounds, with the limits that they are held to."""
    torch.set_num_threads(threads)
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)
    kappa = round(KEPT * size)
    contenders = contenders_for(x, kappa)
    check_agreement(contenders, x, kappa)
    ratios: dict[str, list[float]] = {name: [] for name in contenders}
    sums = []
    flush = torch.zeros(32 << 20, device=device)  # 128 MiB: more than the caches hold
    for turn in range(repeats + 1):
        seconds: dict[str, float] = {}
        base = statistics.median(clock(x.sum, x, flush) for _ in range(3))
        for name, (prepare, run) in contenders.items():
            if name in SLOW and turn % 3:
                continue
            prepare()
            seconds[name] = clock(run, x, flush)
        if turn == 0:
            continue  # imports, first allocations
        sums.append(base)
        for name, found in seconds.items():
            ratios[name].append(found / base)
    limits = LIMITS.get(torch.device(device).type, {})
    return {
        "weights": size,
        "kept": KEPT,
        "device": torch.cuda.get_device_name() if x.is_cuda else platform.processor() or platform.machine(),
        "threads": threads,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "sum_ms": summary([1e3 * s for s in sums]),
        "ratio_to_sum": {
            name: {**summary(found), **({"limit": limits[name]} if name in limits else {})}
            for name, found in ratios.items()
        },
    }


def contenders_for(x: Tensor, kappa: int) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Name → (untimed preparation, timed run, which returns the threshold)."""
    warm, drift = Selector(), 1e-4 * torch.randn(1 << 16, generator=torch.Generator().manual_seed(1)).to(x.device)
    warm.threshold([x], kappa)
    y = x.clone()

    def move() -> None:
        """A small step of every weight; which one does not matter."""
        x.add_(drift.repeat(-(-x.numel() // drift.numel()))[: x.numel()])
        drift.neg_()

    def project() -> float:
        found = kth_magnitude([y], kappa)
        apply_threshold_([y], found)
        return found.value

    found: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "selection, warm": (move, lambda: warm.threshold([x], kappa).value),
        "selection, cold": (nothing, lambda: kth_magnitude([x], kappa).value),
        "projection": (lambda: y.copy_(x), project),
        "torch.kthvalue": (nothing, lambda: float(x.abs().kthvalue(x.numel() - kappa + 1).values)),
        "torch.topk": (nothing, lambda: float(x.abs().topk(kappa, sorted=False).values.min())),
    }
    if not x.is_cuda:
        v = x.numpy()
        at = x.numel() - kappa
        found["numpy.partition"] = (nothing, lambda: float(np.partition(np.abs(v), at)[at]))
        found["numpy, stable mergesort"] = (nothing, lambda: float(mergesorted(v, kappa)))
    return found


def mergesorted(v: np.ndarray, kappa: int) -> Any:
    """The κ-th magnitude by a stable sort of the indices, which also says which ties to keep."""
    magnitudes = np.abs(v)
    return magnitudes[np.argsort(-magnitudes, kind="stable")[kappa - 1]]


def nothing() -> None:
    """No preparation."""


def check_agreement(
    contenders: dict[str, tuple[Callable[[], object], Callable[[], object]]], x: Tensor, kappa: int
) -> None:
    """Raises `AssertionError` unless all contenders find the same threshold."""
    expected = float(x.abs().kthvalue(x.numel() - kappa + 1).values)
    for name, (prepare, run) in contenders.items():
        if name == "projection":
            prepare()
        if run() != expected:
            raise AssertionError(f"{name} finds another threshold")


def clock(run: Callable[[], object], x: Tensor, flush: Tensor) -> float:
    """Seconds of one run, the caches full of something else; on CUDA between two events, hence all kernels included."""
    flush.add_(1)
    if not x.is_cuda:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def summary(values: list[float]) -> dict[str, float]:
    return {
        "min": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "max": round(max(values), 3),
        "runs": len(values),
    }


def table(result: dict[str, Any]) -> str:
    """The result for a terminal."""
    head = f"{result['weights']:,} float32 weights, κ = {result['kept']:.0%}, {result['threads']} thread(s)"
    lines = [f"{head}, x.sum() {result['sum_ms']['median']} ms", f"{'':26}    min  median     max   limit"]
    for name, r in result["ratio_to_sum"].items():
        lines.append(f"{name:26}{r['min']:7.2f} {r['median']:7.2f} {r['max']:7.2f} {r.get('limit', ''):>7}")
    return "\n".join(lines)
