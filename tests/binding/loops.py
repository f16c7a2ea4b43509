"""The loop that the page on embedding shows, and the same problem by `run`: what the tests here compare."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunelang.api import Program, compile
from prunelang.compiler.plan import StagePlan
from prunelang.execution import RunOptions, Session
from prunelang.inputs import DTYPES, build
from prunelang.runtime.execute import run
from prunelang.stepping import Stepper

SEED = 3
KINDS: Mapping[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
STAGE = re.compile(r"(pretrain|finetune)( minimizing \S+)? with \w+\((lr = )?([^()]|\([^()]*\))*\)")


def of_one_optimizer(text: str) -> str:
    """The same spec with one algorithm in all stages: somebody else's loop has one optimizer."""
    program = compile(text + "\n", dtype="float64")
    words = [s.optimizer.word for s in training(program)]
    if len(set(words)) < 2:
        return text
    word = next(s.optimizer.word for s in training(program) if s.solver is not None)
    return STAGE.sub(rf"\1\2 with {word}(lr = 0.02)", text)


def training(program: Program) -> list[StagePlan]:
    """The stages that train."""
    return [s for s in program.plan.stages if s.pruner is None]


def network(program: Program) -> nn.Module:
    """The network of a spec, as `run` starts it."""
    torch.manual_seed(SEED)
    plan = program.plan
    return build(plan.model, plan, program.folder, "cpu", DTYPES[program.dtype])


def optimizer_of(program: Program, net: nn.Module, **options: Any) -> torch.optim.Optimizer:
    """The spec's optimizer with the options of its first stage: the kernels that `run` uses."""
    word = training(program)[0].optimizer.word
    made: torch.optim.Optimizer = KINDS[word](net.parameters(), **{"lr": 0.1, "fused": True, **options})
    return made


def executed(program: Program) -> dict[str, Tensor]:
    """Where `run` ends."""
    session = Session(program.plan, program.folder, RunOptions(out=Path(), seed=SEED, dtype=program.dtype))
    run(session.machine(lambda event: None, lambda: False))
    return {n: t.detach().clone() for n, t in session.model.state_dict().items()}


@dataclass
class Bound:
    """A loop of one's own that has ended."""

    net: nn.Module
    stepper: Stepper

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {n: t.detach().clone() for n, t in self.net.state_dict().items()}


def looped(program: Program, **options: Any) -> Bound:
    """The documented loop: the same order of data, the same seed, the same optimizer."""
    net = network(program)
    stepper = program.bind(net, optimizer_of(program, net), rates="spec", seed=SEED, **options)
    try:
        drive(stepper, net)
    finally:
        stepper.detach()
    return Bound(net, stepper)


def drive(stepper: Stepper, net: nn.Module) -> None:
    for _ in stepper.epochs():
        for x, y in stepper.batches():
            stepper.step(lambda: stepper.objective(net(x), y, x))
        stepper.epoch_end()


def differing(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that are not the same bits on both sides."""
    assert a.keys() == b.keys()
    return [n for n in a if not torch.equal(a[n], b[n])]
