"""The structural constraints as independent parts, each with a projection, or the reason why there is none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from prunelang.compiler.channels import structural
from prunelang.compiler.feasible import NoProjection, feasible_set
from prunelang.compiler.graph import Feasible
from prunelang.compiler.joint import ChannelBound, CountBound, NofMBound, Pinned, from_json
from prunelang.compiler.problem import Interval, Problem, Structural
from prunelang.compiler.shapes import ShapeTable
from tests.channel_tables import lenet_5
from tests.compiler.checking import HEAD, constrained, plan_of


def parts(lines: str, head: str = HEAD) -> Feasible:
    plan = constrained(lines, head=head)
    return feasible_set(plan.problem, plan.table)


def test_constraints_that_share_no_tensor_are_projected_apart() -> None:
    found = parts(
        '  a: ‖net["fc1"].weights‖₀ ≤ 10\n  b: ‖net["fc2"].weights‖₁ ≤ 2\n  c: ‖net["fc3"].weights‖₀ ≤ 5'
    ).parts
    assert [(p.labels, p.tensors) for p in found] == [
        (("a",), ("fc1.weight",)),
        (("b",), ("fc2.weight",)),
        (("c",), ("fc3.weight",)),
    ]
    assert [p.balls for p in found] == [(), (("norm1", 2.0),), ()]
    assert [p.keeps for p in found] == ["support", "project each step", "support"]


def test_sharing_is_transitive() -> None:
    (part,) = parts(
        '  a: ‖net["fc1"].weights‖₀ ≤ 10\n  all: ‖net.weights‖₀ ≤ 20\n  c: net["fc3"].weights ∈ n_of_m(2, 4)'
    ).parts
    assert part.labels == ("a", "all", "c")
    assert part.tensors == ("fc1.weight", "fc2.weight", "fc3.weight"), "in the order of the table"
    assert [type(b) for b in from_json(part.bounds)] == [CountBound, CountBound, NofMBound]
    assert part.exactness == "exact"


def test_pins_alone_need_no_projection_and_beside_counts_they_are_kept() -> None:
    assert parts('  net["fc3"].weights ∈ dense').parts == ()
    (part,) = parts('  all: ‖net.weights‖₀ ≤ 2000\n  net["fc3"].weights ∈ dense').parts
    assert [type(b) for b in from_json(part.bounds)] == [CountBound, Pinned]


def test_weighted_counts_have_a_certified_gap() -> None:
    (part,) = parts("  size: bytes(net, format = bitmask) ≤ 200 KB").parts
    assert part.exactness == "exact", "one cost for all: a plain count"
    (part,) = parts("  size: bytes(net) ≤ 50 KB").parts
    assert part.exactness == "gap"


def channelled(lines: str) -> tuple[Problem, ShapeTable]:
    """Structural lines over LeNet-5 with its coupling groups."""
    plan = constrained(lines, head="model net = lenet_5()\ndata mnist()\nminimize cross_entropy(net)\n")
    table = lenet_5()
    cost = {x.weight: x.uses for x in table.layers}
    f = structural("macs", tuple(table.layer), 2_293_000, "MACs", cost, table)
    changed = (replace(c, function=f) if isinstance(c.function, Structural) else c for c in plan.problem.constraints)
    return plan.problem.with_constraints(tuple(changed)), table


def test_channels_share_a_part_with_all_that_their_groups_own() -> None:
    (part,) = feasible_set(*channelled('  compute: macs(net) ≤ 50%\n  first: ‖net["fc1"].weights‖₀ ≤ 9')).parts
    assert part.labels == ("compute", "first")
    assert part.tensors == tuple(f"{x}.{y}" for x in ("conv1", "conv2", "fc1", "fc2") for y in ("weight", "bias"))[:7]
    assert {type(b) for b in from_json(part.bounds)} == {ChannelBound, CountBound}
    assert (part.exactness, part.keeps) == ("gap", "support")


def test_a_group_with_a_pinned_tensor_keeps_its_members() -> None:
    (part,) = feasible_set(*channelled('  compute: macs(net) ≤ 90%\n  net["conv2"].weights ∈ dense')).parts
    (bound,) = (b for b in from_json(part.bounds) if isinstance(b, ChannelBound))
    assert [g.name for g in bound.groups] == ["fc1"]
    assert (bound.terms, bound.constant) == (((50 * 16 + 10, (0,)),), 24 * 24 * 500 + 64 * 25_000)


def test_channels_beside_a_lower_bound_or_a_ball_have_no_projection() -> None:
    for line in ('‖net["fc1"].weights‖₀ ≥ 9', "‖net.weights‖₂ ≤ 3", 'net["fc1"].weights ∈ blocks(2, 2)'):
        with pytest.raises(NoProjection):
            feasible_set(*channelled(f"  compute: macs(net) ≤ 50%\n  other: {line}"))


@pytest.mark.parametrize(
    ("norm", "ball"),
    [
        ("‖net.weights‖₁", "norm1"),
        ("‖net.weights‖₂", "norm2"),
        ("‖net.weights‖₂²", "norm2_squared"),
        ("‖net.weights‖∞", "norminf"),
    ],
)
def test_balls(norm: str, ball: str) -> None:
    assert parts(f"  b: {norm} ≤ 3").parts[0].balls == ((ball, 3.0),)


def test_a_ball_goes_with_one_plain_count_over_the_same_tensors() -> None:
    (part,) = parts("  n: ‖net.weights‖₀ ≤ 50\n  b: ‖net.weights‖₂ ≤ 3").parts
    assert part.balls == (("norm2", 3.0),)
    assert part.keeps == "project each step"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("  a: ‖net.weights‖₁ ≤ 3\n  b: ‖net.weights‖₂ ≤ 3", "several norm balls"),
        ('  n: ‖net["fc1"].weights‖₀ ≤ 50\n  b: ‖net.weights‖₂ ≤ 3', "over the same tensors only"),
        ("  n: net.weights ∈ n_of_m(2, 4)\n  b: ‖net.weights‖₂ ≤ 3", "one plain"),
        ("  n: bytes(net) ≤ 50 KB\n  b: ‖net.weights‖₂ ≤ 3", "one plain"),
        ('  n: ‖net["fc1"].params‖₀ ≤ 3000\n  b: ‖net.weights‖₀ ≤ 5000', "cross"),
        ("  n: net.weights ∈ n_of_m(2, 4)\n  b: net.weights ∈ blocks(4, 4)", "do not nest"),
    ],
)
def test_what_has_no_projection_names_its_constraints_and_says_why(lines: str, reason: str) -> None:
    with pytest.raises(NoProjection, match=reason) as refused:
        parts(lines)
    assert len(refused.value.constraints) == 2
    assert all(f"`{c.label}`" in str(refused.value) for c in refused.value.constraints)


def test_frozen_tensors_are_in_no_part() -> None:
    (part,) = parts("  ‖net.weights‖₀ ≤ 90%", HEAD + 'freeze net["fc1"]\n').parts
    assert part.tensors == ("fc2.weight", "fc3.weight")


def test_a_norm_of_frozen_tensors_is_refused_here_too() -> None:
    plan = constrained('  b: ‖net["fc1", "fc2"].weights‖₁ ≤ 9')
    problem = replace(plan.problem, frozen=frozenset({"fc1.weight"}))
    with pytest.raises(NoProjection, match="frozen"):
        feasible_set(problem, plan.table)


def test_texts_show_resolved_bounds() -> None:
    found = parts('  ‖net.weights‖₀ ≤ 5%\n  10 ≤ ‖net["fc3"].weights‖₀ ≤ 20')
    assert str(found) == '{‖net.weights‖₀ ≤ 13 310, 10 ≤ ‖net["fc3"].weights‖₀ ≤ 20}'


def test_parts_are_plain_data() -> None:
    for part in parts("  size: bytes(net) ≤ 50 KB\n  n: ‖net.weights‖₀ ≤ 20%").parts:
        assert json.loads(json.dumps(part.bounds)) == [json.loads(json.dumps(b)) for b in part.bounds]


def test_a_lower_bound_of_differing_weights_is_refused_not_a_crash() -> None:
    plan = plan_of(f"{HEAD.replace('lenet_300_100', 'lenet_5')}subject to\n  n: sparse_macs(net) ≤ 90%\nsolve auto\n")
    (c,) = plan.problem.constraints
    lower = replace(plan.problem, constraints=(replace(c, set=Interval(5, None)),))
    with pytest.raises(NoProjection, match="lower bound"):
        feasible_set(lower, plan.table)
