"""Structural costs: the polynomial against shapes that are really cut, and what proofs say against every k."""

from __future__ import annotations

import random
from itertools import product
from math import prod
from pathlib import Path

import pytest

from prunelang.compiler.channels import freed, polynomial, removable, structural
from prunelang.compiler.problem import (
    Constraint,
    Count,
    Entries,
    Interval,
    Kept,
    Measured,
    Objective,
    Problem,
    Structural,
    Term,
    tensors_of,
)
from prunelang.compiler.proofs import prove
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl.diagnostics import render
from prunelang.dsl.spans import Source, Span
from tests.channel_tables import lenet_5, random_table, shapes_left

GOLDEN = Path(__file__).parents[1] / "golden" / "proofs"
NAMES = ("macs", "flops", "params")


def function(name: str, table: ShapeTable, layers: tuple[str, ...] = ()) -> Structural:
    """The function as checking makes it, of a layer set or of the whole network."""
    chosen = [x for x in table.layers if not layers or x.name in layers]
    if name == "params":
        modules = {x.name for x in chosen}
        trained = [t for t in table.tensors if t.role != "buffer"]
        costs = {t.name: 1 for t in trained if not layers or t.name.rpartition(".")[0] in modules}
    else:
        costs = {x.weight: (2 if name == "flops" else 1) * x.uses for x in chosen}
    dense = sum(c * table.tensor[t].size for t, c in costs.items())
    return structural(name, tuple(x.name for x in chosen), dense, "", costs, table)


def cost(f: Structural, table: ShapeTable, kept: dict[str, set[int]]) -> int:
    """The same from the shapes that are left, layer by layer."""
    left = shapes_left(table, kept)
    if f.name == "params":
        return sum(prod(left[t.name]) for t in table.tensors if t.role != "buffer")
    return (2 if f.name == "flops" else 1) * sum(
        x.uses * prod(left[x.weight]) for x in table.layers if x.name in f.layers
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_polynomial_is_the_cost_of_the_shapes_that_are_left(name: str) -> None:
    rng = random.Random(name)
    for _ in range(150):
        table = random_table(rng)
        f = function(name, table)
        p = polynomial(f, table)
        kept = {g.name: set(rng.sample(range(g.size), rng.randint(0, g.size))) for g in table.channels}
        assert p.value([len(kept[g.name]) for g in p.groups]) == cost(f, table, kept)
        assert p.value(p.sizes) == f.dense


def test_a_function_of_one_layer_speaks_of_all_that_goes_with_its_channels() -> None:
    f = function("macs", lenet_5(), ("conv2",))
    assert f.groups == ("conv1", "conv2")
    assert tensors_of(f) == ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "fc1.weight")
    assert polynomial(f, lenet_5()).terms == ((64 * 25, (0, 1)),)


def test_a_group_with_a_frozen_tensor_or_a_reason_stays() -> None:
    table = lenet_5(reason="its output is reshaped")
    assert [g.name for g in removable(table)] == ["conv1", "fc1"]
    whole = freed(function("macs", lenet_5()), lenet_5(), frozenset({"conv1.bias"}))
    assert whole.groups == ("conv2", "fc1")
    p = polynomial(whole, lenet_5())
    assert p.value((50, 500)) == whole.dense == 2_293_000
    assert p.value((0, 0)) == p.constant == 24 * 24 * 500
    assert polynomial(function("macs", lenet_5()), lenet_5()).holding(frozenset({"conv1"})) == p


# ── proofs ───────────────────────────────────────────────────────────────────────────────────────────────────────


def problem_of(*constraints: Constraint) -> Problem:
    return Problem(Objective("minimize", (Term(1, Measured("cross_entropy", "train")),)), constraints)


def random_problem(rng: random.Random, table: ShapeTable) -> Problem:
    found = []
    for i, name in enumerate(rng.sample(NAMES, rng.randint(1, 3))):
        f = function(name, table)
        low = rng.randint(0, f.dense) if rng.random() < 0.2 else None
        high = None if low is not None else rng.randint(0, f.dense)
        found.append(Constraint(f"c{i}", f, Interval(low, high)))
    kernels = [t.name for t in table.tensors if t.role == "weight"]
    if rng.random() < 0.4:
        found.append(Constraint("pin", Entries((rng.choice(kernels),)), Kept()))
    if rng.random() < 0.5:
        some = tuple(rng.sample(kernels, rng.randint(1, len(kernels))))
        size = sum(table.tensor[t].size for t in some)
        found.append(Constraint("floor", Count("norm0", dict.fromkeys(some, 1), 0, ""), Interval(rng.randint(0, size))))
    rng.shuffle(found)
    return problem_of(*found)


def points(problem: Problem, table: ShapeTable) -> list[dict[str, tuple[int, bool]]]:
    """For every k, the values of all functions and whether each line can hold there."""
    found = []
    for k in product(*(range(g.size + 1) for g in table.channels)):
        kept = {g.name: set(range(n)) for g, n in zip(table.channels, k, strict=True)}
        room = {t: prod(s) for t, s in shapes_left(table, kept).items()}
        here = {}
        for c in problem.constraints:
            match c.function, c.set:
                case Structural() as f, Interval(low, high):
                    value = cost(f, table, kept)
                    here[c.label] = value, (low is None or value >= low) and (high is None or value <= high)
                case Entries(tensors=(t,)), _:
                    here[c.label] = room[t], room[t] == table.tensor[t].size
                case Count(coefficients=some), Interval(low, _):
                    here[c.label] = sum(room[t] for t in some), sum(room[t] for t in some) >= (low or 0)
        found.append(here)
    return found


def test_proofs_are_sound_for_every_k() -> None:
    rng = random.Random(4)
    seen = {"infeasible": 0, "never binds": 0, "missed": 0}
    for _ in range(400):
        table = random_table(rng, members=7)
        problem = random_problem(rng, table)
        proofs, every = prove(problem, table), points(problem, table)
        good = [p for p in every if all(ok for _, ok in p.values())]
        for labels in proofs.conflicts:
            assert not any(all(p[x][1] for x in labels) for p in every), "a conflict that is none"
        seen["infeasible"] += proofs.infeasible
        seen["missed"] += not proofs.infeasible and not good
        if proofs.infeasible:
            continue
        for proof in proofs.proofs:
            others = [p for p in every if all(ok for x, (_, ok) in p.items() if x != proof.label)]
            values = [p[proof.label][0] for p in others]
            if proof.label.startswith("c") and values:
                assert proof.range.lower is not None
                assert proof.range.upper is not None
                assert proof.range.lower <= min(values) <= max(values) <= proof.range.upper
            if proof.verdict == "never binds" and proof.label.startswith("c"):
                seen["never binds"] += 1
                assert all(p[proof.label][1] for p in others)
    assert seen["infeasible"] >= 60, seen
    assert seen["never binds"] >= 20, seen
    assert seen["missed"] <= seen["infeasible"] // 3, seen


def _line(label: str, name: str, table: ShapeTable, high: int, text: str, source: str) -> Constraint:
    start = source.index(text)
    f = function(name, table)
    return Constraint(label, f, Interval(None, high), Span(start, start + len(text)), text, dense=f.dense)


CASES = {
    "channels_impossible": (
        lenet_5("its output is reshaped by `view` of net"),
        "size: params(net) ≤ 50\n",
        [("size", "params", 50, "params(net) ≤ 50")],
        (),
    ),
    "channels_conflict": (
        lenet_5(),
        'compute: macs(net) ≤ 50%\nnet["conv1"].weights ∈ dense\nnet["fc1"].weights ∈ dense\n',
        [("compute", "macs", 1_146_500, "macs(net) ≤ 50%")],
        ("conv1.weight", "fc1.weight"),
    ),
    "channels_implied": (
        lenet_5(),
        "compute: macs(net) ≤ 30%\nwork: flops(net) ≤ 40%\n",
        [("compute", "macs", 687_900, "macs(net) ≤ 30%"), ("work", "flops", 1_834_400, "flops(net) ≤ 40%")],
        (),
    ),
    "channels_cut_off": (
        lenet_5("its output is reshaped by `view` of net"),
        "compute: macs(net) ≤ 10000\n",
        [("compute", "macs", 10_000, "macs(net) ≤ 10000")],
        (),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_transcript(name: str) -> None:
    table, source, lines, pinned = CASES[name]
    constraints = [_line(*line[:2], table, *line[2:], source) for line in lines]
    for t in pinned:
        text = f'net["{t.removesuffix(".weight")}"].weights ∈ dense'
        start = source.index(text)
        constraints.append(Constraint(text, Entries((t,)), Kept(), Span(start, start + len(text)), text))
    proofs = prove(problem_of(*constraints), table)
    got = render(proofs.diagnostics, Source(source, "spec.prune")) + f"\n\n{proofs}\n"
    golden = GOLDEN / f"{name}.txt"
    if not golden.exists():
        golden.write_text(got, encoding="utf-8")
        pytest.fail(f"{golden.name} was not there and is written now: review it")
    assert got == golden.read_text(encoding="utf-8")
