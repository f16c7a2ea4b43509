"""Conflicts and redundancies: true by brute force, irreducible, with changes that help and are the smallest that do."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunelang.compiler.problem import (
    Blocks,
    Choice,
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
    Set,
    Structural,
    VectorNorm,
)
from prunelang.compiler.proofs import Proofs, prove
from prunelang.compiler.proofs.words import number, percentage
from prunelang.compiler.shapes import ShapeTable
from prunelang.dsl.diagnostics import Diagnostic, render
from prunelang.dsl.spans import NOWHERE, Source, Span
from tests import shape_tables
from tests.compiler.proof_oracle import Oracle, problem_of, random_problem, table_of

EVERYTHING = "groups macs best blocks n_of_m kept weighted band"
GOLDEN = Path(__file__).parents[1] / "golden" / "proofs"


def _only(problem: Problem, labels: set[str]) -> Problem:
    return problem.with_constraints(tuple(c for c in problem.constraints if c.label in labels))


def _with(problem: Problem, label: str, new: Constraint | None) -> Problem:
    changed = (new if c.label == label else c for c in problem.constraints)
    return problem.with_constraints(tuple(c for c in changed if c is not None))


def _relaxed(c: Constraint, way: dict[str, Any], by: int = 0) -> Constraint | None:
    """The constraint with a proposed change, short of it by `by`."""
    if way.get("drop") is True:
        return None
    if "drop" in way:
        assert isinstance(c.function, Entries)
        return replace(c, function=Entries(tuple(t for t in c.function.tensors if t not in way["drop"])))
    if "relation" not in way:
        n, m = (int(x) for x in way["to"].removeprefix("n_of_m(").removesuffix(")").split(","))
        return replace(c, set=NofM(n - by, m))
    assert isinstance(c.set, Interval)
    if way["relation"] == "≤":
        return replace(c, set=Interval(c.set.lower, way["to"] - by))
    return replace(c, set=Interval(way["to"] + by, c.set.upper))


@pytest.mark.parametrize("settings", [{}, {"weighted": 1}, {"kinds": EVERYTHING, "crossing": True}], ids=str)
def test_conflicts_are_true_irreducible_and_their_changes_smallest(settings: dict[str, Any]) -> None:
    rng = random.Random(str(settings))
    seen = 0
    for _ in range(250):
        problem, table = random_problem(rng, **settings)
        proofs = prove(problem, table)
        assert len({x for c in proofs.conflicts for x in c}) == sum(map(len, proofs.conflicts))  # disjoint
        for error in proofs.diagnostics if proofs.infeasible else ():
            small = _only(problem, set(error.conflict))
            seen += 1
            assert not Oracle(small, table).feasible(range(len(small.constraints)))
            for label in error.conflict:
                assert not prove(_only(small, set(error.conflict) - {label}), table).infeasible
            for way in error.relaxations:
                c = small.constraint(way["constraint"])
                assert not prove(_with(small, c.label, _relaxed(c, dict(way))), table).infeasible
                if "to" in way:
                    assert prove(_with(small, c.label, _relaxed(c, dict(way), by=1)), table).infeasible
    assert seen > 50


@pytest.mark.parametrize("settings", [{}, {"weighted": 1}, {"kinds": EVERYTHING, "crossing": True}], ids=str)
def test_what_never_binds_is_implied_by_the_lines_named(settings: dict[str, Any]) -> None:
    rng = random.Random(str(settings))
    seen = 0
    for _ in range(250):
        problem, table = random_problem(rng, **settings)
        labels = [c.label for c in problem.constraints]
        oracle = Oracle(problem, table)
        for note in (d for d in prove(problem, table).diagnostics if d.code == "P301"):
            seen += 1
            which = next(i for i, label in enumerate(labels) if note.message.startswith(f"`{label}`"))
            by = [labels.index(b) for b in note.certificate["by"]]
            others = [i for i in range(len(labels)) if i != which]
            assert oracle.holds_everywhere(which, by if "together" not in note.message else others)
    assert seen > 40


def test_after_the_conflicts_nothing_provable_is_left() -> None:
    rng = random.Random(5)
    for _ in range(200):
        problem, table = random_problem(rng, weighted=1)
        proofs = prove(problem, table)
        rest = {c.label for c in problem.constraints} - {x for labels in proofs.conflicts for x in labels}
        assert not prove(_only(problem, rest), table).infeasible


# ── single lines ─────────────────────────────────────────────────────────────────────────────────────────────────

TABLE = table_of([(3, 4), (2, 5)], [7, 1])
WEIGHTS = ("a.weight", "b.weight")
ALL = Count("norm0", dict.fromkeys(WEIGHTS, 1), 0, "")
SIZE = Count("bytes", dict.fromkeys(WEIGHTS, 4), 300, "B")


@pytest.mark.parametrize(
    ("function", "set", "proof"),
    [
        (ALL, Interval(None, -1), "nonzeros ≥ 0 > -1 even with every weight removed"),
        (ALL, Interval(23, None), "nonzeros ≤ 22 < 23 even with every weight kept"),
        (ALL, Interval(9, 3), "it asks for at least 9 and at most 3"),
        (SIZE, Interval(None, 299), "bytes ≥ 300 > 299 B even with every weight removed"),
        (Choice("bytes", {"a.weight": (("x", 1, 5), ("y", 3, 2))}, 1), Interval(None, 2), "bytes ≥ 3 > 2 B even"),
        (Entries(WEIGHTS), NofM(-1, 4), "n_of_m(-1, 4) needs 0 ≤ n and 1 ≤ m"),
        (Entries(WEIGHTS), NofM(1, 0), "n_of_m(1, 0) needs"),
        (Entries(WEIGHTS), Blocks(0, 2), "blocks(0, 2) needs at least one row and one column"),
        (GroupCount("group_norm0", WEIGHTS, "filter"), Interval(6, None), "groups ≤ 5 < 6"),
        (Structural("macs", ("a", "b"), 94, "MACs"), Interval(95, None), "macs ≤ 94 < 95 MACs"),
        (VectorNorm("norm1", WEIGHTS), Interval(None, -2), "norm1 ≥ 0 > -2"),
        (MatrixFunction("rank", "a.weight"), Interval(4, None), "rank ≤ 3 < 4"),
        (Measured("accuracy", "test"), Interval(2, None), "accuracy ≤ 1 < 2"),
        (Measured("cross_entropy", "train"), Interval(None, -1), "cross_entropy ≥ 0 > -1"),
    ],
)
def test_a_line_that_is_impossible_alone(function: Any, set: Set, proof: str) -> None:
    line = Constraint("line", function, set, structural=not isinstance(function, Measured))
    proofs = prove(problem_of(line, Constraint("other", ALL, Interval(None, 20))), TABLE)
    (error,) = proofs.diagnostics
    assert (proofs.exit_code, proofs.conflicts, error.code, error.conflict) == (3, (("line",),), "P310", ("line",))
    assert error.notes[0].startswith(f"proof: {proof}")


def test_no_integer_lies_between_the_ends() -> None:
    odd = Constraint("odd", Count("flops", dict.fromkeys(WEIGHTS, 2), 0, "FLOPs"), Interval(3, 3))
    proofs = prove(problem_of(odd), TABLE)
    (error,) = proofs.diagnostics
    assert proofs.conflicts == (("odd",),)
    assert error.notes == ("proof: no number of kept positions gives flops from 3 to 3 FLOPs",)
    assert [w["to"] for w in error.relaxations] == [4, 2]


@pytest.mark.parametrize(
    ("function", "set", "empty"),
    [
        (ALL, Interval(None, 0), True),
        (ALL, Interval(None, 1), False),
        (SIZE, Interval(None, 303), True),
        (SIZE, Interval(None, 304), False),
        (Entries(WEIGHTS), NofM(0, 4), True),
        (GroupCount("group_norm0", WEIGHTS, "filter"), Interval(None, 0), True),
        (VectorNorm("norm2", WEIGHTS), Interval(None, 0), True),
        (MatrixFunction("rank", "a.weight"), Interval(None, 0), True),
        (Structural("macs", ("a", "b"), 94, "MACs"), Interval(None, 0), True),
    ],
)
def test_a_bound_that_leaves_nothing_is_a_warning(function: Any, set: Set, empty: bool) -> None:
    proofs = prove(problem_of(Constraint("line", function, set)), TABLE)
    assert not proofs.infeasible
    assert [d.severity for d in proofs.diagnostics if d.code == "P303"] == ["warning"] * empty


@pytest.mark.parametrize(
    ("function", "set", "why"),
    [
        (ALL, Interval(None, 22), "the dense network already satisfies it"),
        (ALL, Interval(0, None), "all weights satisfy it"),
        (Entries(WEIGHTS), NofM(4, 4), "the dense network already satisfies it"),
        (Entries(WEIGHTS), NofM(5, 8), "the dense network already satisfies it"),
        (Entries(WEIGHTS), Blocks(1, 1), "the dense network already satisfies it"),
        (MatrixFunction("rank", "a.weight"), Interval(None, 3), "the dense network already satisfies it"),
        (Structural("macs", ("a", "b"), 94, "MACs"), Interval(None, 94), "the dense network already satisfies it"),
    ],
)
def test_a_line_that_never_binds_by_itself(function: Any, set: Set, why: str) -> None:
    (note,) = prove(problem_of(Constraint("line", function, set)), TABLE).diagnostics
    assert (note.code, note.severity, note.message) == ("P301", "note", f"`line` can never bind: {why}")


def test_of_two_equal_lines_one_is_told() -> None:
    twice = (Constraint(x, ALL, Interval(None, 9)) for x in ("first", "second"))
    (note,) = prove(problem_of(*twice), TABLE).diagnostics
    assert note.message == "`second` can never bind: `first` implies it"


def test_independent_conflicts_are_all_told() -> None:
    lines = [
        *(Constraint(f"few_{t[0]}", Count("norm0", {t: 1}, 0, ""), Interval(None, 4)) for t in WEIGHTS),
        *(Constraint(f"keep_{t[0]}", Entries((t,)), Kept()) for t in WEIGHTS),
    ]
    assert prove(problem_of(*lines), TABLE).conflicts == (("few_a", "keep_a"), ("few_b", "keep_b"))


def test_instances_of_one_line_are_told_once() -> None:
    at = Span(3, 9)
    each = (Constraint(f"few[{t[0]}]", Count("norm0", {t: 1}, 0, ""), Interval(None, 4), at) for t in WEIGHTS)
    proofs = prove(problem_of(*each, Constraint("keep", Entries(WEIGHTS), Kept(), Span(20, 30))), TABLE)
    (error,) = proofs.diagnostics
    assert error.conflict == ("few[a]", "keep")
    assert "the same holds for `few[b]`" in error.notes


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_numbers_and_percentages() -> None:
    assert [number(n) for n in (0, 999, 13310, 1275145)] == ["0", "999", "13 310", "1 275 145"]
    assert percentage(2_057_408, 25_502_912, up=True) == "8.07%"
    assert percentage(2_057_408, 25_502_912, up=False) == "8.06%"
    assert percentage(3, 25_502_912, up=True) == "0.0000118%"
    assert (percentage(0, 7, up=True), percentage(7, 7, up=True), percentage(8, 7, up=True)) == ("0%", "100%", None)


@pytest.mark.parametrize("up", [True, False])
def test_percentages_round_to_the_safe_side(up: bool) -> None:
    rng = random.Random(up)
    for _ in range(300):
        whole = rng.randint(1, 10**8)
        value = rng.randint(0, whole)
        text = percentage(value, whole, up)
        assert text is not None
        share, scale = int(text[:-1].replace(".", "")), 10 ** len(text[:-1].partition(".")[2])
        back = share * whole / (100 * scale)
        assert (back >= value) if up else (back <= value)


# ── whole texts ──────────────────────────────────────────────────────────────────────────────────────────────────


def _spans(text: str, *constraints: Constraint) -> tuple[Constraint, ...]:
    """Each constraint with the span of the line of the text that has its label (or what is before its bracket)."""
    found = []
    for c in constraints:
        start = text.index(f"{c.label.split('[')[0]}:")
        end = text.index("\n", start)
        found.append(replace(c, span=Span(start, end), text=text[start:end]))
    return tuple(found)


def _resnet() -> tuple[ShapeTable, Count, Count]:
    table = ShapeTable.loads(shape_tables.RESNET50.read_text())
    kernels = [x.weight for x in table.layers]
    count = Count("norm0", dict.fromkeys(kernels, 1), 0, "")
    return table, count, Count("sparse_macs", {n: table.uses[n] for n in kernels}, 0, "MACs")


def _upper(label: str, f: Any, table: ShapeTable, percent: int) -> Constraint:
    dense = sum(c * table.tensor[n].size for n, c in f.coefficients.items()) + f.constant
    return Constraint(label, f, Interval(None, dense * percent // 100), asked=f"{percent}%", dense=dense)


def _resnet_spec(text: str, *keep: Constraint) -> tuple[str, Problem, ShapeTable]:
    table, count, macs = _resnet()
    lines = [_upper("sparsity", count, table, 5), _upper("compute", macs, table, 30), *keep]
    return text, problem_of(*_spans(text, *lines)), table


def _lenet_spec() -> tuple[str, Problem, ShapeTable]:
    text = "subject to\n    sparsity: ‖net.weights‖₀ ≤ 5%\n    compute:  sparse_macs(net) ≤ 30%\n"
    table = shape_tables.lenet_300_100()
    kernels = [x.weight for x in table.layers]
    count, macs = (Count(n, dict.fromkeys(kernels, 1), 0, u) for n, u in (("norm0", ""), ("sparse_macs", "MACs")))
    lines = [_upper("sparsity", count, table, 5), _upper("compute", macs, table, 30)]
    return text, problem_of(*_spans(text, *lines)), table


def _pattern_spec() -> tuple[str, Problem, ShapeTable]:
    text = (
        "subject to\n    pattern: net.weights ∈ n_of_m(1, 4)\n    floor: ∀ l ∈ net.layers: ‖l.weights‖₀ ≥ 40%\n"
        "    size: bytes(net, format = best) ≤ 100 B\n"
    )
    table = shape_tables.lenet_300_100()
    kernels = [x.weight for x in table.layers]
    floors = (
        Constraint(f"floor[{n[:-7]}]", Count("norm0", {n: 1}, 0, ""), Interval(table.tensor[n].size * 2 // 5, None))
        for n in kernels
    )
    size = Choice("bytes", dict.fromkeys(kernels, (("dense", 0, 40), ("csr", 6, 20))), 60)
    pattern = Constraint("pattern", Entries(tuple(kernels)), NofM(1, 4))
    return text, problem_of(*_spans(text, pattern, *floors, Constraint("size", size, Interval(None, 100)))), table


HEAD = "subject to\n    sparsity: ‖net.weights‖₀ ≤ 5%\n    compute:  sparse_macs(net) ≤ 30%\n"
CONV, FC = "conv1.weight", "fc.weight"
SPECS = {
    "lenet_never_binds": _lenet_spec,
    "resnet50_can_bind": lambda: _resnet_spec(HEAD),
    "resnet50_one_pin": lambda: _resnet_spec(
        HEAD + '    keep: net["conv1", "fc"].weights ∈ dense\n', Constraint("keep", Entries((CONV, FC)), Kept())
    ),
    "resnet50_two_pins": lambda: _resnet_spec(
        HEAD + '    first: net["conv1"].weights ∈ dense\n    last: net["fc"].weights ∈ dense\n',
        Constraint("first", Entries((CONV,)), Kept()),
        Constraint("last", Entries((FC,)), Kept()),
    ),
    "pattern_and_size": _pattern_spec,
}


@pytest.mark.parametrize("name", SPECS)
def test_golden(name: str) -> None:
    """The proofs and their diagnostics as text; to rewrite a file, delete it and run the test twice."""
    text, problem, table = SPECS[name]()
    proofs: Proofs = prove(problem, table)
    got = f"{text}\n{render(proofs.diagnostics, Source(text, 'spec.prune'))}\n\n{proofs}\nexit {proofs.exit_code}\n"
    golden = GOLDEN / f"{name}.txt"
    if not golden.exists():
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(got, encoding="utf-8")
        pytest.fail(f"{golden.name} was not there and is written now: review it")
    assert got == golden.read_text(encoding="utf-8")


def test_the_resnet_conflict_for_programs() -> None:
    text, problem, table = SPECS["resnet50_one_pin"]()
    (error,) = prove(problem, table).diagnostics
    assert isinstance(error, Diagnostic)
    data = error.to_json(Source(text, "spec.prune"))
    assert data["conflict"] == ["sparsity", "keep"]
    assert (data["certificate"]["lhs_min"], data["certificate"]["rhs"]) == (2_057_408, 1_275_145)
    assert (data["certificate"]["minimal"], data["certificate"]["relaxation"]) == (True, False)
    assert data["relaxations"] == [
        {"constraint": "sparsity", "relation": "≤", "to": 2_057_408, "percent": "8.07%"},
        {"constraint": "keep", "drop": ["fc.weight"]},
    ]
    assert error.span != NOWHERE
    assert [x.message for x in error.secondary] == ["keeps 2 057 408"]
