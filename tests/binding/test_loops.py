"""What people do in their own loops: mixed precision, accumulation, clipping, schedules, groups, compiled networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prunelang
from prunelang.api import Program
from prunelang.runtime.machine import NumericalFailure
from prunelang.stepping import Stepper
from tests.binding.loops import SEED, drive, network

HEAD = "model net = mlp([64, 12, 10])\ndata digits(batch = 128)\nminimize cross_entropy(net)\nsubject to\n"
LC = "solve lc(steps = 3) with sgd(lr = 0.1, momentum = 0.9) for 1 epochs\n"
ISTA = "solve ista() with sgd(lr = 0.1, momentum = 0.9) for 3 epochs\n"
STR = "solve ista(threshold = str) with sgd(lr = 0.1, momentum = 0.9) for 3 epochs\n"
GDA = "solve gda() with sgd(lr = 0.1, momentum = 0.9) for 3 epochs\n"
PMMP = "solve pmmp() with sgd(lr = 0.1, momentum = 0.9) for 3 epochs\n"
END = "finetune with sgd(lr = 0.05, momentum = 0.9) for 1 epochs\nreport accuracy(net)\n"
CHANCE = 0.1  # of ten classes; four epochs lead well above it
SOLVERS = {"lc": LC, "ista": ISTA, "str": STR, "gda": GDA, "pmmp": PMMP}
SMALL = "    small: ‖net.weights‖₀ ≤ 20%\n"


def program_of(solve: str = LC, constraint: str = SMALL) -> Program:
    return prunelang.compile(HEAD + constraint + solve + END)


def plain(net: nn.Module, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})


def train(stepper: Stepper, step: Callable[[Tensor, Tensor], Any]) -> None:
    for _ in stepper.epochs():
        for x, y in stepper.batches():
            step(x, y)
        stepper.epoch_end()


def certified(stepper: Stepper, out: Path) -> float:
    solution = stepper.finish(out)
    assert solution.feasible
    assert solution.certificate.status == "feasible-verified"
    for name in ("weights.safetensors", "certificate.json", "graph.txt", "graph.json", "history.jsonl", "report.md"):
        assert (out / name).is_file()
    return solution.reported("accuracy(net)")


@pytest.fixture(params=("lc", "ista"))
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    return program_of(SOLVERS[request.param])


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_plain_loop_with_an_optimizer_of_its_own(solver: str, tmp_path: Path) -> None:
    program = program_of(SOLVERS[solver])
    net = network(program)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.08, momentum=0.8, nesterov=True, weight_decay=1e-4)
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    stepper = program.bind(net, optimizer, seed=SEED)
    drive(stepper, net)
    assert stepper.done
    assert [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups] == groups
    assert certified(stepper, tmp_path) > 2 * CHANCE
    got = sum(int((p != 0).sum()) for n, p in net.named_parameters() if n.endswith("weight"))
    assert got <= program.problem.constraints[0].set.upper  # type: ignore[union-attr]


def test_under_autocast(program: Program, tmp_path: Path) -> None:
    net = network(program)
    stepper = program.bind(net, plain(net), seed=SEED)

    def step(x: Tensor, y: Tensor) -> None:
        def closure() -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return F.cross_entropy(net(x), y)

        stepper.step(closure)

    train(stepper, step)
    assert certified(stepper, tmp_path) > 2 * CHANCE


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_scaler_changes_nothing_but_the_scale(program: Program, fused: bool, by_hand: bool) -> None:
    """Scales are powers of two: the gradients after unscaling are those without a scaler, bit for bit."""
    ends = []
    for scaled in (False, True):
        net = network(program)
        optimizer = plain(net, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
        stepper = program.bind(net, optimizer, seed=SEED)

        def step(x: Tensor, y: Tensor) -> None:
            if by_hand:
                scaler.scale(F.cross_entropy(net(x), y)).backward()
                stepper.step(scaler=scaler)
            else:
                stepper.step(lambda: F.cross_entropy(net(x), y), scaler=scaler)

        train(stepper, step)
        stepper.detach()
        ends.append([p.detach().clone() for p in net.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*ends, strict=True))


def test_a_step_that_a_scaler_skips_counts_and_moves_nothing() -> None:
    program = program_of()
    net = network(program)
    stepper = program.bind(net, plain(net), seed=SEED)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    x, y = next(iter(stepper.batches()))
    before = [p.detach().clone() for p in net.parameters()]
    stepper.step(lambda: F.cross_entropy(net(x), y) * float("inf"), scaler=scaler)
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))
    assert stepper.clocks["step"] == 1
    assert scaler.get_scale() < 2.0**10
    stepper.detach()


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    program = prunelang.compile((HEAD + SMALL + LC + END).replace("batch = 128", "batch = 64"), dtype="float64")
    ends = []
    for parts in (1, 4):
        net = network(program)
        stepper = program.bind(net, plain(net), seed=SEED)

        def step(x: Tensor, y: Tensor) -> None:
            if parts == 1:
                stepper.step(lambda: F.cross_entropy(net(x), y))
                return
            for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
                (F.cross_entropy(net(a), b) * len(b) / len(y)).backward()
            stepper.step()

        train(stepper, step)
        stepper.detach()
        ends.append([p.detach().clone() for p in net.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-9) for a, b in zip(*ends, strict=True))


def test_clipping_is_of_the_data_terms_alone(program: Program) -> None:
    """The user's clipping comes first: with a bound that nothing reaches it changes nothing, pulls or not."""
    ends = []
    for bound in (None, 1e9):
        net = network(program)
        stepper = program.bind(net, plain(net), seed=SEED)

        def step(x: Tensor, y: Tensor) -> None:
            def closure() -> Tensor:
                loss = F.cross_entropy(net(x), y)
                loss.backward()  # type: ignore[no-untyped-call]
                if bound is not None:
                    nn.utils.clip_grad_norm_(net.parameters(), bound)
                return loss

            stepper.step(closure)

        train(stepper, step)
        stepper.detach()
        ends.append([p.detach().clone() for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_tight_clip_leaves_the_pull_whole() -> None:
    """With the data gradient clipped to nothing, W still goes to θ: the pull is added after the clipping."""
    program = prunelang.compile(HEAD + SMALL + "solve lc(steps = 1, μ = 1) with sgd(lr = 0.1) for 1 epochs\n")
    net = network(program)
    stepper = program.bind(net, torch.optim.SGD(net.parameters(), lr=0.1), seed=SEED)
    theta = [t.clone() for t in stepper._machine.values["t"]]
    weights = [p.detach().clone() for n, p in net.named_parameters() if n.endswith("weight")]
    (x, y), *_ = stepper.batches()
    F.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(net.parameters(), 0.0)
    stepper.step()
    now = [p.detach() for n, p in net.named_parameters() if n.endswith("weight")]
    assert all(torch.allclose(w, b - 0.1 * (b - t)) for w, b, t in zip(now, weights, theta, strict=True))
    stepper.detach()


def test_a_schedule_of_its_own_moves_the_rates(program: Program) -> None:
    net = network(program)
    optimizer = plain(net)
    stepper = program.bind(net, optimizer, seed=SEED)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    seen = []
    for _ in stepper.epochs():
        for x, y in stepper.batches():
            stepper.step(lambda: F.cross_entropy(net(x), y))
        joined = stepper._machine.joined
        assert joined is not None
        seen.append({g["lr"] for g in joined.param_groups})
        stepper.epoch_end()
        schedule.step()
    assert seen == [{0.1 * 0.5**i} for i in range(len(seen))]
    stepper.detach()


def test_groups_keep_their_own_options(program: Program, tmp_path: Path) -> None:
    net = network(program)
    biases = [p for n, p in net.named_parameters() if n.endswith("bias")]
    weights = [p for n, p in net.named_parameters() if n.endswith("weight")]
    head = nn.Linear(3, 3)
    groups = [
        {"params": weights[:1], "weight_decay": 1e-3},
        {"params": [*weights[1:], *biases], "lr": 0.05},
        {"params": list(head.parameters()), "lr": 1.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    stepper = program.bind(net, optimizer, seed=SEED)
    before = [p.detach().clone() for p in head.parameters()]

    def step(x: Tensor, y: Tensor) -> None:
        stepper.step(lambda: F.cross_entropy(net(x), y) + 0.01 * head.weight.sum())

    train(stepper, step)
    assert not torch.equal(head.weight, before[0])  # what the program does not know is trained beside it
    assert torch.equal(head.bias, before[1])
    assert [len(g["params"]) for g in optimizer.param_groups] == [1, 3, 2]
    assert certified(stepper, tmp_path) > 2 * CHANCE


def test_a_compiled_network(program: Program, tmp_path: Path) -> None:
    net = network(program)
    fast = torch.compile(net, backend="eager")
    stepper = program.bind(fast, plain(net), seed=SEED)
    train(stepper, lambda x, y: stepper.step(lambda: F.cross_entropy(fast(x), y)))
    assert certified(stepper, tmp_path) > 2 * CHANCE


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "RMSprop", "Adagrad", "NAdam"])
def test_other_optimizers(kind: str, tmp_path: Path) -> None:
    program = program_of(PMMP if kind == "NAdam" else LC)
    net = network(program)
    optimizer = getattr(torch.optim, kind)(net.parameters(), lr=5e-3)
    stepper = program.bind(net, optimizer, seed=SEED)
    drive(stepper, net)
    assert certified(stepper, tmp_path) > 2 * CHANCE


def test_the_optimizer_alone_is_enough() -> None:
    """Trainers of other libraries call `optimizer.step`, some with a closure inside: both are steps of the program."""
    program = program_of(ISTA)
    ends = []
    for closure in (False, True):
        net = network(program)
        optimizer = plain(net)
        stepper = program.bind(net, optimizer, seed=SEED)

        def step(x: Tensor, y: Tensor) -> None:
            def evaluate() -> Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(net(x), y)
                loss.backward()  # type: ignore[no-untyped-call]
                return loss

            if closure:
                optimizer.step(evaluate)
            else:
                evaluate()
                optimizer.step()

        train(stepper, step)
        assert stepper.done
        stepper.detach()
        ends.append([p.detach().clone() for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_factors_join_and_leave_the_optimizer(tmp_path: Path) -> None:
    solve = "solve factors() with sgd(lr = 0.1, momentum = 0.9) for 3 epochs\n"
    program = program_of(solve, '    first: net["fc1"].weights ∈ low_rank(3)\n')
    net = network(program)
    optimizer = plain(net)
    stepper = program.bind(net, optimizer, seed=SEED)
    drive(stepper, net)
    assert torch.linalg.matrix_rank(net.get_parameter("fc1.weight").detach(), rtol=1e-4) <= 3
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in net.parameters()}
    assert certified(stepper, tmp_path) > 2 * CHANCE


def test_a_loop_that_counts_steps_ends_within_a_pass(tmp_path: Path) -> None:
    last = "finetune with sgd(lr = 0.1) for 7 steps\n"
    text = HEAD + SMALL + "solve lc(steps = 2) with sgd(lr = 0.1) for 5 steps\n" + last
    program = prunelang.compile(text)
    net = network(program)
    stepper = program.bind(net, plain(net), seed=SEED)
    steps = 0
    loader = list(stepper.batches())
    while not stepper.done:  # passes of its own, whatever the program counts
        for x, y in loader:
            stepper.step(lambda: F.cross_entropy(net(x), y))
            steps += 1
            if stepper.done:
                break
        stepper.epoch_end()
    assert steps == 17
    assert stepper.finish(tmp_path).feasible


def test_a_loss_that_is_not_finite_ends_with_the_last_good_network(tmp_path: Path) -> None:
    program = program_of()
    net = network(program)
    stepper = program.bind(net, plain(net), seed=SEED)
    with pytest.raises(NumericalFailure):
        train(stepper, lambda x, y: stepper.step(lambda: F.cross_entropy(net(x), y) * float("nan")))
    solution = stepper.finish(tmp_path)
    assert solution.failure is not None
    assert all(bool(p.isfinite().all()) for p in net.parameters())


def test_early(tmp_path: Path) -> None:
    program = program_of()
    net = network(program)
    stepper = program.bind(net, plain(net), seed=SEED)
    for x, y in stepper.batches():
        stepper.step(lambda: F.cross_entropy(net(x), y))
    stepper.epoch_end()
    solution = stepper.finish(tmp_path, early=True)
    assert solution.interrupted
    assert not solution.feasible


def test_afterwards_the_optimizer_is_its_owners(tmp_path: Path) -> None:
    program = program_of()
    net = network(program)
    optimizer = plain(net)
    stepper = program.bind(net, optimizer, seed=SEED)
    drive(stepper, net)
    stepper.finish(tmp_path)
    x, y = next(iter(stepper.batches()))
    F.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert all(len(optimizer.state[p]) for p in net.parameters())
