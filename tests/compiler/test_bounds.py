"""Ranges and verdicts against brute force: sound always, exact where exactness is claimed or promised."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from prunelang.compiler.formats import best_bytes
from prunelang.compiler.problem import (
    Blocks,
    Constraint,
    Count,
    Entries,
    GroupCount,
    Interval,
    Kept,
    MatrixFunction,
    Measured,
    NofM,
    Problem,
    Structural,
    VectorNorm,
)
from prunelang.compiler.proofs import prove
from prunelang.compiler.proofs.lines import groups, nm_capacity
from prunelang.compiler.shapes import Layer, ShapeTable, Tensor
from tests import shape_tables
from tests.compiler.proof_oracle import OBJECTIVE, Oracle, problem_of, random_problem, table_of
from tests.timing import growth, seconds

EVERYTHING = "groups macs best blocks n_of_m kept weighted band"
CASES = [
    ("nested", {}, 400),
    ("one weighted budget", {"weighted": 1}, 400),
    ("two weighted budgets", {"weighted": 2}, 200),
    ("crossing sets", {"crossing": True}, 200),
    ("everything", {"kinds": EVERYTHING}, 400),
    ("everything crossing", {"kinds": EVERYTHING, "crossing": True, "weighted": 1}, 200),
]


@pytest.mark.parametrize(("settings", "cases"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_against_every_mask(settings: dict[str, object], cases: int) -> None:
    rng = random.Random(str(settings))
    ranged = refuted = 0
    for _ in range(cases):
        problem, table = random_problem(rng, **settings)  # type: ignore[arg-type]
        oracle, proofs, all_lines = Oracle(problem, table), prove(problem, table), range(len(problem.constraints))
        if proofs.infeasible:
            assert not oracle.feasible(all_lines)
            refuted += 1
            continue
        for i, proof in enumerate(proofs.proofs):
            others = [k for k in all_lines if k != i]
            values, r = oracle.values(i, others), proof.range
            ranged += bool(values)
            assert all(r.lower <= v <= r.upper for v in values)
            if r.exact and values:
                assert (values[0], values[-1]) == (r.lower, r.upper)
            if proof.verdict == "never binds":
                assert oracle.holds_everywhere(i, others)
    assert min(ranged, refuted) > cases // 8


@pytest.mark.parametrize("weighted", [0, 1])
def test_nested_budgets_are_exact(weighted: int) -> None:
    """Nested counts, pins and n:m, with at most one weighted budget: decided both ways, every range attained."""
    rng = random.Random(weighted)
    for _ in range(400):
        problem, table = random_problem(rng, weighted=weighted)
        oracle, proofs = Oracle(problem, table), prove(problem, table)
        assert proofs.infeasible == (not oracle.feasible(range(len(problem.constraints))))
        if not proofs.infeasible:
            assert all(p.range.exact for p in proofs.proofs)


# ── single facts ─────────────────────────────────────────────────────────────────────────────────────────────────


def _range(constraint: Constraint, *others: Constraint, table: ShapeTable) -> tuple[int | None, int | None, bool]:
    r = prove(problem_of(constraint, *others), table).proofs[0].range
    return r.lower, r.upper, r.exact


TWO = table_of([(3, 4), (2, 5)], [7, 1])
WEIGHTS = ("a.weight", "b.weight")
ALL = Count("norm0", dict.fromkeys(WEIGHTS, 1), 0, "")
MACS = Count("sparse_macs", {"a.weight": 7, "b.weight": 1}, 0, "MACs")


def test_cheapest_and_dearest_first() -> None:
    count, cost = Constraint("n", ALL, Interval(None, 22)), Constraint("m", MACS, Interval(None, 94))
    assert _range(count, Constraint("m", MACS, Interval(None, 25)), table=TWO) == (0, 10 + 2, True)
    assert _range(cost, Constraint("n", ALL, Interval(None, 13)), table=TWO) == (0, 12 * 7 + 1, True)
    assert _range(cost, Constraint("n", ALL, Interval(13, None)), table=TWO) == (10 + 3 * 7, 94, True)


def test_a_tied_tensor_and_an_alias_are_one_variable() -> None:
    table = ShapeTable("toy()", (1,), (), (Tensor("w", (2, 3), "weight", aliases=("v",)),))
    both = Constraint("n", Count("norm0", {"w": 1, "v": 2}, 0, ""), Interval(None, 100))
    assert _range(both, Constraint("k", Entries(("v",)), Kept()), table=table) == (18, 18, True)


def test_frozen_tensors_lie_anywhere_and_are_kept() -> None:
    problem = Problem(
        OBJECTIVE,
        (
            Constraint("n", ALL, Interval(None, 11)),
            Constraint("pin", Entries(("a.weight",)), Kept()),
            Constraint("floor", ALL, Interval(12, None)),
        ),
        frozenset({"a.weight"}),
    )
    proofs = prove(problem, TWO)
    assert not proofs.infeasible  # the frozen kernel may hold zeros, and all its positions count as kept
    assert (proofs["n"].range.lower, proofs["n"].range.upper) == (0, 22)
    assert not proofs["n"].range.exact


@pytest.mark.parametrize(
    ("shape", "n", "m"),
    [((2, 7), 2, 4), ((3, 4), 2, 4), ((1, 9), 1, 4), ((2, 2, 3, 3), 2, 4), ((5,), 3, 2), ((2, 6), 0, 3)],
)
def test_capacity_of_a_pattern(shape: tuple[int, ...], n: int, m: int) -> None:
    tensor = Tensor("w", shape, "weight")
    rows, columns = tensor.matrix
    naive = rows * sum(min(n, m, columns - c) for c in range(0, columns, m))
    assert nm_capacity(tensor, n, m) == naive


def test_groups_by_name() -> None:
    conv = Tensor("w", (8, 3, 5, 5), "weight")
    assert [groups(conv, by) for by in ("filter", "row", "channel", "column", "head")] == [
        (8, 75),
        (8, 75),
        (3, 200),
        (75, 8),
        (8, 600),
    ]


def test_bytes_best_takes_the_minimum_over_formats() -> None:
    table = table_of([(20, 200), (10, 300)], [1, 1])
    f = best_bytes(table, [t.name for t in table.tensors])
    pinned = Constraint("pin", Count("norm0", {"a.weight": 1}, 0, ""), Interval(4000, None))
    r = prove(problem_of(Constraint("size", f, Interval(None, 40_000)), pinned), table)["size"].range
    value = lambda n: min(a * n + c for _, a, c in f.alternatives["b.weight"])  # noqa: E731
    assert r.lower == 16_000 + value(0) + f.constant
    assert r.upper == 16_000 + 12_000 + f.constant
    assert r.exact


def test_values_are_not_decided_by_counts() -> None:
    table = TWO
    problem = problem_of(
        Constraint("l1", VectorNorm("norm1", WEIGHTS), Interval(None, 3)),
        Constraint("rank", MatrixFunction("rank", "a.weight"), Interval(None, 3)),
        Constraint("acc", Measured("accuracy", "validation"), Interval(0, None), structural=False),
    )
    proofs = prove(problem, table)
    assert [(p.label, p.range.lower, p.range.upper, p.verdict) for p in proofs.proofs] == [
        ("l1", 0, None, "not decided by counts"),
        ("rank", 0, 3, "never binds"),
    ]


def test_macs_fall_with_whole_groups_alone() -> None:
    f = Structural("macs", ("a", "b"), 94, "MACs")
    free = prove(problem_of(Constraint("m", f, Interval(None, 28))), TWO)
    assert (free["m"].range.lower, free["m"].range.upper, free.infeasible) == (0, 94, False)
    pinned = Constraint("keep", Entries(WEIGHTS), Kept())
    assert prove(problem_of(Constraint("m", f, Interval(None, 93)), pinned), TWO).infeasible


# ── speed ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _chain(layers: int) -> ShapeTable:
    tensors = tuple(Tensor(f"fc{i}.weight", (10, 10 + i % 7), "weight") for i in range(layers))
    return ShapeTable("chain()", (10,), tuple(Layer(t.name[:-7], "linear", t.name, None, 1) for t in tensors), tensors)


def _instances(table: ShapeTable) -> Problem:
    names = [t.name for t in table.tensors]
    size = sum(t.size for t in table.tensors)
    costs = {n: 1 + i % 11 for i, n in enumerate(names)}
    return problem_of(
        Constraint("sparsity", Count("norm0", dict.fromkeys(names, 1), 0, ""), Interval(None, size // 20)),
        Constraint("compute", Count("sparse_macs", costs, 0, "MACs"), Interval(None, size // 10)),
        Constraint("size", best_bytes(table, names), Interval(None, 4 * size)),
        Constraint("filters", GroupCount("group_norm0", tuple(names), "filter"), Interval(None, 5 * len(names))),
        Constraint("pattern", Entries(tuple(names)), NofM(2, 4)),
        Constraint("tiles", Entries(tuple(names)), Blocks(2, 2)),
        *(Constraint(f"each[{n}]", Count("norm0", {n: 1}, 0, ""), Interval(1, 30)) for n in names),
    )


def _pinned(table: ShapeTable) -> Problem:
    pins = (Constraint(f"pin[{t.name}]", Entries((t.name,)), Kept()) for t in table.tensors)
    return replace(problem := _instances(table), constraints=(*problem.constraints, *pins))


def _plain(table: ShapeTable) -> Problem:
    names = [t.name for t in table.tensors]
    return problem_of(
        Constraint("sparsity", Count("norm0", dict.fromkeys(names, 1), 0, ""), Interval(None, 20 * len(names))),
        *(Constraint(f"each[{n}]", Count("norm0", {n: 1}, 0, ""), Interval(10, 30)) for n in names),
    )


@pytest.mark.parametrize(
    ("problem", "infeasible", "most"),
    [(_plain, False, 12), (_instances, False, 7), (_pinned, True, 7)],
    ids=["one budget and a line for each layer", "every kind of budget", "thousands of conflicts"],
)
def test_time_grows_linearly(problem: Callable[[ShapeTable], Problem], infeasible: bool, most: float) -> None:
    """Six times the layers. The search in the last two has a fixed share, so that they grow by less than six times."""

    def work(layers: int) -> Callable[[], object]:
        table = _chain(layers)
        asked = problem(table)

        def proved() -> None:
            assert prove(asked, table).infeasible == infeasible

        return proved

    assert growth(work, small=200, factor=6, repeats=2) < most


def test_a_large_network_with_a_few_lines_takes_milliseconds() -> None:
    table = ShapeTable.loads(shape_tables.RESNET50.read_text())
    kernels = [x.weight for x in table.layers]
    count = Count("norm0", dict.fromkeys(kernels, 1), 0, "")
    macs = Count("sparse_macs", {n: table.uses[n] for n in kernels}, 0, "MACs")
    keep = Constraint("keep", Entries(("conv1.weight", "fc.weight")), Kept())
    bounds = (Constraint("nnz", count, Interval(None, 3_000_000)), Constraint("macs", macs, Interval(None, 10**9)))
    problem = problem_of(*bounds, keep)

    assert not prove(problem, table).infeasible
    assert seconds(lambda: prove(problem, table)) < 0.05
