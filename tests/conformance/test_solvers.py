"""Every registered solver against the same laws; `test_every_solver_has_a_row` fails for one without a row here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prunelang.compiler.solvers.base import solvers
from prunelang.runtime.descent import Descent
from prunelang.runtime.execute import run
from prunelang.runtime.machine import Event, Interrupted, Machine, NumericalFailure
from tests.runtime.solving import Ran, prepare, solve

# How each solver is called here, and how long its inner loop is.
ROWS = {
    "lc": ("lc(steps = 3)", 1),
    "admm": ("admm(steps = 3)", 1),
    "ista": ("ista()", 3),
    "ista lats": ("ista(threshold = lats)", 3),
    "ista str": ("ista(threshold = str)", 3),
    "ista fixed": ("ista(threshold = fixed)", 3),
    "drr": ("drr()", 3),
    "rl1": ("rl1()", 3),
    "pmmp": ("pmmp()", 3),
    "gda": ("gda()", 3),
    "factors": ("factors()", 3),
}

Arrays = Mapping[str, np.ndarray]
Check = Callable[[Arrays], bool]


def nnz(*arrays: np.ndarray) -> int:
    return sum(int(np.count_nonzero(a)) for a in arrays)


def per_cell(w: np.ndarray, m: int) -> int:
    return max(nnz(row[i : i + m]) for row in w for i in range(0, w.shape[1], m))


def rows_in_use(w: np.ndarray) -> int:
    return int((w != 0).any(axis=1).sum())


# Constraints on mlp([64, 16, 10]), and a count of the weights of its own for each.
PROBLEMS: dict[str, tuple[str, Check]] = {
    "global": ("‖net.weights‖₀ ≤ 10%", lambda w: nnz(w["fc1.weight"], w["fc2.weight"]) <= 118),
    "per layer": (
        "∀ l ∈ net.layers: ‖l.weights‖₀ ≤ 10%",
        lambda w: nnz(w["fc1.weight"]) <= 102 and nnz(w["fc2.weight"]) <= 16,
    ),
    "one layer": ('‖net["fc1"].weights‖₀ ≤ 40', lambda w: nnz(w["fc1.weight"]) <= 40),
    "pinned": (
        '‖net["fc1"].weights‖₀ ≤ 40\n net["fc2"].weights ∈ dense',
        lambda w: nnz(w["fc1.weight"]) <= 40 and nnz(w["fc2.weight"]) == 160,
    ),
    "nested": (
        '‖net.weights‖₀ ≤ 100\n ‖net["fc1"].weights‖₀ ≤ 60\n ‖net["fc2"].weights‖₀ ≥ 45',
        lambda w: nnz(w["fc1.weight"], w["fc2.weight"]) <= 100 and nnz(w["fc1.weight"]) <= 55,
    ),
    "weighted": (
        "bytes(net, format = csr) ≤ 1.5 KB\n ‖net.weights‖₀ ≤ 20%",
        lambda w: nnz(w["fc1.weight"], w["fc2.weight"]) <= 236,
    ),
    "cheapest format": ("bytes(net) ≤ 2 KB", lambda w: nnz(w["fc1.weight"], w["fc2.weight"]) <= 500),
    "n of m": ('net["fc1"].weights ∈ n_of_m(2, 4)', lambda w: per_cell(w["fc1.weight"], 4) <= 2),
    "n of m and count": (
        'net["fc1"].weights ∈ n_of_m(1, 4)\n ‖net.weights‖₀ ≤ 200',
        lambda w: per_cell(w["fc1.weight"], 4) <= 1 and nnz(w["fc1.weight"], w["fc2.weight"]) <= 200,
    ),
    "rows": ("group_norm0(net.weights, by = row) ≤ 15", lambda w: sum(map(rows_in_use, kernels_of(w))) <= 15),
    "blocks": (
        'net["fc1"].weights ∈ blocks(4, 4)\n ‖net["fc1"].weights‖₀ ≤ 20%',
        lambda w: nnz(w["fc1.weight"]) <= 204 and whole_blocks(w["fc1.weight"], 4),
    ),
    "channels": ("macs(net) ≤ 50%", lambda w: 74 * units_of(w) <= 592),
    "channels and count": (
        "flops(net) ≤ 60%\n params(net) ≤ 700\n ‖net.weights‖₀ ≤ 200",
        lambda w: 75 * units_of(w) + 10 <= 700 and nnz(*kernels_of(w)) <= 200,
    ),
    "l1 ball": ("‖net.weights‖₁ ≤ 20", lambda w: length(w, 1) <= 20),
    "l2 ball": ("‖net.weights‖₂ ≤ 2", lambda w: length(w, 2) <= 2),
    "linf ball": ("‖net.weights‖∞ ≤ 0.05", lambda w: max(np.abs(x).max() for x in kernels_of(w)) <= 0.05),
    "box": ("net.weights ∈ box(-0.05, 0.05)", lambda w: max(np.abs(x).max() for x in kernels_of(w)) <= 0.05),
    "count and ball": (
        "‖net.weights‖₀ ≤ 10%\n ‖net.weights‖₂² ≤ 4",
        lambda w: nnz(w["fc1.weight"], w["fc2.weight"]) <= 118 and length(w, 2) <= 2,
    ),
    "low rank": ("∀ l ∈ net.layers: l.weights ∈ low_rank(2)", lambda w: max(map(rank_of, kernels_of(w))) <= 2),
    "train": ('tt_rank(net["fc1"].weights, modes = [[4, 8], [4, 8]]) ≤ 3', lambda w: rank_of(paired(w)) <= 3),
    "codebook": ("net.weights ∈ codebook(4)", lambda w: len(values_of(w)) <= 4),
    "scaled values": ("net.weights ∈ scaled({-1, 0, 1})", lambda w: len(values_of(w)) <= 3),
    "sum": ("net.weights ∈ codebook(2) + sparse(20)", lambda w: len(values_of(w)) <= 22),
    "ranks under budgets": (
        "∀ l ∈ net.layers: l.weights ∈ low_rank()\n params(net) ≤ 40%\n macs(net) ≤ 450 MACs",
        lambda w: 80 * rank_of(w["fc1.weight"]) + 26 * rank_of(w["fc2.weight"]) <= 450,
    ),
}


def kernels_of(w: Arrays) -> tuple[np.ndarray, np.ndarray]:
    return w["fc1.weight"], w["fc2.weight"]


def rank_of(w: np.ndarray) -> int:
    return int(np.linalg.matrix_rank(w.astype(np.float64), rtol=1e-5))


def paired(w: Arrays) -> np.ndarray:
    """The 16 × 64 kernel as rows (i₁, j₁) and columns (i₂, j₂)."""
    return w["fc1.weight"].reshape(4, 4, 8, 8).transpose(0, 2, 1, 3).reshape(32, 32)


def values_of(w: Arrays) -> set[float]:
    return {float(x) for a in kernels_of(w) for x in a.flat}


def units_of(w: Arrays) -> int:
    """Hidden units of which a weight, a bias or a weight that reads it is not zero."""
    used = (w["fc1.weight"] != 0).any(axis=1) | (w["fc1.bias"] != 0) | (w["fc2.weight"] != 0).any(axis=0)
    return int(used.sum())


def length(w: Arrays, order: int) -> float:
    entries = [abs(float(x)) ** order for a in kernels_of(w) for x in a.flat]
    return math.fsum(entries) ** (1 / order)


def whole_blocks(w: np.ndarray, side: int) -> bool:
    blocks = (w != 0).reshape(w.shape[0] // side, side, w.shape[1] // side, side).sum((1, 3))
    return bool(((blocks == 0) | (blocks == side * side)).all())


def spec(word: str, constraints: str, *, net: str = "mlp([64, 16, 10])", lr: str = "0.1", more: str = "") -> str:
    call, epochs = ROWS[word]
    return f"""
model net = {net}
data digits(batch = 256)
{more}
minimize cross_entropy(net)
subject to
 {constraints}
pretrain with sgd(lr = {lr}, momentum = 0.9) for 1 epochs
solve {call} with sgd(lr = {lr}, momentum = 0.9) for {epochs} epochs
finetune with sgd(lr = {lr}, momentum = 0.9, weight_decay = 1e-4) for 2 epochs
"""


def on(tensors: str, count: str, word: str) -> str:
    """A bound on the entries of tensors, or a codebook for a solver that takes no such bound."""
    return f"{tensors} ∈ codebook(4)" if word == "factors" else f"‖{tensors}‖₀ ≤ {count}"


def takes(word: str, constraints: str) -> bool:
    from prunelang import compile

    plan = compile(spec(word, constraints)).plan
    solver = next(s.solver for s in plan.stages if s.solver is not None)
    return not list(solver.refusals(plan.problem))


STEERED = {"global", "per layer", "one layer", "pinned"}
# The problems that each solver takes; it refuses the others.
MADE = {"low rank", "train", "codebook", "scaled values", "sum", "ranks under budgets"}
COUNTED = set(PROBLEMS) - {"l1 ball", "l2 ball", "linf ball", "box", "count and ball"} - MADE
TAKEN = {
    "drr": COUNTED,
    "rl1": COUNTED,
    "pmmp": COUNTED,
    "gda": COUNTED,
    "lc": set(PROBLEMS),
    "admm": set(PROBLEMS),
    "ista": STEERED,
    "ista lats": STEERED,
    "ista str": STEERED,
    "ista fixed": STEERED,
    "factors": MADE,
}
pairs = pytest.mark.parametrize(("word", "name"), [(w, n) for w in TAKEN for n in PROBLEMS if n in TAKEN[w]])


def test_every_solver_has_a_row() -> None:
    assert set(ROWS) == set(TAKEN)
    words = {row.partition(" ")[0] for row in ROWS}  # a row may stand for a variant: `ista str`
    assert words | {"bcd"} == set(solvers()), "`bcd` has no optimizer, no epochs and one loss: runtime/test_bcd.py"


@pytest.mark.parametrize("word", ROWS)
def test_solvers_take_what_is_said_here_and_refuse_the_rest(word: str) -> None:
    assert {name for name, (constraints, _) in PROBLEMS.items() if takes(word, constraints)} == TAKEN[word]


@pairs
def test_ends_feasible_and_stays_so_throughout_finetune(word: str, name: str) -> None:
    constraints, allowed = PROBLEMS[name]
    finetuned: list[bool] = []
    changed: list[Tensor] = []

    def watch(machine: Machine, event: Event) -> None:
        if event["event"] == "epoch" and event["stage"] == "finetune":
            kept = dict(zip(machine.names("m"), machine.values["m"], strict=True))
            outside = any(bool(machine.tensors[n].detach()[~k].any()) for n, k in kept.items())
            finetuned.append(allowed(arrays(machine)) and not outside)
        changed.append(machine.tensors["fc1.weight"].detach().clone())

    ran = solve(spec(word, constraints), dtype="float32", observe=watch)
    assert finetuned == [True, True]
    assert allowed(arrays(ran.machine))
    assert not torch.equal(changed[-1], changed[-3]), "finetune trains"


def arrays(machine: Machine) -> Arrays:
    return {n: t.detach().cpu().numpy() for n, t in machine.tensors.items()}


def flat(ran: Ran) -> Tensor:
    return torch.cat([t.detach().double().flatten() for t in ran.machine.tensors.values()])


@pytest.mark.parametrize("word", ROWS)
def test_twice_the_same_bits_and_frozen_tensors_untouched(word: str) -> None:
    text = spec(word, on('net["fc1"].weights', "40", word), more='freeze net["fc2"].weights | net["fc1"].biases')
    start: dict[str, Tensor] = {}

    def note(machine: Machine) -> None:
        start.update({n: t.detach().clone() for n, t in machine.tensors.items()})

    first, second = solve(text, dtype="float32", before=note), solve(text, dtype="float32")
    assert torch.equal(flat(first), flat(second))
    untouched = {n for n, t in first.machine.tensors.items() if torch.equal(t, start[n])}
    assert untouched == {"fc2.weight", "fc1.bias"}


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("word", ROWS)
def test_a_run_that_blows_up_stops_with_the_last_good_weights(word: str) -> None:
    text = spec(word, on("net.weights", "10%", word)).replace(
        f"solve {ROWS[word][0]} with sgd(lr = 0.1", f"solve {ROWS[word][0]} with sgd(lr = 1e30"
    )
    boundary: dict[str, Tensor] = {}
    machines: list[Machine] = []

    def note(machine: Machine, event: Event) -> None:
        machines[:] = [machine]
        if event.get("stage") == "pretrain" and event["event"] == "epoch":
            boundary.update({n: t.detach().clone() for n, t in machine.tensors.items()})

    with pytest.raises(NumericalFailure, match=r"not finite|diverged"):
        solve(text, dtype="float32", observe=note)
    assert boundary
    assert all(torch.equal(t, boundary[n]) for n, t in machines[0].tensors.items())
    assert all(bool(t.isfinite().all()) for t in boundary.values())


@pytest.mark.parametrize("word", ROWS)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interruption_leaves_the_weights_of_the_last_boundary(word: str, after: int) -> None:
    seen: list[dict[str, Tensor]] = []
    machines: list[Machine] = []

    def note(machine: Machine, event: Event) -> None:
        machines[:] = [machine]
        if event["event"] == "epoch":
            seen.append({n: t.detach().clone() for n, t in machine.tensors.items()})

    text = spec(word, on("net.weights", "10%", word))
    with pytest.raises(Interrupted):
        solve(text, dtype="float32", observe=note, stop=lambda: len(seen) == after)
    assert len(seen) == after
    assert all(torch.equal(t, seen[-1][n]) for n, t in machines[0].tensors.items())


class Poisoned:
    """Batches with NaN inputs at the given positions of the first epoch, or without those batches altogether."""

    def __init__(self, feed: Any, at: set[int], drop: bool = False) -> None:
        self.feed, self.at, self.drop = feed, at, drop

    def __len__(self) -> int:
        return len(self.feed)

    def epoch(self, index: int) -> Iterator[tuple[Tensor, Tensor]]:
        for i, (x, y) in enumerate(self.feed.epoch(index)):
            if i not in self.at:
                yield x, y
            elif not self.drop:
                yield torch.full_like(x, float("nan")), y


@pytest.mark.parametrize("optimizer", ["sgd(lr = 0.1)", "sgd(lr = 0.1, momentum = 0.9)", "adam()", "adamw()"])
@pytest.mark.parametrize("at", [0, 3])
def test_a_poisoned_batch_leaves_no_trace(monkeypatch: pytest.MonkeyPatch, optimizer: str, at: int) -> None:
    """Weights and moments go on as if the batch had not been there; the epoch's end stops the run."""
    text = f"""
model net = mlp([64, 16, 10])
data digits(batch = 256)
minimize cross_entropy(net)
subject to
 ‖net.weights‖₀ ≤ 10%
solve lc(steps = 2) with {optimizer} for 1 epochs
"""
    histories: list[list[Tensor]] = []
    original = Descent.step

    def record(self: Descent, x: Tensor, y: Tensor, p_after: float) -> None:
        original(self, x, y, p_after)
        histories[-1].append(torch.cat([t.detach().flatten() for t in self.m.tensors.values()]).clone())

    monkeypatch.setattr(Descent, "step", record)
    for drop in (False, True):
        session = prepare(text, Path(), dtype="float32")
        session.feed = Poisoned(session.feed, {at}, drop)  # type: ignore[assignment]
        machine = session.machine(lambda event: None, lambda: False)
        start = torch.cat([t.detach().flatten() for t in machine.tensors.values()]).clone()
        histories.append([start])
        if drop:
            run(machine)
            continue
        with pytest.raises(NumericalFailure, match="loss is not finite"):
            run(machine)
        assert torch.equal(torch.cat([t.detach().flatten() for t in machine.tensors.values()]), start)
    poisoned, clean = histories
    assert torch.equal(poisoned[at + 1], poisoned[at]), "the poisoned step changes nothing"
    assert torch.equal(poisoned[at + 2], clean[at + 1]), "nor do its moments"
    assert not torch.equal(poisoned[at + 2], poisoned[at + 1])


# ── the host never waits inside an epoch ─────────────────────────────────────────────────────────────────────────

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "item", "is_nonzero", "equal", "unique", "_unique2")


class NoWaiting(TorchDispatchMode):
    """Raises where an operation would need a number from the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITS or (name.startswith("index") and any(_is_mask(a) for a in args)):
            raise AssertionError(f"{func} makes the host wait")
        return func(*args, **(kwargs or {}))


def _is_mask(argument: Any) -> bool:
    found = argument if isinstance(argument, list | tuple) else [argument]
    return any(isinstance(a, Tensor) and a.dtype == torch.bool for a in found)


def test_the_watch_sees_what_it_is_for() -> None:
    x = torch.ones(3)
    for wait in (lambda: x.sum().item(), lambda: bool(x.any()), lambda: x[x > 0], x.nonzero):
        with pytest.raises(AssertionError, match="host wait"), NoWaiting():
            wait()


@pairs
@pytest.mark.parametrize(
    "optimizer", ["sgd(lr = 0.01 / (1 + step), momentum = 0.9, nesterov = true)", "adamw(lr = 1e-3)"]
)
def test_no_step_makes_the_host_wait(monkeypatch: pytest.MonkeyPatch, word: str, name: str, optimizer: str) -> None:
    constraints, _ = PROBLEMS[name]
    stages: list[str] = []
    original = Descent.step

    def watched(self: Descent, x: Tensor, y: Tensor, p_after: float) -> None:
        with NoWaiting():
            original(self, x, y, p_after)
        stages.append(self.algorithm)

    monkeypatch.setattr(Descent, "step", watched)
    call, _ = ROWS[word]
    solve(
        f"""
model net = mlp([64, 16, 10])
data digits(batch = 500)
minimize cross_entropy(net) + (1 + p) * nll(net)
subject to
 {constraints}
solve {call} with {optimizer} for 2 steps
finetune with {optimizer} for 2 steps
""",
        dtype="float32",
    )
    assert len(stages) >= 4


# ── networks with more than linear layers ────────────────────────────────────────────────────────────────────────


@pytest.fixture
def images(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 3, 32, 32, generator=generator) * 2 + 1
    y = torch.randint(0, 10, (24,), generator=generator)
    np.savez(tmp_path / "images.npz", x_train=x.numpy(), y_train=y.numpy(), x_test=x[:4].numpy(), y_test=y[:4].numpy())
    return tmp_path / "images.npz"


@pytest.mark.parametrize("word", ROWS)
def test_statistics_of_batch_normalisation_are_those_of_the_final_weights(word: str, images: Path) -> None:
    call, _ = ROWS[word]
    text = f"""
model net = resnet_cifar(8, width = 4)
data tensors("{images}", batch = 24)
minimize cross_entropy(net)
subject to
 {on("net.weights", "20%", word)}
solve {call} with sgd(lr = 0.05) for 1 epochs
"""
    ran = solve(text, dtype="float32")
    model, inputs = ran.machine.model, ran.session.data.train.inputs
    first = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen: list[Tensor] = []
    handle = first.register_forward_hook(lambda module, args, out: seen.append(args[0].detach()))
    stored = first.running_mean.clone(), first.running_var.clone()  # type: ignore[union-attr]
    model.eval()
    with torch.no_grad():
        model(inputs)
    handle.remove()
    assert first.momentum == 0.1, "the network is handed back as it was"
    assert torch.allclose(stored[0], seen[0].mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(stored[1], seen[0].var((0, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("word", ROWS)
def test_tied_weights_count_once_and_stay_tied(word: str, tmp_path: Path) -> None:
    (tmp_path / "bytes.txt").write_bytes(bytes(range(256)) * 2)
    call, _ = ROWS[word]
    text = f"""
model net = byte_transformer(layers = 1, width = 8, heads = 2, context = 16, tied = true)
data text("{tmp_path / "bytes.txt"}", context = 16, batch = 8)
minimize nll(net)
subject to
 all: {on('net["head", "block1.*"].weights', "300", word)}
solve {call} with sgd(lr = 0.1) for 1 epochs
finetune with sgd(lr = 0.1) for 1 epochs
"""
    ran = solve(text, dtype="float32")
    tensors = ran.machine.tensors
    assert tensors["head.weight"].data_ptr() == tensors["embedding.weight"].data_ptr()
    kernels = [t for n, t in tensors.items() if t.dim() == 2 and n.startswith(("head", "block1")) and "weight" in n]
    if word == "factors":
        assert len(torch.cat([t.detach().flatten() for t in kernels]).unique()) == 4
        return
    assert sum(int(t.count_nonzero()) for t in kernels) == 300
    (found,) = ran.stages("epoch")[-1]["constraints"]
    assert (found["label"], found["value"], found["bound"]) == ("all", 300, 300)


def test_a_layer_that_the_loss_does_not_reach_is_pulled_all_the_same() -> None:
    """Without a gradient of its own the pull still takes W to θ; with Adam μW does not ride on decay."""
    from prunelang.runtime import kernels

    w = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))]
    w[0].sum().backward()
    grads = kernels.gradients(w)
    kernels.add_pull_(grads, [x.detach() for x in w], [torch.full((2,), 0.25)] * 2, 0.5)
    assert [g.tolist() for g in grads] == [[1.25, 1.25], [0.25, 0.25]]
    assert w[1].grad is grads[1]
