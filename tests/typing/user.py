"""What somebody writes who embeds prunelang: `mypy --strict` finds nothing in it, and knows every type."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor, nn

import prunelang
from prunelang import Problem, Program, Solution, SpecError, Stepper
from prunelang.words import accuracy, codebook, cross_entropy, each, k, lc, norm0, sgd


def problem() -> Problem:
    p = Problem("mlp([64, 32, 10])", "digits(batch = 64)")
    p.minimize(cross_entropy(p.net) + 1e-4 * norm0(p.net["fc1"].weights))
    p.subject_to("sparsity", norm0(p.net.weights) <= "5%")
    p.subject_to(each(p.net.layers, lambda layer: layer.weights.in_(codebook(4))))
    p.solve(lc(steps=30), sgd(lr=0.1 * 0.98**k), epochs=2)
    p.report(accuracy(p.net))
    return p


def train(program: Program, net: nn.Module, batches: list[tuple[Tensor, Tensor]], out: Path) -> Solution:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    stepper: Stepper = program.bind(net, optimizer, loader=batches)
    for epoch in stepper.epochs():
        for x, y in batches:
            loss = stepper.step(lambda: nn.functional.cross_entropy(net(x), y))
            assert_type(loss, Tensor | None)
        stepper.epoch_end()
        assert_type(epoch, int)
    return stepper.finish(out)


def main() -> None:
    try:
        program = problem().compile(params={"κ": "5%"})
        assert_type(program, Program)
        solution = program.run("runs/x", seed=1)
    except SpecError as error:
        assert_type(error.diagnostics[0].code, str)
        return
    assert_type(solution.reported("accuracy(net)"), float)
    assert_type(prunelang.compile("x.prune").to_python(), str)
