"""Coupling groups of random networks: whatever meets, a unit that may go is exactly 0 to what reads it."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunelang.runtime.same_outputs import ShrinkProblem
from prunelang.runtime.shrink import shrunk
from prunelang.runtime.trace import trace
from tests.runtime.networks import members, silence, unsettle, zero

ACTIVATIONS = [torch.relu, torch.tanh, F.gelu, F.silu, torch.sigmoid, lambda x: x * 1.5, lambda x: -x, torch.abs]
SHAPE = (2, 6, 6)


class Random(nn.Module):
    """Feature maps of one size, each made of those before by an operator drawn from `seed`."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        self.steps: list[tuple[str, int, int, int]] = []
        widths = [SHAPE[0]]
        for i in range(rng.randint(4, 10)):
            a = rng.choice([len(widths) - 1, rng.randrange(len(widths))])
            same = [j for j, w in enumerate(widths) if w == widths[a]]
            kinds = ["conv", "conv", "norm", "act", "act", "depth", "cat", "pad", "pool", "half", "glu"]
            kind = rng.choice([*kinds, *["add", "mul", "add"] * (len(same) > 1)]) if i else "conv"
            if kind in ("half", "glu") and widths[a] % 2:
                kind = "act"
            b = rng.choice(same) if kind in ("add", "mul") else rng.randrange(len(widths))
            width = {"cat": widths[a] + widths[b], "pad": widths[a] + 2, "depth": 2 * widths[a]}.get(kind, widths[a])
            if kind == "conv":
                width = rng.randint(2, 6)
                self.add_module(f"m{i}", nn.Conv2d(widths[a], width, 3, padding=1, bias=rng.random() < 0.5))
            elif kind == "depth":
                self.add_module(f"m{i}", nn.Conv2d(widths[a], width, 3, padding=1, groups=widths[a]))
            elif kind == "norm":
                self.add_module(f"m{i}", nn.BatchNorm2d(width, affine=rng.random() < 0.8))
            elif kind in ("half", "glu"):
                width //= 2
            self.steps.append((kind, a, b, rng.randrange(len(ACTIVATIONS))))
            widths.append(width)
        self.flat = rng.random() < 0.5
        self.head = nn.Linear(sum(widths[-3:]) * (36 if self.flat else 1), 3)

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for i, (kind, a, b, f) in enumerate(self.steps):
            found.append(self.step(i, kind, found[a], found[b], f))
        y = torch.cat(found[-3:], 1)
        return self.head(y.flatten(1) if self.flat else y.mean((2, 3)))

    def step(self, i: int, kind: str, a: Tensor, b: Tensor, f: int) -> Tensor:
        match kind:
            case "add":
                return a + b
            case "mul":
                return a * b
            case "cat":
                return torch.cat([a, b], 1)
            case "pad":
                return F.pad(a, (0, 0, 0, 0, 1, 1))
            case "pool":
                return F.max_pool2d(a, 3, 1, 1)
            case "half":
                return a[:, : a.shape[1] // 2]
            case "glu":
                first, second = a.chunk(2, 1)
                return first * second.sigmoid()
            case "act":
                return ACTIVATIONS[f](a)
        made: Tensor = self.get_submodule(f"m{i}")(a)
        return made


@pytest.mark.parametrize("seed", range(60))
def test_units_that_may_go_are_zero_to_what_reads_them(seed: int) -> None:
    torch.manual_seed(seed)
    model = Random(seed).double().eval()
    unsettle(model, seed)
    table = trace(model, SHAPE, model_text="net", dtype="float64")
    named, x = dict(model.named_parameters()), torch.randn(2, *SHAPE, dtype=torch.float64)
    start = {n: t.clone() for n, t in model.state_dict().items()}
    for group in (g for g in table.channels if not g.reason):
        dead = torch.arange(group.size) % 2 == seed % 2
        zero(model, table, group, dead, reads=False)
        before = model(x)
        for s in group.slices:
            if s.dim == 1:
                with torch.no_grad():
                    members(named[s.tensor], s, group.size)[dead] = 50.0
        assert torch.equal(model(x), before), group
        model.load_state_dict(start)
    left = silence(model, table, 0.5, seed)
    try:
        done = shrunk(model, SHAPE, table=table)
    except ShrinkProblem as problem:
        sized = {kind for kind, *_ in model.steps} & {"pad", "half", "glu"}
        if problem.code in ("P531", "P532") and sized:  # a padding or a half has a size of its own
            return
        raise
    assert set(done.members) == set(left)
    with torch.no_grad():
        expected, found = model(x), done.module.eval()(x)
    assert float((found - expected).abs().max()) <= 1e-12 * float(expected.abs().max())


def test_most_random_networks_have_groups_that_may_go() -> None:
    tables = [trace(Random(seed), SHAPE, model_text="net").channels for seed in range(60)]
    assert sum(any(not g.reason for g in groups) for groups in tables) > 30
    assert sum(any(g.reason for g in groups) for groups in tables) > 10
