"""Lines to compositions and to costs of factors, against counts of the arrays that are stored."""

from __future__ import annotations

import re
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pytest

from prunelang.compiler.composed import folded
from prunelang.compiler.compositions import Clash, composition, largest, made, smallest, stored
from prunelang.compiler.factor_words import explained, set_text
from prunelang.compiler.feasible import NoProjection, feasible_set
from prunelang.compiler.forms import Box, Codebook, Composition, Fixed, Form, LowRank, Nuclear, Sparse, TensorTrain
from prunelang.compiler.graph import Part
from prunelang.compiler.graph.base import Graph
from prunelang.compiler.graph.codec import from_json, to_json
from prunelang.compiler.graph.state import Combination, Copy, Feasible, Weights
from prunelang.compiler.graph.steps import Project
from prunelang.compiler.plan import Plan
from prunelang.compiler.problem import Budget, FactorCost, Interval, Named, Structural
from prunelang.compiler.proofs import prove
from prunelang.compiler.runnability import runnability
from prunelang.compiler.shapes import Layer, ShapeTable, Tensor
from prunelang.compiler.trains import order
from tests.compiler.checking import HEAD, codes, constrained, findings, plan_of
from tests.shape_tables import chain, lenet_5, lenet_300_100

LENET = lenet_300_100()
FC1, FC2, FC3 = "fc1.weight", "fc2.weight", "fc3.weight"
LC = "solve lc()\n"


def plan(lines: str, head: str = HEAD) -> Plan:
    return constrained(lines, head=head, solve=LC)


def compositions(lines: str) -> list[Composition]:
    return [m.composition for m in made(plan(lines).problem.constraints, LENET)]


def parts(lines: str) -> tuple[Part, ...]:
    found = plan(lines)
    return feasible_set(found.problem, found.table).parts


def cost(lines: str, label: str, head: str = HEAD) -> FactorCost:
    function = plan(lines, head).problem.constraint(label).function
    assert isinstance(function, FactorCost)
    return function


# ── lines to compositions ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "tensors", "forms"),
    [
        ('net["fc1"].weights ∈ low_rank(10)', (FC1,), (LowRank(10),)),
        ('rank(net["fc1"].weights) ≤ 10', (FC1,), (LowRank(10),)),
        ('rank(net["fc1"].weights) ≤ 10%', (FC1,), (LowRank(30),)),
        ('rank(net["fc3"].weights) ≤ 400', (FC3,), (LowRank(10),)),
        (
            'net["fc1"].weights ∈ tt(8, modes = [[10, 28], [30, 28]])',
            (FC1,),
            (TensorTrain(((10, 28), (30, 28)), (8,)),),
        ),
        ('tt_rank(net["fc1"].weights, [[10, 28], [30, 28]]) ≤ 8', (FC1,), (TensorTrain(((10, 28), (30, 28)), (8,)),)),
        (
            'tt_rank(net["fc1"].weights, [[5, 4], [6, 14], [10, 14]]) ≤ [9, 7]',
            (FC1,),
            (TensorTrain(((5, 4), (6, 14), (10, 14)), (9, 7)),),
        ),
        (
            '[9, 700] ≥ tt_rank(net["fc1"].weights, [[5, 4], [6, 14], [10, 14]])',
            (FC1,),
            (TensorTrain(((5, 4), (6, 14), (10, 14)), (9, 140)),),
        ),
        ('nuclear(net["fc1"].weights) ≤ 2.5', (FC1,), (Nuclear(2.5),)),
        ("net.weights ∈ codebook(2) + sparse(1%)", (FC1, FC2, FC3), (Codebook(2), Sparse(2662))),
        ('net["fc1"].weights ∈ sparse(7) + low_rank(4)', (FC1,), (Sparse(7), LowRank(4))),
        ("net.weights ∈ {1, -1}", (FC1, FC2, FC3), (Fixed((-1.0, 1.0)),)),
        ("net.weights ∈ scaled({-1, 0, 1})", (FC1, FC2, FC3), (Fixed((-1.0, 0.0, 1.0), True),)),
        ("net.weights ∈ box(-1, 2)", (FC1, FC2, FC3), (Box(-1.0, 2.0),)),
    ],
)
def test_what_a_line_makes_of_its_tensors(line: str, tensors: tuple[str, ...], forms: tuple[Any, ...]) -> None:
    assert compositions(line) == [Composition(tensors, forms, tuple(LENET.tensor[t].shape for t in tensors))]


@pytest.mark.parametrize(
    "line", ["‖net.weights‖₀ ≤ 5%", "net.weights ∈ n_of_m(2, 4)", "net.weights ∈ dense", "params(net) ≤ 50%"]
)
def test_other_lines_make_nothing(line: str) -> None:
    assert compositions(line) == []


def test_modes_left_out_are_those_with_the_fewest_numbers_of_all_balanced_ones() -> None:
    (found,) = compositions('net["fc2"].weights ∈ tt(5)')
    (form,) = found.forms
    assert isinstance(form, TensorTrain)
    assert (prod(m for m, _ in form.modes), prod(n for _, n in form.modes)) == (100, 300)
    same = compositions('tt_rank(net["fc2"].weights) ≤ 5')
    assert same == [found]
    (listed,) = compositions('net["fc2"].weights ∈ tt([5, 5])')
    assert isinstance(listed.forms[0], TensorTrain)
    assert len(listed.forms[0].modes) == 3


def test_bounds_on_one_form_meet() -> None:
    lines = '  net["fc1"].weights ∈ low_rank()\n  rank(net["fc1"].weights) ≤ 9\n  rank(net["fc1"].weights) ≤ 7'
    (found,) = made(plan(lines).problem.constraints, LENET)
    assert found.composition.forms == (LowRank(7),)
    assert len(found.constraints) == 3
    trains = 'tt_rank(net["fc1"].weights, [[5, 4], [6, 14], [10, 14]]) ≤ '
    (train,) = compositions(f"  {trains}[9, 70]\n  {trains}[11, 6]")
    assert train.forms[0] == TensorTrain(((5, 4), (6, 14), (10, 14)), (9, 6))
    assert compositions("  net.weights ∈ box(-2, 1)\n  net.weights ∈ box(-1, 3)")[0].forms == (Box(-1.0, 1.0),)


@pytest.mark.parametrize(
    "lines",
    [
        '  net["fc1"].weights ∈ low_rank(4)\n  net.weights ∈ codebook(2)',
        '  rank(net["fc1"].weights) ≤ 4\n  nuclear(net["fc1"].weights) ≤ 3',
        '  net["fc1"].weights ∈ tt(4, modes = [[10, 28], [30, 28]])\n'
        '  net["fc1"].weights ∈ tt(4, modes = [[30, 28], [10, 28]])',
        "  net.weights ∈ codebook(2)\n  net.weights ∈ codebook(3) + sparse(5)",
        "  net.weights ∈ box(-2, -1)\n  net.weights ∈ box(1, 3)",
    ],
)
def test_a_tensor_is_made_in_one_way(lines: str) -> None:
    found = plan(lines)
    with pytest.raises(Clash, match="two ways"):
        made(found.problem.constraints, LENET)
    assert "P415" in [d.code for d in runnability(found)]


# ── costs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def numbers(c: Composition, sizes: dict[tuple[str, int], tuple[int, ...]]) -> int:
    """The numbers of all factors, array by array."""
    total = 0
    for i, form in enumerate(c.forms):
        x = sizes.get((c.tensors[0], i), ())
        match form:
            case LowRank():
                m, n = c.shapes[0][0], prod(c.shapes[0][1:])
                total += np.empty((m, x[0])).size + np.empty((x[0], n)).size
            case TensorTrain(modes, _):
                r = (1, *x, 1)
                total += sum(np.empty((r[k], m, n, r[k + 1])).size for k, (m, n) in enumerate(modes))
            case Sparse():
                total += sum(sizes[t, i][0] for t in c.tensors)
            case Codebook(k):
                total += k + c.size
            case Fixed(_, scaled):
                total += c.size + scaled
    return total


def test_params_are_the_numbers_of_all_arrays() -> None:
    lines = """
    one: net["fc1"].weights ∈ low_rank() + sparse()
    two: net["fc2"].weights ∈ tt()
    three: net["fc3"].weights ∈ scaled({-1, 1}) + sparse(9)
    small: params(net) ≤ 40%"""
    f = cost(lines, "small")
    made_of = compositions(lines)
    (train,) = made_of[1].forms
    assert isinstance(train, TensorTrain)
    bonds = len(train.modes) - 1
    for r, ranks, n in ((0, (1,) * bonds, 0), (7, tuple(range(2, 2 + bonds)), 300), (300, (3,) * bonds, 235_200)):
        sizes = {(FC1, 0): (r,), (FC1, 1): (n,), (FC2, 0): ranks, (FC3, 1): (5,)}
        rest = 300 + 100 + 10
        assert f.value(sizes) == rest + sum(numbers(c, sizes) for c in made_of)
    assert f.dense == 266_610


def test_params_of_some_layers_count_these_alone() -> None:
    f = cost('  net["fc1"].weights ∈ low_rank()\n  rank(net["fc2"].weights) ≤ 4\n  p: params(net["fc1"]) ≤ 40%', "p")
    assert {e.tensor for e in f.entries} == {FC1}
    assert f.value({(FC1, 0): (3,)}) == 3 * 1084 + 300
    untouched = plan('  rank(net["fc2"].weights) ≤ 4\n  p: params(net["fc1"]) ≤ 40%').problem.constraint("p").function
    assert isinstance(untouched, Structural)


@pytest.mark.parametrize(("name", "unit"), [("macs", 1), ("flops", 2)])
def test_operations_are_those_of_applying_the_factors(name: str, unit: int) -> None:
    lines = f"""
    one: net["fc1"].weights ∈ low_rank() + sparse()
    two: net["fc2"].weights ∈ tt(6, modes = [[4, 5], [5, 6], [5, 10]])
    three: net["fc3"].weights ∈ codebook(4)
    small: {name}(net) ≤ 100%"""
    f = cost(lines, "small")
    train = compositions(lines)[1].forms[0]
    assert isinstance(train, TensorTrain)
    sizes = {(FC1, 0): (7,), (FC1, 1): (300,), (FC2, 0): (6, 5)}
    assert f.value(sizes) == unit * (7 * 1084 + 300 + absorbed(train, (6, 5)) + 1000)
    assert f.dense == unit * 266_200


def absorbed(train: TensorTrain, ranks: tuple[int, ...]) -> int:
    """Multiply-adds of contracting the cores into a sample one after another, each as einsum sizes: all letters."""
    d, r = len(train.modes), (1, *ranks, 1)
    letters = {("n", k): n for k, (_, n) in enumerate(train.modes)}
    state, total = set(letters), 0
    sizes = letters | {("m", k): m for k, (m, _) in enumerate(train.modes)} | {("r", k): r[k] for k in range(1, d)}
    for k in order(train).order:
        bonds = {("r", b) for b in (k, k + 1) if 0 < b < d}
        core = {("m", k), ("n", k)} | bonds
        total += prod(sizes[x] for x in state | core)
        state = (state | core) - ((state & core) | {("n", k)})
    return total


def test_operations_of_a_convolution_count_every_use() -> None:
    head = HEAD.replace("lenet_300_100", "lenet_5")
    f = cost('  net["conv2"].weights ∈ low_rank()\n  small: macs(net) ≤ 50%', "small", head)
    table = lenet_5()
    conv = table.tensor["conv2.weight"]
    m, n = conv.matrix
    one = f.value({("conv2.weight", 0): (1,)}) - f.value({("conv2.weight", 0): (0,)})
    assert one == table.uses["conv2.weight"] * (m + n)
    assert f.constant == f.dense - table.uses["conv2.weight"] * m * n


def test_each_group_of_a_convolution_applies_its_columns() -> None:
    """With g groups the filters V run over the inputs of each group: r·n multiply-adds g times, r·m once."""
    layer = Layer("c", "conv2d", "c.weight", None, uses=9, groups=4)
    table = ShapeTable("c()", (8, 3, 3), (layer,), (Tensor("c.weight", (8, 2, 3, 3), "weight"),))
    (found,) = [Composition(("c.weight",), (LowRank(),), ((8, 2, 3, 3),))]
    f = stored(Structural("macs", ("c",), 9 * 8 * 18, "MACs"), [found], table)
    assert isinstance(f, FactorCost)
    assert f.value({("c.weight", 0): (5,)}) == 9 * 5 * (8 + 4 * 18)


def test_percentages_refer_to_the_dense_network() -> None:
    found = plan("  ∀ l ∈ net.layers: l.weights ∈ low_rank()\n  small: macs(net) ≤ 10%").problem.constraint("small")
    assert found.set == Interval(None, 26_620)
    assert found.dense == 266_200


def test_bytes_count_factors_and_the_cheapest_format_of_other_kernels() -> None:
    lines = '  one: net["fc1"].weights ∈ low_rank()\n  small: bytes(net) ≤ 100 KB'
    f = cost(lines, "small")
    step = f.value({(FC1, 0): (2,), (FC2, -1): (9,), (FC3, -1): (9,)}) - f.value(
        {(FC1, 0): (1,), (FC2, -1): (9,), (FC3, -1): (9,)}
    )
    assert step == 4 * 1084
    whole = folded(f, (), LENET)
    assert all(e.form >= 0 for e in whole.entries)
    sparse = folded(f, (FC2,), LENET)
    assert {(e.tensor, e.form) for e in sparse.entries} == {(FC1, 0), (FC2, 0)}
    assert sparse.value({(FC1, 0): (1,), (FC2, 0): (30_000,)}) == whole.value({(FC1, 0): (1,)})


def test_the_report_counts_factors() -> None:
    found = plan_of(
        f'{HEAD}subject to\n  rank(net["fc1"].weights) ≤ 9\n{LC}report params(net), macs(net), bytes(net)\n'
    )
    assert all(isinstance(item.function, FactorCost) for item in found.report)


def test_sizes_run_from_rank_one_to_where_factors_break_even() -> None:
    def least(*forms: Form) -> list[tuple[int, ...]]:
        return [smallest(Composition(("w",), forms, ((8, 8),)), i) for i in range(len(forms))]

    train = TensorTrain(((2, 2),) * 3)
    assert least(LowRank()) == least(LowRank(4)) == [(1,)]
    assert least(LowRank(0)) == least(Sparse()) == [(0,)]
    assert least(train) == [(1, 1)]
    assert least(Sparse(), LowRank(), train) == [(1,), (0,), (0, 0)]
    assert least(LowRank(), Sparse(5)) == [(1,), (0,)]
    assert least(Sparse(5), Codebook(2)) == [(0,), ()]
    assert largest(LowRank(), (8, 2, 3, 3), 144) == (5,)  # 5 (8 + 18) = 130
    assert largest(LowRank(), (1, 9), 9) == (1,)
    assert largest(LowRank(8), (8, 8), 64) == (8,)
    assert largest(TensorTrain(((2, 2),) * 3), (8, 8), 64) == (4, 4)
    assert largest(Sparse(7), (8, 8), 64) == (7,)
    assert largest(Codebook(4), (8, 8), 64) == ()


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_budget_joins_what_it_counts() -> None:
    lines = """
    a: net["fc1"].weights ∈ low_rank()
    b: net["fc2"].weights ∈ low_rank()
    c: net["fc3"].weights ∈ codebook(4)
    small: macs(net) ≤ 10%"""
    joined, alone = parts(lines)
    assert joined.labels == ("a", "b", "small")
    assert joined.tensors == (FC1, FC2)
    assert [c.forms for c in joined.compositions] == [(LowRank(),), (LowRank(),)]
    assert [b.label for b in joined.budgets] == ["small"]
    assert joined.exactness == "exact"
    assert alone.labels == ("c",)
    assert alone.compositions[0].forms == (Codebook(4),)
    assert all(p.keeps == "factors" and not p.bounds and not p.balls for p in (joined, alone))


def test_parts_without_a_budget_are_independent() -> None:
    found = parts('  ∀ l ∈ net["fc1", "fc2"]: l.weights ∈ low_rank(4)\n  few: ‖net["fc3"].weights‖₀ ≤ 5%')
    assert [p.tensors for p in found] == [(FC1,), (FC2,), (FC3,)]
    assert [bool(p.compositions) for p in found] == [True, True, False]
    assert found[2].keeps == "support"


@pytest.mark.parametrize(
    ("lines", "exactness"),
    [
        ('net["fc1"].weights ∈ low_rank(4)', "exact"),
        ('net["fc1"].weights ∈ tt(4)', "approximate"),
        ("net.weights ∈ codebook(4) + sparse(9)", "approximate"),
        ("net.weights ∈ codebook(4)", "exact"),
        ('  net["fc1"].weights ∈ low_rank()\n  params(net) ≤ 50%\n  macs(net) ≤ 50%', "gap"),
        ('  net["fc1"].weights ∈ sparse()\n  bytes(net) ≤ 200 KB', "gap"),
    ],
)
def test_what_is_known_of_the_projection(lines: str, exactness: str) -> None:
    assert parts(lines)[0].exactness == exactness


def test_a_plain_count_under_a_byte_budget_is_a_sparse_form() -> None:
    lines = """
    pruned: ‖net["fc1"].weights‖₀ ≤ 5000
    factored: net["fc2"].weights ∈ low_rank(10)
    coded: net["fc3"].weights ∈ codebook(2)
    file: bytes(net) ≤ 60 KB"""
    (whole, coded) = parts(lines)
    assert set(whole.labels) == {"pruned", "factored", "file"}
    assert {c.tensors: c.forms for c in whole.compositions} == {(FC2,): (LowRank(10),), (FC1,): (Sparse(5000),)}
    assert {(e.tensor, e.form) for e in whole.budgets[0].cost.entries} == {(FC1, 0), (FC2, 0)}
    assert coded.labels == ("coded",)
    without = parts(lines.rsplit("\n", 1)[0])
    assert [p.labels for p in without] == [("pruned",), ("factored",), ("coded",)]
    assert without[0].bounds


def test_a_box_and_a_nuclear_ball_are_projected_each_step() -> None:
    (box,) = parts("net.weights ∈ box(-1, 2)")
    (ball,) = parts('nuclear(net["fc1"].weights) ≤ 3')
    assert box.keeps == ball.keeps == "project each step"
    assert ball.compositions[0].forms == (Nuclear(3.0),)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("‖net.weights‖₀ ≤ 5%", "whose zeros nobody chooses"),
        ("sparse_macs(net) ≤ 5%", "whose zeros nobody chooses"),
        ('net["fc1"].weights ∈ n_of_m(2, 4)', "whose zeros nobody chooses"),
        ('net["fc1"].weights ∈ dense', "`dense` would keep every position"),
        ("‖net.weights‖₂ ≤ 3", "no joint projection with a norm ball"),
    ],
)
def test_positions_of_factored_tensors_are_refused(line: str, why: str) -> None:
    found = plan(f'  rank: rank(net["fc1"].weights) ≤ 4\n  other: {line}')
    with pytest.raises(NoProjection, match=why):
        feasible_set(found.problem, found.table)
    (refusal,) = runnability(found)
    assert (refusal.code, refusal.conflict) == ("P415", ("rank", "other"))


def test_a_part_survives_json() -> None:
    (part,) = parts(
        '  net["fc1"].weights ∈ low_rank() + sparse()\n  net["fc2"].weights ∈ tt()\n  small: bytes(net) ≤ 100 KB'
    )
    assert isinstance(part.budgets[0], Budget)
    project = Project("θ", Combination(((1, "W", None),)), Feasible((part,)))
    graph = Graph("t", (Weights("W", part.tensors, 265_200), Copy("θ", "W")), (project,))
    assert from_json(to_json(graph)) == graph


# ── ranks that nothing chooses, prices ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sets", ["low_rank()", "tt()", "sparse() + low_rank(3)", "codebook(2) + sparse()"])
@pytest.mark.parametrize(
    ("line", "chosen"),
    [
        ("params(net) ≤ 50%", True),
        ("macs(net) ≤ 50%", True),
        ("flops(net) ≤ 50%", True),
        ("bytes(net) ≤ 200 KB", True),
        ("params(net) ≥ 1", False),
        ("nonzeros(net) ≤ 50%", False),
        ('params(net["fc2"]) ≤ 50%', False),
    ],
)
def test_ranks_left_out_need_a_budget(sets: str, line: str, chosen: bool) -> None:
    text = f'{HEAD}subject to\n  net["fc1"].weights ∈ {sets}\n  {line}\n{LC}'
    assert ("P236" in codes(text)) is not chosen


def test_a_price_chooses_ranks_too() -> None:
    head = HEAD.replace("cross_entropy(net)", "cross_entropy(net) + 1e-6 * params(net)")
    found = plan("  ∀ l ∈ net.layers: l.weights ∈ low_rank()", head)
    assert [type(t.function) for t in found.problem.objective.terms[1:]] == [FactorCost]
    assert not runnability(found)
    parts_of = feasible_set(found.problem, found.table).parts
    assert [p.budgets for p in parts_of] == [()] * 3


def test_a_rank_line_of_its_own_chooses_too() -> None:
    assert "P236" not in codes(
        f'{HEAD}subject to\n  net["fc1"].weights ∈ low_rank()\n  rank(net["fc1"].weights) ≤ 9\n{LC}'
    )


# ── proofs ───────────────────────────────────────────────────────────────────────────────────────────────────────


FIRST, SECOND = (x.name for x in chain(2).layers)
PAIR = f"""model net = chain(layers = 2)
data anything()
minimize mse(net)
subject to
  a: net["{FIRST}"].weights ∈ low_rank(3)
  b: net["{SECOND}"].weights ∈ tt(modes = [[2, 4], [4, 2]])
  small: params(net) ≤ """


def test_a_budget_is_infeasible_below_the_cheapest_ranks_and_never_binds_at_the_dearest() -> None:
    """Against all ranks of two 8 × 8 layers."""
    f = plan_of(f"{PAIR}10000\n{LC}").problem.constraint("small").function
    assert isinstance(f, FactorCost)
    first, second = (chain(2).layer[n].weight for n in (FIRST, SECOND))
    values = [f.value({(first, 0): (r,), (second, 0): (s,)}) for r, s in product(range(1, 4), range(1, 9))]
    for bound in (min(values) - 1, min(values), max(values) - 1, max(values)):
        found = findings(f"{PAIR}{bound}\n{LC}")
        impossible = [d.conflict for d in found if d.code == "P310"]
        assert impossible == [("small", "a", "b")] * (bound < min(values))
        assert any(d.code == "P301" for d in found) == (bound >= max(values))


def test_what_is_infeasible_names_its_lines_and_the_smallest_change() -> None:
    lines = '  t: net["fc1"].weights ∈ tt(modes = [[10, 28], [30, 28]])\n  small: params(net["fc1"]) ≤ 1000'
    (found,) = [d for d in findings(f"{HEAD}subject to\n{lines}\n{LC}") if d.code == "P310"]
    least = 280 + 840 + 300
    assert found.conflict == ("small", "t")
    assert found.relaxations[0]["to"] == least
    assert "1 120 (fc1, rank 1) + 300 (all else) = 1 420 > 1 000" in found.notes[0]
    repaired = lines.replace("1000", str(least))
    assert not [d for d in findings(f"{HEAD}subject to\n{repaired}\n{LC}") if d.severity == "error"]


@pytest.mark.parametrize("rank", [215, 216, 217, 218])
def test_factors_are_dear_from_the_break_even_rank_on(rank: int) -> None:
    found = findings(f'{HEAD}subject to\n  one: rank(net["fc1"].weights) ≤ {rank}\n{LC}')
    dear = rank * (300 + 784) > 300 * 784
    assert [d.code for d in found if d.code == "P240"] == ["P240"] * dear
    if dear:
        (note,) = [d for d in found if d.code == "P240"]
        assert "rank 216" in (note.hint or "")


def test_a_budget_that_chooses_ranks_makes_no_bound_dear() -> None:
    lines = '  one: rank(net["fc1"].weights) ≤ 250\n  small: params(net) ≤ 50%'
    assert "P240" not in [d.code for d in findings(f"{HEAD}subject to\n{lines}\n{LC}")]


def test_a_budget_of_numbers_leaves_the_operations_of_a_train_to_be_said() -> None:
    """Six cores of rank 6 store less than the matrix, and compute more."""
    lines = '  one: tt_rank(net["fc2"].weights) ≤ 12\n  small: {}(net) ≤ 99%'
    for cost, count in (("params", 1), ("bytes", 1), ("macs", 0), ("flops", 0)):
        found = [d for d in findings(f"{HEAD}subject to\n{lines.format(cost)}\n{LC}") if d.code == "P240"]
        assert len(found) == count
        assert all("takes more multiply-adds" in d.message and "84 320" in d.notes[0] for d in found)


def test_the_note_on_a_train_names_a_cut_that_saves_both() -> None:
    lines = '  one: tt_rank(net["fc1"].weights) ≤ 8'
    (found,) = [d for d in findings(f"{HEAD}subject to\n{lines}\n{LC}") if d.code == "P240"]
    cut = re.search(r"`modes = (.*)` would save both", found.hint or "")
    assert cut is not None
    better = lines.replace(")", f", modes = {cut[1]})")
    assert "P240" not in codes(f"{HEAD}subject to\n{better}\n{LC}")


def test_proofs_say_what_a_budget_can_reach() -> None:
    found = plan('  a: rank(net["fc1"].weights) ≤ 5\n  small: macs(net) ≤ 13%')
    proof = prove(found.problem, found.table)["small"]
    assert (proof.range.lower, proof.range.upper) == (31_000 + 1084, 31_000 + 5 * 1084)


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_explain_shows_the_choice_of_modes_beside_its_alternatives() -> None:
    rows = list(explained(plan('first: tt_rank(net["fc2"].weights) ≤ 12')))
    label, tensors, text = rows[0]
    assert (label, tensors) == ("first", FC2)
    assert "ranks ≤ " in text
    assert "cores meet the sample in the order" in rows[1][2]
    taken = [r for r in rows if "← taken" in r[2]]
    assert len(taken) == 1
    counts = [int(r[2].split(": ")[1].split(" numbers")[0].replace(" ", "")) for r in rows[3:]]
    assert min(counts) == int(taken[0][2].split(": ")[1].split(" numbers")[0].replace(" ", ""))
    given = list(explained(plan('net["fc1"].weights ∈ tt(8, modes = [[10, 28], [30, 28]])')))
    assert len(given) == 2
    assert given[1][2].startswith("saves up to rank ")


def test_explain_says_what_chooses_ranks() -> None:
    rows = list(explained(plan('  a: net["fc1"].weights ∈ low_rank() + sparse()\n  small: params(net) ≤ 50%')))
    assert rows == [
        (
            "a",
            FC1,
            "U V, rank 1 … 216 chosen by small (1 084 of 235 200 numbers and multiply-adds a rank) + "
            "sparse, entries chosen by small",
        )
    ]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("net.weights ∈ {-1, 0, 0.5}", "{-1, 0, 0.5}"),
        ("net.weights ∈ scaled({-1, 1})", "scaled({-1, 1})"),
        ("net.weights ∈ codebook(2) + sparse(1%)", "codebook(2) + sparse(2 662)"),
        ('net["fc1"].weights ∈ tt(8, modes = [[10, 28], [30, 28]])', "tt(8, modes = [[10, 28], [30, 28]])"),
        ("net.weights ∈ box(-1, 0.5)", "box(-1, 0.5)"),
    ],
)
def test_sets_are_shown_as_a_spec_would_write_them(line: str, text: str) -> None:
    (found,) = plan(line).problem.constraints
    assert isinstance(found.set, Named)
    assert set_text(found.set) == text


def test_composition_of_one_line() -> None:
    (c,) = plan('net["fc1"].weights ∈ low_rank(3)').problem.constraints
    assert composition(c, LENET) == Composition((FC1,), (LowRank(3),), ((300, 784),))
