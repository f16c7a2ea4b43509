"""A tiny spec for every solver, and for what has state of its own: factors, searches, splittings, early stopping."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NET = "model net = mlp([64, 12, 10])\ndata digits(batch = 256)\n"
COUNT = "‖net.weights‖₀ ≤ 10%"
SGD = "sgd(lr = 0.1, momentum = 0.9)"


def spec(call: str, epochs: int = 3, constraint: str = COUNT, end: str = "", net: str = NET, by: str = SGD) -> str:
    return (
        f"{net}minimize cross_entropy(net)\nsubject to\n s: {constraint}\n"
        f"pretrain with {SGD} for 1 epochs\nsolve {call} with {by} for {epochs} epochs\n"
        f"{end}finetune with adam(lr = 1e-3) for 2 epochs\n"
    )


def minimal(call: str, epochs: int) -> str:
    return (
        "model net = mlp([64, 12, 10])\ndata digits(batch = 128, validation = 40%)\nminimize ‖net.weights‖₀\n"
        "subject to\n floor: accuracy(net) ≥ 60%\n near: accuracy(net) ≥ base - 30 pp\n"
        f"pretrain with {SGD} for 3 epochs\nsolve {call} with {SGD} for {epochs} epochs\n"
        f"finetune with {SGD} for 1 epochs\n"
    )


BCD = """model net = mlp([64, 24, 16, 10])
data  digits()
minimize   mse(net)
subject to
    train:  tt_rank(net["fc1"].weights, modes = [[4, 8], [6, 8]]) ≤ 3
    pruned: ‖net["fc2"].weights‖₀ ≤ 20%
solve    bcd(steps = 4)
"""
FACTORED = 'net["fc1"].weights ∈ tt(3)\n net["fc2"].weights ∈ low_rank(2)'
DROPPING = "model net = mlp([64, 12, 10])\ndata digits(batch = 256, validation = 20%)\n"

PROBLEMS: dict[str, str] = {
    "lc": spec("lc(steps = 3)", 1),
    "admm": spec("admm(steps = 3)", 1),
    "ista": spec("ista()"),
    "ista lats": spec("ista(threshold = lats)"),
    "ista str": spec("ista(threshold = str)"),
    "ista fixed": spec("ista(threshold = fixed)"),
    "drr": spec("drr()"),
    "rl1": spec("rl1()"),
    "pmmp": spec("pmmp()"),
    "gda": spec("gda()"),
    "gda adam": spec("gda()", by="adam(lr = 1e-2)"),
    "factors": spec("factors()", 2, FACTORED),
    "bcd": BCD,
    "lc of sums": spec("lc(steps = 2)", 1, "net.weights ∈ codebook(2) + sparse(1%)"),
    "lc of ranks": spec("lc(steps = 2)", 1, 'net["fc1"].weights ∈ low_rank(2)\n net["fc2"].weights ∈ codebook(3)'),
    "until": spec("lc(steps = 2)", 1, net=DROPPING).replace(
        "for 2 epochs", "for 5 epochs until saturated(window = 2 epochs)"
    ),
    "prune": spec("gda()", end="prune reachability()\n"),
    "search lc": minimal("lc(steps = 2, probes = 3)", 1),
    "search ista": minimal("ista(probes = 3)", 2),
}


def history(out: Path) -> list[dict[str, Any]]:
    """The events of a run without the seconds that they took."""
    lines = (out / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def results(out: Path) -> dict[str, Any]:
    """Everything that two runs of one spec have in common, byte for byte."""
    names = ("weights.safetensors", "factors.safetensors", "support.safetensors", "certificate.json", "graph.json")
    return {n: (out / n).read_bytes() for n in names if (out / n).exists()} | {"history": history(out)}
